"use strict";

// Tables: a click on a column's head sorts by it, a second click the other way round. Empty cells stay below.
function sortTable(head) {
  const table = head.closest("table"), column = head.cellIndex;
  const former = head.getAttribute("aria-sort"), descending = former ? former === "ascending" : column > 0;
  table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const rows = [...table.tBodies[0].rows];
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return descending ? -order : order;
  };
  table.tBodies[0].append(...rows.sort(compare));
}

// Gallery: cards carry their values as data attributes; what the controls ask for is shown, in the order asked for.
function updateGallery(gallery) {
  const control = name => gallery.parentElement.querySelector(`[name=${name}]`).value;
  const words = control("search").toLowerCase().split(/\s+/), [low, high] = [control("low"), control("high")];
  const [key, direction] = control("order").split(" "), kind = control("kind");
  const number = card => card.dataset[key] === "" ? null : Number(card.dataset[key]);
  const cards = [...gallery.children].sort((a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return direction === "down" ? y - x : x - y;
  });
  let shown = 0;
  for (const card of cards) {
    const iou = card.dataset.iou;
    const inRange = iou === "" ? low === "0" && high === "100" : Number(iou) >= Number(low) && Number(iou) <= Number(high);
    const fits = words.every(word => card.dataset.text.includes(word))
      && (kind === "all" || card.dataset.kind.split(" ").includes(kind)) && inRange;
    card.hidden = !fits;
    shown += fits;
  }
  gallery.append(...cards);
  gallery.parentElement.querySelector(".count").textContent = `${shown} of ${cards.length}`;
}

document.querySelectorAll("table.sortable th").forEach(head => head.addEventListener("click", () => sortTable(head)));
document.querySelectorAll(".gallery").forEach(gallery => {
  gallery.parentElement.querySelector(".controls").addEventListener("input", () => updateGallery(gallery));
  updateGallery(gallery);
});
document.querySelectorAll("#track").forEach(select => select.addEventListener("input", () =>
  document.querySelectorAll(".track").forEach((plot, index) => { plot.hidden = index !== select.selectedIndex; })));
document.querySelectorAll("section").forEach(section => {
  const link = document.createElement("a");
  link.href = `#${section.id}`;
  link.textContent = section.querySelector("h2").textContent;
  document.querySelector("nav").append(link);
});
