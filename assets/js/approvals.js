/** P3NDING APPR0VALS: nothing joins or changes in the swarm without a yes from here. */

import { UNRESOLVED } from "./hive_state.js";
import { ageOf, h, leet, one, setText, show } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";

/** @typedef {import("./types.js").ApprovalView} ApprovalView */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

/** @param {HiveState} state */
export function renderApprovals(state) {
  const open = state.openApprovals;
  const resolved = state.resolvedApprovals;
  syncList(one("#approval-list"), open, (approval) => approval.id, row);
  syncList(one("#resolved-list"), resolved, (approval) => approval.id, resolvedRow);
  setText(one("#approvals-count"), String(open.length));
  one("#approvals-count").classList.toggle(
    "hot",
    open.some((each) => each.status === "pending"),
  );
  show(one("#no-approvals"), open.length === 0);
  show(one("#resolved"), resolved.length > 0);
  setText(one("#resolved-count"), String(resolved.length));
}

/** @param {ApprovalView} approval */
function title(approval) {
  const spawn = approval.revives ? "revive agent" : "spawn agent";
  return [
    h("span", { class: "chip" }, `#${approval.id}`),
    h("span", null, approval.kind === "spawn" ? spawn : "change the system of"),
    h("strong", { class: "agent-name" }, approval.agent),
    approval.commit && h("code", { class: "chip", title: approval.commit }, approval.commit.slice(0, 12)),
  ];
}

/** @param {ApprovalView} approval */
function row(approval) {
  const waits = approval.status === "pending";
  return h(
    "li",
    { class: waits ? "card approval waits" : "card approval" },
    h("div", { class: "line" }, title(approval)),
    h(
      "p",
      { class: "meta" },
      "asked by ",
      h("strong", null, approval.requested_by),
      " · ",
      ageOf(approval.requested_at_ms, " ago"),
    ),
    approval.note && h("p", { class: "body words" }, approval.note),
    waits ? decision(approval) : progress(approval),
  );
}

/** @param {ApprovalView} approval */
function decision(approval) {
  return h(
    "form",
    { "data-async": true, method: "post", action: `/approve/${approval.id}`, "data-key": "decision" },
    approval.commit && h("input", { type: "hidden", name: "commit", value: approval.commit }), // the sha that is on screen
    h(
      "div",
      { class: "line" },
      h(
        "button",
        {
          class: "button primary",
          "aria-label": `Approve ${approval.id}: ${approval.agent}`,
          "data-done": `Approved #${approval.id}. It is being carried out.`,
        },
        leet("◆ APPR0VE"),
      ),
      h(
        "label",
        { class: "grow" },
        h("span", { class: "sr" }, "Note for a denial"),
        h("input", {
          type: "text",
          name: "note",
          class: "input",
          maxlength: "4000",
          placeholder: "note, if you deny",
          autocomplete: "off",
        }),
      ),
      h(
        "button",
        {
          class: "button danger",
          formaction: `/deny/${approval.id}`,
          "aria-label": `Deny ${approval.id}: ${approval.agent}`,
          "data-done": `Denied #${approval.id}.`,
        },
        leet("DENY"),
      ),
    ),
    errorPlace(),
  );
}

/** @param {ApprovalView} approval */
function progress(approval) {
  return h(
    "p",
    { class: "line", "data-key": "progress", role: "status" },
    h(
      "span",
      { class: "pill tone-busy" },
      h("span", { class: "glyph spin", "aria-hidden": "true" }, "◐"),
      ` ${approval.status}`,
    ),
    approval.step && h("span", { class: "words" }, approval.step),
  );
}

/** @type {Record<string, [string, string]>} */
const OUTCOMES = { deployed: ["✓", "ok"], failed: ["✗", "bad"], denied: ["⊘", "off"] };

/** @param {ApprovalView} approval */
function resolvedRow(approval) {
  const [glyph, tone] = OUTCOMES[approval.status] ?? ["·", "off"];
  return h(
    "li",
    { class: "resolved-row" },
    h(
      "div",
      { class: "line" },
      h("span", { class: `pill tone-${tone}` }, `${glyph} ${approval.status}`),
      title(approval),
      h(
        "span",
        { class: "hint" },
        approval.resolved_by ? `by ${approval.resolved_by} · ` : "",
        ageOf(approval.resolved_at_ms ?? approval.requested_at_ms, " ago"),
      ),
    ),
    approval.note && h("p", { class: "body words" }, approval.note),
  );
}

/** Whether this approval has just been decided and carried out. @param {ApprovalView} approval */
export function isResolved(approval) {
  return !UNRESOLVED.has(approval.status);
}
