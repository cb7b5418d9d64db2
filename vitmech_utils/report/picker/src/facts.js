// Right: what is known of the picked head.

import { buildAnswer } from "./answer.js";
import { make, write } from "./elements.js";
import { classSwatch } from "./legends.js";
import { regionBars } from "./regions.js";
import { known, signed, withUnit } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Model, Part, Spec, State } from "./types.js" */

const OF_CLS = "Its class and evidence speak of the CLS query: return to it to read them.";

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
export function buildFacts(model, spec, read) {
  const name = make("div", { class: "vm-name", role: "heading", "aria-level": "3" });
  const kind = make("div", { class: "vm-class", hidden: !spec.classes });
  const evidence = make("p", { class: "vm-evidence", hidden: !spec.evidence });
  const effect = effectFact(spec);
  const bars = regionBars(spec, read);
  const origin = make("div", { class: "vm-aside", hidden: !spec.origin });
  const answer = buildAnswer(model, spec, read);
  const panel = make("div", { class: "vm-facts" }, make("div", {}, name, answer.panel), make("div", {}, kind, evidence, origin, effect.panel), bars.panel);
  /** @param {State} state */
  function update(state) {
    write(name, `Layer ${state.layer + 1} · head ${state.head + 1}`);
    const value = spec.classes?.values[state.index];
    if (spec.classes && known(value)) kind.replaceChildren(classSwatch(spec.classes, value), spec.classes.names[value]);
    else kind.replaceChildren("no class");
    kind.hidden = !spec.classes || state.patch;
    const said = spec.evidence?.[state.index] ?? "";
    write(evidence, state.patch ? OF_CLS : said && spec.mostShares ? `${said} (shares of regions: unmixed, means over all images measured)` : said);
    evidence.hidden = !spec.evidence;
    const from = spec.origin?.values[state.index];
    write(origin, `Origin: ${spec.origin && known(from) ? spec.origin.names[from] : "unknown"}`);
    answer.update(state);
    effect.update(state);
    bars.update(state);
  }
  return { panel, update };
}

/** @param {Spec} spec @returns {Part} the effect with its interval, on the scale of all heads */
function effectFact(spec) {
  const measure = spec.measures.find(({ key }) => key === "effect");
  const panel = make("div", { class: "vm-effect", hidden: !measure });
  if (!measure) return { panel, update: () => {} };
  const value = make("span", { class: "vm-value" });
  const interval = make("span", { class: "vm-aside" });
  const [zero, span, dot] = ["vm-zero", "vm-span", "vm-dot"].map((name) => make("div", { class: name }));
  const forest = make("div", { class: "vm-forest", "aria-hidden": "true" }, zero, span, dot);
  panel.append(make("div", { class: "vm-label" }, spec.variants.length > 1 ? `${measure.label} (${spec.variants[0]})` : measure.label), make("div", {}, value, " ", interval), forest);
  const all = [...measure.values, ...(measure.low ?? []), ...(measure.high ?? []), 0].filter(known);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  /** @param {number} number */
  const place = (number) => 2 + (96 * (number - low)) / (high - low || 1);
  /** @param {HTMLElement} element @param {number} number */
  const at = (element, number) => { element.style.left = `${place(number)}%`; };
  at(zero, 0);
  panel.append(make("div", { class: "vm-aside" }, "Of the whole head, whichever token asks. Scale: all heads; the line is 0."));
  /** @param {State} state */
  function update({ index }) {
    if (!measure) return;
    const [mean, from, to] = [measure.values[index], measure.low?.[index], measure.high?.[index]];
    write(value, withUnit(measure, mean));
    write(interval, known(from) && known(to) ? `[${signed(from, 3)}, ${signed(to, 3)}]` : "");
    span.hidden = !known(from) || !known(to);
    dot.hidden = !known(mean);
    if (known(from) && known(to)) { at(span, from); span.style.width = `${place(to) - place(from)}%`; }
    if (known(mean)) at(dot, mean);
  }
  return { panel, update };
}
