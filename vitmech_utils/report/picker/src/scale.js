// The colour scale of the grid.

import { CLASSES, TABLES, UNKNOWN, both } from "./colours.js";
import { clamp, known, plain, signed } from "./text.js";
/** @import { Measure, Rgb, Themed } from "./types.js" */

/**
 * Where a value lies on the colour scale, 0 to 1, and the words at its start, middle and end.
 * @typedef {{ place: (value: number) => number, ticks: [string, string, string] }} Scale
 */

/**
 * @param {Measure} measure
 * @returns {Scale | null} null where there is nothing to scale
 */
export function gridScale(measure) {
  const values = measure.values.filter(known);
  if (measure.kind === "class" || measure.kind === "none" || !values.length) return null;
  if (measure.kind === "sequential") {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return { place: (value) => (value - low) / (high - low || 1), ticks: [plain(low, 3), plain((low + high) / 2, 3), plain(high, 3)] };
  }
  // Diverging scales are symmetric about "no effect" (0) or "as its area" (1); the largest 2 % may be clipped.
  /** @param {number} value */
  const size = (value) => (measure.kind === "log" ? Math.abs(Math.log2(Math.max(value, 1e-6))) : Math.abs(value));
  const sizes = values.map(size).sort((a, b) => a - b);
  const most = sizes[sizes.length - 1];
  const limit = clamp(sizes[Math.floor((sizes.length - 1) * 0.98)], 1e-9, measure.kind === "log" ? 6 : Infinity);
  const [below, above] = most > limit * 1.0001 ? ["≤ ", "≥ "] : ["", ""];
  if (measure.kind === "log") {
    const factor = 2 ** limit;
    return { place: (value) => 0.5 + Math.log2(Math.max(value, 1e-6)) / limit / 2, ticks: [`${below}${plain(1 / factor)}`, "1", `${above}${plain(factor)}`] };
  }
  return { place: (value) => 0.5 + value / limit / 2, ticks: [`${below}${plain(-limit)}`, "0", `${above}${signed(limit)}`] };
}

/**
 * The colour of a head.
 * @param {Measure} measure @param {Scale | null} scale @param {number} index
 * @returns {Themed<Rgb>}
 */
export function cellColour(measure, scale, index) {
  const value = measure.values[index];
  if (!known(value)) return both(UNKNOWN);
  if (measure.kind === "class") return both(CLASSES[value % CLASSES.length]);
  if (measure.kind === "none" || !scale) return both(UNKNOWN);
  const at = clamp(Math.round(scale.place(value) * 255), 0, 255);
  const [light, dark] = TABLES[measure.kind];
  return [light[at], dark[at]];
}

/**
 * Whether the interval of a head's value excludes 0.
 * @param {Measure} measure @param {number} index
 */
export function isSure({ low, high }, index) {
  const [from, to] = [low?.[index], high?.[index]];
  return known(from) && known(to) && from * to > 0;
}
