// The head picker: one front-end for JupyterLab (an anywidget module) and for static pages.
// All state is in the model's traits; layers, heads, images and patches are 0-based there and 1-based on the screen.

import { loadData } from "./chunks.js";
import { buildControls } from "./controls.js";
import { downloadButtons } from "./downloads.js";
import { make, write } from "./elements.js";
import { buildFacts } from "./facts.js";
import { buildGrid } from "./grid.js";
import { followLinks } from "./links.js";
import { buildList } from "./list.js";
import { buildMosaic } from "./mosaic.js";
import { buildPins } from "./pins.js";
import { summary } from "./sentence.js";
import { buildStage } from "./stage.js";
import { TRAITS, reader } from "./state.js";
import { buildSwitches } from "./switches.js";
/** @import { Model, Spec } from "./types.js" */

/**
 * Show the picker in an element; returns how to stop following the model.
 * @param {{ model: Model, el: HTMLElement }} given
 */
export async function render({ model, el }) {
  /** @type {Spec} */
  const spec = model.get("_spec");
  const root = make("div", { class: "vm-picker", role: "group", "aria-label": spec.title });
  let data;
  try {
    data = await loadData(model, spec);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    root.append(make("p", { class: "vm-error", role: "alert" }, `The head picker cannot be shown here: ${reason}`));
    el.append(root);
    return undefined;
  }
  const read = reader(model, spec, data);
  const sentence = make("p", { class: "vm-summary", "aria-live": "polite" }, make("strong"), make("span"));
  const [grid, switches] = [buildGrid(model, spec, read), buildSwitches(model, spec, read)];
  const [maps, pins] = [buildMosaic(model, spec, read), buildPins(model, spec, data, read)];
  grid.panel.append(switches.panel);
  maps.panel.lastElementChild?.append(pins.panel);
  const parts = [grid, buildList(model, spec, read), buildStage(model, spec, data, read), buildControls(model, spec), buildFacts(model, spec, read), maps];
  const head = make("div", { class: "vm-head" }, make("div", { class: "vm-title", role: "heading", "aria-level": "2" }, spec.title));
  root.append(make("div", { class: "vm-card" }, head, sentence, make("div", { class: "vm-body" }, ...parts.map(({ panel }) => panel)), downloadButtons(root, spec, read)));
  parts.push(switches, pins);
  let waiting = false;
  const update = () => {
    waiting = false;
    const state = read.pick();
    parts.forEach((part) => part.update(state));
    summary(spec, state, read).forEach((text, index) => write(sentence.children[index], text));
  };
  // Several traits set together paint once, still before the next frame.
  const soon = () => {
    if (!waiting) queueMicrotask(update);
    waiting = true;
  };
  /** @param {any} content what Python sends: exact answers that the page asked for */
  const heard = (content) => {
    if (content?.kind !== "exact" || !read.book) return;
    read.book.learn(content.off.map((/** @type {[number, number]} */ [layer, number]) => layer * spec.heads + number), content.answers);
    soon();
  };
  update();
  el.append(root);
  TRAITS.forEach((trait) => model.on(`change:${trait}`, soon));
  model.on("msg:custom", heard);
  return () => {
    TRAITS.forEach((trait) => model.off(`change:${trait}`, soon));
    model.off("msg:custom", heard);
  };
}

/** @param {Record<string, any>} state @returns {Model} a model of a page without a kernel */
function staticModel(state) {
  /** @type {Map<string, ((...given: any[]) => void)[]>} */
  const listeners = new Map();
  return {
    get: (trait) => state[trait],
    set(trait, value) {
      if (state[trait] === value) return;
      state[trait] = value;
      listeners.get(`change:${trait}`)?.forEach((listener) => listener());
    },
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: (event, listener) => listeners.set(event, (listeners.get(event) ?? []).filter((other) => other !== listener)),
    save_changes: () => {},
  };
}

/**
 * Static pages call this with the id of the element that holds the state and the fallback.
 * @param {string} id
 */
export async function mountStatic(id) {
  const host = document.getElementById(id);
  const state = host?.querySelector("script[data-vm-state]")?.textContent;
  if (!host || !state) return;
  const model = staticModel(JSON.parse(state));
  const place = make("div");
  await render({ model, el: place });
  if (!place.querySelector(".vm-card")) { // the reason, above the fallback
    host.prepend(place);
    return;
  }
  host.querySelector(".vm-picker")?.replaceWith(place);
  followLinks(model, model.get("_spec"), host);
}

export default { render };
