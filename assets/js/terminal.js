/**
 * The live tail: events in, bottom kept in view while the reader is there, a pill when not.
 * Events are taken as they come; their rows are built once a frame, for as long as a frame can spare: the newest
 * first for who follows, and for who reads further up what they look at. Every row knows the `seq` of its event.
 */

import { Blocks } from "./blocks.js";
import { h, one, setText, show } from "./dom.js";
import { nextFrame, slice } from "./pace.js";
import { onIntent } from "./scroll_intent.js";

/** @typedef {import("./blocks.js").Coming} Coming */
/** @typedef {import("./blocks.js").Told} Told */

const ROWS_MAX = 5000; // while the reader follows
const ROWS_READ_MAX = 20_000; // while they read further up: what they asked for stays
const NEAR_BOTTOM_PX = 48;
const TAKEN_MAX = 1000; // events that wait for a frame; more of them get their place at once
const CALM_MAX = 50; // events for one frame that are few enough to be animated

export class Terminal {
  constructor() {
    this.scroller = one("#terminal");
    this.list = one("#rows");
    this.blocks = new Blocks(this.list);
    this.pill = one("#new-rows");
    this.sticky = true;
    this.isLeaving = false; // the reader scrolls up, however little: the next row does not pull them back
    /** How high rows and window were when last looked at. */
    this.seen = { scrollHeight: 0, clientHeight: 0 };
    this.waiting = 0;
    this.wasTrimmed = false;
    this.isDue = false; // with the next frame
    /** What came since the last frame: a burst of events costs one layout. @type {Coming[]} */
    this.taken = [];
    /** The newest of what came while a reader had all that a page can hold. @type {Coming[]} */
    this.beyond = [];
    this.isBeyondWhole = true;
    this.scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    onIntent(this.scroller, (way) => this.onIntent(way));
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

  /** Whose scroll it was: when the window or the rows changed their height, the page moved, not the reader. */
  onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const atBottom = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
    const moved = scrollHeight !== this.seen.scrollHeight || clientHeight !== this.seen.clientHeight;
    this.seen = { scrollHeight, clientHeight };
    if (atBottom && this.isLeaving) this.sticky = false;
    else if (atBottom) {
      this.sticky = true;
      this.catchUp();
      this.countNew(0);
    } else if (this.sticky && moved) this.toBottom();
    else this.sticky = false;
  }

  /** Before the page has scrolled: rows that come in every frame would undo it. @param {"up"|"down"} way */
  onIntent(way) {
    this.isLeaving = way === "up" && this.scroller.scrollTop > 0;
    if (this.isLeaving) this.sticky = false;
  }

  toBottom() {
    this.sticky = true;
    this.isLeaving = false;
    this.catchUp();
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

  /** Adds rows of this page alone at the end, such as `/help`. @param {HTMLElement[]} rows */
  add(rows) {
    this.take(0, () => rows);
  }

  /** Takes an event; `make` builds its rows when their turn comes. @param {number} seq @param {() => HTMLElement[]} make */
  take(seq, make) {
    const isCalm = this.taken.length < CALM_MAX;
    this.taken.push({ seq, make: isCalm ? () => arriving(make()) : make });
    if (this.taken.length >= TAKEN_MAX) this.place();
    this.paintSoon();
  }

  paintSoon() {
    if (this.isDue) return;
    this.isDue = true;
    nextFrame(() => this.paint());
  }

  /** What was taken gets its place, and too many of the oldest go, before any row is built. */
  place() {
    const { taken } = this;
    this.taken = [];
    if (!this.sticky) this.countNew(this.waiting + taken.length);
    const isFull = !this.sticky && this.blocks.count + taken.length > ROWS_READ_MAX;
    if (isFull || this.beyond.length > 0) this.keepBeyond(taken);
    else this.blocks.put(taken);
    this.trim();
  }

  /** Nothing is taken from under a reader: of what has no place, the newest waits until they come down.
   * @param {Coming[]} taken */
  keepBeyond(taken) {
    this.beyond.push(...taken);
    const many = this.beyond.length - ROWS_MAX;
    if (many <= 0) return;
    this.beyond.splice(0, many);
    this.isBeyondWhole = false;
  }

  /** The reader came down. If something is missing between what they read and what waits, what they read goes. */
  catchUp() {
    if (this.beyond.length === 0) return;
    const { beyond } = this;
    this.beyond = [];
    if (!this.isBeyondWhole) {
      this.blocks.replace([]);
      this.wasTrimmed = true;
    }
    this.isBeyondWhole = true;
    this.blocks.put(beyond);
    this.trim();
    this.paintSoon();
  }

  /** One frame's share of what is to be built. */
  paint() {
    this.isDue = false;
    const near = this.nearReader(); // looked at before anything changes: no layout is forced
    this.place();
    const rest = [...this.blocks.unbuilt.keys()];
    const more = this.blocks.build(this.sticky ? rest.reverse() : [...near, ...rest], slice());
    if (this.sticky) this.toBottom();
    else if (more !== 0) this.countNew(Math.max(0, this.waiting + more));
    if (this.blocks.unbuilt.size > 0) this.paintSoon();
    this.told();
  }

  /** Blocks to be built from where the reader is on; none for who follows. */
  nearReader() {
    if (this.sticky || this.blocks.unbuilt.size === 0) return [];
    const { top } = this.scroller.getBoundingClientRect();
    const blocks = [...this.blocks.unbuilt.keys()];
    const first = blocks.findIndex((block) => block.getBoundingClientRect().bottom > top);
    return first < 0 ? [] : blocks.slice(first);
  }

  /**
   * Shows a past all at once and without animation, instead of what was there.
   * @param {Told[]} past
   */
  replace(past) {
    this.forget();
    this.blocks.replace(past);
    this.sticky = true;
    this.trim();
    this.toBottom();
    this.told();
  }

  /** Puts an older past above, keeping what is being read in its place. @param {Told[]} past */
  prepend(past) {
    this.place();
    const { scrollHeight, scrollTop } = this.scroller;
    this.blocks.prepend(past);
    this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
    this.told();
  }

  clear() {
    this.forget();
    this.blocks.replace([]);
    this.toBottom();
    this.told();
  }

  forget() {
    this.taken = [];
    this.beyond = [];
    this.isBeyondWhole = true;
    this.wasTrimmed = false;
  }

  /** Oldest out when there are too many, unless somebody reads them. */
  trim() {
    if (this.sticky && this.blocks.dropOldest(ROWS_MAX)) this.wasTrimmed = true;
  }

  told() {
    const isBusy = this.blocks.unbuilt.size > 0;
    if (isBusy) this.list.setAttribute("aria-busy", "true");
    else this.list.removeAttribute("aria-busy");
    this.list.dispatchEvent(new CustomEvent("hive:rows"));
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

/** @param {HTMLElement[]} rows */
function arriving(rows) {
  for (const each of rows) each.classList.add("arriving");
  return rows;
}

/** A row that only this page knows of. @param {string} mark @param {string} text @param {"local"|"fail"} [kind] */
export function localRow(mark, text, kind = "local") {
  const margin = h("span", { class: "mark", "aria-hidden": "true" }, mark);
  return h("div", { class: `row row-${kind}` }, margin, h("div", { class: "cell words" }, text));
}
