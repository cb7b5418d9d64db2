// The sentence above all, read out by screen readers when it changes.

import { removedName } from "./answer.js";
import { patchName } from "./state.js";
import { known, percent, plain, signed, withUnit } from "./text.js";
/** @import { Book } from "./answers.js" */
/** @import { Reader } from "./state.js" */
/** @import { Spec, State } from "./types.js" */

/** @param {Book} book @param {Spec} spec @param {State} state how far the answer moves */
function movedText(book, spec, state) {
  const twin = book.twinOf(state.twin);
  const { values, how } = book.without(twin, state.image, state.removed);
  const whole = book.whole(twin, state.image);
  if (!state.removed.length || how === "unknown") return state.removed.length ? "no answer without it is known" : "no head is switched off";
  const far = values.map((value, output) => Math.abs(value - whole[output]) / book.answer.scale[output]);
  const top = far.indexOf(Math.max(...far));
  const name = state.mode === "pick" ? "without it" : `without ${removedName(spec, state)}`;
  return `${name} the ${book.answer.outputs[top]} moves by ${signed(values[top] - whole[top])}\u00a0${book.answer.units[top]}${how === "exact" ? "" : " (estimated)"}`.trim();
}

/** @param {Spec} spec @param {State} state @param {Reader} read @returns {[string, string]} the head, and what is known of it */
export function summary(spec, state, read) {
  const parts = [];
  const effect = spec.measures.find(({ key }) => key === "effect");
  const kind = spec.classes?.values[state.index];
  if (spec.classes && known(kind) && !state.patch) parts.push(`class ${spec.classes.names[kind]}`);
  if (effect) {
    const [low, high] = [effect.low?.[state.index], effect.high?.[state.index]];
    const interval = known(low) && known(high) ? ` [${signed(low, 3)}, ${signed(high, 3)}]` : "";
    parts.push(`${effect.label} ${withUnit(effect, effect.values[state.index])}${interval}`);
  }
  const told = spec.regions.map((_, region) => read.share(state, region));
  if (told.some(known)) {
    const shares = told.map((share) => share ?? 0);
    /** @param {number} region */
    const unmixed = (region) => { const alone = read.unmixed(state, region); return known(alone) ? `, unmixed ${percent(alone)}` : ""; };
    const areas = spec.regions.map((_, region) => read.area(state, region) ?? 0);
    const lifts = shares.map((share, region) => (areas[region] > 0 ? share / areas[region] : 0));
    const top = lifts.indexOf(Math.max(...lifts));
    const most = shares.indexOf(Math.max(...shares));
    if (lifts[top] > 0) parts.push(`drawn most to ${spec.regions[top]}, raw share ${percent(shares[top])} on ${percent(areas[top])} of the area (${plain(lifts[top])}\u00a0×)${unmixed(top)}`);
    else parts.push(`most attention on ${spec.regions[most]}, raw share ${percent(shares[most])}${unmixed(most)}`);
  }
  if (state.patch) parts.unshift(`as the patch in ${patchName(state.query, spec)} sees it`);
  if (read.book) parts.push(movedText(read.book, spec, state));
  return [`Layer ${state.layer + 1}, head ${state.head + 1}`, parts.length ? `: ${parts.join("; ")}.` : "."];
}
