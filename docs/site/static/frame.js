// What the theme would write into each page: results appear as one types, but on the page of results.
"use strict";
DOCUMENTATION_OPTIONS.search_as_you_type = !location.pathname.endsWith("/search.html");
