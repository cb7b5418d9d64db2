// Answers drawn over the image: the sweep that is there, the one that the model tells, and the one without some heads.

/** @import { Book } from "./answers.js" */
/** @import { State } from "./types.js" */

const SVG = "http://www.w3.org/2000/svg";
const LINES = /** @type {const} */ (["truth", "whole", "without"]);

/** @typedef {(typeof LINES)[number]} Line */

/**
 * Points of a sweep in parts of the image.
 * @param {import("./types.js").TrackSpec} tracks @param {number} image @param {readonly number[]} answer start time, start and end frequency
 * @returns {[number, number][]}
 */
export function trackPoints({ box, time, frequency, duration, exponential }, image, [start, low, high]) {
  const count = exponential[image] && low > 0 && high > 0 ? 24 : 1;
  return Array.from({ length: count + 1 }, (_, step) => {
    const part = step / count;
    const at = count > 1 ? low * (high / low) ** part : low + (high - low) * part;
    const right = (start + part * duration[image] - time[0]) / (time[1] - time[0]);
    const up = (at - frequency[0]) / (frequency[1] - frequency[0]);
    return [box[0] + right * (box[2] - box[0]), box[3] - up * (box[3] - box[1])];
  });
}

/** @param {Book} book */
export function trackLayer(book) {
  const layer = document.createElementNS(SVG, "svg");
  layer.setAttribute("class", "vm-tracks");
  layer.setAttribute("viewBox", "0 0 100 100");
  layer.setAttribute("preserveAspectRatio", "none");
  layer.setAttribute("aria-hidden", "true");
  const lines = LINES.map((name) => {
    const parts = ["vm-casing", `vm-${name}`].map((look) => {
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("class", look);
      return line;
    });
    layer.append(...parts);
    return parts;
  });
  /** @param {State} state @param {number} twin */
  const update = (state, twin) => {
    const { tracks, truth } = book.answer;
    layer.toggleAttribute("hidden", !tracks || !state.tracks || twin >= book.answer.twins);
    if (!tracks || layer.hasAttribute("hidden")) return;
    const told = truth?.[state.image];
    const without = book.without(twin, state.image, state.removed);
    const answers = [Array.isArray(told) ? told : null, book.whole(twin, state.image), without.how === "unknown" || !state.removed.length ? null : without.values];
    layer.classList.toggle("vm-rough", without.how !== "exact");
    answers.forEach((answer, index) => {
      const points = answer ? trackPoints(tracks, state.image, answer).map((point) => point.map((part) => (part * 100).toFixed(2)).join(",")).join(" ") : "";
      lines[index].forEach((line) => line.setAttribute("points", points));
    });
  };
  return { layer, update };
}
