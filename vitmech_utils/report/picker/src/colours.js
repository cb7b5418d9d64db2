// Colours: control points of colour-blind-safe maps, tables of them, and ink that can be read on them.

/** @import { Rgb, Themed } from "./types.js" */

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const BLUE_ORANGE = ["#0b3c6f", "#2f6fae", "#7fb2d8", "#c9dfee", "#f4f2ee", "#f6d2ab", "#e39a55", "#b75d17", "#6d2f04"];
const BLUE_ORANGE_DARK = ["#93cbfa", "#5f9fd8", "#3a6f9f", "#2f4a61", "#30333a", "#553f2b", "#8f5e2d", "#d18f43", "#ffc67f"];
export const CLASSES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7a7a7a"]; // Okabe and Ito
export const UNKNOWN = "#b9b9b5";

/**
 * The same colour on light and dark pages.
 * @param {string} hex
 * @returns {Themed<Rgb>}
 */
export const both = (hex) => [channels(hex), channels(hex)];

/** @param {string} hex @returns {Rgb} */
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/**
 * 256 colours between control points.
 * @param {string[]} stops
 * @returns {Rgb[]}
 */
function colourTable(stops) {
  const points = stops.map(channels);
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (points.length - 1);
    const low = Math.min(Math.floor(place), points.length - 2);
    return points[low].map((value, channel) => Math.round(value + (points[low + 1][channel] - value) * (place - low)));
  });
}

/** @param {string[]} stops @returns {Themed<Rgb[]>} */
const same = (stops) => [colourTable(stops), colourTable(stops)];
/** @type {Themed<Rgb[]>} Diverging maps have their middle near the page's own colour. */
const DIVERGING = [colourTable(BLUE_ORANGE), colourTable(BLUE_ORANGE_DARK)];
export const TABLES = { heat: same(CIVIDIS), sequential: same(VIRIDIS), diverging: DIVERGING, log: DIVERGING };

// One 32-bit word per colour (little-endian RGBA), so that a map is painted by one table look-up per patch.
// Weak attention covers less than strong: alpha rises from 0.4 to 1, times the chosen opacity.
export const HEAT_WORDS = Uint32Array.from(TABLES.heat[0], ([r, g, b], index) => ((Math.round(102 + (153 * index) / 255) << 24) | (b << 16) | (g << 8) | r) >>> 0);

/** @param {Rgb} colour */
export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/**
 * A CSS value that follows the page's theme.
 * @param {Themed<Rgb>} colours
 * @param {(colour: Rgb) => string} [text]
 */
export const themed = ([light, dark], text = css) => `light-dark(${text(light)}, ${text(dark)})`;

/** @param {Themed<Rgb[]>} table */
export const gradient = ([light, dark]) => `linear-gradient(to right, ${[0, 32, 64, 96, 128, 160, 192, 224, 255].map((at) => themed([light[at], dark[at]])).join(", ")})`;

/**
 * Black or white, whichever can be read on a colour.
 * @param {Rgb} colour
 */
export function inkOn(colour) {
  const linear = colour.map((value) => ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.2 ? "#101216" : "#ffffff";
}
