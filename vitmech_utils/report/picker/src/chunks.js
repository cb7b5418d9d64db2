// Data: chunks are found by content hash, inflated once per page, shared by all pickers.

/** @import { Chunk, Data, Model, Spec, Steps } from "./types.js" */

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
export async function loadData(model, spec) {
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
