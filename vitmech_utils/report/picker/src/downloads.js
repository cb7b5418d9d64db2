// Downloads: the shown map as PNG, the table of heads as CSV.

import { TABLES, css } from "./colours.js";
import { canvas, make, pen } from "./elements.js";
import { shareSource } from "./regions.js";
import { headName } from "./state.js";
import { known } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Spec, State } from "./types.js" */

/** @param {HTMLElement} root @param {Spec} spec @param {Reader} read */
export function downloadButtons(root, spec, read) {
  const stem = () => { const { layer, head, image } = read.pick(); return `L${layer + 1}H${head + 1}_image${image + 1}`; };
  const png = async () => save(await drawPicture(root, spec, read.pick()), `${stem()}.png`);
  const table = () => save(csvTable(spec, read.pick(), read), "heads.csv");
  return make("div", { class: "vm-buttons" },
    make("button", { class: "vm-button", type: "button", "aria-label": "Download the shown map as PNG", onclick: png }, "PNG"),
    make("button", { class: "vm-button", type: "button", "aria-label": "Download the table of heads as CSV", onclick: table }, "CSV"));
}

/** @param {Blob | null} blob @param {string} name */
function save(blob, name) {
  if (!blob) return;
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/**
 * Text that a spreadsheet would take for a formula gets an apostrophe in front.
 * @param {string | number | null | undefined} value
 */
function csvField(value) {
  if (typeof value !== "string") return known(value) ? String(value) : "";
  const text = value.replace(/^(?=[=+\-@\t\r])/, "'");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** @param {Spec} spec @param {State} state @param {Reader} read */
function csvTable(spec, state, read) {
  const effect = spec.measures.find(({ key }) => key === "effect");
  /** @type {[string, (place: { index: number, layer: number, head: number }) => string | number | null | undefined][]} */
  const columns = [["layer (1-based)", ({ layer }) => layer + 1], ["head (1-based)", ({ head }) => head + 1]];
  for (const measure of spec.measures) columns.push([`${measure.label} (${measure.unit})`, ({ index }) => measure.values[index]]);
  if (effect?.low) columns.push(["interval low", ({ index }) => effect.low?.[index]]);
  if (effect?.high) columns.push(["interval high", ({ index }) => effect.high?.[index]]);
  if (spec.classes) columns.push(["class", ({ index }) => spec.classes?.names[spec.classes.values[index] ?? -1]]);
  if (spec.origin) columns.push(["origin", ({ index }) => spec.origin?.names[spec.origin.values[index] ?? -1]]);
  if (spec.evidence) columns.push(["evidence", ({ index }) => spec.evidence?.[index]]);
  const { book } = read;
  book?.answer.outputs.forEach((name, output) => columns.push([`shift of ${name} without the head (${[book.answer.units[output], spec.imageLabels[state.image]].filter(Boolean).join(", ")})`, ({ index }) => book.shift(book.twinOf(state.twin), state.image, index)?.values[output]]));
  if (spec.shares) {
    const whose = shareSource(spec, state);
    spec.regions.forEach((region, at) => columns.push([`raw attention share of ${region} (${whose})`, (place) => read.share({ ...state, ...place }, at)]));
  }
  if (spec.areaShares) spec.regions.forEach((region, at) => columns.push([`area share of ${region}`, () => read.area(state, at)]));
  const lines = [columns.map(([title]) => csvField(title)).join(",")];
  for (let index = 0; index < spec.layers * spec.heads; index += 1) {
    const place = { index, layer: Math.floor(index / spec.heads), head: index % spec.heads };
    lines.push(columns.map(([, value]) => csvField(value(place))).join(","));
  }
  return new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv;charset=utf-8" });
}

/**
 * The answers' lines, as the page draws them.
 * @param {CanvasRenderingContext2D} context @param {Element} figure @param {{ x: number, y: number, width: number, height: number }} box
 */
function drawTracks(context, figure, box) {
  if (!figure.querySelector(".vm-tracks:not([hidden])")) return;
  for (const line of figure.querySelectorAll("polyline")) {
    const look = getComputedStyle(line);
    const points = (line.getAttribute("points") ?? "").split(" ").filter(Boolean).map((point) => point.split(",").map(Number));
    context.save();
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(box.x + (x / 100) * box.width, box.y + (y / 100) * box.height));
    Object.assign(context, { strokeStyle: look.stroke, lineWidth: parseFloat(look.strokeWidth), lineCap: "round" });
    context.setLineDash(look.strokeDasharray.split(/[ ,]+/).map(parseFloat).filter(Number.isFinite));
    context.stroke();
    context.restore();
  }
}

/** @param {HTMLElement} root @param {Spec} spec @param {State} state @returns {Promise<Blob | null>} */
function drawPicture(root, spec, state) {
  const figures = [...root.querySelectorAll(".vm-stage .vm-panel")];
  const [side, gap, top] = [480, 24, 64];
  const height = Math.round((side * spec.height) / spec.width);
  const picture = canvas(gap + figures.length * (side + gap), top + height + 96, "");
  const context = pen(picture);
  /** @param {string} string @param {number} x @param {number} y @param {string} font @param {number} width */
  const text = (string, x, y, font, width) => { context.font = `${font} system-ui, sans-serif`; context.fillText(string, x, y, width); };
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, picture.width, picture.height);
  context.fillStyle = "#1b1d21";
  text(`${headName(state).replace("l", "L")} · ${spec.imageLabels[state.image]}`, gap, 30, "600 18px", picture.width - 2 * gap);
  text(spec.title, gap, 52, "14px", picture.width - 2 * gap);
  figures.forEach((figure, index) => {
    const x = gap + index * (side + gap);
    const [photo, heat] = figure.querySelectorAll("canvas");
    context.drawImage(photo, x, top, side, height);
    context.save();
    context.imageSmoothingEnabled = false;
    context.globalAlpha = state.opacity;
    context.drawImage(heat, x, top, side, height);
    context.restore();
    drawTracks(context, figure, { x, y: top, width: side, height });
    text(figure.querySelector(".vm-caption")?.textContent ?? "", x, top + height + 20, "13px", side);
  });
  const ramp = context.createLinearGradient(gap, 0, gap + side, 0);
  TABLES.heat[0].forEach((colour, index) => ramp.addColorStop(index / 255, css(colour)));
  context.fillStyle = ramp;
  context.fillRect(gap, top + height + 36, side, 12);
  context.fillStyle = "#1b1d21";
  const ticks = [...root.querySelectorAll(".vm-stage .vm-ticks span")].map((tick) => tick.textContent);
  text("0", gap, top + height + 64, "13px", side);
  context.textAlign = "right";
  text(`${ticks[2]} attention per patch`, gap + side, top + height + 64, "13px", side - 20);
  return new Promise((resolve) => { picture.toBlob(resolve, "image/png"); });
}
