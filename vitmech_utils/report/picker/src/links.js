// Deep links: #L6H4 belongs to the page's first picker, #name:L6H4 to the picker of that name. What else differs from
// the start follows as in an address: #L6H4?image=2&model=2&query=5.7&mode=off&off=L3.L5H2

import { placeOf, setTraits, shortName } from "./state.js";
import { clamp } from "./text.js";
/** @import { Model, Spec } from "./types.js" */

// Traits in links: what they are called there; numbers count from 1, 0 stands for side by side.
const NUMBERS = /** @type {const} */ ([["image", "image"], ["model", "variant"], ["picture", "twin"]]);
const WATCHED = ["layer", "head", "image", "variant", "twin", "query", "mode", "off"];

/**
 * What a link says, as traits; null where it is not this picker's or names no head.
 * @param {Spec} spec @param {string} hash @param {boolean} isFirst
 */
export function readLink(spec, hash, isFirst) {
  const found = /^#(?:([\w-]+):)?L(\d{1,3})H(\d{1,3})(?:\?(.*))?$/.exec(hash);
  if (!found || !(found[1] === undefined ? isFirst : found[1] === spec.name)) return null;
  const [layer, head] = [Number(found[2]) - 1, Number(found[3]) - 1];
  if (layer < 0 || layer >= spec.layers || head < 0 || head >= spec.heads) return null;
  /** @type {Record<string, any>} */
  const traits = { layer, head };
  if (found[4] === undefined) return traits;
  const rest = new URLSearchParams(found[4]);
  const limits = { image: spec.imageLabels.length, variant: spec.variants.length, twin: spec.twins.length };
  for (const [name, trait] of NUMBERS) {
    const value = Number.parseInt(rest.get(name) ?? "1", 10) - 1;
    traits[trait] = Number.isNaN(value) ? 0 : clamp(value, trait === "image" ? 0 : -1, limits[trait] - 1);
  }
  const [row, column] = (rest.get("query") ?? "").split(".").map((text) => Number.parseInt(text, 10) - 1);
  const inside = row >= 0 && row < spec.rows && column >= 0 && column < spec.columns;
  traits.query = inside ? row * spec.columns + column : -1;
  traits.mode = rest.get("mode") === "off" ? "off" : "pick";
  traits.off = readHeads(spec, rest.get("off") ?? "");
  return traits;
}

/** @param {Spec} spec @param {string} text @returns {[number, number][]} */
function readHeads(spec, text) {
  const found = new Set();
  for (const [, layer, head] of text.matchAll(/L(\d{1,3})(?:H(\d{1,3}))?/g)) {
    for (let place = 0; place < spec.heads; place += 1) if (head === undefined || place === Number(head) - 1) found.add((Number(layer) - 1) * spec.heads + place);
  }
  return [...found].filter((index) => index >= 0 && index < spec.layers * spec.heads).sort((a, b) => a - b).map((index) => [placeOf(spec, index).layer, placeOf(spec, index).head]);
}

/**
 * The link to what is shown; it says only what differs from the start.
 * @param {Spec} spec @param {(trait: string) => any} get @param {string} prefix
 */
export function writeLink(spec, get, prefix) {
  const parts = [];
  for (const [name, trait] of NUMBERS) if (get(trait) !== 0) parts.push(`${name}=${get(trait) + 1}`);
  const query = get("query");
  if (query >= 0) parts.push(`query=${Math.floor(query / spec.columns) + 1}.${(query % spec.columns) + 1}`);
  if (get("mode") === "off") parts.push("mode=off");
  const off = /** @type {[number, number][]} */ (get("off") ?? []).map(([layer, head]) => layer * spec.heads + head);
  if (off.length) parts.push(`off=${headsText(spec, off)}`);
  return `#${prefix}${shortName(spec, get("layer") * spec.heads + get("head"))}${parts.length ? `?${parts.join("&")}` : ""}`;
}

/** @param {Spec} spec @param {number[]} heads whole layers by their name alone */
function headsText(spec, heads) {
  const layers = Array.from({ length: spec.layers }, (_, layer) => heads.filter((index) => Math.floor(index / spec.heads) === layer));
  return layers.flatMap((own, layer) => (own.length === spec.heads ? [`L${layer + 1}`] : own.map((index) => shortName(spec, index)))).join(".");
}

/** @param {Model} model @param {Spec} spec @param {HTMLElement} host */
export function followLinks(model, spec, host) {
  const isFirst = document.querySelector("[data-vm-host]") === host;
  const prefix = isFirst ? "" : spec.name ? `${spec.name}:` : null;
  const follow = () => {
    const traits = readLink(spec, location.hash, isFirst);
    if (!traits) return;
    setTraits(model, traits);
    host.querySelector(".vm-picker")?.scrollIntoView({ block: "start" });
  };
  let timer = 0;
  const remember = () => {
    if (prefix === null) return;
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      const hash = writeLink(spec, model.get, prefix);
      if (hash !== location.hash) history.replaceState(history.state, "", hash);
    }, 250); // browsers refuse many changes of the address within seconds
  };
  follow();
  window.addEventListener("hashchange", follow);
  WATCHED.forEach((trait) => model.on(`change:${trait}`, remember));
}
