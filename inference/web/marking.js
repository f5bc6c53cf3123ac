// Tools to mark an object on the first picture. A mark is {tool, width, lines}: a line is a list of points [x, y]; points
// and width are in pixels of the picture; a box is a line from one of its corners to the opposite one. `props.value` is
// the list of all marks.
const EDGE = 2; // width of the dark edge, which shows the paint on an object of its own color, in pixels of the screen
const BOX_LINE = 3; // pixels of the screen
element.innerHTML = `
  <label><input type="radio" name="tool" value="box" checked>Box</label>
  <label><input type="radio" name="tool" value="brush">Paint</label>
  <label><input type="radio" name="tool" value="eraser">Erase</label>
  <label>Pen<input type="range" name="width" min="2" max="60" value="14"></label>
  <label>Zoom<input type="range" name="zoom" min="1" max="4" step="0.5" value="1"></label>
  <button name="undo">Undo</button><button name="clear">Clear</button>`;
const canvas = document.createElement("canvas"); // lies on the picture
const paint = document.createElement("canvas");
let scale = 1; // pixels of the screen for a pixel of the picture
let newMark = null; // while it is being drawn

const find = name => element.querySelector(`[name=${name}]`);

function draw() {
  const picture = document.querySelector("#query img");
  if (!picture?.naturalWidth) return;
  scale = Math.min(picture.clientWidth / picture.naturalWidth, picture.clientHeight / picture.naturalHeight);
  canvas.width = paint.width = scale * picture.naturalWidth;
  canvas.height = paint.height = scale * picture.naturalHeight;
  canvas.style.left = `${picture.offsetLeft + (picture.clientWidth - canvas.width) / 2}px`;
  canvas.style.top = `${picture.offsetTop + (picture.clientHeight - canvas.height) / 2}px`;
  if (canvas.parentElement != picture.parentElement) picture.after(canvas);

  const marks = newMark ? [...props.value, newMark] : props.value;
  const pen = canvas.getContext("2d");
  drawMarks(paint.getContext("2d"), marks, props.color, 0);
  drawMarks(pen, marks, "black", EDGE);
  pen.globalCompositeOperation = "destination-out"; // only the edge stays dark
  pen.drawImage(paint, 0, 0);
  pen.globalCompositeOperation = "source-over";
  pen.globalAlpha = 0.5;
  pen.drawImage(paint, 0, 0);
}

function drawMarks(pen, marks, color, edge) {
  pen.strokeStyle = color;
  pen.lineCap = pen.lineJoin = "round";
  for (const {tool, width, lines} of marks) {
    pen.globalCompositeOperation = tool == "eraser" ? "destination-out" : "source-over";
    const lineWidth = tool == "box" ? BOX_LINE : scale * width + 1;
    pen.lineWidth = Math.max(1, tool == "eraser" ? lineWidth - 2 * edge : lineWidth + 2 * edge);
    pen.beginPath();
    for (const line of lines) {
      const [[x, y], ...others] = line.map(([x, y]) => [scale * (x + 0.5), scale * (y + 0.5)]);
      if (tool == "box") pen.rect(x, y, others[0][0] - x, others[0][1] - y);
      pen.moveTo(x, y);
      if (tool != "box") others.forEach(point => pen.lineTo(...point));
    }
    pen.stroke();
  }
}

function change(marks) {
  newMark = null;
  props.value = marks;
  trigger("input");
  draw();
}

const pointAt = event => [event.offsetX / scale - 0.5, event.offsetY / scale - 0.5];

canvas.onpointerdown = event => {
  canvas.setPointerCapture(event.pointerId);
  const tool = element.querySelector("[name=tool]:checked").value;
  newMark = {tool, width: find("width").value / scale, lines: [[pointAt(event), pointAt(event)]]};
  draw();
};
canvas.onpointermove = event => {
  if (!newMark) return;
  if (newMark.tool == "box") newMark.lines[0].pop();
  newMark.lines[0].push(pointAt(event));
  draw();
};
canvas.onpointerup = () => newMark && change([...props.value, newMark]);
canvas.onpointercancel = () => { newMark = null; draw(); }; // two fingers enlarge the page
find("zoom").oninput = event => { // the middle of what is seen stays there
  if (!document.querySelector("#query .image-frame")) return;
  const frame = document.querySelector("#query .image-frame");
  const x = (frame.scrollLeft + frame.clientWidth / 2) / frame.scrollWidth;
  const y = (frame.scrollTop + frame.clientHeight / 2) / frame.scrollHeight;
  document.querySelector("#query").style.setProperty("--zoom", event.target.value);
  draw();
  frame.scrollTo(x * frame.scrollWidth - frame.clientWidth / 2, y * frame.scrollHeight - frame.clientHeight / 2);
};
find("undo").onclick = () => change(props.value.slice(0, -1));
find("clear").onclick = () => change([]);
watch("value", draw);
document.addEventListener("load", event => event.target.matches?.("#query img") && draw(), true);
addEventListener("resize", draw);
