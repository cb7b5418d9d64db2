// Left: the grid of heads.

import { make, write } from "./elements.js";
import { gridLegend, initial, tint } from "./legends.js";
import { cellColour, gridScale, isSure } from "./scale.js";
import { headName, measureList, setTraits } from "./state.js";
import { clamp, known, withUnit } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Measure, Model, Part, Spec, State } from "./types.js" */

const HINT = "Click a head, or move with the arrow keys.";

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
export function buildGrid(model, spec, read) {
  const { grid, cells } = gridCells(spec);
  const readout = make("div", { class: "vm-readout", "aria-hidden": "true" }, HINT);
  /** @param {number} layer @param {number} head */
  const pick = (layer, head) => {
    setTraits(model, { layer, head });
    cells[layer * spec.heads + head].focus({ preventScroll: true });
  };
  grid.addEventListener("click", (event) => {
    const index = indexOf(event);
    if (index !== null) pick(Math.floor(index / spec.heads), index % spec.heads);
  });
  grid.addEventListener("pointerover", (event) => {
    const index = indexOf(event);
    if (index !== null) write(readout, describe(spec, read.pick().measure, index));
  });
  grid.addEventListener("pointerleave", () => write(readout, HINT));
  grid.addEventListener("keydown", (event) => {
    const target = arrowTarget(event, read.pick(), spec);
    if (!target) return;
    event.preventDefault();
    pick(...target);
  });

  const select = make("select", { "aria-label": "Colour the grid by", onchange: () => setTraits(model, { measure: select.value }) });
  for (const measure of measureList(spec)) select.append(make("option", { value: measure.key }, measure.unit ? `${measure.label} (${measure.unit})` : measure.label));
  const legend = make("div", { class: "vm-legend" });
  const panel = make("div", { class: "vm-heads" }, make("span", { class: "vm-label", "aria-hidden": "true" }, "Grid coloured by"), select, grid, legend, readout);
  /** @type {string | null} */
  let painted = null;
  /** @type {number | null} */
  let picked = null;

  /** @param {State} state */
  function paint({ measure }) {
    const scale = gridScale(measure);
    select.value = measure.key;
    grid.setAttribute("aria-label", `Heads: ${spec.layers} layers by ${spec.heads} heads, coloured by ${measure.label}`);
    cells.forEach((cell, index) => {
      const value = measure.values[index];
      tint(cell, cellColour(measure, scale, index));
      cell.classList.toggle("vm-sure", isSure(measure, index));
      write(cell, measure.kind === "class" && spec.classes && known(value) ? initial(spec.classes, value) : "");
      cell.setAttribute("aria-label", describe(spec, measure, index));
    });
    legend.replaceChildren(...gridLegend(measure, scale, spec.classes));
  }

  /** @param {State} state */
  function update(state) {
    if (painted !== state.measure.key) paint(state);
    painted = state.measure.key;
    if (picked === state.index) return;
    if (picked !== null) mark(cells[picked], false);
    mark(cells[state.index], true);
    picked = state.index;
  }
  return { panel, update };
}

/** @param {Spec} spec */
function gridCells(spec) {
  /** @type {HTMLElement[]} */
  const cells = [];
  const grid = make("div", { class: "vm-grid", role: "grid" });
  grid.style.setProperty("--vm-heads", String(spec.heads));
  grid.classList.toggle("vm-many", spec.layers > 16);
  const header = make("div", { class: "vm-row", role: "row" }, make("div", { class: "vm-axis", role: "columnheader" }, make("span", { class: "vm-hush" }, "layer")));
  for (let head = 0; head < spec.heads; head += 1) {
    header.append(make("div", { class: "vm-axis", role: "columnheader", "aria-label": `head ${head + 1}` }, `${spec.heads > 12 ? "" : "H"}${head + 1}`));
  }
  grid.append(header);
  for (let layer = 0; layer < spec.layers; layer += 1) {
    const row = make("div", { class: "vm-row", role: "row" }, make("div", { class: "vm-axis", role: "rowheader", "aria-label": `layer ${layer + 1}` }, `L${layer + 1}`));
    for (let head = 0; head < spec.heads; head += 1) {
      const cell = make("div", { class: "vm-cell", role: "gridcell", tabindex: "-1", "aria-selected": "false" });
      cell.dataset.index = String(cells.length);
      cells.push(cell);
      row.append(cell);
    }
    grid.append(row);
  }
  return { grid, cells };
}

/** @param {Event} event @returns {number | null} the head under the pointer */
function indexOf(event) {
  const cell = /** @type {Element} */ (event.target).closest?.(".vm-cell");
  return cell instanceof HTMLElement ? Number(cell.dataset.index) : null;
}

/** @param {Spec} spec @param {Measure} measure @param {number} index */
function describe(spec, measure, index) {
  const name = headName({ layer: Math.floor(index / spec.heads), head: index % spec.heads });
  const value = measure.values[index];
  if (measure.kind === "none") return name;
  if (measure.kind === "class") return `${name}: ${spec.classes && known(value) ? spec.classes.names[value] : "no class"}`;
  return `${name}: ${measure.label} ${withUnit(measure, value)}`;
}

/** @param {HTMLElement} cell @param {boolean} chosen */
function mark(cell, chosen) {
  cell.setAttribute("aria-selected", String(chosen));
  cell.tabIndex = chosen ? 0 : -1;
}

/**
 * Where a key leads.
 * @param {KeyboardEvent} event @param {State} state @param {Spec} spec
 * @returns {[number, number] | null} layer and head
 */
function arrowTarget(event, { layer, head }, spec) {
  const [last, end] = [spec.layers - 1, spec.heads - 1];
  /** @type {Record<string, [number, number]>} */
  const moves = {
    ArrowUp: [layer - 1, head], ArrowDown: [layer + 1, head], ArrowLeft: [layer, head - 1], ArrowRight: [layer, head + 1],
    Home: [event.ctrlKey ? 0 : layer, 0], End: [event.ctrlKey ? last : layer, end], PageUp: [0, head], PageDown: [last, head],
  };
  const move = !event.altKey && !event.metaKey && moves[event.key];
  return move ? [clamp(move[0], 0, last), clamp(move[1], 0, end)] : null;
}
