// Three planes of a volume on canvas, with masks to switch on. Arrays are (R, A, S), first axis slowest;
// pictures are in radiological convention: the patient's right is on the left.
"use strict";
const WINDOWS = { "soft tissue": [-160, 240], lung: [-1350, 150], bone: [-350, 1150], "model's range": [-1000, 1000] };
const PLANES = { axial: 2, coronal: 1, sagittal: 0 };
const PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"];
const state = { study: 0, view: 0, window: "soft tissue", at: {}, organs: new Set(), findings: new Set() };
const cache = new Map();
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function volume() {
  const key = `${state.study}/${state.view}`;
  if (!cache.has(key)) {
    const view = window.STUDIES[state.study].views[state.view];
    const findings = {};
    for (const [name, text] of Object.entries(view.findings)) findings[name] = bytes(text);
    cache.set(key, { ...view, hu: new Int16Array(bytes(view.hu).buffer), labels: bytes(view.labels), findings });
  }
  return cache.get(key);
}

function draw() {
  const v = volume();
  const [nr, na, ns] = v.shape;
  const [low, high] = WINDOWS[state.window];
  const names = Object.keys(v.findings);
  const shown = names.filter((n) => state.findings.has(n)).map((n) => [v.findings[n], rgb("#FF3B30")]);
  for (const [plane, axis] of Object.entries(PLANES)) {
    const canvas = document.getElementById(plane);
    const [w, h] = axis === 2 ? [nr, na] : axis === 1 ? [nr, ns] : [na, ns];
    const [sx, sy] = axis === 2 ? [0, 1] : axis === 1 ? [0, 2] : [1, 2];
    canvas.width = w;
    canvas.height = h;
    canvas.style.aspectRatio = `${w * v.spacing_mm[sx]} / ${h * v.spacing_mm[sy]}`;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(w, h);
    const k = state.at[plane];
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const p = w - 1 - x, q = h - 1 - y;
        const [r, a, s] = axis === 2 ? [p, q, k] : axis === 1 ? [p, k, q] : [k, p, q];
        const i = (r * na + a) * ns + s;
        const grey = Math.max(0, Math.min(255, ((v.hu[i] - low) / (high - low)) * 255));
        let colour = [grey, grey, grey];
        const mix = (c, f) => (colour = colour.map((g, j) => g * (1 - f) + c[j] * f));
        if (state.organs.has(v.labels[i])) mix(rgb(PALETTE[v.labels[i] % PALETTE.length]), 0.45);
        for (const [bits, c] of shown) if (bits[i >> 3] & (128 >> (i & 7))) mix(c, 0.55);
        picture.data.set([...colour, 255], 4 * (y * w + x));
      }
    }
    context.putImageData(picture, 0, 0);
    const slider = document.getElementById(`${plane}-slice`);
    slider.max = v.shape[axis] - 1;
    slider.value = k;
    document.getElementById(`${plane}-said`).textContent = `slice ${k + 1} of ${v.shape[axis]}`;
  }
}

function boxes(id, entries, set, value) {
  const field = document.getElementById(id);
  field.querySelectorAll("label, p").forEach((e) => e.remove());
  if (!entries.length) field.insertAdjacentHTML("beforeend", "<p>none in this study</p>");
  for (const [key, name, colour] of entries) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = set.has(value(key));
    box.addEventListener("change", () => { box.checked ? set.add(value(key)) : set.delete(value(key)); draw(); });
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = colour;
    label.append(box, swatch, name);
    field.append(label);
  }
}

function open() {
  const study = window.STUDIES[state.study];
  const v = volume();
  for (const [plane, axis] of Object.entries(PLANES)) state.at[plane] = Math.floor(v.shape[axis] / 2);
  state.findings.clear();
  const present = new Set(v.labels);
  const organs = Object.entries(study.labels).filter(([k]) => present.has(Number(k)));
  boxes("organs", organs.map(([k, n]) => [k, n, PALETTE[k % PALETTE.length]]), state.organs, Number);
  boxes("findings", Object.keys(v.findings).map((n) => [n, n, "#FF3B30"]), state.findings, String);
  document.getElementById("report").textContent = study.report;
  draw();
}

function choose(id, names, key, again) {
  const select = document.getElementById(id);
  names.forEach((name, i) => select.add(new Option(name, i)));
  select.addEventListener("change", () => { state[key] = key === "window" ? names[select.value] : Number(select.value); again(); });
}

choose("study", window.STUDIES.map((s) => s.title), "study", open);
choose("view", window.STUDIES[0].views.map((v) => v.name), "view", open);
choose("window", Object.keys(WINDOWS), "window", draw);
for (const plane of Object.keys(PLANES)) {
  const slider = document.getElementById(`${plane}-slice`);
  const move = (k) => { state.at[plane] = Math.max(0, Math.min(Number(slider.max), k)); draw(); };
  slider.addEventListener("input", () => move(Number(slider.value)));
  document.getElementById(plane).addEventListener("wheel", (e) => { e.preventDefault(); move(state.at[plane] + Math.sign(e.deltaY)); }, { passive: false });
}
open();
