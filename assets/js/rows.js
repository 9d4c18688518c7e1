/** The building blocks of the terminal: a row, and text that is flat when short and folded when long. */

import { ansi, stripAnsi } from "./ansi.js";
import { h } from "./dom.js";
import { linked } from "./links.js";
import { headline, lastLine, lineCount, shorten } from "./text.js";

/** @typedef {import("./dom.js").Child} Child */

const FLAT_LINES = 3;
const FLAT_CHARACTERS = 320;
const SHOWN_MAX_CHARACTERS = 400_000; // more than that no one reads, and it would slow the page

/**
 * What an element stands for, as the agent wrote it: a command without its prompt, a result that is folded.
 * Copying takes it, and searching reads it where it is not on the page yet.
 * @type {WeakMap<Element, string>}
 */
const SOURCES = new WeakMap();

/** What builds the body of a fold. @type {WeakMap<Element, () => Child>} */
const BODIES = new WeakMap();

/**
 * @param {string} kind  a CSS class: turn, text, tool, result, think, note, ok, fail, local
 * @param {string} mark  the glyph in the margin
 * @param {...Child} children
 */
export function row(kind, mark, ...children) {
  const margin = h("span", { class: "mark", "aria-hidden": "true" }, mark);
  return h("div", { class: `row row-${kind}` }, margin, h("div", { class: "cell" }, ...children));
}

/** @template {Element} T @param {T} element @param {string} source @returns {T} */
export function standsFor(element, source) {
  SOURCES.set(element, source);
  return element;
}

/** When what a row tells happened, Unix milliseconds. @type {WeakMap<Element, number>} */
const TIMES = new WeakMap();

/** @param {Element} row @param {number} atMs */
export function happened(row, atMs) {
  TIMES.set(row, atMs);
}

/** 0 if nobody said. @param {Element} row */
export function timeOf(row) {
  return TIMES.get(row) ?? 0;
}

/** What is worth copying of a row. @param {Element} row */
export function sourceOf(row) {
  const cell = row.querySelector(".cell") ?? row;
  for (const element of [row, ...cell.querySelectorAll(".fold, .sourced")]) {
    const source = SOURCES.get(element);
    if (source !== undefined) return stripAnsi(source);
  }
  return cell.textContent ?? "";
}

/** All that a row says, in the order of the page, opened or not. @param {Element} row */
export function wholeText(row) {
  const cell = row.querySelector(".cell") ?? row;
  let text = cell.textContent ?? "";
  for (const fold of cell.querySelectorAll(".fold:not(.filled)")) text += stripAnsi(SOURCES.get(fold) ?? "");
  return text;
}

/** @param {string} text */
export function words(text) {
  return h("span", { class: "words" }, linked(text));
}

/** Words that are copied as they are, without what stands around them. @param {string} text @param {string} [more] a class */
export function sourced(text, more = "") {
  return standsFor(h("span", { class: `words sourced ${more}`.trim() }, linked(text)), text);
}

/** Terminal output as it stands. @param {string} text */
export function output(text) {
  const cut = text.length > SHOWN_MAX_CHARACTERS;
  const shown = cut ? text.slice(0, SHOWN_MAX_CHARACTERS) : text;
  const more = cut ? `\n… ${text.length - shown.length} more characters` : "";
  return standsFor(h("div", { class: "words output sourced" }, ansi(shown), more), text);
}

/** @param {string} text */
export function isShort(text) {
  return text.length <= FLAT_CHARACTERS && lineCount(text) <= FLAT_LINES;
}

/**
 * A summary that opens to `body`. The body is built when first opened: most are never looked at.
 * @param {Child[]} summary @param {string} source  what the body says, for copying and searching
 * @param {() => Child} [body] how it looks; the source as it stands, if not given
 * @param {boolean} [open]
 */
export function fold(summary, source, body = () => output(source), open = false) {
  const details = standsFor(h("details", { class: "fold" }, h("summary", null, ...summary)), source);
  details.addEventListener("toggle", () => details.open && fill(details, body));
  if (open) {
    fill(details, body);
    details.open = true;
  }
  BODIES.set(details, body);
  return details;
}

/** @param {HTMLDetailsElement} details @param {() => Child} body */
function fill(details, body) {
  if (details.classList.contains("filled")) return;
  details.classList.add("filled");
  details.append(h("div", { class: "fold-body" }, body()));
}

/** Opens a fold at once: `toggle` comes later, and its reader wants to scroll to what is in it. @param {HTMLDetailsElement} details */
export function unfold(details) {
  const body = BODIES.get(details);
  if (body) fill(details, body);
  details.open = true;
}

/**
 * Short text flat, long text folded: `▸ 120 lines · headline`. Of what failed, the last words say most.
 * @param {string} text @param {{failed?: boolean, body?: () => HTMLElement}} [how]  `body`: how the whole looks
 * @returns {HTMLElement}
 */
export function foldable(text, { failed = false, body } = {}) {
  const plain = stripAnsi(text).trimEnd();
  if (isShort(plain)) return body ? body() : output(text.trimEnd());
  const lines = lineCount(plain);
  const amount = lines > 1 ? `${lines} lines` : `${plain.length} characters`;
  const told = failed ? lastLine(plain, 110) : headline(plain, 110);
  const hint = h("span", { class: "hint" }, `${amount} · `);
  return fold([hint, h("span", { class: "words" }, told)], text, body);
}

/** @param {unknown} value */
export function asJson(value) {
  try {
    return JSON.stringify(value, null, 2) ?? String(value);
  } catch {
    return String(value);
  }
}

/** A quoted text, cut to one line. @param {string} text @param {number} [limit] */
export function quoted(text, limit = 160) {
  const line = shorten(text.replaceAll(/\s*\n\s*/g, " ⏎ "), limit);
  return standsFor(h("q", { class: "words quote sourced" }, linked(line)), text);
}
