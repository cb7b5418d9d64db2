// The shapes of what the picker is given and of what it passes on; there is no code here.

/**
 * A colour as red, green and blue, 0 to 255.
 * @typedef {number[]} Rgb
 */

/**
 * What differs between light and dark pages: [on light, on dark].
 * @template T
 * @typedef {[T, T]} Themed
 */

/**
 * Where data lie: the hash of their bytes, and how they are packed ("deflate" or "raw").
 * @typedef {{ id: string, codec: string }} Chunk
 */

/**
 * Numbers of all heads, layer by layer, that can colour the grid; null is unknown.
 * @typedef {object} Measure
 * @property {string} key
 * @property {string} label
 * @property {string} unit
 * @property {"diverging" | "log" | "sequential" | "class" | "none"} kind
 * @property {(number | null)[]} values
 * @property {(number | null)[]} [low] the interval's lower end
 * @property {(number | null)[]} [high]
 * @property {number} [region] the region that a lift speaks of
 */

/**
 * Names, and which of them each head has.
 * @typedef {{ names: string[], values: (number | null)[] }} Classes
 */

/**
 * Patch queries: whose they are, and their grids.
 * @typedef {object} QuerySpec
 * @property {number} image
 * @property {number} levels
 * @property {number[]} heads numbers of heads, layer * heads + head
 * @property {number} queryRows
 * @property {number} queryColumns
 * @property {number} rows
 * @property {number} columns
 */

/**
 * The JSON that payload.py writes.
 * @typedef {object} Spec
 * @property {string} title
 * @property {string} name
 * @property {number} layers
 * @property {number} heads
 * @property {number} rows
 * @property {number} columns
 * @property {number} height
 * @property {number} width
 * @property {string[]} variants
 * @property {string[]} twins
 * @property {string[]} imageLabels
 * @property {string[]} regions
 * @property {Record<string, Chunk>} chunks
 * @property {[number, number][][]} images start and end of each picture's bytes, by twin and image
 * @property {number} levels
 * @property {number} sharedMaximum
 * @property {{ variants: number, images: number }} [shares]
 * @property {(number | null)[][]} [areaShares] by image (or one row for all) and region
 * @property {Measure[]} measures
 * @property {Classes} [classes]
 * @property {string[]} [evidence]
 * @property {QuerySpec} [query]
 */

/**
 * A quantized map: patch values are steps / (levels - 1) * peak.
 * @typedef {{ peak: number, steps: Uint8Array, levels: number }} Steps
 *
 * A map with its grid; `patch` says whether a patch asks, not CLS.
 * @typedef {Steps & { rows: number, columns: number, patch: boolean }} ShownMap
 */

/**
 * What the chunks hold, inflated.
 * @typedef {object} Data
 * @property {ImageBitmap[][]} pictures by twin and image
 * @property {((index: number) => Steps)[][]} maps by twin and variant, of image * layers * heads + head
 * @property {Uint16Array} [shares]
 * @property {(index: number) => Steps} [queries]
 */

/**
 * anywidget's model, or its stand-in on a static page.
 * @typedef {object} Model
 * @property {(trait: string) => any} get
 * @property {(trait: string, value: any) => void} set
 * @property {(event: string, listener: (...given: any[]) => void) => void} on
 * @property {(event: string, listener: (...given: any[]) => void) => void} off
 * @property {() => void} save_changes
 */

/**
 * What is picked, 0-based and within bounds.
 * @typedef {object} State
 * @property {number} layer
 * @property {number} head
 * @property {number} index layer * heads + head
 * @property {number} image
 * @property {number} query row * columns + column, or -1 for CLS
 * @property {number} variant or -1 for side by side
 * @property {number} twin or -1 for side by side
 * @property {Measure} measure what colours the grid
 * @property {boolean} shared whether maps share one scale
 * @property {number} opacity
 */

/**
 * A part of the picker: its element, and how it follows what is picked.
 * @typedef {{ panel: HTMLElement, update: (state: State) => void }} Part
 */

export {};
