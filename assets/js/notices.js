/** Short words to the operator: a polite live region for all, and a toast for what was just done. */

import { h, one, setText } from "./dom.js";
import { shorten } from "./text.js";

const TOAST_MS = 6000;
const TOASTS_MAX = 4;
const PAUSE_MS = 3000; // between two announcements
const SAID_TOGETHER = 3;

/** What waits to be said aloud. @type {string[]} */
let waiting = [];
let pause = 0;

/**
 * Says `text` to screen readers without moving anything. At most once in a while: what comes faster is said
 * together, and of much only how much it was, so that a busy hive does not talk over its reader.
 * @param {string} text
 */
export function announce(text) {
  waiting.push(shorten(text, 240));
  if (pause) return;
  say();
  pause = window.setInterval(say, PAUSE_MS);
}

function say() {
  if (waiting.length === 0) {
    clearInterval(pause);
    pause = 0;
    return;
  }
  const left = waiting.length - SAID_TOGETHER;
  const said = waiting.slice(-SAID_TOGETHER).join(" · ");
  setText(one("#announcer"), left > 0 ? `${left} more events · ${said}` : said);
  waiting = [];
}

/**
 * A line that leaves by itself; errors stay until dismissed.
 * @param {string} text @param {"ok"|"error"} [tone]
 */
export function toast(text, tone = "ok") {
  const place = one("#toasts");
  const dismiss = h(
    "button",
    { type: "button", class: "toast-close", "aria-label": "Dismiss", on: { click: () => line.remove() } },
    "×",
  );
  const line = h("p", { class: `toast toast-${tone}` }, h("span", { class: "words" }, text), dismiss);
  while (place.childElementCount >= TOASTS_MAX) place.firstElementChild?.remove();
  place.append(line);
  if (tone === "ok") setTimeout(() => line.remove(), TOAST_MS);
}
