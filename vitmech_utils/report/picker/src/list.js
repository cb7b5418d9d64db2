// Finding heads: all of them in a list, ordered by a measure and filtered.

import { both, CLASSES } from "./colours.js";
import { make, write } from "./elements.js";
import { swatch } from "./legends.js";
import { measureList, measured, namesOf } from "./measures.js";
import { headName, pairsOf, placeOf, setTraits, shortName } from "./state.js";
import { toggled } from "./switches.js";
import { clamp, known, withUnit } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Measure, Model, Part, Spec, State } from "./types.js" */

/** @param {Measure} measure @param {boolean} size @returns {(index: number) => number} what a head is ordered by */
const order = (measure, size) => (index) => {
  const value = measure.values[index];
  return known(value) ? (size ? Math.abs(value) : value) : -Infinity;
};

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
export function buildList(model, spec, read) {
  const measures = measureList(spec).filter(({ kind }) => kind !== "none");
  const sort = make("select", { "aria-label": "Order the list by" });
  measures.forEach((measure) => sort.append(make("option", { value: measure.key }, measure.label)));
  const filter = make("select", { "aria-label": "Show in the list" }, make("option", { value: "" }, "all heads"));
  const kept = filters(spec, read);
  kept.forEach(({ name }, index) => filter.append(make("option", { value: String(index) }, name)));
  const count = make("div", { class: "vm-aside", role: "status" });
  const box = make("div", { class: "vm-list", role: "listbox", tabindex: "0", "aria-label": "Heads in order", "aria-orientation": "vertical" });
  const panel = make("div", { class: "vm-found", hidden: !measures.length },
    make("span", { class: "vm-label", "aria-hidden": "true" }, "Find heads"), sort, filter, box, count);
  const rows = Array.from({ length: spec.layers * spec.heads }, (_, index) => listRow(spec, index));
  /** @type {number[]} */
  let shown = [];
  let drawn = "";
  let begun = false;
  /** @type {number | null} */
  let chosen = null;
  const redraw = () => { drawn = ""; update(read.pick()); };
  sort.addEventListener("change", redraw);
  filter.addEventListener("change", redraw);
  box.addEventListener("click", (event) => {
    const row = /** @type {Element} */ (event.target).closest?.(".vm-entry");
    if (row instanceof HTMLElement) act(Number(row.dataset.index), read.pick().mode === "off");
  });
  box.addEventListener("keydown", (event) => {
    const at = shown.indexOf(read.pick().index);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === " " || event.key === "Enter") act(read.pick().index, read.pick().mode === "off");
    else if (steps === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    else if (shown.length) act(shown[clamp(at < 0 ? 0 : at + steps, 0, shown.length - 1)], false);
    event.preventDefault();
  });

  /** @param {number} index @param {boolean} toggle */
  function act(index, toggle) {
    const off = toggle ? { off: pairsOf(spec, toggled(read.pick().off, [index])) } : {};
    setTraits(model, { ...placeOf(spec, index), ...off });
  }

  /** @param {State} state */
  function update(state) {
    if (!begun && measures.some(({ key }) => key === state.measure.key)) sort.value = state.measure.key; // as the grid begins
    begun = true;
    const chosenMeasure = measures.find(({ key }) => key === sort.value) ?? measures[0];
    if (!chosenMeasure) return;
    const images = chosenMeasure.key === "shift" ? `${state.image}.${state.twin}` : "";
    const wanted = [sort.value, filter.value, images, state.patch ? state.query : ""].join("|");
    if (drawn !== wanted) fill(state, state.measure.key === chosenMeasure.key ? state.measure : measured(spec, chosenMeasure, read.book, { image: state.image, twin: state.twin, view: read.view(state) }));
    drawn = wanted;
    rows.forEach(({ row }, index) => {
      const off = state.mode === "off" && state.off.includes(index);
      if (row.classList.contains("vm-out") !== off) row.classList.toggle("vm-out", off);
    });
    if (chosen === state.index) return;
    if (chosen !== null) rows[chosen].row.setAttribute("aria-selected", "false");
    const { row } = rows[state.index];
    row.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", shown.includes(state.index) ? row.id : "");
    chosen = state.index;
    if (!shown.includes(state.index)) return;
    // Within the list alone: the page stays where it is.
    const [top, bottom] = [row.offsetTop, row.offsetTop + row.offsetHeight];
    if (top < box.scrollTop) box.scrollTop = top;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
  }

  /** @param {State} state @param {Measure} measure */
  function fill(state, measure) {
    const keep = filter.value === "" ? () => true : kept[Number(filter.value)].keep;
    const names = namesOf(spec, measure);
    const value = order(measure, measure.kind === "diverging");
    const most = Math.max(...rows.map((_, index) => (names ? 0 : Math.abs(measure.values[index] ?? 0))), 1e-9);
    shown = rows.map((_, index) => index).filter((index) => keep(index, state));
    shown.sort((a, b) => (names ? value(a) - value(b) : value(b) - value(a)) || a - b);
    for (const index of shown) {
      const { text, bar } = rows[index];
      const own = measure.values[index];
      write(text, names ? (known(own) ? names.names[own] : "none") : withUnit(measure, own));
      bar.style.transform = `scaleX(${names || !known(own) ? 0 : clamp(Math.abs(own) / most, 0, 1)})`;
    }
    box.replaceChildren(...shown.map((index) => rows[index].row));
    box.setAttribute("aria-activedescendant", shown.includes(state.index) ? rows[state.index].row.id : "");
    write(count, `${shown.length} of ${rows.length} heads`);
  }
  return { panel, update };
}

let entries = 0;

/** @param {Spec} spec @param {number} index */
function listRow(spec, index) {
  const [text, bar] = [make("span", { class: "vm-number" }), make("i", { class: "vm-fill" })];
  const kind = spec.classes?.values[index];
  const mark = known(kind) && spec.classes ? [swatch(both(CLASSES[kind % CLASSES.length]), "")] : [];
  const id = `vm-entry-${(entries += 1)}-${Math.random().toString(36).slice(2, 8)}`;
  const row = make("div", { class: "vm-entry", role: "option", id, "aria-selected": "false" }, ...mark, make("span", { title: headName(placeOf(spec, index)) }, shortName(spec, index)), text, bar);
  row.dataset.index = String(index);
  return { row, text, bar };
}

/**
 * Which heads the list can be narrowed to.
 * @param {Spec} spec @param {Reader} read
 * @returns {{ name: string, keep: (index: number, state: State) => boolean }[]}
 */
function filters(spec, read) {
  /** @type {{ name: string, keep: (index: number, state: State) => boolean }[]} */
  const found = [{ name: "the picked head's layer", keep: (index, { layer }) => Math.floor(index / spec.heads) === layer }];
  const effect = spec.measures.find(({ key }) => key === "effect");
  if (effect?.low) {
    found.push({ name: "effect whose interval excludes 0", keep: (index) => { const [low, high] = [effect.low?.[index], effect.high?.[index]]; return known(low) && known(high) && low * high > 0; } });
  }
  for (const [label, texts] of /** @type {const} */ ([["class", spec.classes], ["origin", spec.origin]])) {
    texts?.names.forEach((name, value) => found.push({ name: `${label} ${name}`, keep: (index) => texts.values[index] === value }));
  }
  spec.regions.forEach((region, place) => {
    const heads = new Set(read.drawnTo(place));
    if (heads.size) found.push({ name: `drawn to ${region}: lift of 2 or more`, keep: (index) => heads.has(index) });
  });
  if (read.book) found.push({ name: "switched off", keep: (index, { off }) => off.includes(index) });
  return found;
}
