// All heads' maps at once, each on its own scale, and the layers to scrub through.

import { HEAT_WORDS } from "./colours.js";
import { canvas, make, pen, write } from "./elements.js";
import { headName, panelName, placeOf, setTraits } from "./state.js";
import { clamp } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Model, Part, Spec, State } from "./types.js" */

const GAP = 1; // pixels between maps, of one pixel per patch

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
export function buildMosaic(model, spec, read) {
  const [high, wide] = [spec.rows + GAP, spec.columns + GAP];
  const sheet = canvas(spec.heads * wide - GAP, spec.layers * high - GAP, "vm-sheet");
  const row = canvas(spec.heads * wide - GAP, spec.rows, "vm-film");
  const [band, spot] = [make("div", { class: "vm-band" }), make("div", { class: "vm-spot" })];
  const slider = make("input", { type: "range", min: "1", max: String(spec.layers), step: "1", "aria-label": "Scrub through the layers", oninput: () => setTraits(model, { layer: Number(slider.value) - 1 }) });
  const title = make("span", { class: "vm-label" });
  const words = make("span", { class: "vm-label", "aria-hidden": "true" });
  const film = make("div", { class: "vm-strip-of-maps" }, row, spot);
  const all = make("div", { class: "vm-all-maps" }, sheet, band);
  const panel = make("div", { class: "vm-maps" }, title, all, make("div", {}, words, slider, film));
  /** @param {HTMLElement} target @param {MouseEvent} event @param {number} layers */
  const headAt = (target, event, layers) => {
    const box = target.getBoundingClientRect();
    return {
      layer: clamp(Math.floor(((event.clientY - box.top) / box.height) * layers), 0, layers - 1),
      head: clamp(Math.floor(((event.clientX - box.left) / box.width) * spec.heads), 0, spec.heads - 1),
    };
  };
  all.addEventListener("click", (event) => setTraits(model, headAt(all, event, spec.layers)));
  film.addEventListener("click", (event) => setTraits(model, { head: headAt(film, event, 1).head }));
  let painted = "";
  let filmed = "";

  /** @param {State} state */
  function update(state) {
    const [twin, variant] = read.panels(state)[0];
    const wanted = [state.image, twin, variant, state.patch ? state.query : ""].join("|");
    if (painted !== wanted) paint(state, twin, variant);
    if (filmed !== `${wanted}|${state.layer}`) pen(row).drawImage(sheet, 0, state.layer * high, row.width, spec.rows, 0, 0, row.width, spec.rows);
    [painted, filmed] = [wanted, `${wanted}|${state.layer}`];
    const from = state.patch ? "from the chosen patch" : "of the CLS query";
    write(title, `All maps ${from}, each on its own scale (${[panelName(spec, twin, variant), spec.imageLabels[state.image]].filter(Boolean).join(", ")})`);
    write(words, `Layer ${state.layer + 1} of ${spec.layers}, its heads from 1 to ${spec.heads}`);
    slider.value = String(state.layer + 1);
    slider.setAttribute("aria-valuetext", headName(state));
    Object.assign(band.style, { top: `${(100 * state.layer) / spec.layers}%`, height: `${100 / spec.layers}%` });
    Object.assign(spot.style, { left: `${(100 * state.head) / spec.heads}%`, width: `${100 / spec.heads}%` });
  }

  /** @param {State} state @param {number} twin @param {number} variant */
  function paint(state, twin, variant) {
    const context = pen(sheet);
    const pixels = context.createImageData(sheet.width, sheet.height);
    const words32 = new Uint32Array(pixels.data.buffer);
    for (let index = 0; index < spec.layers * spec.heads; index += 1) {
      const map = read.map(state, twin, variant, index);
      if (!map) continue; // no view from this patch is stored: the ground shows
      const { layer, head } = placeOf(spec, index);
      const factor = 255 / (map.levels - 1);
      for (let y = 0; y < spec.rows; y += 1) {
        const from = Math.floor((y * map.rows) / spec.rows) * map.columns;
        const to = (layer * high + y) * sheet.width + head * wide;
        for (let x = 0; x < spec.columns; x += 1) words32[to + x] = 0xff000000 | HEAT_WORDS[Math.min(255, Math.round(map.steps[from + Math.floor((x * map.columns) / spec.columns)] * factor))];
      }
    }
    context.putImageData(pixels, 0, 0);
  }
  return { panel, update };
}
