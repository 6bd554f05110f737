// A click on a column's head sorts its table by that column, a second one the other way round. Cells without an order
// come last either way.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows];
      const keys = new Map(rows.map((row) => [row, row.cells[column].dataset.order]));
      rows.sort((one, other) => compare(keys.get(one), keys.get(other), descending));
      body.append(...rows);
    });
  });
}

function compare(one, other, descending) {
  if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
  const difference = Number(one) - Number(other);
  const order = Number.isNaN(difference) ? one.localeCompare(other, undefined, { numeric: true }) : difference;
  return descending ? -order : order;
}
