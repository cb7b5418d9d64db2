// Made by tools/join_picker.py from the modules in src; edit those.

// Data: chunks are found by content hash, inflated once per page, shared by all pickers.

/** @type {Map<string, Promise<Uint8Array<ArrayBuffer>>>} */
const inflated = (/** @type {any} */ (globalThis).__vitmechPickerChunks ??= new Map());

/** @param {Model} model @param {Chunk} chunk @returns {Promise<Uint8Array<ArrayBuffer>>} */
function loadChunk(model, { id, codec }) {
  const found = inflated.get(id) ?? inflate(chunkBytes(model, id), codec);
  inflated.set(id, found);
  return found;
}

/** @param {Model} model @param {string} id @returns {Uint8Array<ArrayBuffer>} */
function chunkBytes(model, id) {
  const live = model.get("_chunks")?.[id];
  if (live) return new Uint8Array(live.buffer ?? live, live.byteOffset ?? 0, live.byteLength);
  const script = document.querySelector(`script[data-vm-chunk="${id}"]`);
  if (!script) throw new Error("The picker's data is not on this page; run the notebook again.");
  return Uint8Array.from(atob((script.textContent ?? "").trim()), (sign) => sign.charCodeAt(0));
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {string} codec */
async function inflate(bytes, codec) {
  if (codec === "raw") return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * A stack of quantized maps: first each map's maximum as float32, then one byte per patch.
 * @param {Uint8Array} bytes @param {number} count @param {number} size @param {number} levels
 * @returns {(index: number) => Steps}
 */
function mapStack(bytes, count, size, levels) {
  const peaks = new Float32Array(bytes.buffer, bytes.byteOffset, count);
  const start = count * 4;
  return (index) => ({ peak: peaks[index], steps: bytes.subarray(start + index * size, start + (index + 1) * size), levels });
}

/**
 * All that the picker shows, ready to be drawn.
 * @param {Model} model @param {Spec} spec @returns {Promise<Data>}
 */
async function loadData(model, spec) {
  const heads = spec.layers * spec.heads;
  const images = spec.imageLabels.length;
  const blob = await loadChunk(model, spec.chunks.images);
  /** @type {Data} */
  const data = {
    pictures: await Promise.all(spec.images.map((row) => Promise.all(row.map(([start, end]) => createImageBitmap(new Blob([blob.subarray(start, end)])))))),
    maps: await Promise.all(spec.twins.map((_, twin) => Promise.all(spec.variants.map(async (_name, variant) => {
      const bytes = await loadChunk(model, spec.chunks[`maps:${twin}:${variant}`]);
      return mapStack(bytes, images * heads, spec.rows * spec.columns, spec.levels);
    })))),
  };
  for (const name of /** @type {const} */ (["shares", "unmixed"])) {
    if (!spec.chunks[name]) continue;
    const bytes = await loadChunk(model, spec.chunks[name]);
    data[name] = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  }
  if (spec.chunks.coverage) data.coverage = await loadChunk(model, spec.chunks.coverage);
  if (spec.chunks.answer) {
    const bytes = await loadChunk(model, spec.chunks.answer);
    data.answer = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }
  if (spec.query) {
    const { heads: stored, queryRows, queryColumns, rows, columns, levels } = spec.query;
    const bytes = await loadChunk(model, spec.chunks.query);
    data.queries = mapStack(bytes, stored.length * queryRows * queryColumns, rows * columns, levels);
  }
  return data;
}

// A tiny element builder: text becomes text nodes, so no label is ever read as HTML.

/**
 * An element with attributes, listeners (`onclick`) and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value === "boolean") /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/**
 * Set a text; nothing is touched where it is that already.
 * @param {Element} element
 * @param {string} text
 */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {number} width @param {number} height @param {string} name */
function canvas(width, height, name) {
  const element = make("canvas", { class: name, "aria-hidden": "true" });
  element.width = width;
  element.height = height;
  return element;
}

/**
 * The drawing context of a canvas.
 * @param {HTMLCanvasElement} element
 * @param {CanvasRenderingContext2DSettings} [settings]
 * @returns {CanvasRenderingContext2D}
 */
const pen = (element, settings) => /** @type {CanvasRenderingContext2D} */ (element.getContext("2d", settings));

// Numbers as text.

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/**
 * @param {number | null | undefined} value
 * @returns {value is number}
 */
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/**
 * A number with so many significant digits, at most 6 decimals.
 * @param {number | null | undefined} value
 */
function plain(value, digits = 2) {
  if (!known(value)) return "unknown";
  if (value === 0) return "0";
  const places = clamp(digits - 1 - Math.floor(Math.log10(Math.abs(value))), 0, 6);
  return value.toFixed(places).replace("-", "\u2212");
}

/** @param {number | null | undefined} value */
const signed = (value, digits = 2) => (known(value) && value > 0 ? "+" : "") + plain(value, digits);

/** @param {number | null | undefined} share */
const percent = (share) => (known(share) ? `${plain(share * 100, share < 0.1 ? 2 : 3)}\u00a0%` : "unknown");

/** @param {Measure} measure @param {number | null | undefined} value */
function withUnit(measure, value) {
  if (!known(value)) return "unknown";
  if (measure.kind === "log") return `${plain(value)}\u00a0${measure.unit}`;
  return `${measure.kind === "diverging" ? signed(value, 3) : plain(value, 3)}\u00a0${measure.unit}`.trim();
}

// What the model answers with all heads, and without some: exact where it was computed, else a sum of single shifts.

/**
 * An answer without some heads. `how` says where it comes from: "exact", sums of exact "shifts" of single heads or of
 * linearized "slopes", or "unknown" (then values are NaN).
 * @typedef {{ values: number[], how: "exact" | "shifts" | "slopes" | "unknown" }} Without
 *
 * @typedef {ReturnType<typeof answerBook>} Book
 */

/** @param {number[]} heads */
const keyOf = (heads) => [...heads].sort((a, b) => a - b).join(",");

/**
 * All answers of a picker that has them.
 * @param {Spec} spec @param {AnswerSpec} answer @param {Float32Array} numbers
 */
function answerBook(spec, answer, numbers) {
  const [images, heads, outputs] = [spec.imageLabels.length, spec.layers * spec.heads, answer.outputs.length];
  const singles = answer.twins * images * outputs; // where `without` begins
  const slopes = singles + singles * heads;
  const sets = slopes + singles * heads;
  /** @type {Map<string, (twin: number, image: number) => number[]>} */
  const exact = new Map();
  answer.sets.forEach((set, index) => exact.set(keyOf(set), (twin, image) => at(sets + index * singles, twin * images + image)));

  /** @param {number} start @param {number} row @returns {number[]} */
  const at = (start, row) => Array.from(numbers.subarray(start + row * outputs, start + (row + 1) * outputs));
  /** @param {number} twin @param {number} image */
  const whole = (twin, image) => at(0, twin * images + image);

  /**
   * How far one head's removal moves the answer; null where the model has no such head.
   * @param {number} twin @param {number} image @param {number} head
   * @returns {{ values: number[], how: "shifts" | "slopes" } | null}
   */
  const shift = (twin, image, head) => {
    const row = (twin * images + image) * heads + head;
    const without = at(singles, row);
    if (without.every(known)) {
      const all = whole(twin, image);
      return { values: without.map((value, output) => value - all[output]), how: "shifts" };
    }
    const slope = at(slopes, row);
    return slope.every(known) ? { values: slope, how: "slopes" } : null;
  };

  /** @param {number} twin @param {number} image @param {number[]} set @returns {Without} */
  const without = (twin, image, set) => {
    const all = whole(twin, image);
    if (!set.length) return { values: all, how: "exact" };
    const stored = exact.get(keyOf(set))?.(twin, image);
    if (stored?.every(known)) return { values: stored, how: "exact" };
    const shifts = set.map((head) => shift(twin, image, head)).filter((one) => one !== null);
    if (!shifts.length) return { values: all.map(() => NaN), how: "unknown" };
    const values = all.map((value, output) => shifts.reduce((sum, one) => sum + one.values[output], value));
    const sums = shifts.every(({ how }) => how === "shifts") ? "shifts" : "slopes";
    return { values, how: set.length === 1 && sums === "shifts" ? "exact" : sums };
  };

  /**
   * The task's loss: the mean squared error in standard deviations, or the cross-entropy in nats; null without truth.
   * @param {number[]} values @param {number} image @returns {number | null}
   */
  const loss = (values, image) => {
    const truth = answer.truth?.[image];
    if (truth === undefined || !values.every(known)) return null;
    if (typeof truth === "number") return -Math.log(shares(values)[truth]);
    return values.reduce((sum, value, output) => sum + ((value - truth[output]) / answer.scale[output]) ** 2, 0) / outputs;
  };

  /** @param {number} twin @param {number[]} set @returns {{ loss: number | null, exact: boolean }} the mean over all images */
  const meanLoss = (twin, set) => {
    let [sum, sure] = [0, true];
    for (let image = 0; image < images; image += 1) {
      const { values, how } = without(twin, image, set);
      const own = loss(values, image);
      if (own === null) return { loss: null, exact: false };
      sum += own;
      sure &&= how === "exact";
    }
    return { loss: sum / images, exact: sure };
  };

  /**
   * How far a head moves the answer to one image, in the labels' standard deviations (root mean square over outputs).
   * @param {number} twin @param {number} image @param {number} head @returns {number | null}
   */
  const size = (twin, image, head) => {
    const found = shift(twin, image, head);
    if (!found) return null;
    return Math.sqrt(found.values.reduce((sum, value, output) => sum + (value / answer.scale[output]) ** 2, 0) / outputs);
  };

  /** @param {number[]} set @param {number[][][]} answers by twin, image and output: exact, from the model itself */
  const learn = (set, answers) => { exact.set(keyOf(set), (twin, image) => answers[twin][image]); };

  /** @param {number} twin */
  const twinOf = (twin) => (twin >= 0 && twin < answer.twins ? twin : 0);
  return { answer, whole, without, shift, loss, meanLoss, size, learn, twinOf };
}

/** @param {number[]} logits @returns {number[]} the classes' probabilities */
function shares(logits) {
  const most = Math.max(...logits);
  const parts = logits.map((value) => Math.exp(value - most));
  const sum = parts.reduce((total, part) => total + part, 0);
  return parts.map((part) => part / sum);
}

/** @param {Spec} spec @param {Data} data @returns {Book | null} */
const openBook = (spec, data) => (spec.answer && data.answer ? answerBook(spec, spec.answer, data.answer) : null);

// What can colour the grid and order the list: what is stored, and what follows from the shown image or patch.

/**
 * What a patch sees: the share of its attention on a region, and its map's entropy; null where that is not stored.
 * @typedef {{ share: (head: number, region: number) => number | null, area: (region: number) => number | null, entropy: (head: number) => number | null }} PatchView
 */

/** @param {Spec} spec @returns {Measure[]} what can colour the grid, at least one */
function measureList(spec) {
  const list = [...spec.measures];
  if (spec.answer) list.push({ key: "shift", label: "shift of the answer to this image", unit: spec.answer.kind === "classes" ? "logits" : "standard deviations", kind: "sequential", values: [] });
  if (spec.classes) list.push({ key: "class", label: "class", unit: "", kind: "class", values: spec.classes.values });
  if (spec.origin) list.push({ key: "origin", label: "origin", unit: "", kind: "class", values: spec.origin.values });
  return list.length ? list : [{ key: "none", label: "nothing", unit: "", kind: "none", values: [] }];
}

/** @param {Spec} spec @param {Measure} measure @returns {Classes | undefined} the names behind numbers of classes */
const namesOf = (spec, { key }) => (key === "class" ? spec.classes : key === "origin" ? spec.origin : undefined);

/**
 * A measure's values for one image, or for the patch that asks.
 * @param {Spec} spec @param {Measure} measure @param {Book | null} book
 * @param {{ image: number, twin: number, view: PatchView | null }} shown
 * @returns {Measure}
 */
function measured(spec, measure, book, { image, twin, view }) {
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

// What is picked, read from the traits, and what is known of it.

const TRAITS = ["layer", "head", "image", "query", "variant", "twin", "measure", "scale", "opacity", "mode", "off", "pins", "tracks"];

/** @param {Model} model @param {Record<string, any>} values */
function setTraits(model, values) {
  for (const [trait, value] of Object.entries(values)) model.set(trait, value);
  model.save_changes();
}

/** @typedef {ReturnType<typeof reader>} Reader */

/**
 * Questions about what is picked.
 * @param {Model} model @param {Spec} spec @param {Data} data
 */
function reader(model, spec, data) {
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
const headName = ({ layer, head }) => `layer ${layer + 1}, head ${head + 1}`;

/** @param {Spec} spec @param {number} index */
const placeOf = (spec, index) => ({ layer: Math.floor(index / spec.heads), head: index % spec.heads });

/** @param {Spec} spec @param {number} index */
const shortName = (spec, index) => `L${Math.floor(index / spec.heads) + 1}H${(index % spec.heads) + 1}`;

/** @param {Spec} spec @param {number[]} heads @returns {[number, number][]} pairs of layer and head, as traits have them */
const pairsOf = (spec, heads) => [...heads].sort((a, b) => a - b).map((index) => [Math.floor(index / spec.heads), index % spec.heads]);

/** @param {Spec} spec @param {number} twin @param {number} variant */
const panelName = (spec, twin, variant) => [spec.variants[variant], spec.twins[twin]].filter(Boolean).join(" · ");

/** @param {Spec} spec */
const middlePatch = ({ rows, columns }) => Math.floor(rows / 2) * columns + Math.floor(columns / 2);

/** @param {number} query @param {{ columns: number }} spec */
const patchName = (query, { columns }) => `row ${Math.floor(query / columns) + 1}, column ${(query % columns) + 1}`;

// Segmented buttons, the controls below the grid, and the strip of images.

/** @typedef {string | number} Choice */

// Radio buttons carry a name that is unique on the page, so that two pickers never share a group.
let groups = 0;

/**
 * Radio buttons side by side.
 * @param {string} label @param {[Choice, string][]} options @param {(value: Choice) => void} choose
 */
function segments(label, options, choose) {
  const name = `vm-group-${(groups += 1)}-${Math.random().toString(36).slice(2, 8)}`;
  const inputs = options.map(([value]) => make("input", { type: "radio", name, value: String(value), onchange: () => choose(value) }));
  const labels = options.map(([, text], index) => make("label", {}, inputs[index], text));
  const panel = make("fieldset", {}, make("legend", { class: "vm-label" }, label), make("div", { class: "vm-segments" }, ...labels));
  /** @param {Choice} value */
  const update = (value) => inputs.forEach((input) => { input.checked = input.value === String(value); });
  return { panel, update };
}

/** @param {Model} model @param {Spec} spec @returns {Part} */
function buildControls(model, spec) {
  /** @type {((state: State) => void)[]} */
  const follow = [];
  const panel = make("div", { class: "vm-controls" });
  /**
   * @param {string} label @param {[Choice, string][]} options
   * @param {(value: Choice) => Record<string, any>} traits @param {(state: State) => Choice} value
   */
  const add = (label, options, traits, value) => {
    const control = segments(label, options, (choice) => setTraits(model, traits(choice)));
    follow.push((state) => control.update(value(state)));
    panel.append(control.panel);
  };
  /** @param {string[]} names @returns {[Choice, string][]} */
  const sides = (names) => [...names.map((name, index) => /** @type {[Choice, string]} */ ([index, name])), [-1, names.length === 2 ? "both" : "all"]];
  if (spec.variants.length > 1) add("Model", sides(spec.variants), (variant) => ({ variant, query: -1 }), ({ variant }) => variant);
  if (spec.twins.length > 1) add("Image", sides(spec.twins), (twin) => ({ twin, query: -1 }), ({ twin }) => twin);
  add("Scale", [["map", "per map"], ["shared", "shared"]], (scale) => ({ scale }), ({ shared }) => (shared ? "shared" : "map"));
  if (spec.query) {
    const { heads, image } = spec.query;
    const patch = { query: middlePatch(spec), image, variant: 0, twin: 0 };
    add("Query", [["cls", "CLS"], ["patch", "patch"]], (value) => (value === "cls" ? { query: -1 } : patch), ({ query }) => (query < 0 ? "cls" : "patch"));
    const stored = heads.length < spec.layers * spec.heads ? ` and ${heads.length} heads` : "";
    panel.lastElementChild?.setAttribute("title", `Views from patches are stored for ${spec.imageLabels[image]}${stored}, of ${[spec.variants[0], spec.twins[0]].filter(Boolean).join(", ") || "the model"}.`);
  }
  const slider = make("input", { type: "range", min: "0", max: "1", step: "0.05", "aria-label": "Opacity of the map", oninput: () => setTraits(model, { opacity: Number(slider.value) }) });
  panel.append(make("div", {}, make("span", { class: "vm-label", "aria-hidden": "true" }, "Opacity of the map"), slider));
  follow.push(({ opacity }) => { slider.value = String(opacity); });
  return { panel, update: (state) => follow.forEach((one) => one(state)) };
}

/** @param {Model} model @param {Spec} spec @param {Data} data @returns {Part} */
function imageStrip(model, spec, data) {
  const control = segments("Images", spec.imageLabels.map((label, index) => [index, label]), (image) => setTraits(model, { image, query: -1 }));
  const list = /** @type {HTMLElement} */ (control.panel.querySelector(".vm-segments"));
  list.className = "vm-strip";
  list.querySelectorAll("label").forEach((label, index) => {
    const thumb = canvas(116, Math.round((116 * spec.height) / spec.width), "vm-thumb");
    pen(thumb).drawImage(data.pictures[0][index], 0, 0, thumb.width, thumb.height);
    label.title = spec.imageLabels[index];
    label.replaceChildren(/** @type {HTMLElement} */ (label.querySelector("input")), thumb, make("span", {}, spec.imageLabels[index]));
  });
  control.panel.hidden = spec.imageLabels.length < 2;
  /** @type {number | null} */
  let shown = null;
  /** @param {State} state */
  const update = ({ image }) => {
    if (image !== shown) control.update(image);
    shown = image;
  };
  return { panel: control.panel, update };
}

// Colours: control points of colour-blind-safe maps, tables of them, and ink that can be read on them.

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const BLUE_ORANGE = ["#0b3c6f", "#2f6fae", "#7fb2d8", "#c9dfee", "#f4f2ee", "#f6d2ab", "#e39a55", "#b75d17", "#6d2f04"];
const BLUE_ORANGE_DARK = ["#93cbfa", "#5f9fd8", "#3a6f9f", "#2f4a61", "#30333a", "#553f2b", "#8f5e2d", "#d18f43", "#ffc67f"];
const CLASSES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7a7a7a"]; // Okabe and Ito
const UNKNOWN = "#b9b9b5";

/**
 * The same colour on light and dark pages.
 * @param {string} hex
 * @returns {Themed<Rgb>}
 */
const both = (hex) => [channels(hex), channels(hex)];

/** @param {string} hex @returns {Rgb} */
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/**
 * 256 colours between control points.
 * @param {string[]} stops
 * @returns {Rgb[]}
 */
function colourTable(stops) {
  const points = stops.map(channels);
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (points.length - 1);
    const low = Math.min(Math.floor(place), points.length - 2);
    return points[low].map((value, channel) => Math.round(value + (points[low + 1][channel] - value) * (place - low)));
  });
}

/** @param {string[]} stops @returns {Themed<Rgb[]>} */
const same = (stops) => [colourTable(stops), colourTable(stops)];
/** @type {Themed<Rgb[]>} Diverging maps have their middle near the page's own colour. */
const DIVERGING = [colourTable(BLUE_ORANGE), colourTable(BLUE_ORANGE_DARK)];
const TABLES = { heat: same(CIVIDIS), sequential: same(VIRIDIS), diverging: DIVERGING, log: DIVERGING };

// One 32-bit word per colour (little-endian RGBA), so that a map is painted by one table look-up per patch.
// Weak attention covers less than strong: alpha rises from 0.4 to 1, times the chosen opacity.
const HEAT_WORDS = Uint32Array.from(TABLES.heat[0], ([r, g, b], index) => ((Math.round(102 + (153 * index) / 255) << 24) | (b << 16) | (g << 8) | r) >>> 0);

/** @param {Rgb} colour */
const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/**
 * A CSS value that follows the page's theme.
 * @param {Themed<Rgb>} colours
 * @param {(colour: Rgb) => string} [text]
 */
const themed = ([light, dark], text = css) => `light-dark(${text(light)}, ${text(dark)})`;

/** @param {Themed<Rgb[]>} table */
const gradient = ([light, dark]) => `linear-gradient(to right, ${[0, 32, 64, 96, 128, 160, 192, 224, 255].map((at) => themed([light[at], dark[at]])).join(", ")})`;

/**
 * Black or white, whichever can be read on a colour.
 * @param {Rgb} colour
 */
function inkOn(colour) {
  const linear = colour.map((value) => ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.2 ? "#101216" : "#ffffff";
}

// What a head's attention falls on: a bar per region, with the region's area as baseline.

/**
 * Whose shares are shown: those of the first twin, of the shown variant or the first, and of the shown image where
 * stored so; from a patch, those of its image.
 * @param {Spec} spec @param {State} state
 */
function shareSource(spec, { patch, query, variant, image }) {
  const name = spec.variants[(spec.shares?.variants ?? 1) > 1 ? Math.max(variant, 0) : 0];
  const images = patch || (spec.shares?.images ?? 1) > 1 ? spec.imageLabels[image] : "all images";
  return [patch ? `patch in ${patchName(query, spec)}` : "CLS query", name, spec.twins[0], images].filter(Boolean).join(", ");
}

/** @param {Spec} spec @param {Reader} read @returns {Part} */
function regionBars(spec, read) {
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

// Downloads: the shown map as PNG, the table of heads as CSV.

/** @param {HTMLElement} root @param {Spec} spec @param {Reader} read */
function downloadButtons(root, spec, read) {
  const stem = () => { const { layer, head, image } = read.pick(); return `L${layer + 1}H${head + 1}_image${image + 1}`; };
  const png = async () => save(await drawPicture(root, spec, read.pick()), `${stem()}.png`);
  const table = () => save(csvTable(spec, read.pick(), read), "heads.csv");
  return make("div", { class: "vm-buttons" },
    make("button", { class: "vm-button", type: "button", "aria-label": "Download the shown map as PNG", onclick: png }, "PNG"),
    make("button", { class: "vm-button", type: "button", "aria-label": "Download the table of heads as CSV", onclick: table }, "CSV"));
}

/** @param {Blob | null} blob @param {string} name */
function save(blob, name) {
  if (!blob) return;
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/**
 * Text that a spreadsheet would take for a formula gets an apostrophe in front.
 * @param {string | number | null | undefined} value
 */
function csvField(value) {
  if (typeof value !== "string") return known(value) ? String(value) : "";
  const text = value.replace(/^(?=[=+\-@\t\r])/, "'");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** @param {Spec} spec @param {State} state @param {Reader} read */
function csvTable(spec, state, read) {
  const effect = spec.measures.find(({ key }) => key === "effect");
  /** @type {[string, (place: { index: number, layer: number, head: number }) => string | number | null | undefined][]} */
  const columns = [["layer (1-based)", ({ layer }) => layer + 1], ["head (1-based)", ({ head }) => head + 1]];
  for (const measure of spec.measures) columns.push([`${measure.label} (${measure.unit})`, ({ index }) => measure.values[index]]);
  if (effect?.low) columns.push(["interval low", ({ index }) => effect.low?.[index]]);
  if (effect?.high) columns.push(["interval high", ({ index }) => effect.high?.[index]]);
  if (spec.classes) columns.push(["class", ({ index }) => spec.classes?.names[spec.classes.values[index] ?? -1]]);
  if (spec.origin) columns.push(["origin", ({ index }) => spec.origin?.names[spec.origin.values[index] ?? -1]]);
  if (spec.evidence) columns.push(["evidence", ({ index }) => spec.evidence?.[index]]);
  const { book } = read;
  book?.answer.outputs.forEach((name, output) => columns.push([`shift of ${name} without the head (${[book.answer.units[output], spec.imageLabels[state.image]].filter(Boolean).join(", ")})`, ({ index }) => book.shift(book.twinOf(state.twin), state.image, index)?.values[output]]));
  if (spec.shares) {
    const whose = shareSource(spec, state);
    spec.regions.forEach((region, at) => columns.push([`raw attention share of ${region} (${whose})`, (place) => read.share({ ...state, ...place }, at)]));
  }
  if (spec.areaShares) spec.regions.forEach((region, at) => columns.push([`area share of ${region}`, () => read.area(state, at)]));
  const lines = [columns.map(([title]) => csvField(title)).join(",")];
  for (let index = 0; index < spec.layers * spec.heads; index += 1) {
    const place = { index, layer: Math.floor(index / spec.heads), head: index % spec.heads };
    lines.push(columns.map(([, value]) => csvField(value(place))).join(","));
  }
  return new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv;charset=utf-8" });
}

/**
 * The answers' lines, as the page draws them.
 * @param {CanvasRenderingContext2D} context @param {Element} figure @param {{ x: number, y: number, width: number, height: number }} box
 */
function drawTracks(context, figure, box) {
  if (!figure.querySelector(".vm-tracks:not([hidden])")) return;
  for (const line of figure.querySelectorAll("polyline")) {
    const look = getComputedStyle(line);
    const points = (line.getAttribute("points") ?? "").split(" ").filter(Boolean).map((point) => point.split(",").map(Number));
    context.save();
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(box.x + (x / 100) * box.width, box.y + (y / 100) * box.height));
    Object.assign(context, { strokeStyle: look.stroke, lineWidth: parseFloat(look.strokeWidth), lineCap: "round" });
    context.setLineDash(look.strokeDasharray.split(/[ ,]+/).map(parseFloat).filter(Number.isFinite));
    context.stroke();
    context.restore();
  }
}

/** @param {HTMLElement} root @param {Spec} spec @param {State} state @returns {Promise<Blob | null>} */
function drawPicture(root, spec, state) {
  const figures = [...root.querySelectorAll(".vm-stage .vm-panel")];
  const [side, gap, top] = [480, 24, 64];
  const height = Math.round((side * spec.height) / spec.width);
  const picture = canvas(gap + figures.length * (side + gap), top + height + 96, "");
  const context = pen(picture);
  /** @param {string} string @param {number} x @param {number} y @param {string} font @param {number} width */
  const text = (string, x, y, font, width) => { context.font = `${font} system-ui, sans-serif`; context.fillText(string, x, y, width); };
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, picture.width, picture.height);
  context.fillStyle = "#1b1d21";
  text(`${headName(state).replace("l", "L")} · ${spec.imageLabels[state.image]}`, gap, 30, "600 18px", picture.width - 2 * gap);
  text(spec.title, gap, 52, "14px", picture.width - 2 * gap);
  figures.forEach((figure, index) => {
    const x = gap + index * (side + gap);
    const [photo, heat] = figure.querySelectorAll("canvas");
    context.drawImage(photo, x, top, side, height);
    context.save();
    context.imageSmoothingEnabled = false;
    context.globalAlpha = state.opacity;
    context.drawImage(heat, x, top, side, height);
    context.restore();
    drawTracks(context, figure, { x, y: top, width: side, height });
    text(figure.querySelector(".vm-caption")?.textContent ?? "", x, top + height + 20, "13px", side);
  });
  const ramp = context.createLinearGradient(gap, 0, gap + side, 0);
  TABLES.heat[0].forEach((colour, index) => ramp.addColorStop(index / 255, css(colour)));
  context.fillStyle = ramp;
  context.fillRect(gap, top + height + 36, side, 12);
  context.fillStyle = "#1b1d21";
  const ticks = [...root.querySelectorAll(".vm-stage .vm-ticks span")].map((tick) => tick.textContent);
  text("0", gap, top + height + 64, "13px", side);
  context.textAlign = "right";
  text(`${ticks[2]} attention per patch`, gap + side, top + height + 64, "13px", side - 20);
  return new Promise((resolve) => { picture.toBlob(resolve, "image/png"); });
}

// Whether an answer without heads is exact or estimated, how far such estimates were off, and asking the model itself.

const PATIENCE = 120_000; // milliseconds until a kernel that says nothing is taken for gone

/**
 * The tried sets that are most like one of so many heads.
 * @param {Trial[]} tests @param {"shifts" | "slopes"} how @param {number} heads
 * @returns {Trial | null}
 */
function nearestTrial(tests, how, heads) {
  /** @param {Trial} test */
  const distance = (test) => Math.abs(Math.log(test.heads / heads));
  return tests.filter((test) => test.how === how).sort((a, b) => distance(a) - distance(b))[0] ?? null;
}

/** @param {Book} book @param {number[]} values */
const perOutput = (book, values) => values.map((value, output) => `${plain(value)}\u00a0${book.answer.units[output]}`.trim()).join(", ");

/**
 * @param {Model} model @param {Spec} spec @param {Book} book
 * @returns {{ panel: HTMLElement, update: (state: State, without: Without) => void }}
 */
function sureness(model, spec, book) {
  const mark = make("strong", { class: "vm-mark" });
  const words = make("span");
  const said = make("p", { class: "vm-aside", role: "status" });
  const ask = make("button", { class: "vm-button", type: "button", hidden: true }, "Compute it exactly");
  const panel = make("div", { class: "vm-sure-of" }, make("p", { class: "vm-aside" }, mark, words), ask, said, trialTable(book));
  /** @type {number[]} */
  let removed = [];
  let timer = 0;
  ask.addEventListener("click", () => {
    write(said, "Asking the model …");
    clearTimeout(timer);
    timer = window.setTimeout(() => write(said, "No answer came: is the notebook's kernel running? Run its cell again."), PATIENCE);
    model.send?.({ kind: "exact", off: pairsOf(spec, removed) });
  });
  model.on("msg:custom", (content) => {
    if (content?.kind !== "exact" && content?.kind !== "failed") return;
    clearTimeout(timer);
    write(said, content.kind === "failed" ? `The model could not be asked: ${content.error}` : "Computed by the model itself.");
  });

  /** @param {State} state @param {Without} without */
  function update(state, without) {
    removed = state.removed;
    const { how } = without;
    write(mark, how === "exact" ? "Exact" : how === "unknown" ? "Unknown" : "Estimated");
    write(words, `: ${howKnown(book, state, how)}`);
    mark.dataset.how = how;
    ask.hidden = how === "exact" || !model.get("_live");
    if (how !== "exact" && said.textContent === "Computed by the model itself.") write(said, "");
  }
  return { panel, update };
}

/** @param {Book} book @param {State} state @param {Without["how"]} how */
function howKnown(book, state, how) {
  const place = `each removed head's output is replaced by: ${book.answer.mode}`;
  if (!state.removed.length) return "all heads are on.";
  if (how === "exact") return `computed by the model without ${state.removed.length > 1 ? "these heads" : "this head"}; ${place}.`;
  if (how === "unknown") return "these heads were not ablated.";
  const sum = how === "shifts" ? "the exact shifts of single heads, added up" : "the slopes of the linearized model, added up";
  const test = nearestTrial(book.answer.tests, how, state.removed.length);
  const tried = test
    ? ` Where ${test.sets} sets of ${test.kind.replace("a whole layer", "a whole layer each")} were removed exactly, such sums were off by ${perOutput(book, test.off)}; the answer had moved by ${perOutput(book, test.moved)} (root mean squares over ${test.answers} answers).`
    : " How far such sums are off was not tried.";
  return `${sum}; ${place}.${tried}`;
}

/** @param {Book} book */
function trialTable(book) {
  const { tests, outputs, units } = book.answer;
  const head = ["sets", "sum of", "sets tried", ...outputs.map((name, output) => (units[output] ? `${name} (${units[output]})` : name))];
  const rows = tests.map((test) => make("tr", {},
    make("th", { scope: "row" }, test.kind),
    ...[test.how === "shifts" ? "exact shifts" : "slopes", String(test.sets), ...test.off.map((off, output) => (known(off) ? `${plain(off)} of ${plain(test.moved[output])}` : "unknown"))].map((text) => make("td", {}, text))));
  return make("details", { class: "vm-trials", hidden: !tests.length },
    make("summary", {}, "How far estimates were off"),
    make("p", { class: "vm-aside" }, "Root mean square of estimate minus exact answer, of that of the exact shift."),
    make("div", { class: "vm-scroll", tabindex: "0", role: "region", "aria-label": "How far estimates were off" }, make("table", { class: "vm-told" },
      make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows))));
}

// What the model answers, beside the truth and its answer without the picked or switched-off heads: numbers or bars.

const NAMED = 3; // heads that are named one by one, at most

/** @param {Spec} spec @param {State} state @returns {string} the heads that are taken away, in words */
function removedName(spec, state) {
  if (!state.removed.length) return "no head off";
  if (state.mode === "pick") return headName(state);
  const names = state.removed.slice(0, NAMED).map((index) => shortName(spec, index)).join(", ");
  return state.removed.length <= NAMED ? names : `${state.removed.length} heads`;
}

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
function buildAnswer(model, spec, read) {
  const { book } = read;
  if (!book) return { panel: make("div", { hidden: true }), update: () => {} };
  const title = make("div", { class: "vm-label" });
  const table = book.answer.kind === "classes" ? classTable(book) : numberTable(book);
  const loss = make("p", { class: "vm-aside vm-loss" });
  const sure = sureness(model, spec, book);
  const panel = make("div", { class: "vm-answer", role: "group", "aria-label": "The model's answer" }, title, table.panel, loss, sure.panel);
  if (book.answer.tracks) panel.append(trackKey(model));
  const box = panel.querySelector("input");

  /** @param {State} state */
  function update(state) {
    const twin = book ? book.twinOf(state.twin) : 0;
    if (!book) return;
    const without = book.without(twin, state.image, state.removed);
    const whose = [spec.variants[0], spec.twins[twin], spec.imageLabels[state.image]].filter(Boolean).join(", ");
    write(title, `The answer to ${whose}`);
    table.update(state, twin, without, `without ${removedName(spec, state)}`);
    write(loss, lossText(book, state, twin, without));
    sure.update(state, without);
    if (box) box.checked = state.tracks;
  }
  return { panel, update };
}

/** @param {Book} book */
function numberTable(book) {
  const { outputs, units } = book.answer;
  const last = make("th", { scope: "col" });
  const rows = outputs.map((name, output) => {
    const cells = ["vm-truth", "vm-whole", "vm-without", "vm-moved"].map((look) => make("td", { class: look }));
    return { cells, row: make("tr", {}, make("th", { scope: "row" }, units[output] ? `${name} (${units[output]})` : name), ...cells) };
  });
  const panel = make("table", { class: "vm-told" },
    make("thead", {}, make("tr", {}, make("td"), make("th", { scope: "col" }, "truth"), make("th", { scope: "col" }, "model"), last, make("th", { scope: "col" }, "shift"))),
    make("tbody", {}, ...rows.map(({ row }) => row)));
  /** @param {State} state @param {number} twin @param {Without} without @param {string} name */
  const update = (state, twin, without, name) => {
    write(last, without.how === "exact" ? name : `${name} (estimated)`);
    const truth = book.answer.truth?.[state.image];
    const whole = book.whole(twin, state.image);
    rows.forEach(({ cells }, output) => {
      const moved = without.values[output] - whole[output];
      const told = [Array.isArray(truth) ? plain(truth[output], 3) : "unknown", plain(whole[output], 3), plain(without.values[output], 3), signed(moved)];
      cells.forEach((cell, index) => write(cell, told[index]));
    });
  };
  return { panel, update };
}

/** @param {Book} book */
function classTable(book) {
  const rows = book.answer.outputs.map((name) => {
    const [fill, tick, text] = [make("i"), make("b"), make("span", { class: "vm-number" })];
    const label = make("span", {}, name);
    return { fill, tick, text, label, bar: make("div", { class: "vm-bar" }, label, text, make("div", { class: "vm-track", "aria-hidden": "true" }, fill, tick)) };
  });
  const key = make("div", { class: "vm-aside" });
  const panel = make("div", {}, make("div", { class: "vm-bars" }, ...rows.map(({ bar }) => bar)), key);
  /** @param {State} state @param {number} twin @param {Without} without @param {string} name */
  const update = (state, twin, without, name) => {
    const logits = book.whole(twin, state.image);
    const [before, after] = [shares(logits), shares(without.values)];
    write(key, `Bar: the probability ${name}${without.how === "exact" ? "" : " (estimated)"}; mark: with all heads. In brackets the logits.`);
    rows.forEach(({ fill, tick, text, label }, output) => {
      fill.style.transform = `scaleX(${known(after[output]) ? clamp(after[output], 0, 1) : 0})`;
      tick.style.transform = `translateX(${clamp(before[output], 0, 1) * 100}%)`;
      write(label, `${book.answer.outputs[output]}${book.answer.truth?.[state.image] === output ? " (true)" : ""}`);
      write(text, `${percent(before[output])} → ${percent(after[output])} (${plain(logits[output])} → ${plain(without.values[output])})`);
    });
  };
  return { panel, update };
}

/** @param {Book} book @param {State} state @param {number} twin @param {Without} without */
function lossText(book, state, twin, without) {
  const before = book.loss(book.whole(twin, state.image), state.image);
  const after = book.loss(without.values, state.image);
  if (!known(before)) return "";
  const unit = book.answer.kind === "classes" ? "nats" : "squared standard deviations";
  const [all, rest] = [book.meanLoss(twin, []), book.meanLoss(twin, state.removed)];
  const grown = known(all.loss) && known(rest.loss) && all.loss > 0 ? ` (${signed((100 * rest.loss) / all.loss - 100, 3)}\u00a0%)` : "";
  const over = known(rest.loss) ? `; over all images shown here ${plain(all.loss)} → ${plain(rest.loss)}${grown}${rest.exact ? "" : ", estimated"}` : "";
  return `Error on this image ${plain(before)} → ${plain(after)} ${unit}${over}.`;
}

/** @param {Model} model what the lines over the image mean, and whether they are drawn */
function trackKey(model) {
  const box = make("input", { type: "checkbox", onchange: () => setTraits(model, { tracks: box.checked }) });
  const keys = [["truth", "truth"], ["whole", "model"], ["without", "without heads"]].map(([name, text]) => make("span", {}, make("i", { class: `vm-line vm-${name}`, "aria-hidden": "true" }), text));
  return make("div", { class: "vm-aside" },
    make("div", { class: "vm-keys" }, ...keys, make("label", { class: "vm-check" }, box, "draw them over the image")),
    make("div", {}, "The model tells no duration: all three are drawn with the true one."));
}

// Swatches and legends.

/** @param {Classes} classes @param {number} value */
const initial = (classes, value) => (classes.names[value].trim()[0] ?? "?").toUpperCase();

/** @param {HTMLElement} element @param {Themed<Rgb>} colours */
function tint(element, colours) {
  element.style.background = themed(colours);
  element.style.color = themed(colours, inkOn);
}

/** @param {Themed<Rgb>} colour @param {string} text */
function swatch(colour, text) {
  const element = make("i", { class: "vm-swatch", "aria-hidden": "true" }, text);
  tint(element, colour);
  return element;
}

/** @param {Classes} classes @param {number} value */
const classSwatch = (classes, value) => swatch(both(CLASSES[value % CLASSES.length]), initial(classes, value));

/**
 * What the colours of the grid mean.
 * @param {Measure} measure @param {Scale | null} scale @param {Classes | undefined} classes
 */
function gridLegend(measure, scale, classes) {
  if (measure.kind === "class" && classes) {
    const keys = classes.names.map((name, value) => make("span", {}, classSwatch(classes, value), name));
    return [make("div", { class: "vm-keys" }, ...keys)];
  }
  if (!scale || measure.kind === "none" || measure.kind === "class") return [];
  const parts = [rampLegend(TABLES[measure.kind], scale.ticks), make("div", {}, [measure.label, measure.unit].filter(Boolean).join(", "))];
  if (measure.low) parts.push(make("div", {}, "A dot: the interval excludes 0."));
  if (measure.values.some((value) => !known(value))) parts.push(make("div", { class: "vm-keys" }, make("span", {}, swatch(both(UNKNOWN), ""), "unknown")));
  return parts;
}

/** @param {Themed<Rgb[]>} table @param {string[]} ticks */
function rampLegend(table, ticks) {
  const ramp = make("div", { class: "vm-ramp", "aria-hidden": "true" });
  ramp.style.background = gradient(table);
  return make("div", {}, ramp, make("div", { class: "vm-ticks" }, ...ticks.map((tick) => make("span", {}, tick))));
}

// Right: what is known of the picked head.

const OF_CLS = "Its class and evidence speak of the CLS query: return to it to read them.";

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
function buildFacts(model, spec, read) {
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

// The colour scale of the grid.

/**
 * Where a value lies on the colour scale, 0 to 1, and the words at its start, middle and end.
 * @typedef {{ place: (value: number) => number, ticks: [string, string, string] }} Scale
 */

/**
 * @param {Measure} measure
 * @returns {Scale | null} null where there is nothing to scale
 */
function gridScale(measure) {
  const values = measure.values.filter(known);
  if (measure.kind === "class" || measure.kind === "none" || !values.length) return null;
  if (measure.kind === "sequential") {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return { place: (value) => (value - low) / (high - low || 1), ticks: [plain(low, 3), plain((low + high) / 2, 3), plain(high, 3)] };
  }
  // Diverging scales are symmetric about "no effect" (0) or "as its area" (1); the largest 2 % may be clipped.
  /** @param {number} value */
  const size = (value) => (measure.kind === "log" ? Math.abs(Math.log2(Math.max(value, 1e-6))) : Math.abs(value));
  const sizes = values.map(size).sort((a, b) => a - b);
  const most = sizes[sizes.length - 1];
  const limit = clamp(sizes[Math.floor((sizes.length - 1) * 0.98)], 1e-9, measure.kind === "log" ? 6 : Infinity);
  const [below, above] = most > limit * 1.0001 ? ["≤ ", "≥ "] : ["", ""];
  if (measure.kind === "log") {
    const factor = 2 ** limit;
    return { place: (value) => 0.5 + Math.log2(Math.max(value, 1e-6)) / limit / 2, ticks: [`${below}${plain(1 / factor)}`, "1", `${above}${plain(factor)}`] };
  }
  return { place: (value) => 0.5 + value / limit / 2, ticks: [`${below}${plain(-limit)}`, "0", `${above}${signed(limit)}`] };
}

/**
 * The colour of a head.
 * @param {Measure} measure @param {Scale | null} scale @param {number} index
 * @returns {Themed<Rgb>}
 */
function cellColour(measure, scale, index) {
  const value = measure.values[index];
  if (!known(value)) return both(UNKNOWN);
  if (measure.kind === "class") return both(CLASSES[value % CLASSES.length]);
  if (measure.kind === "none" || !scale) return both(UNKNOWN);
  const at = clamp(Math.round(scale.place(value) * 255), 0, 255);
  const [light, dark] = TABLES[measure.kind];
  return [light[at], dark[at]];
}

/**
 * Whether the interval of a head's value excludes 0.
 * @param {Measure} measure @param {number} index
 */
function isSure({ low, high }, index) {
  const [from, to] = [low?.[index], high?.[index]];
  return known(from) && known(to) && from * to > 0;
}

// Switching heads off: one by one, by layer, column, class, origin or region, or all.

/**
 * Off where any of these heads is on, else on again.
 * @param {number[]} off @param {number[]} heads @returns {number[]}
 */
function toggled(off, heads) {
  const all = heads.every((head) => off.includes(head));
  return all ? off.filter((head) => !heads.includes(head)) : [...new Set([...off, ...heads])];
}

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
function buildSwitches(model, spec, read) {
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

// Left: the grid of heads.

const HINT = "Click a head, or move with the arrow keys.";
const OFF_HINT = "Click a head, a layer or a column to switch it off or on again.";

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
function buildGrid(model, spec, read) {
  const { grid, cells, axes } = gridCells(spec);
  const readout = make("div", { class: "vm-readout", "aria-hidden": "true" }, HINT);
  /** @param {number} layer @param {number} head */
  const pick = (layer, head) => {
    setTraits(model, { layer, head });
    cells[layer * spec.heads + head].focus({ preventScroll: true });
  };
  /** @param {number[]} heads */
  const toggle = (heads) => setTraits(model, { off: pairsOf(spec, toggled(read.pick().off, heads)) });
  grid.addEventListener("click", (event) => {
    const index = indexOf(event);
    const switching = read.pick().mode === "off";
    const group = /** @type {Element} */ (event.target).closest?.(".vm-axis");
    if (switching && group instanceof HTMLElement) toggle(alongside(spec, group.dataset));
    if (index === null) return;
    if (switching) toggle([index]);
    pick(Math.floor(index / spec.heads), index % spec.heads);
  });
  grid.addEventListener("pointerover", (event) => {
    const index = indexOf(event);
    if (index !== null) write(readout, describe(spec, read.pick().measure, index));
  });
  grid.addEventListener("pointerleave", () => write(readout, read.pick().mode === "off" ? OFF_HINT : HINT));
  grid.addEventListener("keydown", (event) => {
    const state = read.pick();
    if (event.key === " " && state.mode === "off") {
      event.preventDefault();
      toggle(event.shiftKey ? alongside(spec, { layer: String(state.layer) }) : event.ctrlKey ? alongside(spec, { head: String(state.head) }) : [state.index]);
      return;
    }
    const target = arrowTarget(event, state, spec);
    if (!target) return;
    event.preventDefault();
    pick(...target);
  });

  const select = make("select", { "aria-label": "Colour the grid by", onchange: () => setTraits(model, { measure: select.value }) });
  for (const measure of measureList(spec)) select.append(make("option", { value: measure.key }, measure.unit ? `${measure.label} (${measure.unit})` : measure.label));
  const legend = make("div", { class: "vm-legend" });
  const panel = make("div", { class: "vm-heads" }, grid, readout, make("span", { class: "vm-label", "aria-hidden": "true" }, "Grid coloured by"), select, legend);
  /** @type {string | null} */
  let painted = null;
  /** @type {number | null} */
  let picked = null;
  let out = "";

  /** @param {State} state */
  function paint({ measure, mode, off }) {
    const scale = gridScale(measure);
    const names = namesOf(spec, measure);
    select.value = measure.key;
    grid.setAttribute("aria-label", `Heads: ${spec.layers} layers by ${spec.heads} heads, coloured by ${measure.label}`);
    cells.forEach((cell, index) => {
      const value = measure.values[index];
      tint(cell, cellColour(measure, scale, index));
      cell.classList.toggle("vm-sure", isSure(measure, index));
      write(cell, names && known(value) ? initial(names, value) : "");
      const gone = mode === "off" && off.includes(index);
      cell.classList.toggle("vm-out", gone);
      cell.setAttribute("aria-label", `${describe(spec, measure, index)}${gone ? ", switched off" : ""}`);
    });
    legend.replaceChildren(...gridLegend(measure, scale, names));
  }

  /** @param {State} state */
  function update(state) {
    const switched = state.mode === "off" ? state.off.join() : "none";
    if (painted !== state.painted || out !== switched) paint(state);
    if ((out === "none") !== (switched === "none") || !painted) {
      grid.classList.toggle("vm-switching", state.mode === "off");
      axes.forEach((axis) => { axis.title = state.mode === "off" ? `Switch ${axis.getAttribute("aria-label")} off or on again` : ""; });
      write(readout, state.mode === "off" ? OFF_HINT : HINT);
    }
    [painted, out] = [state.painted, switched];
    if (picked === state.index) return;
    if (picked !== null) mark(cells[picked], false);
    mark(cells[state.index], true);
    picked = state.index;
  }
  return { panel, update };
}

/** @param {Spec} spec */
function gridCells(spec) {
  /** @type {HTMLElement[]} */
  const cells = [];
  /** @type {HTMLElement[]} */
  const axes = [];
  /** @param {string} role @param {string} label @param {string} text @param {Record<string, string>} data */
  const axis = (role, label, text, data) => {
    const element = make("div", { class: "vm-axis", role, "aria-label": label }, text);
    Object.assign(element.dataset, data);
    axes.push(element);
    return element;
  };
  const grid = make("div", { class: "vm-grid", role: "grid" });
  grid.style.setProperty("--vm-heads", String(spec.heads));
  grid.classList.toggle("vm-many", spec.layers > 16);
  const header = make("div", { class: "vm-row", role: "row" }, make("div", { class: "vm-axis", role: "columnheader" }, make("span", { class: "vm-hush" }, "layer")));
  for (let head = 0; head < spec.heads; head += 1) {
    header.append(axis("columnheader", `head ${head + 1}`, `${spec.heads > 12 ? "" : "H"}${head + 1}`, { head: String(head) }));
  }
  grid.append(header);
  for (let layer = 0; layer < spec.layers; layer += 1) {
    const row = make("div", { class: "vm-row", role: "row" }, axis("rowheader", `layer ${layer + 1}`, `L${layer + 1}`, { layer: String(layer) }));
    for (let head = 0; head < spec.heads; head += 1) {
      const cell = make("div", { class: "vm-cell", role: "gridcell", tabindex: "-1", "aria-selected": "false" });
      cell.dataset.index = String(cells.length);
      cells.push(cell);
      row.append(cell);
    }
    grid.append(row);
  }
  return { grid, cells, axes };
}

/** @param {Spec} spec @param {DOMStringMap} names @returns {number[]} the heads of a layer, or of a column */
function alongside(spec, { layer, head }) {
  const all = Array.from({ length: spec.layers * spec.heads }, (_, index) => index);
  if (layer !== undefined) return all.filter((index) => Math.floor(index / spec.heads) === Number(layer));
  return head === undefined ? [] : all.filter((index) => index % spec.heads === Number(head));
}

/** @param {Event} event @returns {number | null} the head under the pointer */
function indexOf(event) {
  const cell = /** @type {Element} */ (event.target).closest?.(".vm-cell");
  return cell instanceof HTMLElement ? Number(cell.dataset.index) : null;
}

/** @param {Spec} spec @param {Measure} measure @param {number} index */
function describe(spec, measure, index) {
  const name = headName({ layer: Math.floor(index / spec.heads), head: index % spec.heads });
  const value = measure.values[index];
  if (measure.kind === "none") return name;
  const names = namesOf(spec, measure);
  if (names) return `${name}: ${known(value) ? names.names[value] : `no ${measure.key}`}`;
  return `${name}: ${measure.label} ${withUnit(measure, value)}`;
}

/** @param {HTMLElement} cell @param {boolean} chosen */
function mark(cell, chosen) {
  cell.setAttribute("aria-selected", String(chosen));
  cell.tabIndex = chosen ? 0 : -1;
}

/**
 * Where a key leads.
 * @param {KeyboardEvent} event @param {State} state @param {Spec} spec
 * @returns {[number, number] | null} layer and head
 */
function arrowTarget(event, { layer, head }, spec) {
  const [last, end] = [spec.layers - 1, spec.heads - 1];
  /** @type {Record<string, [number, number]>} */
  const moves = {
    ArrowUp: [layer - 1, head], ArrowDown: [layer + 1, head], ArrowLeft: [layer, head - 1], ArrowRight: [layer, head + 1],
    Home: [event.ctrlKey ? 0 : layer, 0], End: [event.ctrlKey ? last : layer, end], PageUp: [0, head], PageDown: [last, head],
  };
  const move = !event.altKey && !event.metaKey && moves[event.key];
  return move ? [clamp(move[0], 0, last), clamp(move[1], 0, end)] : null;
}

// Deep links: #L6H4 belongs to the page's first picker, #name:L6H4 to the picker of that name. What else differs from
// the start follows as in an address: #L6H4?image=2&model=2&query=5.7&mode=off&off=L3.L5H2

// Traits in links: what they are called there; numbers count from 1, 0 stands for side by side.
const NUMBERS = /** @type {const} */ ([["image", "image"], ["model", "variant"], ["picture", "twin"]]);
const WATCHED = ["layer", "head", "image", "variant", "twin", "query", "mode", "off"];

/**
 * What a link says, as traits; null where it is not this picker's or names no head.
 * @param {Spec} spec @param {string} hash @param {boolean} isFirst
 */
function readLink(spec, hash, isFirst) {
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
function writeLink(spec, get, prefix) {
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
function followLinks(model, spec, host) {
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

// Finding heads: all of them in a list, ordered by a measure and filtered.

/** @param {Measure} measure @param {boolean} size @returns {(index: number) => number} what a head is ordered by */
const order = (measure, size) => (index) => {
  const value = measure.values[index];
  return known(value) ? (size ? Math.abs(value) : value) : -Infinity;
};

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
function buildList(model, spec, read) {
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

// All heads' maps at once, each on its own scale, and the layers to scrub through.

const GAP = 1; // pixels between maps, of one pixel per patch

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
function buildMosaic(model, spec, read) {
  const [high, wide] = [spec.rows + GAP, spec.columns + GAP];
  const sheet = canvas(spec.heads * wide - GAP, spec.layers * high - GAP, "vm-sheet");
  const row = canvas(spec.heads * wide - GAP, spec.rows, "vm-film");
  const [band, spot] = [make("div", { class: "vm-band" }), make("div", { class: "vm-spot" })];
  const slider = make("input", { type: "range", min: "1", max: String(spec.layers), step: "1", "aria-label": "Scrub through the layers", oninput: () => setTraits(model, { layer: Number(slider.value) - 1 }) });
  const title = make("span", { class: "vm-label" });
  const words = make("span", { class: "vm-label", "aria-hidden": "true" });
  const film = make("div", { class: "vm-strip-of-maps" }, row, spot);
  const all = make("div", { class: "vm-all-maps" }, sheet, band);
  const panel = make("div", { class: "vm-maps" }, title, all, make("div", {}, words, slider, film));
  /** @param {HTMLElement} target @param {MouseEvent} event @param {number} layers */
  const headAt = (target, event, layers) => {
    const box = target.getBoundingClientRect();
    return {
      layer: clamp(Math.floor(((event.clientY - box.top) / box.height) * layers), 0, layers - 1),
      head: clamp(Math.floor(((event.clientX - box.left) / box.width) * spec.heads), 0, spec.heads - 1),
    };
  };
  all.addEventListener("click", (event) => setTraits(model, headAt(all, event, spec.layers)));
  film.addEventListener("click", (event) => setTraits(model, { head: headAt(film, event, 1).head }));
  let painted = "";
  let filmed = "";

  /** @param {State} state */
  function update(state) {
    const [twin, variant] = read.panels(state)[0];
    const wanted = [state.image, twin, variant, state.patch ? state.query : ""].join("|");
    if (painted !== wanted) paint(state, twin, variant);
    if (filmed !== `${wanted}|${state.layer}`) pen(row).drawImage(sheet, 0, state.layer * high, row.width, spec.rows, 0, 0, row.width, spec.rows);
    [painted, filmed] = [wanted, `${wanted}|${state.layer}`];
    const from = state.patch ? "from the chosen patch" : "of the CLS query";
    write(title, `All maps ${from}, each on its own scale (${[panelName(spec, twin, variant), spec.imageLabels[state.image]].filter(Boolean).join(", ")})`);
    write(words, `Layer ${state.layer + 1} of ${spec.layers}, its heads from 1 to ${spec.heads}`);
    slider.value = String(state.layer + 1);
    slider.setAttribute("aria-valuetext", headName(state));
    Object.assign(band.style, { top: `${(100 * state.layer) / spec.layers}%`, height: `${100 / spec.layers}%` });
    Object.assign(spot.style, { left: `${(100 * state.head) / spec.heads}%`, width: `${100 / spec.heads}%` });
  }

  /** @param {State} state @param {number} twin @param {number} variant */
  function paint(state, twin, variant) {
    const context = pen(sheet);
    const pixels = context.createImageData(sheet.width, sheet.height);
    const words32 = new Uint32Array(pixels.data.buffer);
    for (let index = 0; index < spec.layers * spec.heads; index += 1) {
      const map = read.map(state, twin, variant, index);
      if (!map) continue; // no view from this patch is stored: the ground shows
      const { layer, head } = placeOf(spec, index);
      const factor = 255 / (map.levels - 1);
      for (let y = 0; y < spec.rows; y += 1) {
        const from = Math.floor((y * map.rows) / spec.rows) * map.columns;
        const to = (layer * high + y) * sheet.width + head * wide;
        for (let x = 0; x < spec.columns; x += 1) words32[to + x] = 0xff000000 | HEAT_WORDS[Math.min(255, Math.round(map.steps[from + Math.floor((x * map.columns) / spec.columns)] * factor))];
      }
    }
    context.putImageData(pixels, 0, 0);
  }
  return { panel, update };
}

// Pixels: the image below, the map above it.

/**
 * Under a map the image is grey, so that colour always means attention. Baked in: a CSS filter would cost every frame.
 * @param {HTMLCanvasElement} photo @param {ImageBitmap} picture @param {boolean} grey
 */
function paintPhoto(photo, picture, grey) {
  const context = pen(photo, { willReadFrequently: true });
  context.drawImage(picture, 0, 0, photo.width, photo.height);
  if (!grey) return;
  const pixels = context.getImageData(0, 0, photo.width, photo.height);
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) {
    const light = 0.2126 * data[at] + 0.7152 * data[at + 1] + 0.0722 * data[at + 2];
    data[at] = data[at + 1] = data[at + 2] = light;
  }
  context.putImageData(pixels, 0, 0);
}

/**
 * One pixel per patch; `top` gets the brightest colour.
 * @param {HTMLCanvasElement} heat @param {Steps} map @param {number} top
 */
function paintHeat(heat, { steps, peak, levels }, top) {
  const context = pen(heat);
  const pixels = context.createImageData(heat.width, heat.height);
  const words = new Uint32Array(pixels.data.buffer);
  const factor = top > 0 ? ((peak / top) * 255) / (levels - 1) : 0;
  for (let index = 0; index < words.length; index += 1) words[index] = HEAT_WORDS[Math.min(255, Math.round(steps[index] * factor))];
  context.putImageData(pixels, 0, 0);
}

/**
 * Frame the patch that asks.
 * @param {HTMLElement} patch @param {[number, number]} cell @param {{ queryRows: number, queryColumns: number }} query
 */
function placePatch(patch, [row, column], { queryRows, queryColumns }) {
  Object.assign(patch.style, {
    top: `${(100 * row) / queryRows}%`, left: `${(100 * column) / queryColumns}%`, height: `${100 / queryRows}%`, width: `${100 / queryColumns}%`,
  });
}

// Two heads that stay in view, side by side, whichever is picked.

const MOST = 2;

/** @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @returns {Part} */
function buildPins(model, spec, data, read) {
  const pin = make("button", { class: "vm-button", type: "button" });
  const hint = make("span", { class: "vm-aside" }, "Pinned heads stay here, side by side.");
  const cards = make("div", { class: "vm-cards" });
  const panel = make("div", { class: "vm-pins" }, make("div", { class: "vm-keys" }, pin, hint), cards);
  /** @param {number[]} pins */
  const setPins = (pins) => setTraits(model, { pins: pins.map((index) => pairsOf(spec, [index])[0]) });
  pin.addEventListener("click", () => {
    const { pins, index } = read.pick();
    setPins(pins.includes(index) ? pins.filter((other) => other !== index) : [...pins, index].slice(-MOST));
  });
  /** @type {ReturnType<typeof card>[]} */
  let shown = [];
  let layout = "";

  /** @param {State} state */
  function update(state) {
    const { pins } = state;
    write(pin, pins.includes(state.index) ? `Unpin ${headName(state)}` : `Pin ${headName(state)}`);
    if (layout !== pins.join()) {
      shown = pins.map((index) => card(model, spec, data, read, index, () => setPins(read.pick().pins.filter((other) => other !== index))));
      cards.replaceChildren(...shown.map(({ panel: one }) => one));
    }
    layout = pins.join();
    shown.forEach((one) => one.update(state));
  }
  return { panel, update };
}

/** @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @param {number} index @param {() => void} unpin */
function card(model, spec, data, read, index, unpin) {
  const name = headName(placeOf(spec, index));
  const [photo, heat] = [canvas(spec.width, spec.height, "vm-photo"), canvas(spec.columns, spec.rows, "vm-heat")];
  const layers = make("div", { class: "vm-layers", role: "img" }, photo, heat);
  layers.style.aspectRatio = `${spec.width} / ${spec.height}`;
  const facts = make("ul", { class: "vm-known" });
  const buttons = make("div", { class: "vm-buttons" },
    make("button", { class: "vm-button", type: "button", "aria-label": `Go to ${name}`, onclick: () => setTraits(model, placeOf(spec, index)) }, "Go to it"),
    make("button", { class: "vm-button", type: "button", "aria-label": `Unpin ${name}`, onclick: unpin }, "Unpin"));
  const panel = make("div", { class: "vm-pinned", role: "group", "aria-label": `Pinned: ${name}` }, make("strong", {}, name.replace("l", "L")), make("div", { class: "vm-frame" }, layers), facts, buttons);
  let painted = "";
  let mapped = "";

  /** @param {State} state */
  function update(state) {
    const [twin, variant] = read.panels(state)[0];
    const photoOf = `${twin}.${state.image}.${state.opacity > 0}`;
    if (painted !== photoOf) paintPhoto(photo, data.pictures[twin][state.image], state.opacity > 0);
    painted = photoOf;
    const wanted = [twin, variant, state.image, state.patch ? state.query : "", state.shared, state.removed].join("|");
    heat.style.opacity = String(state.opacity);
    if (mapped === wanted) return;
    mapped = wanted;
    const map = read.map(state, twin, variant, index);
    if (map) {
      if (heat.width !== map.columns || heat.height !== map.rows) Object.assign(heat, { width: map.columns, height: map.rows });
      paintHeat(heat, map, state.shared ? spec.sharedMaximum : map.peak);
    } else pen(heat).clearRect(0, 0, heat.width, heat.height);
    layers.setAttribute("aria-label", map ? `Attention map of ${name}, highest ${percent(map.peak)}` : `${name}: no view from this patch is stored`);
    facts.replaceChildren(...factsOf(spec, read, { ...state, ...placeOf(spec, index), index }, twin, variant, map?.peak).map((text) => make("li", {}, text)));
  }
  return { panel, update };
}

/** @param {Spec} spec @param {Reader} read @param {State} state @param {number} twin @param {number} variant @param {number | undefined} peak */
function factsOf(spec, read, state, twin, variant, peak) {
  const { index, image } = state;
  const found = [[panelName(spec, twin, variant), known(peak) ? `highest ${percent(peak)}` : "no view from this patch is stored"].filter(Boolean).join(" · ")];
  for (const measure of spec.measures.filter(({ key }) => key === "effect" || (key === "entropy" && !state.patch))) found.push(`${measure.label}: ${withUnit(measure, measure.values[index])}`);
  const shares = spec.regions.map((_, region) => read.share(state, region, variant) ?? -1);
  const most = shares.indexOf(Math.max(...shares));
  if (shares[most] >= 0) found.push(`most raw attention on ${spec.regions[most]}: ${percent(shares[most])}`);
  const { book } = read;
  const shift = book?.shift(book.twinOf(twin), image, index);
  if (book && shift) {
    const moved = shift.values.map((value, output) => `${book.answer.outputs[output]} ${signed(value)}\u00a0${book.answer.units[output]}`.trim());
    const largest = book.answer.outputs.length > 4 ? `answer moves by ${plain(book.size(book.twinOf(twin), image, index))}` : moved.join(", ");
    found.push(`without it: ${largest}${shift.how === "shifts" ? "" : " (estimated)"}`);
  }
  return found;
}

// The sentence above all, read out by screen readers when it changes.

/** @param {Book} book @param {Spec} spec @param {State} state how far the answer moves */
function movedText(book, spec, state) {
  const twin = book.twinOf(state.twin);
  const { values, how } = book.without(twin, state.image, state.removed);
  const whole = book.whole(twin, state.image);
  if (!state.removed.length || how === "unknown") return state.removed.length ? "no answer without it is known" : "no head is switched off";
  const far = values.map((value, output) => Math.abs(value - whole[output]) / book.answer.scale[output]);
  const top = far.indexOf(Math.max(...far));
  const name = state.mode === "pick" ? "without it" : `without ${removedName(spec, state)}`;
  return `${name} the ${book.answer.outputs[top]} moves by ${signed(values[top] - whole[top])}\u00a0${book.answer.units[top]}${how === "exact" ? "" : " (estimated)"}`.trim();
}

/** @param {Spec} spec @param {State} state @param {Reader} read @returns {[string, string]} the head, and what is known of it */
function summary(spec, state, read) {
  const parts = [];
  const effect = spec.measures.find(({ key }) => key === "effect");
  const kind = spec.classes?.values[state.index];
  if (spec.classes && known(kind) && !state.patch) parts.push(`class ${spec.classes.names[kind]}`);
  if (effect) {
    const [low, high] = [effect.low?.[state.index], effect.high?.[state.index]];
    const interval = known(low) && known(high) ? ` [${signed(low, 3)}, ${signed(high, 3)}]` : "";
    parts.push(`${effect.label} ${withUnit(effect, effect.values[state.index])}${interval}`);
  }
  const told = spec.regions.map((_, region) => read.share(state, region));
  if (told.some(known)) {
    const shares = told.map((share) => share ?? 0);
    /** @param {number} region */
    const unmixed = (region) => { const alone = read.unmixed(state, region); return known(alone) ? `, unmixed ${percent(alone)}` : ""; };
    const areas = spec.regions.map((_, region) => read.area(state, region) ?? 0);
    const lifts = shares.map((share, region) => (areas[region] > 0 ? share / areas[region] : 0));
    const top = lifts.indexOf(Math.max(...lifts));
    const most = shares.indexOf(Math.max(...shares));
    if (lifts[top] > 0) parts.push(`drawn most to ${spec.regions[top]}, raw share ${percent(shares[top])} on ${percent(areas[top])} of the area (${plain(lifts[top])}\u00a0×)${unmixed(top)}`);
    else parts.push(`most attention on ${spec.regions[most]}, raw share ${percent(shares[most])}${unmixed(most)}`);
  }
  if (state.patch) parts.unshift(`as the patch in ${patchName(state.query, spec)} sees it`);
  if (read.book) parts.push(movedText(read.book, spec, state));
  return [`Layer ${state.layer + 1}, head ${state.head + 1}`, parts.length ? `: ${parts.join("; ")}.` : "."];
}

// Answers drawn over the image: the sweep that is there, the one that the model tells, and the one without some heads.

const SVG = "http://www.w3.org/2000/svg";
const LINES = /** @type {const} */ (["truth", "whole", "without"]);

/** @typedef {(typeof LINES)[number]} Line */

/**
 * Points of a sweep in parts of the image.
 * @param {import("./types.js").TrackSpec} tracks @param {number} image @param {readonly number[]} answer start time, start and end frequency
 * @returns {[number, number][]}
 */
function trackPoints({ box, time, frequency, duration, exponential }, image, [start, low, high]) {
  const count = exponential[image] && low > 0 && high > 0 ? 24 : 1;
  return Array.from({ length: count + 1 }, (_, step) => {
    const part = step / count;
    const at = count > 1 ? low * (high / low) ** part : low + (high - low) * part;
    const right = (start + part * duration[image] - time[0]) / (time[1] - time[0]);
    const up = (at - frequency[0]) / (frequency[1] - frequency[0]);
    return [box[0] + right * (box[2] - box[0]), box[3] - up * (box[3] - box[1])];
  });
}

/** @param {Book} book */
function trackLayer(book) {
  const layer = document.createElementNS(SVG, "svg");
  layer.setAttribute("class", "vm-tracks");
  layer.setAttribute("viewBox", "0 0 100 100");
  layer.setAttribute("preserveAspectRatio", "none");
  layer.setAttribute("aria-hidden", "true");
  const lines = LINES.map((name) => {
    const parts = ["vm-casing", `vm-${name}`].map((look) => {
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("class", look);
      return line;
    });
    layer.append(...parts);
    return parts;
  });
  /** @param {State} state @param {number} twin */
  const update = (state, twin) => {
    const { tracks, truth } = book.answer;
    layer.toggleAttribute("hidden", !tracks || !state.tracks || twin >= book.answer.twins);
    if (!tracks || layer.hasAttribute("hidden")) return;
    const told = truth?.[state.image];
    const without = book.without(twin, state.image, state.removed);
    const answers = [Array.isArray(told) ? told : null, book.whole(twin, state.image), without.how === "unknown" || !state.removed.length ? null : without.values];
    layer.classList.toggle("vm-rough", without.how !== "exact");
    answers.forEach((answer, index) => {
      const points = answer ? trackPoints(tracks, state.image, answer).map((point) => point.map((part) => (part * 100).toFixed(2)).join(",")).join(" ") : "";
      lines[index].forEach((line) => line.setAttribute("points", points));
    });
  };
  return { layer, update };
}

// One map over one image, and the patch that asks.

/**
 * Which twin and which model a panel shows.
 * @typedef {{ twin: number, variant: number }} Place
 *
 * @typedef {{ figure: HTMLElement, update: (state: State, map: ShownMap, top: number) => void }} Frame
 */

/**
 * `tell` is given what the pointer is at, or "".
 * @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @param {Place} place
 * @param {(text: string) => void} tell
 * @returns {Frame}
 */
function buildFrame(model, spec, data, read, { twin, variant }, tell) {
  const photo = canvas(spec.width, spec.height, "vm-photo");
  const heat = canvas(spec.columns, spec.rows, "vm-heat");
  const layers = make("div", { class: "vm-layers", role: "img" }, photo, heat);
  layers.style.aspectRatio = `${spec.width} / ${spec.height}`;
  const patch = make("div", { class: "vm-patch", hidden: true });
  const aim = make("button", { class: "vm-aim", type: "button", hidden: true });
  const caption = make("div", { class: "vm-caption" });
  const tracks = read.book && variant === 0 ? trackLayer(read.book) : null;
  const frame = make("div", { class: "vm-frame" }, layers, ...(tracks ? [tracks.layer] : []), patch, aim);
  const figure = make("div", { class: "vm-panel" }, frame, caption);
  /** @type {string | null} */
  let image = null;
  /** @type {ShownMap | null} */
  let shown = null;

  /** @param {MouseEvent} event @returns {[number, number]} row and column */
  const patchAt = (event) => {
    const box = frame.getBoundingClientRect();
    return [
      clamp(Math.floor(((event.clientY - box.top) / box.height) * spec.rows), 0, spec.rows - 1),
      clamp(Math.floor(((event.clientX - box.left) / box.width) * spec.columns), 0, spec.columns - 1),
    ];
  };
  frame.addEventListener("pointermove", (event) => {
    if (!shown) return;
    const [row, column] = patchAt(event);
    const at = Math.floor((row * shown.rows) / spec.rows) * shown.columns + Math.floor((column * shown.columns) / spec.columns);
    const value = (shown.steps[at] / (shown.levels - 1)) * shown.peak;
    tell(`row ${row + 1}, column ${column + 1}: ${percent(value)} of attention, ${plain(value * shown.rows * shown.columns)} × uniform`);
  });
  frame.addEventListener("pointerleave", () => tell(""));
  aim.addEventListener("click", (event) => {
    const [row, column] = patchAt(event);
    const byKey = event.detail === 0;
    setTraits(model, { query: byKey ? middlePatch(spec) : row * spec.columns + column });
  });
  aim.addEventListener("keydown", (event) => {
    if (event.key === "Escape") setTraits(model, { query: -1 });
    const query = movedQuery(event.key, spec, read);
    if (query === null) return;
    event.preventDefault();
    setTraits(model, { query });
  });

  /** @param {State} state @param {ShownMap} map @param {number} top */
  function update(state, map, top) {
    const wanted = `${state.image} ${state.opacity > 0}`;
    if (image !== wanted) paintPhoto(photo, data.pictures[twin][state.image], state.opacity > 0);
    image = wanted;
    if (heat.width !== map.columns || heat.height !== map.rows) Object.assign(heat, { width: map.columns, height: map.rows });
    paintHeat(heat, map, top);
    shown = map;
    tracks?.update(state, twin);
    heat.style.opacity = String(state.opacity);
    aim.hidden = !(twin === 0 && variant === 0 && read.queryable(state));
    patch.hidden = !map.patch;
    if (map.patch && spec.query) placePatch(patch, read.queryCell(state.query), spec.query);
    const from = map.patch ? `patch ${patchName(state.query, spec)} as query` : "CLS query";
    layers.setAttribute("aria-label", altText(spec, state, map, panelName(spec, twin, variant), from));
    aim.setAttribute("aria-label", `Choose the query patch; now ${from}. Arrow keys move it, Escape returns to the CLS query.`);
    write(caption, [panelName(spec, twin, variant), from, `highest ${percent(map.peak)}`].filter(Boolean).join(" · "));
  }
  return { figure, update };
}

/** @param {string} key @param {Spec} spec @param {Reader} read @returns {number | null} */
function movedQuery(key, spec, read) {
  const moved = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
  if (!moved || !spec.query) return null;
  const { query } = read.pick();
  const cell = read.queryCell(query < 0 ? middlePatch(spec) : query);
  const { queryRows, queryColumns } = spec.query;
  const row = Math.ceil((clamp(cell[0] + moved[0], 0, queryRows - 1) * spec.rows) / queryRows);
  const column = Math.ceil((clamp(cell[1] + moved[1], 0, queryColumns - 1) * spec.columns) / queryColumns);
  return row * spec.columns + column;
}

/** @param {Spec} spec @param {State} state @param {ShownMap} map @param {string} who @param {string} from */
function altText(spec, state, { steps, peak, columns }, who, from) {
  const top = steps.indexOf(Math.max(...steps));
  const place = `row ${Math.floor(top / columns) + 1}, column ${(top % columns) + 1}`;
  return `Attention map of ${headName(state)}${who ? ` (${who})` : ""}, ${from}, over ${spec.imageLabels[state.image]}: highest at ${place} with ${percent(peak)}.`;
}

// Middle: the maps over the image, one panel per shown model and twin.

const MAP_HINT = "Point at the map to read a patch.";

/** @param {Model} model @param {Spec} spec @param {Data} data @param {Reader} read @returns {Part} */
function buildStage(model, spec, data, read) {
  const panels = make("div", { class: "vm-panels" });
  const ramp = rampLegend(TABLES.heat, ["", "", ""]);
  const uniform = make("div", { class: "vm-uniform" });
  ramp.querySelector(".vm-ramp")?.append(uniform);
  const ticks = ramp.querySelectorAll(".vm-ticks span");
  const unit = make("div", {}, "");
  const readout = make("div", { class: "vm-readout", "aria-hidden": "true" }, MAP_HINT);
  const strip = imageStrip(model, spec, data);
  const panel = make("div", { class: "vm-stage" }, panels, make("div", { class: "vm-legend" }, ramp, unit), readout, strip.panel);
  /** @type {Frame[]} */
  let frames = [];
  let layout = "";

  /** @param {State} state */
  function update(state) {
    const shown = read.panels(state);
    if (layout !== shown.join(";")) {
      frames = shown.map(([twin, variant]) => buildFrame(model, spec, data, read, { twin, variant }, (text) => write(readout, text || MAP_HINT)));
      panels.replaceChildren(...frames.map(({ figure }) => figure));
      panels.dataset.count = String(shown.length);
      layout = shown.join(";");
    }
    const maps = shown.map(([twin, variant]) => /** @type {ShownMap} */ (read.map(state, twin, variant))); // stored: it is the picked head's
    const tops = maps.map(({ peak }) => (state.shared ? spec.sharedMaximum : peak));
    frames.forEach((frame, index) => frame.update(state, maps[index], tops[index]));
    updateLegend(state, maps, tops);
    strip.update(state);
  }

  /** @param {State} state @param {ShownMap[]} maps @param {number[]} tops */
  function updateLegend(state, maps, tops) {
    const alike = state.shared || maps.length === 1;
    const even = 1 / (maps[0].rows * maps[0].columns);
    write(ticks[0], "0");
    write(ticks[1], alike ? percent(tops[0] / 2) : "half");
    write(ticks[2], alike ? (state.shared ? "≥ " : "") + percent(tops[0]) : "each map's own maximum");
    uniform.hidden = !alike || even > tops[0];
    uniform.style.left = `${(100 * even) / tops[0]}%`;
    write(unit, `attention per patch${alike ? `; the mark is uniform attention, ${percent(even)}` : ""}`);
  }
  return { panel, update };
}

// The head picker: one front-end for JupyterLab (an anywidget module) and for static pages.
// All state is in the model's traits; layers, heads, images and patches are 0-based there and 1-based on the screen.

/**
 * Show the picker in an element; returns how to stop following the model.
 * @param {{ model: Model, el: HTMLElement }} given
 */
export async function render({ model, el }) {
  /** @type {Spec} */
  const spec = model.get("_spec");
  const root = make("div", { class: "vm-picker", role: "group", "aria-label": spec.title });
  let data;
  try {
    data = await loadData(model, spec);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    root.append(make("p", { class: "vm-error", role: "alert" }, `The head picker cannot be shown here: ${reason}`));
    el.append(root);
    return undefined;
  }
  const read = reader(model, spec, data);
  const sentence = make("p", { class: "vm-summary", "aria-live": "polite" }, make("strong"), make("span"));
  const [grid, switches] = [buildGrid(model, spec, read), buildSwitches(model, spec, read)];
  const [maps, pins] = [buildMosaic(model, spec, read), buildPins(model, spec, data, read)];
  grid.panel.append(switches.panel);
  maps.panel.lastElementChild?.append(pins.panel);
  const parts = [grid, buildList(model, spec, read), buildStage(model, spec, data, read), buildControls(model, spec), buildFacts(model, spec, read), maps];
  const head = make("div", { class: "vm-head" }, make("div", { class: "vm-title", role: "heading", "aria-level": "2" }, spec.title));
  root.append(make("div", { class: "vm-card" }, head, sentence, make("div", { class: "vm-body" }, ...parts.map(({ panel }) => panel)), downloadButtons(root, spec, read)));
  parts.push(switches, pins);
  let waiting = false;
  const update = () => {
    waiting = false;
    const state = read.pick();
    parts.forEach((part) => part.update(state));
    summary(spec, state, read).forEach((text, index) => write(sentence.children[index], text));
  };
  // Several traits set together paint once, still before the next frame.
  const soon = () => {
    if (!waiting) queueMicrotask(update);
    waiting = true;
  };
  /** @param {any} content what Python sends: exact answers that the page asked for */
  const heard = (content) => {
    if (content?.kind !== "exact" || !read.book) return;
    read.book.learn(content.off.map((/** @type {[number, number]} */ [layer, number]) => layer * spec.heads + number), content.answers);
    soon();
  };
  update();
  el.append(root);
  TRAITS.forEach((trait) => model.on(`change:${trait}`, soon));
  model.on("msg:custom", heard);
  return () => {
    TRAITS.forEach((trait) => model.off(`change:${trait}`, soon));
    model.off("msg:custom", heard);
  };
}

/** @param {Record<string, any>} state @returns {Model} a model of a page without a kernel */
function staticModel(state) {
  /** @type {Map<string, ((...given: any[]) => void)[]>} */
  const listeners = new Map();
  return {
    get: (trait) => state[trait],
    set(trait, value) {
      if (state[trait] === value) return;
      state[trait] = value;
      listeners.get(`change:${trait}`)?.forEach((listener) => listener());
    },
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: (event, listener) => listeners.set(event, (listeners.get(event) ?? []).filter((other) => other !== listener)),
    save_changes: () => {},
  };
}

/**
 * Static pages call this with the id of the element that holds the state and the fallback.
 * @param {string} id
 */
export async function mountStatic(id) {
  const host = document.getElementById(id);
  const state = host?.querySelector("script[data-vm-state]")?.textContent;
  if (!host || !state) return;
  const model = staticModel(JSON.parse(state));
  const place = make("div");
  await render({ model, el: place });
  if (!place.querySelector(".vm-card")) { // the reason, above the fallback
    host.prepend(place);
    return;
  }
  host.querySelector(".vm-picker")?.replaceWith(place);
  followLinks(model, model.get("_spec"), host);
}

export default { render };
