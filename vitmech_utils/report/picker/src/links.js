// Deep links: #L6H4 belongs to the page's first picker, #name:L6H4 to the picker of that name.

import { setTraits } from "./state.js";
/** @import { Model, Spec } from "./types.js" */

/** @param {Model} model @param {Spec} spec @param {HTMLElement} host */
export function followLinks(model, spec, host) {
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
