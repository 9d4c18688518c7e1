/**
 * Addresses in what agents write. Only whole `http` and `https` addresses become links; each leads where its
 * text says, and nothing is fetched before it is pressed. Everything else stays text.
 */

import { h } from "./dom.js";
import { neutraliseCode } from "./text.js";

const ADDRESS = /\bhttps?:\/\/[^\s<>"'`{}|\\^\u3000-\u303f\uff00-\uffef]+/gi;
const ADDRESS_MAX_CHARACTERS = 2000;
const LINKS_MAX = 400; // of one text

/** Punctuation after an address belongs to the sentence, and so does a bracket that it does not open.
 * @param {string} text */
function trimmed(text) {
  const open = { ")": surplus(text, "(", ")"), "]": surplus(text, "[", "]") };
  let end = text.length;
  for (; end > 0; end -= 1) {
    const last = text[end - 1];
    if (last === ")" || last === "]") {
      if (open[last] <= 0) break;
      open[last] -= 1;
    } else if (!".,;:!?*_~".includes(last)) break;
  }
  return text.slice(0, end);
}

/** How many more of `closing` there are. @param {string} text @param {string} opening @param {string} closing */
function surplus(text, opening, closing) {
  return text.split(closing).length - text.split(opening).length;
}

/**
 * Where the address `text` leads, or null if that is not what its reader takes it for: names before an `@`,
 * a host that is not plain ASCII, characters that are not seen.
 * @param {string} text @returns {string|null}
 */
export function targetOf(text) {
  if (text !== neutraliseCode(text)) return null;
  const authority = /^https?:\/\/([^/?#]*)/i.exec(text)?.[1] ?? "";
  if (!/^(\[[\da-f:.]+\]|[a-z\d](?:[a-z\d._-]*[a-z\d])?\.?)(:\d{1,5})?$/i.test(authority)) return null;
  if (!URL.canParse(text)) return null;
  const url = new URL(text);
  return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
}

/** @param {string} text @returns {HTMLAnchorElement|null} */
function link(text) {
  const target = targetOf(text);
  if (target === null) return null;
  const element = h("a", { class: "outside", target: "_blank", rel: "noopener noreferrer" }, text);
  element.href = target; // `h` refuses http, which within the hive no link needs
  return element;
}

/** `text` with its addresses as links. @param {string} text @returns {(Node|string)[]} */
export function linked(text) {
  if (!text.includes("://")) return [text];
  /** @type {(Node|string)[]} */
  const nodes = [];
  let from = 0;
  let links = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const address = match[0].length > ADDRESS_MAX_CHARACTERS ? "" : trimmed(match[0]);
    const element = link(address);
    if (!element) continue;
    if (match.index > from) nodes.push(text.slice(from, match.index));
    nodes.push(element);
    from = match.index + address.length;
    links += 1;
    if (links >= LINKS_MAX) break;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}
