// Swatches and legends.

import { CLASSES, TABLES, UNKNOWN, both, gradient, inkOn, themed } from "./colours.js";
import { make } from "./elements.js";
import { known } from "./text.js";
/** @import { Scale } from "./scale.js" */
/** @import { Classes, Measure, Rgb, Themed } from "./types.js" */

/** @param {Classes} classes @param {number} value */
export const initial = (classes, value) => (classes.names[value].trim()[0] ?? "?").toUpperCase();

/** @param {HTMLElement} element @param {Themed<Rgb>} colours */
export function tint(element, colours) {
  element.style.background = themed(colours);
  element.style.color = themed(colours, inkOn);
}

/** @param {Themed<Rgb>} colour @param {string} text */
export function swatch(colour, text) {
  const element = make("i", { class: "vm-swatch", "aria-hidden": "true" }, text);
  tint(element, colour);
  return element;
}

/** @param {Classes} classes @param {number} value */
export const classSwatch = (classes, value) => swatch(both(CLASSES[value % CLASSES.length]), initial(classes, value));

/**
 * What the colours of the grid mean.
 * @param {Measure} measure @param {Scale | null} scale @param {Classes | undefined} classes
 */
export function gridLegend(measure, scale, classes) {
  if (measure.kind === "class" && classes) {
    const keys = classes.names.map((name, value) => make("span", {}, classSwatch(classes, value), name));
    return [make("div", { class: "vm-keys" }, ...keys)];
  }
  if (!scale || measure.kind === "none" || measure.kind === "class") return [];
  const parts = [rampLegend(TABLES[measure.kind], scale.ticks), make("div", {}, [measure.label, measure.unit].filter(Boolean).join(", "))];
  if (measure.low) parts.push(make("div", {}, "A dot: the interval excludes 0."));
  if (measure.values.some((value) => !known(value))) parts.push(make("div", { class: "vm-keys" }, make("span", {}, swatch(both(UNKNOWN), ""), "unknown")));
  return parts;
}

/** @param {Themed<Rgb[]>} table @param {string[]} ticks */
export function rampLegend(table, ticks) {
  const ramp = make("div", { class: "vm-ramp", "aria-hidden": "true" });
  ramp.style.background = gradient(table);
  return make("div", {}, ramp, make("div", { class: "vm-ticks" }, ...ticks.map((tick) => make("span", {}, tick))));
}
