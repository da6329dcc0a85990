// Light, dark, or as the system says: before anything is drawn.
"use strict";
document.documentElement.dataset.mode = localStorage.getItem("mode") || "auto";
document.documentElement.dataset.theme = localStorage.getItem("theme") || "light";
