/** Short words to the operator: a polite live region for all, and a toast for what was just done. */

import { h, one, setText } from "./dom.js";
import { shorten } from "./text.js";

const TOAST_MS = 6000;
const TOASTS_MAX = 4;

/** Says `text` to screen readers without moving anything. @param {string} text */
export function announce(text) {
  setText(one("#announcer"), shorten(text, 240));
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
