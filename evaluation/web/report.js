"use strict";

// Tables: a click on a column's head sorts by it, a second click the other way round. Empty cells stay below.
function sortTable(head) {
  const table = head.closest("table"), column = head.cellIndex;
  const descending = head.getAttribute("aria-sort") !== "descending" && column > 0
    || head.getAttribute("aria-sort") === "ascending";
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
    const inRange = iou === "" ? low === "0" && high === "1" : Number(iou) >= Number(low) && Number(iou) <= Number(high);
    const fits = words.every(word => card.dataset.text.includes(word))
      && (kind === "all" || card.dataset.kind.split(" ").includes(kind)) && inRange;
    card.hidden = !fits;
    shown += fits;
  }
  gallery.append(...cards);
  gallery.parentElement.querySelector(".count").textContent = `${shown} of ${cards.length}`;
}

// A track: IoU and confidence over time, gaps where the object is not visible.
function drawTrack(select) {
  const points = JSON.parse(document.getElementById("tracks").textContent)[select.value];
  const svg = document.getElementById("track-plot"), [width, height, left, bottom] = [1200, 260, 44, 30];
  const first = points[0][0], span = Math.max(points[points.length - 1][0] - first, 1);
  const x = frame => left + (frame - first) / span * (width - left - 16);
  const y = value => 12 + (1 - value) * (height - bottom - 12);
  let content = "";
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    content += `<line x1="${left}" x2="${width - 16}" y1="${y(value)}" y2="${y(value)}" stroke="#e6e6e6"/>`
      + `<text x="${left - 8}" y="${y(value) + 4}" text-anchor="end" font-size="12" fill="#666c73">${value}</text>`;
  }
  const step = Math.max(1, Math.ceil(points.length / 12));
  points.forEach(([frame], index) => {
    if (index % step === 0) {
      content += `<text x="${x(frame)}" y="${height - 8}" text-anchor="middle" font-size="12" fill="#666c73">`
        + `${frame}</text>`;
    }
  });
  const line = (column, color, dash) => {
    let path = "", pen = "M";
    for (const point of points) {
      if (point[column] === null) { pen = "M"; continue; }
      path += `${pen}${x(point[0]).toFixed(1)} ${y(point[column]).toFixed(1)}`;
      pen = "L";
    }
    return `<path d="${path}" fill="none" stroke="${color}" stroke-width="2" stroke-dasharray="${dash}"/>`;
  };
  content += line(2, "#e07b00", "4 3") + line(1, "#1f6fb4", "none");
  for (const [frame, iou] of points) {
    if (iou !== null) content += `<circle cx="${x(frame)}" cy="${y(iou)}" r="3" fill="#1f6fb4"/>`;
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.innerHTML = content;
}

document.querySelectorAll("table.sortable th").forEach(head => head.addEventListener("click", () => sortTable(head)));
document.querySelectorAll(".gallery").forEach(gallery => {
  gallery.parentElement.querySelector(".controls").addEventListener("input", () => updateGallery(gallery));
  updateGallery(gallery);
});
document.querySelectorAll("#track").forEach(select => {
  select.addEventListener("input", () => drawTrack(select));
  drawTrack(select);
});
