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
  if (spec.shares) {
    const bytes = await loadChunk(model, spec.chunks.shares);
    data.shares = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
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

// What is picked, read from the traits, and what is known of it.

const TRAITS = ["layer", "head", "image", "query", "variant", "twin", "measure", "scale", "opacity"];

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
function measureList(spec) {
  const list = [...spec.measures];
  if (spec.classes) list.push({ key: "class", label: "class", unit: "", kind: "class", values: spec.classes.values });
  return list.length ? list : [{ key: "none", label: "nothing", unit: "", kind: "none", values: [] }];
}

/** @param {{ layer: number, head: number }} head */
const headName = ({ layer, head }) => `layer ${layer + 1}, head ${head + 1}`;

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
  if (spec.variants.length > 1) add("Model", sides(spec.variants), (variant) => ({ variant }), ({ variant }) => variant);
  if (spec.twins.length > 1) add("Image", sides(spec.twins), (twin) => ({ twin }), ({ twin }) => twin);
  add("Scale", [["map", "per map"], ["shared", "shared"]], (scale) => ({ scale }), ({ shared }) => (shared ? "shared" : "map"));
  if (spec.query) {
    const patch = { query: middlePatch(spec), image: spec.query.image };
    add("Query", [["cls", "CLS"], ["patch", "patch"]], (value) => (value === "cls" ? { query: -1 } : patch), ({ query }) => (query < 0 ? "cls" : "patch"));
  }
  const slider = make("input", { type: "range", min: "0", max: "1", step: "0.05", "aria-label": "Opacity of the map", oninput: () => setTraits(model, { opacity: Number(slider.value) }) });
  panel.append(make("div", {}, make("span", { class: "vm-label", "aria-hidden": "true" }, "Opacity of the map"), slider));
  follow.push(({ opacity }) => { slider.value = String(opacity); });
  return { panel, update: (state) => follow.forEach((one) => one(state)) };
}

/** @param {Model} model @param {Spec} spec @param {Data} data @returns {Part} */
function imageStrip(model, spec, data) {
  const control = segments("Images", spec.imageLabels.map((label, index) => [index, label]), (image) => setTraits(model, { image }));
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
 * Shares are those of the first twin, of the shown variant or the first, and of the shown image where stored so.
 * @param {Spec} spec @param {State} state
 */
function shareSource(spec, { variant, image }) {
  const name = spec.variants[(spec.shares?.variants ?? 1) > 1 ? Math.max(variant, 0) : 0];
  return [name, spec.twins[0], (spec.shares?.images ?? 1) > 1 ? spec.imageLabels[image] : "all images"].filter(Boolean).join(", ");
}

/** @param {Spec} spec @param {Reader} read @returns {Part} */
function regionBars(spec, read) {
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
  const variant = Math.max(state.variant, 0);
  const effect = spec.measures.find(({ key }) => key === "effect");
  /** @type {[string, (place: { index: number, layer: number, head: number }) => string | number | null | undefined][]} */
  const columns = [["layer (1-based)", ({ layer }) => layer + 1], ["head (1-based)", ({ head }) => head + 1]];
  for (const measure of spec.measures) columns.push([`${measure.label} (${measure.unit})`, ({ index }) => measure.values[index]]);
  if (effect?.low) columns.push(["interval low", ({ index }) => effect.low?.[index]]);
  if (effect?.high) columns.push(["interval high", ({ index }) => effect.high?.[index]]);
  if (spec.classes) columns.push(["class", ({ index }) => spec.classes?.names[spec.classes.values[index] ?? -1]]);
  if (spec.evidence) columns.push(["evidence", ({ index }) => spec.evidence?.[index]]);
  if (spec.shares) {
    const whose = shareSource(spec, state);
    spec.regions.forEach((region, at) => columns.push([`attention share of ${region} (${whose})`, (place) => read.share({ ...state, ...place }, at, variant)]));
  }
  if (spec.areaShares) spec.regions.forEach((region, at) => columns.push([`area share of ${region}`, () => read.area(state, at)]));
  const lines = [columns.map(([title]) => csvField(title)).join(",")];
  for (let index = 0; index < spec.layers * spec.heads; index += 1) {
    const place = { index, layer: Math.floor(index / spec.heads), head: index % spec.heads };
    lines.push(columns.map(([, value]) => csvField(value(place))).join(","));
  }
  return new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv;charset=utf-8" });
}

/** @param {HTMLElement} root @param {Spec} spec @param {State} state @returns {Promise<Blob | null>} */
function drawPicture(root, spec, state) {
  const figures = [...root.querySelectorAll(".vm-panel")];
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

/** @param {Spec} spec @param {Reader} read @returns {Part} */
function buildFacts(spec, read) {
  const name = make("div", { class: "vm-name", role: "heading", "aria-level": "3" });
  const kind = make("div", { class: "vm-class", hidden: !spec.classes });
  const evidence = make("p", { class: "vm-evidence", hidden: !spec.evidence });
  const effect = effectFact(spec);
  const bars = regionBars(spec, read);
  const panel = make("div", { class: "vm-facts" }, make("div", {}, name, kind, evidence, effect.panel), bars.panel);
  /** @param {State} state */
  function update(state) {
    write(name, `Layer ${state.layer + 1} · head ${state.head + 1}`);
    const value = spec.classes?.values[state.index];
    if (spec.classes && known(value)) kind.replaceChildren(classSwatch(spec.classes, value), spec.classes.names[value]);
    else kind.replaceChildren("no class");
    write(evidence, spec.evidence?.[state.index] ?? "");
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
  panel.append(make("div", { class: "vm-aside" }, "Scale: all heads; the line is 0."));
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

// Left: the grid of heads.

const HINT = "Click a head, or move with the arrow keys.";

/** @param {Model} model @param {Spec} spec @param {Reader} read @returns {Part} */
function buildGrid(model, spec, read) {
  const { grid, cells } = gridCells(spec);
  const readout = make("div", { class: "vm-readout", "aria-hidden": "true" }, HINT);
  /** @param {number} layer @param {number} head */
  const pick = (layer, head) => {
    setTraits(model, { layer, head });
    cells[layer * spec.heads + head].focus({ preventScroll: true });
  };
  grid.addEventListener("click", (event) => {
    const index = indexOf(event);
    if (index !== null) pick(Math.floor(index / spec.heads), index % spec.heads);
  });
  grid.addEventListener("pointerover", (event) => {
    const index = indexOf(event);
    if (index !== null) write(readout, describe(spec, read.pick().measure, index));
  });
  grid.addEventListener("pointerleave", () => write(readout, HINT));
  grid.addEventListener("keydown", (event) => {
    const target = arrowTarget(event, read.pick(), spec);
    if (!target) return;
    event.preventDefault();
    pick(...target);
  });

  const select = make("select", { "aria-label": "Colour the grid by", onchange: () => setTraits(model, { measure: select.value }) });
  for (const measure of measureList(spec)) select.append(make("option", { value: measure.key }, measure.unit ? `${measure.label} (${measure.unit})` : measure.label));
  const legend = make("div", { class: "vm-legend" });
  const panel = make("div", { class: "vm-heads" }, make("span", { class: "vm-label", "aria-hidden": "true" }, "Grid coloured by"), select, grid, legend, readout);
  /** @type {string | null} */
  let painted = null;
  /** @type {number | null} */
  let picked = null;

  /** @param {State} state */
  function paint({ measure }) {
    const scale = gridScale(measure);
    select.value = measure.key;
    grid.setAttribute("aria-label", `Heads: ${spec.layers} layers by ${spec.heads} heads, coloured by ${measure.label}`);
    cells.forEach((cell, index) => {
      const value = measure.values[index];
      tint(cell, cellColour(measure, scale, index));
      cell.classList.toggle("vm-sure", isSure(measure, index));
      write(cell, measure.kind === "class" && spec.classes && known(value) ? initial(spec.classes, value) : "");
      cell.setAttribute("aria-label", describe(spec, measure, index));
    });
    legend.replaceChildren(...gridLegend(measure, scale, spec.classes));
  }

  /** @param {State} state */
  function update(state) {
    if (painted !== state.measure.key) paint(state);
    painted = state.measure.key;
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
  const grid = make("div", { class: "vm-grid", role: "grid" });
  grid.style.setProperty("--vm-heads", String(spec.heads));
  grid.classList.toggle("vm-many", spec.layers > 16);
  const header = make("div", { class: "vm-row", role: "row" }, make("div", { class: "vm-axis", role: "columnheader" }, make("span", { class: "vm-hush" }, "layer")));
  for (let head = 0; head < spec.heads; head += 1) {
    header.append(make("div", { class: "vm-axis", role: "columnheader", "aria-label": `head ${head + 1}` }, `${spec.heads > 12 ? "" : "H"}${head + 1}`));
  }
  grid.append(header);
  for (let layer = 0; layer < spec.layers; layer += 1) {
    const row = make("div", { class: "vm-row", role: "row" }, make("div", { class: "vm-axis", role: "rowheader", "aria-label": `layer ${layer + 1}` }, `L${layer + 1}`));
    for (let head = 0; head < spec.heads; head += 1) {
      const cell = make("div", { class: "vm-cell", role: "gridcell", tabindex: "-1", "aria-selected": "false" });
      cell.dataset.index = String(cells.length);
      cells.push(cell);
      row.append(cell);
    }
    grid.append(row);
  }
  return { grid, cells };
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
  if (measure.kind === "class") return `${name}: ${spec.classes && known(value) ? spec.classes.names[value] : "no class"}`;
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

// Deep links: #L6H4 belongs to the page's first picker, #name:L6H4 to the picker of that name.

/** @param {Model} model @param {Spec} spec @param {HTMLElement} host */
function followLinks(model, spec, host) {
  const isFirst = document.querySelector("[data-vm-host]") === host;
  const prefix = isFirst ? "" : spec.name ? `${spec.name}:` : null;
  const target = () => {
    const found = /^#(?:([\w-]+):)?L(\d{1,3})H(\d{1,3})$/.exec(location.hash);
    if (!found || !(found[1] === undefined ? isFirst : found[1] === spec.name)) return null;
    const [layer, head] = [Number(found[2]) - 1, Number(found[3]) - 1];
    const exists = layer >= 0 && layer < spec.layers && head >= 0 && head < spec.heads;
    return exists ? { layer, head } : null;
  };
  const follow = () => {
    const place = target();
    if (!place) return;
    setTraits(model, place);
    host.querySelector(".vm-picker")?.scrollIntoView({ block: "start" });
  };
  let timer = 0;
  const remember = () => {
    if (prefix === null) return;
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      const hash = `#${prefix}L${model.get("layer") + 1}H${model.get("head") + 1}`;
      if (hash !== location.hash) history.replaceState(history.state, "", hash);
    }, 250); // browsers refuse many changes of the address within seconds
  };
  follow();
  window.addEventListener("hashchange", follow);
  model.on("change:layer", remember);
  model.on("change:head", remember);
}

// The sentence above all, read out by screen readers when it changes.

/** @param {Spec} spec @param {State} state @param {Reader} read @returns {[string, string]} the head, and what is known of it */
function summary(spec, state, read) {
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
  const frame = make("div", { class: "vm-frame" }, layers, patch, aim);
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
    const maps = shown.map(([twin, variant]) => read.map(state, twin, variant));
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
  const parts = [buildGrid(model, spec, read), buildStage(model, spec, data, read), buildControls(model, spec), buildFacts(spec, read)];
  const head = make("div", { class: "vm-head" }, make("div", { class: "vm-title", role: "heading", "aria-level": "2" }, spec.title), downloadButtons(root, spec, read));
  root.append(make("div", { class: "vm-card" }, head, sentence, make("div", { class: "vm-body" }, ...parts.map(({ panel }) => panel))));
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
  update();
  el.append(root);
  TRAITS.forEach((trait) => model.on(`change:${trait}`, soon));
  return () => TRAITS.forEach((trait) => model.off(`change:${trait}`, soon));
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
