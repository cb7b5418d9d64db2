// What can colour the grid and order the list: what is stored, and what follows from the shown image or patch.

import { known } from "./text.js";
/** @import { Book } from "./answers.js" */
/** @import { Classes, Measure, Spec } from "./types.js" */

/**
 * What a patch sees: the share of its attention on a region, and its map's entropy; null where that is not stored.
 * @typedef {{ share: (head: number, region: number) => number | null, area: (region: number) => number | null, entropy: (head: number) => number | null }} PatchView
 */

/** @param {Spec} spec @returns {Measure[]} what can colour the grid, at least one */
export function measureList(spec) {
  const list = [...spec.measures];
  if (spec.answer) list.push({ key: "shift", label: "shift of the answer to this image", unit: spec.answer.kind === "classes" ? "logits" : "standard deviations", kind: "sequential", values: [] });
  if (spec.classes) list.push({ key: "class", label: "class", unit: "", kind: "class", values: spec.classes.values });
  if (spec.origin) list.push({ key: "origin", label: "origin", unit: "", kind: "class", values: spec.origin.values });
  return list.length ? list : [{ key: "none", label: "nothing", unit: "", kind: "none", values: [] }];
}

/** @param {Spec} spec @param {Measure} measure @returns {Classes | undefined} the names behind numbers of classes */
export const namesOf = (spec, { key }) => (key === "class" ? spec.classes : key === "origin" ? spec.origin : undefined);

/**
 * A measure's values for one image, or for the patch that asks.
 * @param {Spec} spec @param {Measure} measure @param {Book | null} book
 * @param {{ image: number, twin: number, view: PatchView | null }} shown
 * @returns {Measure}
 */
export function measured(spec, measure, book, { image, twin, view }) {
  const heads = Array.from({ length: spec.layers * spec.heads }, (_, head) => head);
  if (measure.key === "shift" && book) return { ...measure, values: heads.map((head) => book.size(book.twinOf(twin), image, head)) };
  if (!view) return measure;
  if (known(measure.region)) {
    const region = measure.region;
    const area = view.area(region);
    const values = heads.map((head) => { const share = view.share(head, region); return known(share) && known(area) && area > 0 ? share / area : null; });
    return { ...measure, label: `${measure.label}, from this patch`, values };
  }
  if (measure.key === "entropy") return { ...measure, label: `${measure.label}, from this patch`, values: heads.map(view.entropy) };
  return measure.key === "class" ? { ...measure, label: "class (of the CLS query)" } : measure;
}
