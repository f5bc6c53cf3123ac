"use strict";

// Tables: a click on the head of a column sorts the rows by the numbers at the beginning of its cells (the first column
// by its text); a second click reverses the order. Rows without a number stay at the end.
function sortTable(head) {
  const table = head.closest("table"), column = head.cellIndex;
  const former = head.getAttribute("aria-sort"), descending = former ? former === "ascending" : column > 0;
  table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const text = row => row.cells[column]?.textContent ?? "";
  const number = row => parseFloat(text(row).replaceAll(",", ""));
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (column > 0 && (isNaN(x) || isNaN(y))) return isNaN(x) - isNaN(y);
    const order = column > 0 ? x - y : text(a).localeCompare(text(b));
    return descending ? -order : order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}

// Gallery: cards have their values in data attributes. The controls choose which cards are shown, and in which order.
function updateGallery(controls) {
  const control = name => controls.querySelector(`[name=${name}]`).value, gallery = controls.nextElementSibling;
  const words = control("search").toLowerCase().split(/\s+/);
  const [place, direction] = control("order").split(" "), kind = control("kind");
  const value = card => JSON.parse(card.dataset.values)[place];
  const cards = [...gallery.children].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return direction === "down" ? y - x : x - y;
  });
  for (const card of cards) {
    const found = words.every(word => card.dataset.text.includes(word));
    card.hidden = !(found && (kind === "" || JSON.parse(card.dataset.kinds).includes(kind)));
  }
  gallery.append(...cards);
  controls.querySelector(".count").textContent = `${cards.filter(card => !card.hidden).length} of ${cards.length}`;
}

document.querySelectorAll("th").forEach(head => head.addEventListener("click", () => sortTable(head)));
document.querySelectorAll(".controls").forEach(controls => {
  controls.addEventListener("input", () => updateGallery(controls));
  updateGallery(controls);
});
