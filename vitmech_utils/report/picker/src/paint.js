// Pixels: the image below, the map above it.

import { HEAT_WORDS } from "./colours.js";
import { pen } from "./elements.js";
/** @import { Steps } from "./types.js" */

/**
 * Under a map the image is grey, so that colour always means attention. Baked in: a CSS filter would cost every frame.
 * @param {HTMLCanvasElement} photo @param {ImageBitmap} picture @param {boolean} grey
 */
export function paintPhoto(photo, picture, grey) {
  const context = pen(photo, { willReadFrequently: true });
  context.drawImage(picture, 0, 0, photo.width, photo.height);
  if (!grey) return;
  const pixels = context.getImageData(0, 0, photo.width, photo.height);
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) {
    const light = 0.2126 * data[at] + 0.7152 * data[at + 1] + 0.0722 * data[at + 2];
    data[at] = data[at + 1] = data[at + 2] = light;
  }
  context.putImageData(pixels, 0, 0);
}

/**
 * One pixel per patch; `top` gets the brightest colour.
 * @param {HTMLCanvasElement} heat @param {Steps} map @param {number} top
 */
export function paintHeat(heat, { steps, peak, levels }, top) {
  const context = pen(heat);
  const pixels = context.createImageData(heat.width, heat.height);
  const words = new Uint32Array(pixels.data.buffer);
  const factor = top > 0 ? ((peak / top) * 255) / (levels - 1) : 0;
  for (let index = 0; index < words.length; index += 1) words[index] = HEAT_WORDS[Math.min(255, Math.round(steps[index] * factor))];
  context.putImageData(pixels, 0, 0);
}

/**
 * Frame the patch that asks.
 * @param {HTMLElement} patch @param {[number, number]} cell @param {{ queryRows: number, queryColumns: number }} query
 */
export function placePatch(patch, [row, column], { queryRows, queryColumns }) {
  Object.assign(patch.style, {
    top: `${(100 * row) / queryRows}%`, left: `${(100 * column) / queryColumns}%`, height: `${100 / queryRows}%`, width: `${100 / queryColumns}%`,
  });
}
