// What the model answers, beside the truth and its answer without the picked or switched-off heads: numbers or bars.

import { shares } from "./answers.js";
import { make, write } from "./elements.js";
import { sureness } from "./sureness.js";
import { headName, setTraits, shortName } from "./state.js";
import { clamp, known, percent, plain, signed } from "./text.js";
/** @import { Book, Without } from "./answers.js" */
/** @import { Reader } from "./state.js" */
/** @import { Model, Part, Spec, State } from "./types.js" */

export const NAMED = 3; // heads that are named one by one, at most

/** @param {Spec} spec @param {State} state @returns {string} the heads that are taken away, in words */
export function removedName(spec, state) {
  if (!state.removed.length) return "no head off";
  if (state.mode === "pick") return headName(state);
  const names = state.removed.slice(0, NAMED).map((index) => shortName(spec, index)).join(", ");
  return state.removed.length <= NAMED ? names : `${state.removed.length} heads`;
}

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
export function buildAnswer(model, spec, read) {
  const { book } = read;
  if (!book) return { panel: make("div", { hidden: true }), update: () => {} };
  const title = make("div", { class: "vm-label" });
  const table = book.answer.kind === "classes" ? classTable(book) : numberTable(book);
  const loss = make("p", { class: "vm-aside vm-loss" });
  const sure = sureness(model, spec, book);
  const panel = make("div", { class: "vm-answer", role: "group", "aria-label": "The model's answer" }, title, table.panel, loss, sure.panel);
  if (book.answer.tracks) panel.append(trackKey(model));
  const box = panel.querySelector("input");

  /** @param {State} state */
  function update(state) {
    const twin = book ? book.twinOf(state.twin) : 0;
    if (!book) return;
    const without = book.without(twin, state.image, state.removed);
    const whose = [spec.variants[0], spec.twins[twin], spec.imageLabels[state.image]].filter(Boolean).join(", ");
    write(title, `The answer to ${whose}`);
    table.update(state, twin, without, `without ${removedName(spec, state)}`);
    write(loss, lossText(book, state, twin, without));
    sure.update(state, without);
    if (box) box.checked = state.tracks;
  }
  return { panel, update };
}

/** @param {Book} book */
function numberTable(book) {
  const { outputs, units } = book.answer;
  const last = make("th", { scope: "col" });
  const rows = outputs.map((name, output) => {
    const cells = ["vm-truth", "vm-whole", "vm-without", "vm-moved"].map((look) => make("td", { class: look }));
    return { cells, row: make("tr", {}, make("th", { scope: "row" }, units[output] ? `${name} (${units[output]})` : name), ...cells) };
  });
  const panel = make("table", { class: "vm-told" },
    make("thead", {}, make("tr", {}, make("td"), make("th", { scope: "col" }, "truth"), make("th", { scope: "col" }, "model"), last, make("th", { scope: "col" }, "shift"))),
    make("tbody", {}, ...rows.map(({ row }) => row)));
  /** @param {State} state @param {number} twin @param {Without} without @param {string} name */
  const update = (state, twin, without, name) => {
    write(last, without.how === "exact" ? name : `${name} (estimated)`);
    const truth = book.answer.truth?.[state.image];
    const whole = book.whole(twin, state.image);
    rows.forEach(({ cells }, output) => {
      const moved = without.values[output] - whole[output];
      const told = [Array.isArray(truth) ? plain(truth[output], 3) : "unknown", plain(whole[output], 3), plain(without.values[output], 3), signed(moved)];
      cells.forEach((cell, index) => write(cell, told[index]));
    });
  };
  return { panel, update };
}

/** @param {Book} book */
function classTable(book) {
  const rows = book.answer.outputs.map((name) => {
    const [fill, tick, text] = [make("i"), make("b"), make("span", { class: "vm-number" })];
    const label = make("span", {}, name);
    return { fill, tick, text, label, bar: make("div", { class: "vm-bar" }, label, text, make("div", { class: "vm-track", "aria-hidden": "true" }, fill, tick)) };
  });
  const key = make("div", { class: "vm-aside" });
  const panel = make("div", {}, make("div", { class: "vm-bars" }, ...rows.map(({ bar }) => bar)), key);
  /** @param {State} state @param {number} twin @param {Without} without @param {string} name */
  const update = (state, twin, without, name) => {
    const logits = book.whole(twin, state.image);
    const [before, after] = [shares(logits), shares(without.values)];
    write(key, `Bar: the probability ${name}${without.how === "exact" ? "" : " (estimated)"}; mark: with all heads. In brackets the logits.`);
    rows.forEach(({ fill, tick, text, label }, output) => {
      fill.style.transform = `scaleX(${known(after[output]) ? clamp(after[output], 0, 1) : 0})`;
      tick.style.transform = `translateX(${clamp(before[output], 0, 1) * 100}%)`;
      write(label, `${book.answer.outputs[output]}${book.answer.truth?.[state.image] === output ? " (true)" : ""}`);
      write(text, `${percent(before[output])} → ${percent(after[output])} (${plain(logits[output])} → ${plain(without.values[output])})`);
    });
  };
  return { panel, update };
}

/** @param {Book} book @param {State} state @param {number} twin @param {Without} without */
function lossText(book, state, twin, without) {
  const before = book.loss(book.whole(twin, state.image), state.image);
  const after = book.loss(without.values, state.image);
  if (!known(before)) return "";
  const unit = book.answer.kind === "classes" ? "nats" : "squared standard deviations";
  const [all, rest] = [book.meanLoss(twin, []), book.meanLoss(twin, state.removed)];
  const grown = known(all.loss) && known(rest.loss) && all.loss > 0 ? ` (${signed((100 * rest.loss) / all.loss - 100, 3)}\u00a0%)` : "";
  const over = known(rest.loss) ? `; over all images shown here ${plain(all.loss)} → ${plain(rest.loss)}${grown}${rest.exact ? "" : ", estimated"}` : "";
  return `Error on this image ${plain(before)} → ${plain(after)} ${unit}${over}.`;
}

/** @param {Model} model what the lines over the image mean, and whether they are drawn */
function trackKey(model) {
  const box = make("input", { type: "checkbox", onchange: () => setTraits(model, { tracks: box.checked }) });
  const keys = [["truth", "truth"], ["whole", "model"], ["without", "without heads"]].map(([name, text]) => make("span", {}, make("i", { class: `vm-line vm-${name}`, "aria-hidden": "true" }), text));
  return make("div", { class: "vm-aside" },
    make("div", { class: "vm-keys" }, ...keys, make("label", { class: "vm-check" }, box, "draw them over the image")),
    make("div", {}, "The model tells no duration: all three are drawn with the true one."));
}
