// Two heads that stay in view, side by side, whichever is picked.

import { canvas, make, pen, write } from "./elements.js";
import { paintHeat, paintPhoto } from "./paint.js";
import { headName, pairsOf, panelName, placeOf, setTraits } from "./state.js";
import { known, percent, plain, signed, withUnit } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Data, Model, Part, Spec, State } from "./types.js" */

const MOST = 2;

/** @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @returns {Part} */
export function buildPins(model, spec, data, read) {
  const pin = make("button", { class: "vm-button", type: "button" });
  const hint = make("span", { class: "vm-aside" }, "Pinned heads stay here, side by side.");
  const cards = make("div", { class: "vm-cards" });
  const panel = make("div", { class: "vm-pins" }, make("div", { class: "vm-keys" }, pin, hint), cards);
  /** @param {number[]} pins */
  const setPins = (pins) => setTraits(model, { pins: pins.map((index) => pairsOf(spec, [index])[0]) });
  pin.addEventListener("click", () => {
    const { pins, index } = read.pick();
    setPins(pins.includes(index) ? pins.filter((other) => other !== index) : [...pins, index].slice(-MOST));
  });
  /** @type {ReturnType<typeof card>[]} */
  let shown = [];
  let layout = "";

  /** @param {State} state */
  function update(state) {
    const { pins } = state;
    write(pin, pins.includes(state.index) ? `Unpin ${headName(state)}` : `Pin ${headName(state)}`);
    if (layout !== pins.join()) {
      shown = pins.map((index) => card(model, spec, data, read, index, () => setPins(read.pick().pins.filter((other) => other !== index))));
      cards.replaceChildren(...shown.map(({ panel: one }) => one));
    }
    layout = pins.join();
    shown.forEach((one) => one.update(state));
  }
  return { panel, update };
}

/** @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @param {number} index @param {() => void} unpin */
function card(model, spec, data, read, index, unpin) {
  const name = headName(placeOf(spec, index));
  const [photo, heat] = [canvas(spec.width, spec.height, "vm-photo"), canvas(spec.columns, spec.rows, "vm-heat")];
  const layers = make("div", { class: "vm-layers", role: "img" }, photo, heat);
  layers.style.aspectRatio = `${spec.width} / ${spec.height}`;
  const facts = make("ul", { class: "vm-known" });
  const buttons = make("div", { class: "vm-buttons" },
    make("button", { class: "vm-button", type: "button", "aria-label": `Go to ${name}`, onclick: () => setTraits(model, placeOf(spec, index)) }, "Go to it"),
    make("button", { class: "vm-button", type: "button", "aria-label": `Unpin ${name}`, onclick: unpin }, "Unpin"));
  const panel = make("div", { class: "vm-pinned", role: "group", "aria-label": `Pinned: ${name}` }, make("strong", {}, name.replace("l", "L")), make("div", { class: "vm-frame" }, layers), facts, buttons);
  let painted = "";
  let mapped = "";

  /** @param {State} state */
  function update(state) {
    const [twin, variant] = read.panels(state)[0];
    const photoOf = `${twin}.${state.image}.${state.opacity > 0}`;
    if (painted !== photoOf) paintPhoto(photo, data.pictures[twin][state.image], state.opacity > 0);
    painted = photoOf;
    const wanted = [twin, variant, state.image, state.patch ? state.query : "", state.shared, state.removed].join("|");
    heat.style.opacity = String(state.opacity);
    if (mapped === wanted) return;
    mapped = wanted;
    const map = read.map(state, twin, variant, index);
    if (map) {
      if (heat.width !== map.columns || heat.height !== map.rows) Object.assign(heat, { width: map.columns, height: map.rows });
      paintHeat(heat, map, state.shared ? spec.sharedMaximum : map.peak);
    } else pen(heat).clearRect(0, 0, heat.width, heat.height);
    layers.setAttribute("aria-label", map ? `Attention map of ${name}, highest ${percent(map.peak)}` : `${name}: no view from this patch is stored`);
    facts.replaceChildren(...factsOf(spec, read, { ...state, ...placeOf(spec, index), index }, twin, variant, map?.peak).map((text) => make("li", {}, text)));
  }
  return { panel, update };
}

/** @param {Spec} spec @param {Reader} read @param {State} state @param {number} twin @param {number} variant @param {number | undefined} peak */
function factsOf(spec, read, state, twin, variant, peak) {
  const { index, image } = state;
  const found = [[panelName(spec, twin, variant), known(peak) ? `highest ${percent(peak)}` : "no view from this patch is stored"].filter(Boolean).join(" · ")];
  for (const measure of spec.measures.filter(({ key }) => key === "effect" || (key === "entropy" && !state.patch))) found.push(`${measure.label}: ${withUnit(measure, measure.values[index])}`);
  const shares = spec.regions.map((_, region) => read.share(state, region, variant) ?? -1);
  const most = shares.indexOf(Math.max(...shares));
  if (shares[most] >= 0) found.push(`most raw attention on ${spec.regions[most]}: ${percent(shares[most])}`);
  const { book } = read;
  const shift = book?.shift(book.twinOf(twin), image, index);
  if (book && shift) {
    const moved = shift.values.map((value, output) => `${book.answer.outputs[output]} ${signed(value)}\u00a0${book.answer.units[output]}`.trim());
    const largest = book.answer.outputs.length > 4 ? `answer moves by ${plain(book.size(book.twinOf(twin), image, index))}` : moved.join(", ");
    found.push(`without it: ${largest}${shift.how === "shifts" ? "" : " (estimated)"}`);
  }
  return found;
}
