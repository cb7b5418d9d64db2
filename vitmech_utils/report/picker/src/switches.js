// Switching heads off: one by one, by layer, column, class, origin or region, or all.

import { NAMED, removedName } from "./answer.js";
import { segments } from "./controls.js";
import { make, write } from "./elements.js";
import { pairsOf, setTraits } from "./state.js";
/** @import { Reader } from "./state.js" */
/** @import { Model, Part, Spec, State } from "./types.js" */

/**
 * Off where any of these heads is on, else on again.
 * @param {number[]} off @param {number[]} heads @returns {number[]}
 */
export function toggled(off, heads) {
  const all = heads.every((head) => off.includes(head));
  return all ? off.filter((head) => !heads.includes(head)) : [...new Set([...off, ...heads])];
}

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
export function buildSwitches(model, spec, read) {
  const panel = make("div", { class: "vm-switches", hidden: !read.book });
  if (!read.book) return { panel, update: () => {} };
  const mode = segments("A click on a head", [["pick", "looks at it"], ["off", "switches it off"]], (value) => setTraits(model, { mode: value }));
  const groups = groupsOf(spec, read);
  const choose = make("select", { "aria-label": "Switch a group of heads off, or on again" }, make("option", { value: "" }, "Switch a group …"));
  groups.forEach(({ name }, index) => choose.append(make("option", { value: String(index) }, name)));
  choose.addEventListener("change", () => {
    const group = groups[Number(choose.value)];
    const wanted = choose.value;
    choose.value = "";
    if (wanted === "") return;
    setTraits(model, { off: pairsOf(spec, toggled(read.pick().off, group.heads(read.pick()))) });
  });
  const clear = make("button", { class: "vm-button", type: "button", onclick: () => setTraits(model, { off: [] }) }, "All on");
  const count = make("p", { class: "vm-aside" });
  const rest = make("div", {}, choose, clear, count);
  panel.append(mode.panel, rest);
  /** @param {State} state */
  function update(state) {
    mode.update(state.mode);
    rest.hidden = state.mode !== "off";
    write(count, `${state.off.length} of ${spec.layers * spec.heads} heads are off${state.off.length && state.off.length <= NAMED ? `: ${removedName(spec, { ...state, removed: state.off, mode: "off" })}` : ""}. Names of layers and columns switch them all; so do Shift+Space (layer) and Ctrl+Space (column), Space one head.`);
    clear.disabled = !state.off.length;
  }
  return { panel, update };
}

/**
 * @param {Spec} spec @param {Reader} read
 * @returns {{ name: string, heads: (state: State) => number[] }[]}
 */
function groupsOf(spec, read) {
  const all = Array.from({ length: spec.layers * spec.heads }, (_, index) => index);
  /** @type {{ name: string, heads: (state: State) => number[] }[]} */
  const groups = [
    { name: "all heads", heads: () => all },
    { name: "the picked head's layer", heads: ({ layer }) => all.filter((index) => Math.floor(index / spec.heads) === layer) },
    { name: "the picked head's column", heads: ({ head }) => all.filter((index) => index % spec.heads === head) },
  ];
  for (const [label, texts] of /** @type {const} */ ([["class", spec.classes], ["origin", spec.origin]])) {
    texts?.names.forEach((name, value) => {
      const heads = all.filter((index) => texts.values[index] === value);
      groups.push({ name: `${label} ${name} (${heads.length})`, heads: () => heads });
    });
  }
  spec.regions.forEach((region, place) => {
    const heads = read.drawnTo(place);
    if (heads.length) groups.push({ name: `drawn to ${region}: lift of 2 or more (${heads.length})`, heads: () => heads });
  });
  return groups;
}
