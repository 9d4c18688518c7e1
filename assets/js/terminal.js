/**
 * The live tail: rows in, bottom kept in view while the reader is there, a pill when not.
 * Every row knows the `seq` of its event, so none is shown twice.
 */

import { h, one, setText, show } from "./dom.js";

const ROWS_MAX = 5000;
const NEAR_BOTTOM_PX = 48;

export class Terminal {
  constructor() {
    this.scroller = one("#terminal");
    this.list = one("#rows");
    this.pill = one("#new-rows");
    this.sticky = true;
    this.waiting = 0;
    this.wasTrimmed = false;
    /** Rows that wait for the next frame: a burst of events costs one layout. @type {HTMLElement[]} */
    this.pending = [];
    this.scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.pill.addEventListener("click", () => this.toBottom());
    // A soft keyboard, a rotated phone, a growing prompt: the bottom stays the bottom.
    new ResizeObserver(() => this.sticky && this.toBottom()).observe(this.scroller);
  }

  onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.sticky = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
    if (this.sticky) this.countNew(0);
  }

  toBottom() {
    this.sticky = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.countNew(0);
  }

  /** @param {number} amount */
  countNew(amount) {
    this.waiting = amount;
    setText(one(".amount", this.pill), String(amount));
    show(this.pill, amount > 0);
  }

  /**
   * Adds rows at the end. `seq` 0 is for rows of this page alone, such as `/help`.
   * @param {HTMLElement[]} rows @param {number} [seq]
   */
  add(rows, seq = 0) {
    if (rows.length === 0) return;
    for (const each of rows) {
      each.dataset.seq = String(seq);
      each.classList.add("arriving");
    }
    if (this.pending.length === 0) nextFrame(() => this.flush());
    this.pending.push(...rows);
  }

  flush() {
    const rows = this.pending;
    this.pending = [];
    if (rows.length === 0) return;
    this.list.append(...rows.slice(-ROWS_MAX));
    this.trim();
    if (this.sticky) this.toBottom();
    else this.countNew(this.waiting + rows.length);
  }

  /**
   * Shows a past all at once and without animation, instead of what was there.
   * @param {{seq: number, rows: HTMLElement[]}[]} past
   */
  replace(past) {
    this.pending = [];
    this.wasTrimmed = false;
    this.list.replaceChildren(fragment(past));
    this.trim();
    this.toBottom();
  }

  /** Puts an older past above, keeping what is being read in its place.
   * @param {{seq: number, rows: HTMLElement[]}[]} past */
  prepend(past) {
    this.flush();
    const { scrollHeight, scrollTop } = this.scroller;
    this.list.prepend(fragment(past));
    this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
  }

  clear() {
    this.pending = [];
    this.wasTrimmed = false;
    this.list.replaceChildren();
    this.toBottom();
  }

  /** Oldest out when there are too many, an event's rows together. */
  trim() {
    let excess = this.list.childElementCount - ROWS_MAX;
    let seq = "";
    for (let first = this.list.firstElementChild; first instanceof HTMLElement; first = this.list.firstElementChild) {
      const sameEvent = seq !== "" && seq !== "0" && first.dataset.seq === seq;
      if (excess <= 0 && !sameEvent) return;
      seq = first.dataset.seq ?? "";
      first.remove();
      this.wasTrimmed = true;
      excess -= 1;
    }
  }

  get isFull() {
    return this.list.childElementCount >= ROWS_MAX;
  }

  /** The oldest event on screen, or 0. */
  get firstSeq() {
    const first = this.list.querySelector('[data-seq]:not([data-seq="0"])');
    return first instanceof HTMLElement ? Number(first.dataset.seq) : 0;
  }
}

/** No frames are drawn in the background. @param {() => void} work */
function nextFrame(work) {
  if (document.hidden) setTimeout(work, 250);
  else requestAnimationFrame(work);
}

/** @param {{seq: number, rows: HTMLElement[]}[]} past */
function fragment(past) {
  const all = document.createDocumentFragment();
  for (const { seq, rows } of past) {
    for (const each of rows) {
      each.dataset.seq = String(seq);
      all.append(each);
    }
  }
  return all;
}

/** A row that only this page knows of. @param {string} mark @param {string} text @param {"local"|"fail"} [kind] */
export function localRow(mark, text, kind = "local") {
  const margin = h("span", { class: "mark", "aria-hidden": "true" }, mark);
  return h("div", { class: `row row-${kind}` }, margin, h("div", { class: "cell words" }, text));
}
