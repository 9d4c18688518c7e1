/**
 * Many rows as blocks of some: the browser lays out only the blocks that are near the window (`content-visibility`
 * in rows.css), and a block is guessed as high as its number of rows. The rows of one event stay in one block.
 * A block may be there before its rows are: they are built later, newest first, and never if it goes before.
 */

import { h } from "./dom.js";

export const BLOCK_ROWS = 50;

/** Rows, with the `seq` of the event they tell of; 0 is none. @typedef {{seq: number, rows: HTMLElement[]}} Told */
/** An event whose rows are still to be built. @typedef {{seq: number, make: () => HTMLElement[]}} Coming */
/** What is still to be built of a block, oldest first, and the row that it comes before, if that is there.
 * @typedef {{coming: Coming[], before: HTMLElement|null}} Unbuilt */

export class Blocks {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    /** Rows; an event that is still to be built counts as one. */
    this.count = 0;
    /** Blocks that are not whole, oldest first. @type {Map<Element, Unbuilt>} */
    this.unbuilt = new Map();
  }

  /** Every row that is built, oldest first. @returns {Generator<HTMLElement>} */
  *rows() {
    for (const block of this.list.children) {
      for (const row of block.children) yield /** @type {HTMLElement} */ (row);
    }
  }

  /** @param {Told[]} told */
  replace(told) {
    const blocks = fill(told);
    this.unbuilt.clear();
    this.list.replaceChildren(...blocks);
    this.count = sum(blocks);
  }

  /** @param {Told[]} told */
  prepend(told) {
    const blocks = fill(told);
    this.list.prepend(...blocks);
    this.count += sum(blocks);
  }

  /** Makes room at the end for events whose rows `build` builds. @param {Coming[]} coming */
  put(coming) {
    let block = this.list.lastElementChild;
    /** @type {Set<Element>} */
    const touched = new Set(block ? [block] : []);
    for (const each of coming) {
      if (!block || !this.hasRoom(block)) block = h("div", { class: "block", "data-seq": each.seq });
      touched.add(block);
      const unbuilt = this.unbuilt.get(block);
      if (unbuilt) unbuilt.coming.push(each);
      else this.unbuilt.set(block, { coming: [each], before: null });
    }
    for (const each of touched) this.guess(each);
    this.list.append(...[...touched].filter((each) => !each.isConnected)); // what is there is not moved
    this.count += coming.length;
  }

  /** @param {Element} block */
  hasRoom(block) {
    return !this.unbuilt.get(block)?.before && this.sizeOf(block) < BLOCK_ROWS;
  }

  /** @param {Element} block */
  sizeOf(block) {
    return block.childElementCount + (this.unbuilt.get(block)?.coming.length ?? 0);
  }

  /**
   * Builds what is still to be built until `isEnough`, asked after each event: block by block, the newest of
   * each first.
   * @param {Element[]} order blocks @param {() => boolean} isEnough @returns {number} by how much the rows became
   *   more than was counted
   */
  build(order, isEnough) {
    const before = this.count;
    for (const block of order) {
      if (this.buildIn(block, isEnough)) break;
    }
    return this.count - before;
  }

  /** @param {Element} block @param {() => boolean} isEnough @returns {boolean} whether it is enough */
  buildIn(block, isEnough) {
    const unbuilt = this.unbuilt.get(block);
    let enough = false;
    for (let next = unbuilt?.coming.pop(); unbuilt && next; next = enough ? undefined : unbuilt.coming.pop()) {
      const rows = made(next);
      for (const row of rows) block.insertBefore(row, unbuilt.before);
      unbuilt.before = rows[0] ?? unbuilt.before;
      this.count += rows.length - 1;
      enough = isEnough();
    }
    if (unbuilt?.coming.length === 0) this.unbuilt.delete(block);
    this.settle(block);
    return enough;
  }

  /** @param {Element} block */
  settle(block) {
    this.guess(block);
    if (this.unbuilt.has(block)) return;
    block.removeAttribute("data-seq");
    if (block.childElementCount === 0) block.remove();
  }

  /** How high it is if nobody has looked, and what is left free for rows to come. @param {Element} block */
  guess(block) {
    const { style } = /** @type {HTMLElement} */ (block);
    style.setProperty("--rows", String(block.childElementCount));
    style.setProperty("--unbuilt", String(this.unbuilt.get(block)?.coming.length ?? 0));
  }

  /** Takes the oldest blocks away while there are more than `most` rows. @param {number} most @returns {boolean} whether any went */
  dropOldest(most) {
    const before = this.count;
    for (let first = this.list.firstElementChild; first && this.count > most; first = this.list.firstElementChild) {
      this.count -= this.sizeOf(first);
      this.unbuilt.delete(first);
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

/** One event that cannot be shown does not stop the others. @param {Coming} coming */
function made({ seq, make }) {
  try {
    const rows = make();
    for (const row of rows) row.dataset.seq = String(seq);
    return rows;
  } catch (error) {
    console.error("event could not be shown", seq, error);
    return [];
  }
}

/** @param {{childElementCount: number}[]} blocks */
function sum(blocks) {
  return blocks.reduce((total, block) => total + block.childElementCount, 0);
}

/** Puts rows into blocks. @param {Told[]} told @returns {HTMLElement[]} */
function fill(told) {
  /** @type {HTMLElement[]} */
  const blocks = [];
  /** @type {HTMLElement|null} */
  let block = null;
  for (const { seq, rows } of told) {
    if (rows.length === 0) continue;
    if (!block || block.childElementCount >= BLOCK_ROWS) {
      block = h("div", { class: "block" });
      blocks.push(block);
    }
    for (const row of rows) row.dataset.seq = String(seq);
    block.append(...rows);
  }
  for (const each of blocks) each.style.setProperty("--rows", String(each.childElementCount));
  return blocks;
}
