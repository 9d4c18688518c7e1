/** A commit's name: short to read, whole when pointed at, and copied whole when pressed. */

import { h } from "./dom.js";
import { toast } from "./notices.js";
import { shortSha } from "./text.js";

/** @param {string} commit @param {string} [before] words before it, such as `runs` */
export function shaChip(commit, before = "") {
  return h(
    "button",
    {
      type: "button",
      class: "chip sha",
      title: `${commit}: press to copy`,
      "data-key": `sha-${commit}`,
      "data-action": "copy",
      "data-copy": commit,
      "aria-label": `${before} ${shortSha(commit)}: copy the whole commit id`.trim(),
    },
    before && h("span", { class: "hint" }, `${before} `),
    h("code", null, shortSha(commit)),
  );
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${text}`);
  } catch {
    toast(`Copy it from here: ${text}`); // not a secure context, or not permitted
  }
}

/** Takes over every such button, present and future. */
export function takeCopying() {
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-action=copy]") : null;
    if (button instanceof HTMLElement) void copy(button.dataset.copy ?? "");
  });
}
