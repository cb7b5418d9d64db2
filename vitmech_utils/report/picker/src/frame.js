// One map over one image, and the patch that asks.

import { canvas, make, write } from "./elements.js";
import { paintHeat, paintPhoto, placePatch } from "./paint.js";
import { headName, middlePatch, panelName, patchName, setTraits } from "./state.js";
import { clamp, percent, plain } from "./text.js";
import { trackLayer } from "./tracks.js";
/** @import { Reader } from "./state.js" */
/** @import { Data, Model, ShownMap, Spec, State } from "./types.js" */

/**
 * Which twin and which model a panel shows.
 * @typedef {{ twin: number, variant: number }} Place
 *
 * @typedef {{ figure: HTMLElement, update: (state: State, map: ShownMap, top: number) => void }} Frame
 */

/**
 * `tell` is given what the pointer is at, or "".
 * @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @param {Place} place
 * @param {(text: string) => void} tell
 * @returns {Frame}
 */
export function buildFrame(model, spec, data, read, { twin, variant }, tell) {
  const photo = canvas(spec.width, spec.height, "vm-photo");
  const heat = canvas(spec.columns, spec.rows, "vm-heat");
  const layers = make("div", { class: "vm-layers", role: "img" }, photo, heat);
  layers.style.aspectRatio = `${spec.width} / ${spec.height}`;
  const patch = make("div", { class: "vm-patch", hidden: true });
  const aim = make("button", { class: "vm-aim", type: "button", hidden: true });
  const caption = make("div", { class: "vm-caption" });
  const tracks = read.book && variant === 0 ? trackLayer(read.book) : null;
  const frame = make("div", { class: "vm-frame" }, layers, ...(tracks ? [tracks.layer] : []), patch, aim);
  const figure = make("div", { class: "vm-panel" }, frame, caption);
  /** @type {string | null} */
  let image = null;
  /** @type {ShownMap | null} */
  let shown = null;

  /** @param {MouseEvent} event @returns {[number, number]} row and column */
  const patchAt = (event) => {
    const box = frame.getBoundingClientRect();
    return [
      clamp(Math.floor(((event.clientY - box.top) / box.height) * spec.rows), 0, spec.rows - 1),
      clamp(Math.floor(((event.clientX - box.left) / box.width) * spec.columns), 0, spec.columns - 1),
    ];
  };
  frame.addEventListener("pointermove", (event) => {
    if (!shown) return;
    const [row, column] = patchAt(event);
    const at = Math.floor((row * shown.rows) / spec.rows) * shown.columns + Math.floor((column * shown.columns) / spec.columns);
    const value = (shown.steps[at] / (shown.levels - 1)) * shown.peak;
    tell(`row ${row + 1}, column ${column + 1}: ${percent(value)} of attention, ${plain(value * shown.rows * shown.columns)} × uniform`);
  });
  frame.addEventListener("pointerleave", () => tell(""));
  aim.addEventListener("click", (event) => {
    const [row, column] = patchAt(event);
    const byKey = event.detail === 0;
    setTraits(model, { query: byKey ? middlePatch(spec) : row * spec.columns + column });
  });
  aim.addEventListener("keydown", (event) => {
    if (event.key === "Escape") setTraits(model, { query: -1 });
    const query = movedQuery(event.key, spec, read);
    if (query === null) return;
    event.preventDefault();
    setTraits(model, { query });
  });

  /** @param {State} state @param {ShownMap} map @param {number} top */
  function update(state, map, top) {
    const wanted = `${state.image} ${state.opacity > 0}`;
    if (image !== wanted) paintPhoto(photo, data.pictures[twin][state.image], state.opacity > 0);
    image = wanted;
    if (heat.width !== map.columns || heat.height !== map.rows) Object.assign(heat, { width: map.columns, height: map.rows });
    paintHeat(heat, map, top);
    shown = map;
    tracks?.update(state, twin);
    heat.style.opacity = String(state.opacity);
    aim.hidden = !(twin === 0 && variant === 0 && read.queryable(state));
    patch.hidden = !map.patch;
    if (map.patch && spec.query) placePatch(patch, read.queryCell(state.query), spec.query);
    const from = map.patch ? `patch ${patchName(state.query, spec)} as query` : "CLS query";
    layers.setAttribute("aria-label", altText(spec, state, map, panelName(spec, twin, variant), from));
    aim.setAttribute("aria-label", `Choose the query patch; now ${from}. Arrow keys move it, Escape returns to the CLS query.`);
    write(caption, [panelName(spec, twin, variant), from, `highest ${percent(map.peak)}`].filter(Boolean).join(" · "));
  }
  return { figure, update };
}

/** @param {string} key @param {Spec} spec @param {Reader} read @returns {number | null} */
function movedQuery(key, spec, read) {
  const moved = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
  if (!moved || !spec.query) return null;
  const { query } = read.pick();
  const cell = read.queryCell(query < 0 ? middlePatch(spec) : query);
  const { queryRows, queryColumns } = spec.query;
  const row = Math.ceil((clamp(cell[0] + moved[0], 0, queryRows - 1) * spec.rows) / queryRows);
  const column = Math.ceil((clamp(cell[1] + moved[1], 0, queryColumns - 1) * spec.columns) / queryColumns);
  return row * spec.columns + column;
}

/** @param {Spec} spec @param {State} state @param {ShownMap} map @param {string} who @param {string} from */
function altText(spec, state, { steps, peak, columns }, who, from) {
  const top = steps.indexOf(Math.max(...steps));
  const place = `row ${Math.floor(top / columns) + 1}, column ${(top % columns) + 1}`;
  return `Attention map of ${headName(state)}${who ? ` (${who})` : ""}, ${from}, over ${spec.imageLabels[state.image]}: highest at ${place} with ${percent(peak)}.`;
}
