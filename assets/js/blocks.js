/**
 * Many rows as blocks of some: the browser lays out only the blocks that are near the window (`content-visibility`
 * in rows.css), and a block is guessed as high as its number of rows. The rows of one event stay in one block.
 */

import { h } from "./dom.js";

export const BLOCK_ROWS = 50;

/** Rows, with the `seq` of the event they tell of; 0 is none. @typedef {{seq: number, rows: HTMLElement[]}} Told */

export class Blocks {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    this.count = 0;
  }

  /** Every row, oldest first. @returns {Generator<HTMLElement>} */
  *rows() {
    for (const block of this.list.children) {
      for (const row of block.children) yield /** @type {HTMLElement} */ (row);
    }
  }

  /** @param {Told[]} told */
  replace(told) {
    const blocks = fill(told);
    this.list.replaceChildren(...blocks);
    this.count = sum(blocks);
  }

  /** @param {Told[]} told */
  append(told) {
    const last = this.list.lastElementChild;
    const blocks = fill(told, last instanceof HTMLElement ? last : null);
    this.list.append(...blocks);
    this.count += sum(told.map(({ rows }) => ({ childElementCount: rows.length })));
  }

  /** @param {Told[]} told */
  prepend(told) {
    const blocks = fill(told);
    this.list.prepend(...blocks);
    this.count += sum(blocks);
  }

  /** Takes the oldest blocks away while there are more than `most` rows. @param {number} most @returns {boolean} whether any went */
  dropOldest(most) {
    const before = this.count;
    for (let first = this.list.firstElementChild; first && this.count > most; first = this.list.firstElementChild) {
      this.count -= first.childElementCount;
      first.remove();
    }
    return this.count < before;
  }

  /** The row after or before `row`, over the edge of its block too. @param {Element} row @param {1|-1} by */
  beside(row, by) {
    const block = row.parentElement;
    if (by > 0) return row.nextElementSibling ?? block?.nextElementSibling?.firstElementChild ?? null;
    return row.previousElementSibling ?? block?.previousElementSibling?.lastElementChild ?? null;
  }
}

/** @param {{childElementCount: number}[]} blocks */
function sum(blocks) {
  return blocks.reduce((total, block) => total + block.childElementCount, 0);
}

/**
 * Puts rows into new blocks, and first into `open` while that has room.
 * @param {Told[]} told @param {HTMLElement|null} [open] @returns {HTMLElement[]} the new blocks
 */
function fill(told, open = null) {
  /** @type {HTMLElement[]} */
  const blocks = [];
  let block = open;
  let lastSeq = Number(/** @type {HTMLElement|null} */ (open?.lastElementChild)?.dataset.seq ?? 0);
  for (const { seq, rows } of told) {
    if (rows.length === 0) continue;
    if (!block || (block.childElementCount >= BLOCK_ROWS && (seq === 0 || seq !== lastSeq))) {
      if (block) guess(block);
      block = h("div", { class: "block" });
      blocks.push(block);
    }
    for (const row of rows) row.dataset.seq = String(seq);
    block.append(...rows);
    lastSeq = seq;
  }
  if (block) guess(block);
  return blocks;
}

/** @param {HTMLElement} block */
function guess(block) {
  block.style.setProperty("--rows", String(block.childElementCount));
}
