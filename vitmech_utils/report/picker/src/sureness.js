// Whether an answer without heads is exact or estimated, how far such estimates were off, and asking the model itself.

import { make, write } from "./elements.js";
import { pairsOf } from "./state.js";
import { known, plain } from "./text.js";
/** @import { Book, Without } from "./answers.js" */
/** @import { Model, Spec, State, Trial } from "./types.js" */

const PATIENCE = 120_000; // milliseconds until a kernel that says nothing is taken for gone

/**
 * The tried sets that are most like one of so many heads.
 * @param {Trial[]} tests @param {"shifts" | "slopes"} how @param {number} heads
 * @returns {Trial | null}
 */
export function nearestTrial(tests, how, heads) {
  /** @param {Trial} test */
  const distance = (test) => Math.abs(Math.log(test.heads / heads));
  return tests.filter((test) => test.how === how).sort((a, b) => distance(a) - distance(b))[0] ?? null;
}

/** @param {Book} book @param {number[]} values */
const perOutput = (book, values) => values.map((value, output) => `${plain(value)}\u00a0${book.answer.units[output]}`.trim()).join(", ");

/**
 * @param {Model} model @param {Spec} spec @param {Book} book
 * @returns {{ panel: HTMLElement, update: (state: State, without: Without) => void }}
 */
export function sureness(model, spec, book) {
  const mark = make("strong", { class: "vm-mark" });
  const words = make("span");
  const said = make("p", { class: "vm-aside", role: "status" });
  const ask = make("button", { class: "vm-button", type: "button", hidden: true }, "Compute it exactly");
  const panel = make("div", { class: "vm-sure-of" }, make("p", { class: "vm-aside" }, mark, words), ask, said, trialTable(book));
  /** @type {number[]} */
  let removed = [];
  let timer = 0;
  ask.addEventListener("click", () => {
    write(said, "Asking the model …");
    clearTimeout(timer);
    timer = window.setTimeout(() => write(said, "No answer came: is the notebook's kernel running? Run its cell again."), PATIENCE);
    model.send?.({ kind: "exact", off: pairsOf(spec, removed) });
  });
  model.on("msg:custom", (content) => {
    if (content?.kind !== "exact" && content?.kind !== "failed") return;
    clearTimeout(timer);
    write(said, content.kind === "failed" ? `The model could not be asked: ${content.error}` : "Computed by the model itself.");
  });

  /** @param {State} state @param {Without} without */
  function update(state, without) {
    removed = state.removed;
    const { how } = without;
    write(mark, how === "exact" ? "Exact" : how === "unknown" ? "Unknown" : "Estimated");
    write(words, `: ${howKnown(book, state, how)}`);
    mark.dataset.how = how;
    ask.hidden = how === "exact" || !model.get("_live");
    if (how !== "exact" && said.textContent === "Computed by the model itself.") write(said, "");
  }
  return { panel, update };
}

/** @param {Book} book @param {State} state @param {Without["how"]} how */
function howKnown(book, state, how) {
  const place = `each removed head's output is replaced by: ${book.answer.mode}`;
  if (!state.removed.length) return "all heads are on.";
  if (how === "exact") return `computed by the model without ${state.removed.length > 1 ? "these heads" : "this head"}; ${place}.`;
  if (how === "unknown") return "these heads were not ablated.";
  const sum = how === "shifts" ? "the exact shifts of single heads, added up" : "the slopes of the linearized model, added up";
  const test = nearestTrial(book.answer.tests, how, state.removed.length);
  const tried = test
    ? ` Where ${test.sets} sets of ${test.kind.replace("a whole layer", "a whole layer each")} were removed exactly, such sums were off by ${perOutput(book, test.off)}; the answer had moved by ${perOutput(book, test.moved)} (root mean squares over ${test.answers} answers).`
    : " How far such sums are off was not tried.";
  return `${sum}; ${place}.${tried}`;
}

/** @param {Book} book */
function trialTable(book) {
  const { tests, outputs, units } = book.answer;
  const head = ["sets", "sum of", "sets tried", ...outputs.map((name, output) => (units[output] ? `${name} (${units[output]})` : name))];
  const rows = tests.map((test) => make("tr", {},
    make("th", { scope: "row" }, test.kind),
    ...[test.how === "shifts" ? "exact shifts" : "slopes", String(test.sets), ...test.off.map((off, output) => (known(off) ? `${plain(off)} of ${plain(test.moved[output])}` : "unknown"))].map((text) => make("td", {}, text))));
  return make("details", { class: "vm-trials", hidden: !tests.length },
    make("summary", {}, "How far estimates were off"),
    make("p", { class: "vm-aside" }, "Root mean square of estimate minus exact answer, of that of the exact shift."),
    make("div", { class: "vm-scroll", tabindex: "0", role: "region", "aria-label": "How far estimates were off" }, make("table", { class: "vm-told" },
      make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows))));
}
