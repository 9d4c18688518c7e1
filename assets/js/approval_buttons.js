/** What there is to read about an approval, also once it is decided: its diff and what building it printed. */

import { h, leet } from "./dom.js";

/** @param {number} id */
export function logButton(id) {
  return opening("build-log", id, "≡ BU1LD L0G", `Build log of approval ${id}`);
}

/** @param {number} id */
export function diffButton(id) {
  return opening("diff", id, "± D1FF", `Diff of approval ${id}`);
}

/** @param {string} view of the panel @param {number} id @param {string} shown @param {string} label */
function opening(view, id, shown, label) {
  return h(
    "button",
    {
      type: "button",
      class: "button",
      "data-key": view,
      "data-action": view,
      "data-approval": id,
      "aria-label": label,
    },
    leet(shown),
  );
}
