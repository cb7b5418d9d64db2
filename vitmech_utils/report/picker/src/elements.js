// A tiny element builder: text becomes text nodes, so no label is ever read as HTML.

/**
 * An element with attributes, listeners (`onclick`) and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
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
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {number} width @param {number} height @param {string} name */
export function canvas(width, height, name) {
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
export const pen = (element, settings) => /** @type {CanvasRenderingContext2D} */ (element.getContext("2d", settings));
