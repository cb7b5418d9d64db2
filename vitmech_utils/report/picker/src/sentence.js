// The sentence above all, read out by screen readers when it changes.

import { patchName } from "./state.js";
import { known, percent, plain, signed, withUnit } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Spec, State } from "./types.js" */

/** @param {Spec} spec @param {State} state @param {Reader} read @returns {[string, string]} the head, and what is known of it */
export function summary(spec, state, read) {
  const parts = [];
  const effect = spec.measures.find(({ key }) => key === "effect");
  const kind = spec.classes?.values[state.index];
  if (spec.classes && known(kind)) parts.push(`class ${spec.classes.names[kind]}`);
  if (effect) {
    const [low, high] = [effect.low?.[state.index], effect.high?.[state.index]];
    const interval = known(low) && known(high) ? ` [${signed(low, 3)}, ${signed(high, 3)}]` : "";
    parts.push(`${effect.label} ${withUnit(effect, effect.values[state.index])}${interval}`);
  }
  if (spec.shares) {
    const variant = Math.max(state.variant, 0);
    const shares = spec.regions.map((_, region) => read.share(state, region, variant) ?? 0);
    const areas = spec.regions.map((_, region) => read.area(state, region) ?? 0);
    const lifts = shares.map((share, region) => (areas[region] > 0 ? share / areas[region] : 0));
    const top = lifts.indexOf(Math.max(...lifts));
    const most = shares.indexOf(Math.max(...shares));
    if (lifts[top] > 0) parts.push(`drawn most to ${spec.regions[top]}, ${percent(shares[top])} of its attention on ${percent(areas[top])} of the area (${plain(lifts[top])}\u00a0×)`);
    else parts.push(`most attention on ${spec.regions[most]}, ${percent(shares[most])}`);
  }
  if (read.asksPatch(state, 0, 0)) parts.push(`the map is seen from the patch in ${patchName(state.query, spec)}`);
  return [`Layer ${state.layer + 1}, head ${state.head + 1}`, parts.length ? `: ${parts.join("; ")}.` : "."];
}
