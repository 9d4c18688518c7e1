/** Building elements. Every string becomes a neutralised text node or attribute; there is no markup path. */

import { age, fullTime, neutralise, remaining } from "./text.js";

/** @typedef {Node|string|number|null|undefined|false} Child */
/** @typedef {Record<string, any>} Props */

const REFUSED = /^(on|style$|srcdoc$|innerhtml$|outerhtml$)/i;
const PLAIN_LINK = /^(\/(?!\/)|#|\?|[a-z0-9._~-]+(\/|$))/i;

/**
 * A link target that cannot run script: a path of this site, or https.
 * @param {unknown} value
 * @returns {string|null}
 */
export function safeHref(value) {
  const text = String(value ?? "");
  // Browsers drop tabs and newlines inside a scheme: `java\nscript:` must not slip through.
  if (/[\u0000-\u0020\u007f\\]/.test(text)) return null;
  if (/^https:\/\//i.test(text)) return text;
  return !/^[a-z][a-z0-9+.-]*:/i.test(text) && PLAIN_LINK.test(text) ? text : null;
}

/** @param {Element} element @param {string} name @param {any} value */
function setProp(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === "on") {
    for (const [type, listener] of Object.entries(value)) element.addEventListener(type, /** @type {any} */ (listener));
    return;
  }
  if (REFUSED.test(name)) throw new Error(`h(): ${name} is not allowed`);
  if (name === "href" || name === "action" || name === "formaction") {
    const target = safeHref(value);
    if (target !== null) element.setAttribute(name, target);
    return;
  }
  element.setAttribute(name, value === true ? "" : neutralise(value));
}

/**
 * An element with attributes and children. `on: {type: listener}` adds listeners.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Props|null} [props]
 * @param {...(Child|Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) setProp(element, name, value);
  for (const child of children.flat()) append(element, child);
  return element;
}

/** @param {Element|DocumentFragment} parent @param {Child} child */
function append(parent, child) {
  if (child === null || child === undefined || child === false || child === "") return;
  parent.append(child instanceof Node ? child : document.createTextNode(neutralise(child)));
}

/** @param {string} selector @param {ParentNode} [within] @returns {HTMLElement} */
export function one(selector, within = document) {
  const found = within.querySelector(selector);
  if (!(found instanceof HTMLElement)) throw new Error(`the page has no ${selector}`);
  return found;
}

/** Sets the text only where it differs, so that selections and screen readers are left alone.
 * @param {Element} element @param {unknown} text */
export function setText(element, text) {
  const next = neutralise(text);
  if (element.textContent !== next) element.textContent = next;
}

/** @param {HTMLElement} element @param {boolean} shown */
export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/**
 * A time that grows older by itself (see `keepAges`).
 * @param {number} atMs @param {string} [suffix]
 */
export function ageOf(atMs, suffix = "") {
  return h(
    "time",
    { datetime: isoOf(atMs), title: fullTime(atMs), "data-at": atMs, "data-suffix": suffix },
    age(atMs) + suffix,
  );
}

/** @param {number} atMs */
function isoOf(atMs) {
  return Number.isFinite(atMs) && Math.abs(atMs) < 8.6e15 ? new Date(atMs).toISOString() : "";
}

/** A time that comes nearer by itself. @param {number} atMs */
export function untilOf(atMs) {
  return h("time", { datetime: isoOf(atMs), title: fullTime(atMs), "data-until": atMs }, untilWords(atMs));
}

/** @param {number} atMs @param {number} [nowMs] */
function untilWords(atMs, nowMs) {
  const left = remaining(atMs, nowMs);
  return left ? `in ${left}` : "now";
}

/** Keeps every `ageOf` and `untilOf` on the page current. */
export function keepAges() {
  setInterval(() => {
    const now = Date.now();
    for (const element of document.querySelectorAll("time[data-at]")) {
      if (!(element instanceof HTMLElement)) continue;
      setText(element, age(Number(element.dataset.at), now) + (element.dataset.suffix ?? ""));
    }
    for (const element of document.querySelectorAll("time[data-until]")) {
      if (element instanceof HTMLElement) setText(element, untilWords(Number(element.dataset.until), now));
    }
  }, 1000);
}

/** A heading or button label in leet for the eye and plain words for assistive technology.
 * @param {string} leet */
export function leet(leet) {
  return h("span", { "aria-hidden": "true", class: "leet" }, leet);
}
