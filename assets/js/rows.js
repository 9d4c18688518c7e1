/** The building blocks of the terminal: a row, and text that is flat when short and folded when long. */

import { ansi, stripAnsi } from "./ansi.js";
import { h } from "./dom.js";
import { headline, lastLine, lineCount, shorten } from "./text.js";

/** @typedef {import("./dom.js").Child} Child */

const FLAT_LINES = 3;
const FLAT_CHARACTERS = 320;
const SHOWN_MAX_CHARACTERS = 400_000; // more than that no one reads, and it would slow the page

/**
 * @param {string} kind  a CSS class: turn, text, tool, result, think, note, ok, fail, local
 * @param {string} mark  the glyph in the margin
 * @param {...Child} children
 */
export function row(kind, mark, ...children) {
  const margin = h("span", { class: "mark", "aria-hidden": "true" }, mark);
  return h("div", { class: `row row-${kind}` }, margin, h("div", { class: "cell" }, ...children));
}

/** @param {string} text */
export function words(text) {
  return h("span", { class: "words" }, text);
}

/** Terminal output as it stands. @param {string} text */
export function output(text) {
  const cut = text.length > SHOWN_MAX_CHARACTERS;
  const shown = cut ? text.slice(0, SHOWN_MAX_CHARACTERS) : text;
  return h("div", { class: "words output" }, ansi(shown), cut && `\n… ${text.length - shown.length} more characters`);
}

/** @param {string} text */
export function isShort(text) {
  return lineCount(text) <= FLAT_LINES && text.length <= FLAT_CHARACTERS;
}

/**
 * A summary that opens to `body`. The body is built when first opened: most are never looked at.
 * @param {Child[]} summary @param {() => Child} body @param {boolean} [open]
 */
export function fold(summary, body, open = false) {
  const details = h("details", { class: "fold" }, h("summary", null, ...summary));
  const fill = () => {
    if (details.childElementCount === 1) details.append(h("div", { class: "fold-body" }, body()));
  };
  details.addEventListener("toggle", () => details.open && fill());
  if (open) {
    fill();
    details.open = true;
  }
  return details;
}

/**
 * Short text flat, long text folded: `▸ 120 lines · headline`. Of what failed, the last words say most.
 * @param {string} text @param {boolean} [failed]
 */
export function foldable(text, failed = false) {
  const plain = stripAnsi(text).trimEnd();
  if (isShort(plain)) return output(text.trimEnd());
  const lines = lineCount(plain);
  const amount = lines > 1 ? `${lines} lines` : `${plain.length} characters`;
  return fold(
    [h("span", { class: "hint" }, `${amount} · `), words(failed ? lastLine(plain, 110) : headline(plain, 110))],
    () => output(text),
  );
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
  return h("q", { class: "words quote" }, line);
}
