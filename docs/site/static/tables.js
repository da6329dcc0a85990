// Long tables: a click on a heading sorts, another reverses; a search box above filters rows.
"use strict";
const LONG = 12; // rows, from which on a table of a notebook gets them too
const text = (cell) => cell.dataset.value ?? cell.textContent.trim();
const number = (words) => Number(words.replaceAll(",", ""));

function compare(x, y) {
  if (x === "" || y === "") return null; // empty cells last, both ways
  const difference = number(x) - number(y);
  return isNaN(difference) ? x.localeCompare(y) : difference;
}

function sortable(table) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((th, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const up = th.getAttribute("aria-sort") !== "ascending";
      headings.forEach((t) => t.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [text(a.cells[column]), text(b.cells[column])];
        const order = compare(x, y);
        return order === null ? (x === "") - (y === "") : up ? order : -order;
      });
      body.append(...rows);
    });
  });
}

function filtered(table) {
  const controls = document.createElement("div");
  controls.className = "controls";
  const label = document.createElement("label");
  const search = document.createElement("input");
  const count = document.createElement("span");
  search.type = "search";
  count.className = "small count";
  count.setAttribute("aria-live", "polite");
  label.append("Filter ", search);
  controls.append(label, count);
  table.before(controls);
  const show = () => {
    const wanted = search.value.toLowerCase();
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    count.textContent = `${rows.filter((row) => !row.hidden).length} rows`;
  };
  search.addEventListener("input", show);
  show();
}

addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article.bd-article table")) {
    const rows = table.tBodies[0]?.rows ?? [];
    const width = table.tHead?.rows.length === 1 ? table.tHead.rows[0].cells.length : 0;
    const isEven = width > 0 && [...rows].every((row) => row.cells.length === width);
    if (isEven && (rows.length >= LONG || table.id)) {
      sortable(table);
      filtered(table);
    }
  }
});
