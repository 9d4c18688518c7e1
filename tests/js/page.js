/** An empty page for the modules under test, which expect a browser around them. Import it first. */

import { parseHTML } from "linkedom";

import { h } from "../../assets/js/dom.js";

const { window } = parseHTML("<!doctype html><html><head></head><body></body></html>");

const NAMES = ["document", "Node", "Element", "HTMLElement", "HTMLDetailsElement", "DocumentFragment", "Text", "Event"];
for (const name of NAMES) globalThis[name] = window[name];
globalThis.window = window;

/** All elements that would run or load something, or act like it: none may come from what agents write. */
export function dangers(root) {
  const every = [root, ...root.querySelectorAll("*")].filter((each) => each.nodeType === 1);
  return every.filter(
    (each) =>
      /^(script|iframe|object|embed|base|meta|link|style|img|svg|form)$/i.test(each.tagName) ||
      [...each.attributes].some(({ name, value }) => /^on/i.test(name) || /^\s*(javascript|data|vbscript):/i.test(value)),
  );
}

/** `children` within one element. */
export function within(children) {
  return h("div", null, ...[children].flat());
}
