// Segmented buttons, the controls below the grid, and the strip of images.

import { canvas, make, pen } from "./elements.js";
import { middlePatch, setTraits } from "./state.js";
/** @import { Data, Model, Part, Spec, State } from "./types.js" */

/** @typedef {string | number} Choice */

// Radio buttons carry a name that is unique on the page, so that two pickers never share a group.
let groups = 0;

/**
 * Radio buttons side by side.
 * @param {string} label @param {[Choice, string][]} options @param {(value: Choice) => void} choose
 */
export function segments(label, options, choose) {
  const name = `vm-group-${(groups += 1)}-${Math.random().toString(36).slice(2, 8)}`;
  const inputs = options.map(([value]) => make("input", { type: "radio", name, value: String(value), onchange: () => choose(value) }));
  const labels = options.map(([, text], index) => make("label", {}, inputs[index], text));
  const panel = make("fieldset", {}, make("legend", { class: "vm-label" }, label), make("div", { class: "vm-segments" }, ...labels));
  /** @param {Choice} value */
  const update = (value) => inputs.forEach((input) => { input.checked = input.value === String(value); });
  return { panel, update };
}

/** @param {Model} model @param {Spec} spec @returns {Part} */
export function buildControls(model, spec) {
  /** @type {((state: State) => void)[]} */
  const follow = [];
  const panel = make("div", { class: "vm-controls" });
  /**
   * @param {string} label @param {[Choice, string][]} options
   * @param {(value: Choice) => Record<string, any>} traits @param {(state: State) => Choice} value
   */
  const add = (label, options, traits, value) => {
    const control = segments(label, options, (choice) => setTraits(model, traits(choice)));
    follow.push((state) => control.update(value(state)));
    panel.append(control.panel);
  };
  /** @param {string[]} names @returns {[Choice, string][]} */
  const sides = (names) => [...names.map((name, index) => /** @type {[Choice, string]} */ ([index, name])), [-1, names.length === 2 ? "both" : "all"]];
  if (spec.variants.length > 1) add("Model", sides(spec.variants), (variant) => ({ variant, query: -1 }), ({ variant }) => variant);
  if (spec.twins.length > 1) add("Image", sides(spec.twins), (twin) => ({ twin, query: -1 }), ({ twin }) => twin);
  add("Scale", [["map", "per map"], ["shared", "shared"]], (scale) => ({ scale }), ({ shared }) => (shared ? "shared" : "map"));
  if (spec.query) {
    const { heads, image } = spec.query;
    const patch = { query: middlePatch(spec), image, variant: 0, twin: 0 };
    add("Query", [["cls", "CLS"], ["patch", "patch"]], (value) => (value === "cls" ? { query: -1 } : patch), ({ query }) => (query < 0 ? "cls" : "patch"));
    const stored = heads.length < spec.layers * spec.heads ? ` and ${heads.length} heads` : "";
    panel.lastElementChild?.setAttribute("title", `Views from patches are stored for ${spec.imageLabels[image]}${stored}, of ${[spec.variants[0], spec.twins[0]].filter(Boolean).join(", ") || "the model"}.`);
  }
  const slider = make("input", { type: "range", min: "0", max: "1", step: "0.05", "aria-label": "Opacity of the map", oninput: () => setTraits(model, { opacity: Number(slider.value) }) });
  panel.append(make("div", {}, make("span", { class: "vm-label", "aria-hidden": "true" }, "Opacity of the map"), slider));
  follow.push(({ opacity }) => { slider.value = String(opacity); });
  return { panel, update: (state) => follow.forEach((one) => one(state)) };
}

/** @param {Model} model @param {Spec} spec @param {Data} data @returns {Part} */
export function imageStrip(model, spec, data) {
  const control = segments("Images", spec.imageLabels.map((label, index) => [index, label]), (image) => setTraits(model, { image, query: -1 }));
  const list = /** @type {HTMLElement} */ (control.panel.querySelector(".vm-segments"));
  list.className = "vm-strip";
  list.querySelectorAll("label").forEach((label, index) => {
    const thumb = canvas(116, Math.round((116 * spec.height) / spec.width), "vm-thumb");
    pen(thumb).drawImage(data.pictures[0][index], 0, 0, thumb.width, thumb.height);
    label.title = spec.imageLabels[index];
    label.replaceChildren(/** @type {HTMLElement} */ (label.querySelector("input")), thumb, make("span", {}, spec.imageLabels[index]));
  });
  control.panel.hidden = spec.imageLabels.length < 2;
  /** @type {number | null} */
  let shown = null;
  /** @param {State} state */
  const update = ({ image }) => {
    if (image !== shown) control.update(image);
    shown = image;
  };
  return { panel: control.panel, update };
}
