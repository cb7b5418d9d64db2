// What is picked, read from the traits, and what is known of it.

import { openBook } from "./answers.js";
import { measureList, measured } from "./measures.js";
import { clamp, known } from "./text.js";
/** @import { PatchView } from "./measures.js" */
/** @import { Data, Measure, Model, ShownMap, Spec, State } from "./types.js" */

export const TRAITS = ["layer", "head", "image", "query", "variant", "twin", "measure", "scale", "opacity", "mode", "off", "pins", "tracks"];

/** @param {Model} model @param {Record<string, any>} values */
export function setTraits(model, values) {
  for (const [trait, value] of Object.entries(values)) model.set(trait, value);
  model.save_changes();
}

/** @typedef {ReturnType<typeof reader>} Reader */

/**
 * Questions about what is picked.
 * @param {Model} model @param {Spec} spec @param {Data} data
 */
export function reader(model, spec, data) {
  const book = openBook(spec, data);
  const heads = spec.layers * spec.heads;
  /** @type {Map<string, Measure>} */
  const memory = new Map();

  /** @param {string} trait @param {number} low @param {number} high */
  const number = (trait, low, high) => clamp(Math.round(Number(model.get(trait)) || 0), low, high);

  /** @param {string} trait @returns {number[]} heads from pairs of layer and head */
  const listed = (trait) => [...new Set(/** @type {[number, number][]} */ (model.get(trait) ?? [])
    .filter(([layer, head]) => layer >= 0 && layer < spec.layers && head >= 0 && head < spec.heads)
    .map(([layer, head]) => layer * spec.heads + head))];

  /** @returns {State} */
  const pick = () => {
    const layer = number("layer", 0, spec.layers - 1);
    const head = number("head", 0, spec.heads - 1);
    const index = layer * spec.heads + head;
    const image = number("image", 0, spec.imageLabels.length - 1);
    const asked = number("query", -1, spec.rows * spec.columns - 1);
    const patch = asked >= 0 && queryable({ image, index });
    const query = patch ? asked : -1;
    const mode = model.get("mode") === "off" && book ? "off" : "pick";
    const off = listed("off").sort((a, b) => a - b);
    // Patch queries are stored for the first variant and the first twin: all that is shown is then theirs.
    const variant = patch ? 0 : number("variant", -1, spec.variants.length - 1);
    const twin = patch ? 0 : number("twin", -1, spec.twins.length - 1);
    const wanted = measureList(spec).find(({ key }) => key === model.get("measure")) ?? measureList(spec)[0];
    const painted = [wanted.key, wanted.key === "shift" ? `${image}.${twin}` : "", patch ? query : ""].join("|");
    let measure = memory.get(painted);
    if (!measure) {
      measure = measured(spec, wanted, book, { image, twin, view: patch ? patchView(query) : null });
      if (memory.size > 50) memory.clear();
      memory.set(painted, measure);
    }
    return {
      layer, head, index, image, query, patch, variant, twin, measure, painted, mode, off,
      removed: mode === "off" ? off : [index],
      pins: listed("pins").slice(0, 2),
      tracks: model.get("tracks") !== false,
      shared: model.get("scale") === "shared",
      opacity: clamp(Number(model.get("opacity")), 0, 1),
    };
  };

  /** @param {number} query @returns {[number, number]} row and column among the queries */
  const queryCell = (query) => {
    if (!spec.query) return [0, 0];
    const row = Math.floor(query / spec.columns);
    const column = query % spec.columns;
    return [Math.floor((row * spec.query.queryRows) / spec.rows), Math.floor((column * spec.query.queryColumns) / spec.columns)];
  };

  /** @param {{ image: number, index: number }} place */
  const queryable = ({ image, index }) => Boolean(spec.query && image === spec.query.image && spec.query.heads.includes(index));

  /** @param {number} query @param {number} index @returns {ShownMap | null} a head's map from a patch */
  const patchMap = (query, index) => {
    const stored = spec.query?.heads.indexOf(index) ?? -1;
    if (!spec.query || !data.queries || stored < 0) return null;
    const { queryRows, queryColumns, rows, columns } = spec.query;
    const [row, column] = queryCell(query);
    return { ...data.queries((stored * queryRows + row) * queryColumns + column), rows, columns, patch: true };
  };

  /** @param {State} state @param {number} twin @param {number} variant @returns {ShownMap | null} null where none is stored */
  const map = (state, twin, variant, index = state.index) => {
    if (state.patch) return patchMap(state.query, index);
    const { rows, columns } = spec;
    return { ...data.maps[twin][variant](state.image * heads + index), rows, columns, patch: false };
  };

  /**
   * The part of a rectangle that lies on a region; its ends are fractions of the image.
   * @param {number} image @param {number} region @param {[number, number]} down @param {[number, number]} across
   */
  const covered = (image, region, down, across) => {
    if (!data.coverage || !spec.coverage) return 0;
    const block = (spec.coverage === 1 ? 0 : image) * spec.regions.length + region;
    let [sum, cells] = [0, 0];
    for (let row = Math.round(down[0] * spec.rows); row < Math.round(down[1] * spec.rows); row += 1) {
      for (let column = Math.round(across[0] * spec.columns); column < Math.round(across[1] * spec.columns); column += 1) {
        sum += data.coverage[(block * spec.rows + row) * spec.columns + column];
        cells += 255;
      }
    }
    return cells ? sum / cells : 0;
  };

  /** @param {number} query @returns {PatchView} */
  const patchView = (query) => {
    const image = spec.query?.image ?? 0;
    /** @param {number} index @param {(weight: number, row: number, column: number) => number} term */
    const sum = (index, term) => {
      const found = patchMap(query, index);
      if (!found) return null;
      const total = found.steps.reduce((all, step) => all + step, 0);
      let result = 0;
      if (total) found.steps.forEach((step, at) => { if (step) result += term(step / total, Math.floor(at / found.columns), at % found.columns); });
      return result;
    };
    const unit = spec.measures.find(({ key }) => key === "entropy")?.unit;
    return {
      share: (index, region) => {
        if (!data.coverage || !spec.query) return null;
        const { rows, columns } = spec.query;
        return sum(index, (weight, row, column) => weight * covered(image, region, [row / rows, (row + 1) / rows], [column / columns, (column + 1) / columns]));
      },
      area: (region) => area({ image }, region),
      entropy: (index) => {
        const nats = sum(index, (weight) => -weight * Math.log(weight));
        if (nats === null || !spec.query) return null;
        if (unit === "nats") return nats;
        return unit === "of its maximum" ? nats / Math.log(spec.query.rows * spec.query.columns) : null;
      },
    };
  };

  /** @param {Uint16Array | undefined} stored @param {State} state @param {number} region @param {number} variant @returns {number | null} */
  const storedShare = (stored, { image, index }, region, variant) => {
    if (!stored || !spec.shares) return null;
    const block = Math.min(Math.max(variant, 0), spec.shares.variants - 1) * spec.shares.images + (spec.shares.images === 1 ? 0 : image);
    return stored[(block * heads + index) * spec.regions.length + region] / 65535;
  };

  /** @param {State} state @param {number} region @returns {number | null} the raw share of attention, from the patch that asks */
  const share = (state, region, variant = state.variant) =>
    (state.patch ? patchView(state.query).share(state.index, region) : storedShare(data.shares, state, region, variant));

  /** @param {State} state @param {number} region @returns {number | null} */
  const unmixed = (state, region, variant = state.variant) => (state.patch ? null : storedShare(data.unmixed, state, region, variant));

  /** @param {{ image: number }} state @param {number} region */
  const area = ({ image }, region) => spec.areaShares?.[spec.areaShares.length === 1 ? 0 : image][region] ?? null;

  /** @param {{ image: number }} state @param {number} region the most that a raw share can be */
  const most = ({ image }, region) => spec.mostShares?.[spec.mostShares.length === 1 ? 0 : image][region] ?? null;

  /** @param {State} state @returns {[number, number][]} twin and variant of every panel */
  const panels = (state) => {
    /** @param {number} choice @param {string[]} names */
    const shown = (choice, names) => (choice < 0 ? names.map((_, index) => index) : [choice]);
    return shown(state.twin, spec.twins).flatMap((twin) => shown(state.variant, spec.variants).map((variant) => /** @type {[number, number]} */ ([twin, variant])));
  };

  /** @param {number} region @returns {number[]} heads that give a region at least twice its share of the area */
  const drawnTo = (region) => {
    const lift = spec.measures.find((measure) => measure.region === region);
    return (lift?.values ?? []).flatMap((value, index) => (known(value) && value >= 2 ? [index] : []));
  };
  /** @param {State} state @returns {PatchView | null} */
  const view = (state) => (state.patch ? patchView(state.query) : null);
  return { book, pick, view, map, share, unmixed, area, most, panels, queryable, queryCell, drawnTo };
}

/** @param {{ layer: number, head: number }} head */
export const headName = ({ layer, head }) => `layer ${layer + 1}, head ${head + 1}`;

/** @param {Spec} spec @param {number} index */
export const placeOf = (spec, index) => ({ layer: Math.floor(index / spec.heads), head: index % spec.heads });

/** @param {Spec} spec @param {number} index */
export const shortName = (spec, index) => `L${Math.floor(index / spec.heads) + 1}H${(index % spec.heads) + 1}`;

/** @param {Spec} spec @param {number[]} heads @returns {[number, number][]} pairs of layer and head, as traits have them */
export const pairsOf = (spec, heads) => [...heads].sort((a, b) => a - b).map((index) => [Math.floor(index / spec.heads), index % spec.heads]);

/** @param {Spec} spec @param {number} twin @param {number} variant */
export const panelName = (spec, twin, variant) => [spec.variants[variant], spec.twins[twin]].filter(Boolean).join(" · ");

/** @param {Spec} spec */
export const middlePatch = ({ rows, columns }) => Math.floor(rows / 2) * columns + Math.floor(columns / 2);

/** @param {number} query @param {{ columns: number }} spec */
export const patchName = (query, { columns }) => `row ${Math.floor(query / columns) + 1}, column ${(query % columns) + 1}`;
