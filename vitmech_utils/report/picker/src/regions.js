// What a head's attention falls on: a bar per region, with the region's area as baseline.

import { make, write } from "./elements.js";
import { patchName } from "./state.js";
import { clamp, known, percent, plain } from "./text.js";
/** @import { Reader } from "./state.js" */
/** @import { Part, Spec, State } from "./types.js" */

/**
 * Whose shares are shown: those of the first twin, of the shown variant or the first, and of the shown image where
 * stored so; from a patch, those of its image.
 * @param {Spec} spec @param {State} state
 */
export function shareSource(spec, { patch, query, variant, image }) {
  const name = spec.variants[(spec.shares?.variants ?? 1) > 1 ? Math.max(variant, 0) : 0];
  const images = patch || (spec.shares?.images ?? 1) > 1 ? spec.imageLabels[image] : "all images";
  return [patch ? `patch in ${patchName(query, spec)}` : "CLS query", name, spec.twins[0], images].filter(Boolean).join(", ");
}

/** @param {Spec} spec @param {Reader} read @returns {Part} */
export function regionBars(spec, read) {
  const panel = make("div", { hidden: !spec.shares || !spec.regions.length });
  if (panel.hidden) return { panel, update: () => {} };
  const title = make("div", { class: "vm-label" });
  const note = make("div", { class: "vm-aside" });
  const rows = spec.regions.map((region) => {
    const [fill, tick, pure, text] = [make("i"), make("b"), make("u"), make("span", { class: "vm-number" })];
    const bar = make("div", { class: "vm-bar" }, make("span", { title: region }, region), text, make("div", { class: "vm-track", "aria-hidden": "true" }, fill, tick, pure));
    return { bar, fill, tick, pure, text };
  });
  const bars = make("div", { class: "vm-bars" }, ...rows.map(({ bar }) => bar));
  panel.append(title, bars, note);
  /** @param {State} state */
  function update(state) {
    write(title, `Raw attention share by region (${shareSource(spec, state)})`);
    const told = spec.regions.map((_, region) => read.share(state, region));
    bars.hidden = !told.some(known);
    write(note, bars.hidden ? "Shares from patches are not stored." : barsExplained(spec, read, state));
    rows.forEach(({ fill, tick, pure, text }, region) => {
      const [share, area, alone] = [told[region], read.area(state, region), read.unmixed(state, region)];
      fill.style.transform = `scaleX(${known(share) ? clamp(share, 0, 1) : 0})`; // transforms need no new layout
      tick.hidden = !known(area);
      if (known(area)) tick.style.transform = `translateX(${area * 100}%)`;
      pure.hidden = !known(alone);
      if (known(alone)) pure.style.transform = `translateX(${alone * 100}%)`;
      const lift = known(share) && known(area) && area > 0 ? ` · ${plain(share / area)}\u00a0×` : "";
      write(text, `${percent(share)}${lift}${known(alone) ? ` · ${percent(alone)} unmixed` : ""}`);
    });
  }
  return { panel, update };
}

/** @param {Spec} spec @param {Reader} read @param {State} state what the marks and the two kinds of shares mean */
function barsExplained(spec, read, state) {
  const parts = ["Bar: raw share of the attention on patches, each patch counted to its regions by their areas."];
  if (spec.areaShares) parts.push("Line: the region's share of the area; × is the lift, their ratio.");
  if (spec.mostShares && !state.patch) {
    const bounds = spec.regions.map((region, at) => ({ region, most: read.most(state, at) })).filter(({ most }) => known(most));
    const least = bounds.sort((a, b) => (a.most ?? 1) - (b.most ?? 1))[0];
    parts.push(`Diamond: unmixed share, what neighbours in shared patches add taken off${least ? `; a head that looked at ${least.region} alone would have a raw share of ${percent(least.most)}` : ""}.`);
  }
  return parts.join(" ");
}
