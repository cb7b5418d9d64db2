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
 * How far sums of single heads' shifts were off on one kind of set; arrays are per output.
 * @typedef {object} Trial
 * @property {string} kind
 * @property {"shifts" | "slopes"} how
 * @property {number} heads
 * @property {number} sets
 * @property {number} answers
 * @property {number[]} off
 * @property {number[]} worst
 * @property {number[]} moved
 */

/**
 * Where and how answers are drawn as sweeps.
 * @typedef {object} TrackSpec
 * @property {[number, number, number, number]} box left, top, right, bottom as parts of the image
 * @property {[number, number]} time
 * @property {[number, number]} frequency
 * @property {number[]} duration by image
 * @property {boolean[]} exponential
 */

/**
 * What the model answers; the numbers lie in a chunk.
 * @typedef {object} AnswerSpec
 * @property {string[]} outputs
 * @property {string[]} units
 * @property {"numbers" | "classes"} kind
 * @property {string} mode
 * @property {number} twins
 * @property {number[][]} sets heads of each set that was removed exactly
 * @property {number[][] | number[]} [truth] by image: numbers, or the number of the class
 * @property {number[]} scale
 * @property {TrackSpec} [tracks]
 * @property {Trial[]} tests
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
 * @property {Classes} [origin]
 * @property {number} [coverage] images with a coverage of their own, or 1
 * @property {(number | null)[][]} [mostShares] the largest raw share that a region can have, by image (or one row)
 * @property {AnswerSpec} [answer]
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
 * @property {Uint16Array} [unmixed]
 * @property {Uint8Array} [coverage]
 * @property {Float32Array} [answer]
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
 * @property {(content: any) => void} [send]
 */

/**
 * What is picked, 0-based and within bounds.
 * @typedef {object} State
 * @property {number} layer
 * @property {number} head
 * @property {number} index layer * heads + head
 * @property {number} image
 * @property {number} query row * columns + column, or -1 for CLS (also where no view of that patch is stored)
 * @property {boolean} patch whether a patch asks: all that is shown then belongs to it
 * @property {number} variant or -1 for side by side
 * @property {number} twin or -1 for side by side
 * @property {Measure} measure what colours the grid
 * @property {string} painted names the measure's values: they change with the image or the patch
 * @property {"pick" | "off"} mode
 * @property {number[]} off heads that are switched off
 * @property {number[]} removed heads without which the answer is shown: those, or the picked one
 * @property {number[]} pins
 * @property {boolean} tracks whether answers are drawn over the images
 * @property {boolean} shared whether maps share one scale
 * @property {number} opacity
 */

/**
 * A part of the picker: its element, and how it follows what is picked.
 * @typedef {{ panel: HTMLElement, update: (state: State) => void }} Part
 */

export {};
