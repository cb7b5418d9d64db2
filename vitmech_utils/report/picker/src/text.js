// Numbers as text.

/** @import { Measure } from "./types.js" */

/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/**
 * @param {number | null | undefined} value
 * @returns {value is number}
 */
export const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/**
 * A number with so many significant digits, at most 6 decimals.
 * @param {number | null | undefined} value
 */
export function plain(value, digits = 2) {
  if (!known(value)) return "unknown";
  if (value === 0) return "0";
  const places = clamp(digits - 1 - Math.floor(Math.log10(Math.abs(value))), 0, 6);
  return value.toFixed(places).replace("-", "\u2212");
}

/** @param {number | null | undefined} value */
export const signed = (value, digits = 2) => (known(value) && value > 0 ? "+" : "") + plain(value, digits);

/** @param {number | null | undefined} share */
export const percent = (share) => (known(share) ? `${plain(share * 100, share < 0.1 ? 2 : 3)}\u00a0%` : "unknown");

/** @param {Measure} measure @param {number | null | undefined} value */
export function withUnit(measure, value) {
  if (!known(value)) return "unknown";
  if (measure.kind === "log") return `${plain(value)}\u00a0${measure.unit}`;
  return `${measure.kind === "diverging" ? signed(value, 3) : plain(value, 3)}\u00a0${measure.unit}`.trim();
}
