/** The commits an agent ran, newest first, and the way back to each of them. */

import { diffButton } from "./approval_buttons.js";
import { operatorNote } from "./approval_card.js";
import { ageOf, h, leet, one } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";
import { shaChip } from "./sha.js";
import { headline, shortSha } from "./text.js";

/** @typedef {import("./types.js").Deployment} Deployment */

/** @param {string} agent @param {Deployment[]} deployments */
export function showHistory(agent, deployments) {
  const list = one("#panel-history");
  syncList(
    list,
    deployments,
    (each) => each.approval_id,
    (each) => row(agent, each, each === deployments.at(-1)),
  );
  if (deployments.length > 0) return;
  list.replaceChildren(
    h("li", { class: "empty", "data-key": "none" }, `${agent} has run nothing but its first configuration.`),
  );
}

/** What is said of a commit without a message. @param {Deployment} deployment @param {boolean} first */
function wordless({ rollback }, first) {
  if (first) return "The configuration it began with, written by the hive.";
  return rollback ? "Back to an earlier configuration." : "(its author wrote no message)";
}

/** @param {string} agent @param {Deployment} deployment @param {boolean} first */
function row(agent, deployment, first) {
  const { approval_id: id, commit, message, deployed_at_ms: at, approved_by: by, running } = deployment;
  return h(
    "li",
    { class: running ? "card tone-idle" : "card" },
    h(
      "div",
      { class: "line" },
      shaChip(commit),
      running && h("span", { class: "chip ok", "data-key": "running" }, "runs now"),
      h("span", { class: "hint" }, id > 0 ? `#${id} · ` : "", at ? ageOf(at, " ago") : "", by ? ` · by ${by}` : ""),
    ),
    h("p", { class: "body words" }, message ? headline(message, 200) : wordless(deployment, first)),
    operatorNote(deployment),
    id > 0 &&
      h("div", { class: "line", "data-key": "actions" }, diffButton(id), !running && back(agent, id, commit)),
  );
}

/** @param {string} agent @param {number} id @param {string} commit */
function back(agent, id, commit) {
  return h(
    "form",
    { "data-async": true, method: "post", action: `/rollback/${encodeURIComponent(agent)}`, "data-key": "back" },
    h("input", { type: "hidden", name: "approval_id", value: id }),
    h(
      "button",
      {
        class: "button warn",
        "aria-label": `Roll back ${agent} to ${shortSha(commit)}`,
        "data-confirm": `Roll ${agent} back to ${shortSha(commit)} (approval #${id})? It is built first; only then it replaces what runs.`,
        "data-yes": "Roll back",
        "data-done": `${agent} is being rolled back; see Pending approvals.`,
      },
      leet("↶ R0LL B4CK"),
    ),
    errorPlace(),
  );
}
