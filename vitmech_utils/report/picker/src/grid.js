// Left: the grid of heads.

import { make, write } from "./elements.js";
import { gridLegend, initial, tint } from "./legends.js";
import { cellColour, gridScale, isSure } from "./scale.js";
import { measureList, namesOf } from "./measures.js";
import { headName, pairsOf, setTraits } from "./state.js";
import { toggled } from "./switches.js";
import { clamp, known, withUnit } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Measure, Model, Part, Spec, State } from "./types.js" */

const HINT = "Click a head, or move with the arrow keys.";
const OFF_HINT = "Click a head, a layer or a column to switch it off or on again.";

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
export function buildGrid(model, spec, read) {
  const { grid, cells, axes } = gridCells(spec);
  const readout = make("div", { class: "vm-readout", "aria-hidden": "true" }, HINT);
  /** @param {number} layer @param {number} head */
  const pick = (layer, head) => {
    setTraits(model, { layer, head });
    cells[layer * spec.heads + head].focus({ preventScroll: true });
  };
  /** @param {number[]} heads */
  const toggle = (heads) => setTraits(model, { off: pairsOf(spec, toggled(read.pick().off, heads)) });
  grid.addEventListener("click", (event) => {
    const index = indexOf(event);
    const switching = read.pick().mode === "off";
    const group = /** @type {Element} */ (event.target).closest?.(".vm-axis");
    if (switching && group instanceof HTMLElement) toggle(alongside(spec, group.dataset));
    if (index === null) return;
    if (switching) toggle([index]);
    pick(Math.floor(index / spec.heads), index % spec.heads);
  });
  grid.addEventListener("pointerover", (event) => {
    const index = indexOf(event);
    if (index !== null) write(readout, describe(spec, read.pick().measure, index));
  });
  grid.addEventListener("pointerleave", () => write(readout, read.pick().mode === "off" ? OFF_HINT : HINT));
  grid.addEventListener("keydown", (event) => {
    const state = read.pick();
    if (event.key === " " && state.mode === "off") {
      event.preventDefault();
      toggle(event.shiftKey ? alongside(spec, { layer: String(state.layer) }) : event.ctrlKey ? alongside(spec, { head: String(state.head) }) : [state.index]);
      return;
    }
    const target = arrowTarget(event, state, spec);
    if (!target) return;
    event.preventDefault();
    pick(...target);
  });

  const select = make("select", { "aria-label": "Colour the grid by", onchange: () => setTraits(model, { measure: select.value }) });
  for (const measure of measureList(spec)) select.append(make("option", { value: measure.key }, measure.unit ? `${measure.label} (${measure.unit})` : measure.label));
  const legend = make("div", { class: "vm-legend" });
  const panel = make("div", { class: "vm-heads" }, grid, readout, make("span", { class: "vm-label", "aria-hidden": "true" }, "Grid coloured by"), select, legend);
  /** @type {string | null} */
  let painted = null;
  /** @type {number | null} */
  let picked = null;
  let out = "";

  /** @param {State} state */
  function paint({ measure, mode, off }) {
    const scale = gridScale(measure);
    const names = namesOf(spec, measure);
    select.value = measure.key;
    grid.setAttribute("aria-label", `Heads: ${spec.layers} layers by ${spec.heads} heads, coloured by ${measure.label}`);
    cells.forEach((cell, index) => {
      const value = measure.values[index];
      tint(cell, cellColour(measure, scale, index));
      cell.classList.toggle("vm-sure", isSure(measure, index));
      write(cell, names && known(value) ? initial(names, value) : "");
      const gone = mode === "off" && off.includes(index);
      cell.classList.toggle("vm-out", gone);
      cell.setAttribute("aria-label", `${describe(spec, measure, index)}${gone ? ", switched off" : ""}`);
    });
    legend.replaceChildren(...gridLegend(measure, scale, names));
  }

  /** @param {State} state */
  function update(state) {
    const switched = state.mode === "off" ? state.off.join() : "none";
    if (painted !== state.painted || out !== switched) paint(state);
    if ((out === "none") !== (switched === "none") || !painted) {
      grid.classList.toggle("vm-switching", state.mode === "off");
      axes.forEach((axis) => { axis.title = state.mode === "off" ? `Switch ${axis.getAttribute("aria-label")} off or on again` : ""; });
      write(readout, state.mode === "off" ? OFF_HINT : HINT);
    }
    [painted, out] = [state.painted, switched];
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
  /** @type {HTMLElement[]} */
  const axes = [];
  /** @param {string} role @param {string} label @param {string} text @param {Record<string, string>} data */
  const axis = (role, label, text, data) => {
    const element = make("div", { class: "vm-axis", role, "aria-label": label }, text);
    Object.assign(element.dataset, data);
    axes.push(element);
    return element;
  };
  const grid = make("div", { class: "vm-grid", role: "grid" });
  grid.style.setProperty("--vm-heads", String(spec.heads));
  grid.classList.toggle("vm-many", spec.layers > 16);
  const header = make("div", { class: "vm-row", role: "row" }, make("div", { class: "vm-axis", role: "columnheader" }, make("span", { class: "vm-hush" }, "layer")));
  for (let head = 0; head < spec.heads; head += 1) {
    header.append(axis("columnheader", `head ${head + 1}`, `${spec.heads > 12 ? "" : "H"}${head + 1}`, { head: String(head) }));
  }
  grid.append(header);
  for (let layer = 0; layer < spec.layers; layer += 1) {
    const row = make("div", { class: "vm-row", role: "row" }, axis("rowheader", `layer ${layer + 1}`, `L${layer + 1}`, { layer: String(layer) }));
    for (let head = 0; head < spec.heads; head += 1) {
      const cell = make("div", { class: "vm-cell", role: "gridcell", tabindex: "-1", "aria-selected": "false" });
      cell.dataset.index = String(cells.length);
      cells.push(cell);
      row.append(cell);
    }
    grid.append(row);
  }
  return { grid, cells, axes };
}

/** @param {Spec} spec @param {DOMStringMap} names @returns {number[]} the heads of a layer, or of a column */
function alongside(spec, { layer, head }) {
  const all = Array.from({ length: spec.layers * spec.heads }, (_, index) => index);
  if (layer !== undefined) return all.filter((index) => Math.floor(index / spec.heads) === Number(layer));
  return head === undefined ? [] : all.filter((index) => index % spec.heads === Number(head));
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
  const names = namesOf(spec, measure);
  if (names) return `${name}: ${known(value) ? names.names[value] : `no ${measure.key}`}`;
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
