/**
 * The live tail: rows in, bottom kept in view while the reader is there, a pill when not.
 * Every row knows the `seq` of its event, so none is shown twice.
 */

import { Blocks } from "./blocks.js";
import { h, one, setText, show } from "./dom.js";

const ROWS_MAX = 5000; // while the reader follows
const ROWS_READ_MAX = 20_000; // while they read further up: what they asked for stays
const NEAR_BOTTOM_PX = 48;

export class Terminal {
  constructor() {
    this.scroller = one("#terminal");
    this.list = one("#rows");
    this.blocks = new Blocks(this.list);
    this.pill = one("#new-rows");
    this.sticky = true;
    /** How high rows and window were when last looked at. */
    this.seen = { scrollHeight: 0, clientHeight: 0 };
    this.waiting = 0;
    this.wasTrimmed = false;
    /** What waits for the next frame: a burst of events costs one layout. @type {import("./blocks.js").Told[]} */
    this.pending = [];
    this.scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.pill.addEventListener("click", () => this.toBottom());
    // A soft keyboard, a rotated phone, a growing prompt, rows that turn out higher than guessed: the bottom
    // stays the bottom.
    const resized = new ResizeObserver(() => this.sticky && this.toBottom());
    resized.observe(this.scroller);
    resized.observe(this.list);
  }

  /** Calls `listener` after rows came or went. @param {() => void} listener */
  onRows(listener) {
    this.list.addEventListener("hive:rows", listener);
  }

  told() {
    this.list.dispatchEvent(new CustomEvent("hive:rows"));
  }

  /** Whose scroll it was: when the window or the rows changed their height, the page moved, not the reader. */
  onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const atBottom = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
    const moved = scrollHeight !== this.seen.scrollHeight || clientHeight !== this.seen.clientHeight;
    this.seen = { scrollHeight, clientHeight };
    if (atBottom) {
      this.sticky = true;
      this.countNew(0);
    } else if (this.sticky && moved) this.toBottom();
    else this.sticky = false;
  }

  toBottom() {
    this.sticky = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.seen = { scrollHeight: this.scroller.scrollHeight, clientHeight: this.scroller.clientHeight };
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
    for (const each of rows) each.classList.add("arriving");
    if (this.pending.length === 0) nextFrame(() => this.flush());
    this.pending.push({ seq, rows });
  }

  flush() {
    const told = this.pending.slice(-ROWS_MAX);
    this.pending = [];
    if (told.length === 0) return;
    this.blocks.append(told);
    this.trim();
    const amount = told.reduce((sum, { rows }) => sum + rows.length, 0);
    if (this.sticky) this.toBottom();
    else this.countNew(this.waiting + amount);
    this.told();
  }

  /**
   * Shows a past all at once and without animation, instead of what was there.
   * @param {import("./blocks.js").Told[]} past
   */
  replace(past) {
    this.pending = [];
    this.wasTrimmed = false;
    this.blocks.replace(past);
    this.sticky = true;
    this.trim();
    this.toBottom();
    this.told();
  }

  /** Puts an older past above, keeping what is being read in its place.
   * @param {import("./blocks.js").Told[]} past */
  prepend(past) {
    this.flush();
    const { scrollHeight, scrollTop } = this.scroller;
    this.blocks.prepend(past);
    this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
    this.told();
  }

  clear() {
    this.pending = [];
    this.wasTrimmed = false;
    this.blocks.replace([]);
    this.toBottom();
    this.told();
  }

  /** Oldest out when there are too many. */
  trim() {
    const dropped = this.blocks.dropOldest(this.sticky ? ROWS_MAX : ROWS_READ_MAX);
    this.wasTrimmed = this.wasTrimmed || dropped;
  }

  /** After rows went because they were too many: the oldest event that is left. Else 0. */
  takeTrimmed() {
    const seq = this.wasTrimmed ? this.firstSeq : 0;
    this.wasTrimmed = false;
    return seq;
  }

  get isFull() {
    return this.blocks.count >= ROWS_READ_MAX;
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

/** A row that only this page knows of. @param {string} mark @param {string} text @param {"local"|"fail"} [kind] */
export function localRow(mark, text, kind = "local") {
  const margin = h("span", { class: "mark", "aria-hidden": "true" }, mark);
  return h("div", { class: `row row-${kind}` }, margin, h("div", { class: "cell words" }, text));
}
