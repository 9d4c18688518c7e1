/** Where a text occurs in the rows of the terminal, opened or not, and how the places are marked. */

import { unfold, wholeText } from "./rows.js";

/** One place: its row, and which occurrence in that row. @typedef {{row: HTMLElement, nth: number}} Hit */

const HITS_MAX = 5000;
const MARKS_MAX = 1000; // places that are marked at a time
const ALL = "found";
const CURRENT = "found-now";

export class Haystack {
  constructor() {
    /** @type {WeakMap<Element, string>} */
    this.texts = new WeakMap();
  }

  /** @param {Element} row */
  textOf(row) {
    let text = this.texts.get(row);
    if (text === undefined) {
      text = wholeText(row).toLowerCase();
      this.texts.set(row, text);
    }
    return text;
  }

  /** Every place of `needle` in `rows`, in their order.
   * @param {Iterable<HTMLElement>} rows @param {string} needle @returns {Hit[]} */
  find(rows, needle) {
    const wanted = needle.toLowerCase();
    /** @type {Hit[]} */
    const hits = [];
    if (wanted === "") return hits;
    for (const row of rows) {
      const text = this.textOf(row);
      let nth = 0;
      for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
        hits.push({ row, nth: nth++ });
        if (hits.length >= HITS_MAX) return hits;
      }
    }
    return hits;
  }
}

/** Opens what hides the places of `needle` in `row`. @param {HTMLElement} row @param {string} needle */
export function reveal(row, needle) {
  const summaries = [...row.querySelectorAll(".fold > summary")].map((each) => each.textContent ?? "").join("");
  for (const fold of row.querySelectorAll("details")) {
    const inSummary = count(summaries, needle);
    if (!fold.open && count(wholeText(row), needle) > inSummary) unfold(fold);
  }
}

/** @param {string} text @param {string} needle */
function count(text, needle) {
  return text.toLowerCase().split(needle.toLowerCase()).length - 1;
}

/** The places of `needle` in the text of `row` as it is on the page. @param {Element} row @param {string} needle */
export function rangesIn(row, needle) {
  const wanted = needle.toLowerCase();
  /** @type {Range[]} */
  const ranges = [];
  const cell = row.querySelector(".cell");
  if (!cell || wanted === "") return ranges;
  const nodes = textNodes(cell);
  const text = nodes.map(({ data }) => data).join("").toLowerCase();
  const starts = startsOf(nodes);
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
    const range = document.createRange();
    const [first, from] = place(nodes, starts, at);
    const [last, to] = place(nodes, starts, at + wanted.length - 1);
    range.setStart(first, Math.min(from, first.data.length));
    range.setEnd(last, Math.min(to + 1, last.data.length));
    ranges.push(range);
  }
  return ranges;
}

/** @param {Element} within */
function textNodes(within) {
  const walker = document.createTreeWalker(within, NodeFilter.SHOW_TEXT);
  /** @type {Text[]} */
  const nodes = [];
  while (walker.nextNode()) nodes.push(/** @type {Text} */ (walker.currentNode));
  return nodes;
}

/** @param {Text[]} nodes */
function startsOf(nodes) {
  let sum = 0;
  return nodes.map((node) => {
    const start = sum;
    sum += node.data.length;
    return start;
  });
}

/** The node that holds a character, and where. @param {Text[]} nodes @param {number[]} starts @param {number} at
 * @returns {[Text, number]} */
function place(nodes, starts, at) {
  let low = 0;
  let high = nodes.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (starts[middle] <= at) low = middle;
    else high = middle - 1;
  }
  return [nodes[low], at - starts[low]];
}

/**
 * Marks the places around the current one, without touching the rows; where the browser cannot, the row is
 * marked by a class alone.
 * @param {Hit[]} hits @param {number} at @param {string} needle @returns {Range|null} the current place
 */
export function mark(hits, at, needle) {
  const half = MARKS_MAX / 2;
  const near = hits.slice(Math.max(0, at - half), at + half);
  /** @type {Range[]} */
  const ranges = [];
  for (const row of new Set(near.map((hit) => hit.row))) ranges.push(...rangesIn(row, needle));
  const current = hits[at];
  const own = current ? rangesIn(current.row, needle) : [];
  const now = own[current?.nth ?? 0] ?? own.at(-1) ?? null;
  if (globalThis.CSS?.highlights) {
    CSS.highlights.set(ALL, new Highlight(...ranges));
    CSS.highlights.set(CURRENT, now ? new Highlight(now) : new Highlight());
  }
  return now;
}

/** Takes every mark away. */
export function unmark() {
  globalThis.CSS?.highlights?.delete(ALL);
  globalThis.CSS?.highlights?.delete(CURRENT);
}
