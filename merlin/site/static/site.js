// Tables with class "sortable": a click on a heading sorts, another reverses; a search box filters rows.
"use strict";
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("th").forEach((th, column) => {
    th.querySelector("button").addEventListener("click", () => {
      const up = th.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((t) => t.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const text = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [text(a), text(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // empty cells last, both ways
        const numbers = !isNaN(x) && !isNaN(y);
        const order = numbers ? Number(x) - Number(y) : x.localeCompare(y);
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
});
const search = document.querySelector("input[data-filter]");
if (search) {
  const table = document.getElementById(search.dataset.filter);
  const count = document.getElementById("count");
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    let n = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      n += !row.hidden;
    }
    if (count) count.textContent = `${n} rows`;
  });
}
