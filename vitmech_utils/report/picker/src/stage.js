// Middle: the maps over the image, one panel per shown model and twin.

import { TABLES } from "./colours.js";
import { imageStrip } from "./controls.js";
import { make, write } from "./elements.js";
import { buildFrame } from "./frame.js";
import { rampLegend } from "./legends.js";
import { percent } from "./text.js";
/** @import { Frame } from "./frame.js" */
/** @import { Reader } from "./state.js" */
/** @import { Data, Model, Part, ShownMap, Spec, State } from "./types.js" */

const MAP_HINT = "Point at the map to read a patch.";

/** @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @returns {Part} */
export function buildStage(model, spec, data, read) {
  const panels = make("div", { class: "vm-panels" });
  const ramp = rampLegend(TABLES.heat, ["", "", ""]);
  const uniform = make("div", { class: "vm-uniform" });
  ramp.querySelector(".vm-ramp")?.append(uniform);
  const ticks = ramp.querySelectorAll(".vm-ticks span");
  const unit = make("div", {}, "");
  const readout = make("div", { class: "vm-readout", "aria-hidden": "true" }, MAP_HINT);
  const strip = imageStrip(model, spec, data);
  const panel = make("div", { class: "vm-stage" }, panels, make("div", { class: "vm-legend" }, ramp, unit), readout, strip.panel);
  /** @type {Frame[]} */
  let frames = [];
  let layout = "";

  /** @param {State} state */
  function update(state) {
    const shown = read.panels(state);
    if (layout !== shown.join(";")) {
      frames = shown.map(([twin, variant]) => buildFrame(model, spec, data, read, { twin, variant }, (text) => write(readout, text || MAP_HINT)));
      panels.replaceChildren(...frames.map(({ figure }) => figure));
      panels.dataset.count = String(shown.length);
      layout = shown.join(";");
    }
    const maps = shown.map(([twin, variant]) => /** @type {ShownMap} */ (read.map(state, twin, variant))); // stored: it is the picked head's
    const tops = maps.map(({ peak }) => (state.shared ? spec.sharedMaximum : peak));
    frames.forEach((frame, index) => frame.update(state, maps[index], tops[index]));
    updateLegend(state, maps, tops);
    strip.update(state);
  }

  /** @param {State} state @param {ShownMap[]} maps @param {number[]} tops */
  function updateLegend(state, maps, tops) {
    const alike = state.shared || maps.length === 1;
    const even = 1 / (maps[0].rows * maps[0].columns);
    write(ticks[0], "0");
    write(ticks[1], alike ? percent(tops[0] / 2) : "half");
    write(ticks[2], alike ? (state.shared ? "≥ " : "") + percent(tops[0]) : "each map's own maximum");
    uniform.hidden = !alike || even > tops[0];
    uniform.style.left = `${(100 * even) / tops[0]}%`;
    write(unit, `attention per patch${alike ? `; the mark is uniform attention, ${percent(even)}` : ""}`);
  }
  return { panel, update };
}
