/** The diff of an approval that was decided already, in the panel: what was approved or denied, and against what. */

import { getJson } from "./api.js";
import { h, one } from "./dom.js";
import { BASES, fileList, statusWords } from "./review.js";
import { shortSha } from "./text.js";

/** @typedef {import("./types.js").DiffBase} DiffBase */
/** @typedef {import("./types.js").DiffSummary} DiffSummary */
/** @typedef {import("./types.js").FileDiff} FileDiff */

const CHOICES = /** @type {DiffBase[]} */ (Object.keys(BASES));

/** The base that was chosen last; each approval begins with what ran. @type {{id: string, base: DiffBase}} */
let chosen = { id: "", base: "running" };

/** @param {string} id @returns {Promise<() => void>} */
export async function readDiff(id) {
  if (chosen.id !== id) chosen = { id, base: "running" };
  const { summary, files } = await getJson(`/api/approvals/${encodeURIComponent(id)}/diff?base=${chosen.base}`);
  return () => showDiff(summary, files);
}

/** @param {DiffSummary} summary @param {FileDiff[]} files */
function showDiff(summary, files) {
  const { approval } = summary;
  one("#panel-body").replaceChildren(
    h(
      "div",
      { class: "bases", role: "radiogroup", "aria-label": `Compare ${approval.agent}'s commit with` },
      h("span", { class: "label", "aria-hidden": "true" }, "against"),
      CHOICES.map((base) => choice(summary, base)),
    ),
    h("p", { class: "meta review-status", role: "status" }, statusWords({ state: "shown", summary })),
    h("div", { class: "files" }, fileList({ files, opened: new Set() })),
  );
}

/** @param {DiffSummary} summary @param {DiffBase} base */
function choice({ approval, base: current }, base) {
  const commit = approval.bases[base];
  const absent = !commit && base !== "running";
  const choose = () => {
    chosen = { id: String(approval.id), base };
    one("#panel").dispatchEvent(new CustomEvent("hive:panel"));
  };
  const words = commit ? `${BEFORE[base]} · ${shortSha(commit)}` : ABSENT[base];
  return h(
    "label",
    { class: absent ? "option base absent" : "option base" },
    h("input", {
      type: "radio",
      name: `panel-base-${approval.id}`,
      value: base,
      checked: base === current,
      disabled: absent,
      on: { change: choose },
    }),
    h("span", { class: "base-words" }, words),
  );
}

/** As it was when the commit was asked for. @type {Record<DiffBase, string>} */
const BEFORE = { running: "what ran then", approved: "last approved then", proposed: "previous proposal" };
/** @type {Record<DiffBase, string>} */
const ABSENT = { running: "nothing ran then", approved: BASES.approved[1], proposed: BASES.proposed[1] };
