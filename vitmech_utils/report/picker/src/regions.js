// What a head's attention falls on: a bar per region, with the region's area as baseline.

import { make, write } from "./elements.js";
import { clamp, known, percent, plain } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Part, Spec, State } from "./types.js" */

/**
 * Shares are those of the first twin, of the shown variant or the first, and of the shown image where stored so.
 * @param {Spec} spec @param {State} state
 */
export function shareSource(spec, { variant, image }) {
  const name = spec.variants[(spec.shares?.variants ?? 1) > 1 ? Math.max(variant, 0) : 0];
  return [name, spec.twins[0], (spec.shares?.images ?? 1) > 1 ? spec.imageLabels[image] : "all images"].filter(Boolean).join(", ");
}

/** @param {Spec} spec @param {Reader} read @returns {Part} */
export function regionBars(spec, read) {
  const panel = make("div", { hidden: !spec.shares || !spec.regions.length });
  if (panel.hidden) return { panel, update: () => {} };
  const title = make("div", { class: "vm-label" });
  const rows = spec.regions.map((region) => {
    const [fill, tick, text] = [make("i"), make("b"), make("span", { class: "vm-number" })];
    const bar = make("div", { class: "vm-bar" }, make("span", { title: region }, region), text, make("div", { class: "vm-track", "aria-hidden": "true" }, fill, tick));
    return { bar, fill, tick, text };
  });
  panel.append(title, make("div", { class: "vm-bars" }, ...rows.map(({ bar }) => bar)));
  if (spec.areaShares) panel.append(make("div", { class: "vm-aside" }, make("i", { class: "vm-key" }), "the region's share of the area; × is the lift"));
  /** @param {State} state */
  function update(state) {
    const variant = Math.max(state.variant, 0);
    write(title, `Attention share by region, CLS query (${shareSource(spec, state)})`);
    rows.forEach(({ fill, tick, text }, region) => {
      const share = read.share(state, region, variant) ?? 0;
      const area = read.area(state, region);
      fill.style.transform = `scaleX(${clamp(share, 0, 1)})`; // transforms need no new layout
      tick.hidden = !known(area);
      if (known(area)) tick.style.transform = `translateX(${area * 100}%)`;
      write(text, `${percent(share)}${known(area) && area > 0 ? ` · ${plain(share / area)}\u00a0×` : ""}`);
    });
  }
  return { panel, update };
}
