/** Searching the live tail: in what is shown, what is folded, and, asked for, in what is older. */

import { one, setText, show } from "./dom.js";
import { Haystack, mark, reveal, unmark } from "./hits.js";
import { areOff } from "./keyboard_help.js";

const PATIENCE_MS = 120; // after the last key, and between two looks while events arrive
const LOOK_AGAIN_MS = 400;
const EDGE = 0.35; // where in the window a place is shown, as a share of its height

/**
 * @typedef {{terminal: import("./terminal.js").Terminal, older: () => Promise<void>, hasOlder: () => boolean}} Around
 *   `older` loads what came before
 */

export class Find {
  /** @param {Around} around */
  constructor(around) {
    this.around = around;
    this.bar = one("#find");
    this.field = /** @type {HTMLInputElement} */ (one("#find-text"));
    this.haystack = new Haystack();
    /** @type {import("./hits.js").Hit[]} */
    this.hits = [];
    this.at = -1;
    this.timer = 0;
    /** @type {HTMLElement|null} */
    this.cameFrom = null;
    one("#find-open").addEventListener("click", () => (this.bar.hidden ? this.open() : this.close()));
    one("#find-close").addEventListener("click", () => this.close());
    one("#find-next").addEventListener("click", () => this.go(1));
    one("#find-previous").addEventListener("click", () => this.go(-1));
    one("#find-older").addEventListener("click", () => void this.further());
    this.bar.addEventListener("submit", (event) => event.preventDefault());
    this.bar.addEventListener("keydown", (event) => this.onKey(event));
    this.field.addEventListener("input", () => this.later(PATIENCE_MS, () => this.search()));
    around.terminal.onRows(() => {
      if (!this.bar.hidden) this.later(LOOK_AGAIN_MS, () => this.lookAgain());
    });
    document.addEventListener("keydown", (event) => this.onPageKey(event));
  }

  get needle() {
    return this.field.value.trim();
  }

  /** @param {number} waitMs @param {() => void} work */
  later(waitMs, work) {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(work, waitMs);
  }

  /** @param {KeyboardEvent} event */
  onPageKey(event) {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.defaultPrevented;
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, dialog");
    if (event.key !== "/" || !plain || typing || areOff()) return;
    event.preventDefault();
    this.open();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === "Enter" && event.target === this.field) this.go(event.shiftKey ? -1 : 1);
    else if (event.key === "ArrowDown") this.go(1);
    else if (event.key === "ArrowUp") this.go(-1);
    else return;
    event.preventDefault();
  }

  open() {
    if (this.bar.hidden) this.cameFrom = document.activeElement instanceof HTMLElement ? document.activeElement : null;
    show(this.bar, true);
    one("#find-open").setAttribute("aria-expanded", "true");
    this.field.focus();
    this.field.select();
    this.search();
  }

  close() {
    clearTimeout(this.timer);
    show(this.bar, false);
    one("#find-open").setAttribute("aria-expanded", "false");
    this.unmarkRow();
    unmark();
    this.haystack = new Haystack(); // what was read for searching is let go
    this.hits = [];
    this.at = -1;
    (this.cameFrom?.isConnected ? this.cameFrom : one("#terminal")).focus({ preventScroll: true });
  }

  /** A new question: the newest place is shown first, as that is where the reader is. */
  search() {
    clearTimeout(this.timer);
    this.hits = this.haystack.find(this.around.terminal.blocks.rows(), this.needle);
    this.at = this.hits.length - 1;
    this.present({ move: this.hits.length > 0 });
  }

  /** The same question after rows came or went; the reader stays where they are. */
  lookAgain() {
    const now = this.hits[this.at];
    this.hits = this.haystack.find(this.around.terminal.blocks.rows(), this.needle);
    const same = this.hits.findIndex((hit) => hit.row === now?.row && hit.nth === now.nth);
    this.at = same >= 0 ? same : Math.min(this.at, this.hits.length - 1);
    if (this.at < 0 && this.hits.length > 0) this.at = this.hits.length - 1;
    this.present({ move: false });
  }

  /** @param {number} step */
  go(step) {
    if (this.hits.length === 0) return;
    this.at = (this.at + step + this.hits.length) % this.hits.length;
    this.present({ move: true });
  }

  /** Older events, and on with the search in them. */
  async further() {
    const button = /** @type {HTMLButtonElement} */ (one("#find-older"));
    button.disabled = true;
    await this.around.older();
    button.disabled = false;
    this.lookAgain();
  }

  unmarkRow() {
    for (const row of this.around.terminal.list.querySelectorAll(".found-row")) row.classList.remove("found-row");
  }

  /** @param {{move: boolean}} how */
  present({ move }) {
    this.unmarkRow();
    const hit = this.hits[this.at];
    if (hit && move) reveal(hit.row, this.needle);
    hit?.row.classList.add("found-row");
    if (hit && move) this.scrollTo(hit.row);
    const place = mark(this.hits, this.at, this.needle);
    if (place && move) this.scrollTo(place);
    const none = this.needle === "" ? "" : "nothing found";
    setText(one("#find-count"), hit ? `${this.at + 1} of ${this.hits.length}` : none);
    for (const name of ["#find-next", "#find-previous"]) one(name).toggleAttribute("disabled", !hit);
    show(one("#find-older"), this.around.hasOlder());
  }

  /** @param {{getBoundingClientRect: () => DOMRect}} place */
  scrollTo(place) {
    const { scroller } = this.around.terminal;
    const box = place.getBoundingClientRect();
    const frame = scroller.getBoundingClientRect();
    if (box.top >= frame.top + 20 && box.bottom <= frame.bottom - 20) return;
    scroller.scrollTop += box.top - frame.top - frame.height * EDGE;
  }
}

