"use strict";
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("th")];
const inOrder = new Intl.Collator(undefined, { numeric: true }).compare;

function sortBy(head) {
  const column = heads.indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  const value = (row) => row.cells[column].dataset.value;
  const isNumber = head.classList.contains("number");
  const compare = isNumber ? (a, b) => a - b : inOrder;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === ""); // nothing to tell comes last
    return up ? compare(x, y) : compare(y, x);
  });
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
}

function show(button) {
  document.querySelectorAll("nav button").forEach((other) => {
    other.setAttribute("aria-pressed", String(other === button));
  });
  const kind = button.dataset.show;
  for (const row of body.rows) row.hidden = kind !== "" && row.dataset.kind !== kind;
}

heads.forEach((head) => head.querySelector("button")?.addEventListener("click", () => sortBy(head)));
document.querySelectorAll("nav button").forEach((button) => {
  button.addEventListener("click", () => show(button));
});
