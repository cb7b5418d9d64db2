// What the model answers with all heads, and without some: exact where it was computed, else a sum of single shifts.

import { known } from "./text.js";
/** @import { AnswerSpec, Data, Spec } from "./types.js" */

/**
 * An answer without some heads. `how` says where it comes from: "exact", sums of exact "shifts" of single heads or of
 * linearized "slopes", or "unknown" (then values are NaN).
 * @typedef {{ values: number[], how: "exact" | "shifts" | "slopes" | "unknown" }} Without
 *
 * @typedef {ReturnType<typeof answerBook>} Book
 */

/** @param {number[]} heads */
const keyOf = (heads) => [...heads].sort((a, b) => a - b).join(",");

/**
 * All answers of a picker that has them.
 * @param {Spec} spec @param {AnswerSpec} answer @param {Float32Array} numbers
 */
export function answerBook(spec, answer, numbers) {
  const [images, heads, outputs] = [spec.imageLabels.length, spec.layers * spec.heads, answer.outputs.length];
  const singles = answer.twins * images * outputs; // where `without` begins
  const slopes = singles + singles * heads;
  const sets = slopes + singles * heads;
  /** @type {Map<string, (twin: number, image: number) => number[]>} */
  const exact = new Map();
  answer.sets.forEach((set, index) => exact.set(keyOf(set), (twin, image) => at(sets + index * singles, twin * images + image)));

  /** @param {number} start @param {number} row @returns {number[]} */
  const at = (start, row) => Array.from(numbers.subarray(start + row * outputs, start + (row + 1) * outputs));
  /** @param {number} twin @param {number} image */
  const whole = (twin, image) => at(0, twin * images + image);

  /**
   * How far one head's removal moves the answer; null where the model has no such head.
   * @param {number} twin @param {number} image @param {number} head
   * @returns {{ values: number[], how: "shifts" | "slopes" } | null}
   */
  const shift = (twin, image, head) => {
    const row = (twin * images + image) * heads + head;
    const without = at(singles, row);
    if (without.every(known)) {
      const all = whole(twin, image);
      return { values: without.map((value, output) => value - all[output]), how: "shifts" };
    }
    const slope = at(slopes, row);
    return slope.every(known) ? { values: slope, how: "slopes" } : null;
  };

  /** @param {number} twin @param {number} image @param {number[]} set @returns {Without} */
  const without = (twin, image, set) => {
    const all = whole(twin, image);
    if (!set.length) return { values: all, how: "exact" };
    const stored = exact.get(keyOf(set))?.(twin, image);
    if (stored?.every(known)) return { values: stored, how: "exact" };
    const shifts = set.map((head) => shift(twin, image, head)).filter((one) => one !== null);
    if (!shifts.length) return { values: all.map(() => NaN), how: "unknown" };
    const values = all.map((value, output) => shifts.reduce((sum, one) => sum + one.values[output], value));
    const sums = shifts.every(({ how }) => how === "shifts") ? "shifts" : "slopes";
    return { values, how: set.length === 1 && sums === "shifts" ? "exact" : sums };
  };

  /**
   * The task's loss: the mean squared error in standard deviations, or the cross-entropy in nats; null without truth.
   * @param {number[]} values @param {number} image @returns {number | null}
   */
  const loss = (values, image) => {
    const truth = answer.truth?.[image];
    if (truth === undefined || !values.every(known)) return null;
    if (typeof truth === "number") return -Math.log(shares(values)[truth]);
    return values.reduce((sum, value, output) => sum + ((value - truth[output]) / answer.scale[output]) ** 2, 0) / outputs;
  };

  /** @param {number} twin @param {number[]} set @returns {{ loss: number | null, exact: boolean }} the mean over all images */
  const meanLoss = (twin, set) => {
    let [sum, sure] = [0, true];
    for (let image = 0; image < images; image += 1) {
      const { values, how } = without(twin, image, set);
      const own = loss(values, image);
      if (own === null) return { loss: null, exact: false };
      sum += own;
      sure &&= how === "exact";
    }
    return { loss: sum / images, exact: sure };
  };

  /**
   * How far a head moves the answer to one image, in the labels' standard deviations (root mean square over outputs).
   * @param {number} twin @param {number} image @param {number} head @returns {number | null}
   */
  const size = (twin, image, head) => {
    const found = shift(twin, image, head);
    if (!found) return null;
    return Math.sqrt(found.values.reduce((sum, value, output) => sum + (value / answer.scale[output]) ** 2, 0) / outputs);
  };

  /** @param {number[]} set @param {number[][][]} answers by twin, image and output: exact, from the model itself */
  const learn = (set, answers) => { exact.set(keyOf(set), (twin, image) => answers[twin][image]); };

  /** @param {number} twin */
  const twinOf = (twin) => (twin >= 0 && twin < answer.twins ? twin : 0);
  return { answer, whole, without, shift, loss, meanLoss, size, learn, twinOf };
}

/** @param {number[]} logits @returns {number[]} the classes' probabilities */
export function shares(logits) {
  const most = Math.max(...logits);
  const parts = logits.map((value) => Math.exp(value - most));
  const sum = parts.reduce((total, part) => total + part, 0);
  return parts.map((part) => part / sum);
}

/** @param {Spec} spec @param {Data} data @returns {Book | null} */
export const openBook = (spec, data) => (spec.answer && data.answer ? answerBook(spec, spec.answer, data.answer) : null);
