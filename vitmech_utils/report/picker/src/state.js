// What is picked, read from the traits, and what is known of it.

import { clamp } from "./text.js";
/** @import { Data, Measure, Model, ShownMap, Spec, State } from "./types.js" */

export const TRAITS = ["layer", "head", "image", "query", "variant", "twin", "measure", "scale", "opacity"];

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
  /** @param {string} trait @param {number} low @param {number} high */
  const number = (trait, low, high) => clamp(Math.round(Number(model.get(trait)) || 0), low, high);

  /** @returns {State} */
  const pick = () => {
    const layer = number("layer", 0, spec.layers - 1);
    const head = number("head", 0, spec.heads - 1);
    const wanted = model.get("measure");
    return {
      layer,
      head,
      index: layer * spec.heads + head,
      image: number("image", 0, spec.imageLabels.length - 1),
      query: number("query", -1, spec.rows * spec.columns - 1),
      variant: number("variant", -1, spec.variants.length - 1),
      twin: number("twin", -1, spec.twins.length - 1),
      measure: measureList(spec).find(({ key }) => key === wanted) ?? measureList(spec)[0],
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

  /** @param {State} state */
  const queryable = (state) => Boolean(spec.query && state.image === spec.query.image && spec.query.heads.includes(state.index));

  /**
   * Patch queries are stored for the first variant and the first twin.
   * @param {State} state @param {number} twin @param {number} variant
   */
  const asksPatch = (state, twin, variant) => state.query >= 0 && twin === 0 && variant === 0 && queryable(state);

  /** @param {State} state @param {number} twin @param {number} variant @returns {ShownMap} */
  const map = (state, twin, variant) => {
    if (spec.query && data.queries && asksPatch(state, twin, variant)) {
      const [row, column] = queryCell(state.query);
      const { queryRows, queryColumns, rows, columns, heads } = spec.query;
      const index = (heads.indexOf(state.index) * queryRows + row) * queryColumns + column;
      return { ...data.queries(index), rows, columns, patch: true };
    }
    const { rows, columns, layers, heads } = spec;
    return { ...data.maps[twin][variant](state.image * layers * heads + state.index), rows, columns, patch: false };
  };

  /** @param {State} state @param {number} region @returns {number | null} */
  const share = (state, region, variant = 0) => {
    if (!data.shares || !spec.shares) return null;
    const image = spec.shares.images === 1 ? 0 : state.image;
    const block = Math.min(Math.max(variant, 0), spec.shares.variants - 1) * spec.shares.images + image;
    return data.shares[(block * spec.layers * spec.heads + state.index) * spec.regions.length + region] / 65535;
  };

  /** @param {State} state @param {number} region */
  const area = (state, region) => spec.areaShares?.[spec.areaShares.length === 1 ? 0 : state.image][region] ?? null;

  /** @param {State} state @returns {[number, number][]} twin and variant of every panel */
  const panels = (state) => {
    /** @param {number} choice @param {string[]} names */
    const shown = (choice, names) => (choice < 0 ? names.map((_, index) => index) : [choice]);
    return shown(state.twin, spec.twins).flatMap((twin) => shown(state.variant, spec.variants).map((variant) => /** @type {[number, number]} */ ([twin, variant])));
  };
  return { pick, map, share, area, panels, queryable, asksPatch, queryCell };
}

/** @param {Spec} spec @returns {Measure[]} what can colour the grid, at least one */
export function measureList(spec) {
  const list = [...spec.measures];
  if (spec.classes) list.push({ key: "class", label: "class", unit: "", kind: "class", values: spec.classes.values });
  return list.length ? list : [{ key: "none", label: "nothing", unit: "", kind: "none", values: [] }];
}

/** @param {{ layer: number, head: number }} head */
export const headName = ({ layer, head }) => `layer ${layer + 1}, head ${head + 1}`;

/** @param {Spec} spec @param {number} twin @param {number} variant */
export const panelName = (spec, twin, variant) => [spec.variants[variant], spec.twins[twin]].filter(Boolean).join(" · ");

/** @param {Spec} spec */
export const middlePatch = ({ rows, columns }) => Math.floor(rows / 2) * columns + Math.floor(columns / 2);

/** @param {number} query @param {{ columns: number }} spec */
export const patchName = (query, { columns }) => `row ${Math.floor(query / columns) + 1}, column ${(query % columns) + 1}`;
