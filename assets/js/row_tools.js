/**
 * What one row offers: copying it, and going through the rows with `j` and `k`. There is one button for all
 * rows; it goes where the pointer, the finger or the focus is, so that thousands of rows stay light.
 */

import { clock } from "./text.js";
import { h } from "./dom.js";
import { toast } from "./notices.js";
import { sourceOf, timeOf } from "./rows.js";

const COPIED_MS = 1200;

export class RowTools {
  /** @param {import("./blocks.js").Blocks} blocks */
  constructor(blocks) {
    const { list } = blocks;
    this.blocks = blocks;
    this.list = list;
    this.timer = 0;
    this.button = h("button", { type: "button", class: "button quiet copy", "aria-label": "Copy this row" }, "copy");
    this.clock = h("span", { class: "row-clock hint" });
    this.place = h("div", { class: "row-tools" }, this.clock, this.button);
    this.button.addEventListener("click", () => void this.copy());
    list.addEventListener("pointerover", (event) => this.moveTo(event.target));
    list.addEventListener("focusin", (event) => this.moveTo(event.target));
    list.parentElement?.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** @param {EventTarget|null} target @returns {HTMLElement|null} */
  rowOf(target) {
    const row = target instanceof Element ? target.closest(".row") : null;
    return row instanceof HTMLElement && this.list.contains(row) ? row : null;
  }

  /** @param {EventTarget|null} target */
  moveTo(target) {
    const row = this.rowOf(target);
    if (!row || this.place.parentElement === row) return;
    if (this.button.matches(":focus-visible")) return; // who went to it by keys keeps it
    const atMs = timeOf(row);
    this.clock.textContent = atMs > 0 ? clock(atMs) : "";
    this.reset();
    row.append(this.place);
  }

  reset() {
    clearTimeout(this.timer);
    this.button.textContent = "copy";
  }

  async copy() {
    const row = this.rowOf(this.place);
    if (!row) return;
    const done = await copyText(sourceOf(row));
    if (!done) {
      toast("The browser refused to copy; select the text and copy it by hand.", "error");
      return;
    }
    this.button.textContent = "copied";
    this.timer = window.setTimeout(() => this.reset(), COPIED_MS);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.defaultPrevented;
    if (!plain || (event.target instanceof Element && event.target.closest("a, button"))) return;
    const row = this.rowOf(event.target);
    if (event.key === "j" || event.key === "k") this.step(row, event.key === "j" ? 1 : -1);
    else if (event.key === "c" && row) void this.copy();
    else if (event.key === "Enter" && row && event.target === row) toggle(row);
    else return;
    event.preventDefault();
  }

  /** @param {HTMLElement|null} row @param {1|-1} by */
  step(row, by) {
    const next = row ? this.blocks.beside(row, by) : this.nearest(by);
    if (!(next instanceof HTMLElement)) return;
    next.tabIndex = -1;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  /** Where to begin: the first or last row that is in view. @param {number} by */
  nearest(by) {
    const frame = this.list.parentElement?.getBoundingClientRect();
    const rows = [...this.blocks.rows()];
    if (!frame) return null;
    const within = (/** @type {Element} */ row) => {
      const { top, bottom } = row.getBoundingClientRect();
      return bottom > frame.top && top < frame.bottom;
    };
    return (by > 0 ? rows.find(within) : rows.findLast(within)) ?? null;
  }
}

/** @param {HTMLElement} row */
function toggle(row) {
  const fold = row.querySelector("details");
  if (fold) fold.open = !fold.open;
}

/** @param {string} text @returns {Promise<boolean>} whether it is in the clipboard */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text); // pages that came over plain http from another machine have no clipboard
  }
}

/** @param {string} text */
function copyOldWay(text) {
  const focused = document.activeElement;
  const field = h("textarea", { class: "sr", readonly: true, "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  return done;
}
