/**
 * What an agent says, as it wrote it: every character stays, and the little that models mark by habit (code in
 * backticks, fences, headings, bold) is coloured. There is no markup: no images, no tables, no links but those
 * whose address is their text.
 */

import { h } from "./dom.js";
import { linked } from "./links.js";
import { standsFor } from "./rows.js";

const FENCE = /^ {0,3}(```+|~~~+)[^`\n]*\n([\s\S]*?)(?:\n {0,3}\1[ \t]*(?=\n|$)|$(?![\s\S]))/gm;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;
const FENCES_MAX = 60; // of one text
const INLINE_MAX = 500;

/** @param {"strong"|"code"} tag @param {string} sign  stays, as it was written, but steps back @param {string} said */
function marked(tag, sign, said) {
  const around = () => h("span", { class: "sign" }, sign);
  return h(tag, null, around(), said, around());
}

/** @param {string} line @returns {(Node|string)[]} */
function inline(line) {
  /** @type {(Node|string)[]} */
  const nodes = [];
  let from = 0;
  for (const match of line.matchAll(INLINE)) {
    if (nodes.length >= INLINE_MAX) break;
    nodes.push(...linked(line.slice(from, match.index)));
    nodes.push(match[1] === undefined ? marked("strong", "**", match[2]) : marked("code", "`", match[1]));
    from = match.index + match[0].length;
  }
  nodes.push(...linked(line.slice(from)));
  return nodes;
}

/** @param {string} line */
function heading(line) {
  const from = line.indexOf(" ") + 1;
  return h("strong", { class: "heading" }, h("span", { class: "sign" }, line.slice(0, from)), line.slice(from));
}

/** Text between fences. @param {string} text @returns {(Node|string)[]} */
function plain(text) {
  if (!/^#{1,6} /m.test(text)) return inline(text);
  return text.split(/(^#{1,6} .*$)/m).flatMap((part, at) => (at % 2 === 1 ? [heading(part)] : inline(part)));
}

/** @param {string} said */
export function prose(said) {
  /** @type {(Node|string)[]} */
  const nodes = [];
  let from = 0;
  let fences = 0;
  for (const match of said.matchAll(FENCE)) {
    if (fences >= FENCES_MAX) break;
    fences += 1;
    nodes.push(...plain(said.slice(from, match.index).replace(/\n$/, "")));
    nodes.push(standsFor(h("div", { class: "fence", "data-piece": true }, match[2]), match[2]));
    from = match.index + match[0].length;
    if (said[from] === "\n") from += 1;
  }
  nodes.push(...plain(said.slice(from)));
  return standsFor(h("div", { class: "words prose sourced" }, nodes), said);
}
