/** How one approval reads: what is asked, what the commit says of itself, what stands against it, what can be done. */

import { diffButton, logButton } from "./approval_buttons.js";
import { logPlace } from "./build_log.js";
import { ageOf, h, leet } from "./dom.js";
import { errorPlace } from "./forms.js";
import { reviewPlace } from "./review.js";
import { shaChip } from "./sha.js";
import { headline, lineCount, neutraliseCode, plural, shortSha } from "./text.js";

/** @typedef {import("./types.js").ApprovalView} ApprovalView */
/** `seen`: its diff is on the screen. @typedef {{approval: ApprovalView, seen: boolean}} Card */

const LAST_LINES = 12;
const MESSAGE_FLAT_LINES = 12;

/** @param {ApprovalView} approval */
function what(approval) {
  if (approval.rollback) return "roll back";
  if (approval.kind !== "spawn") return "change the system of";
  return approval.revives ? "revive agent" : "spawn agent";
}

/** @param {ApprovalView} approval */
function title(approval) {
  return [
    h("span", { class: "chip" }, `#${approval.id}`),
    h("span", { class: "what" }, what(approval)),
    h("strong", { class: "agent-name" }, approval.agent),
    approval.commit && shaChip(approval.commit),
  ];
}

/** @param {Card} card */
export function row({ approval, seen }) {
  const waits = approval.status === "pending";
  const failed = approval.status === "failed";
  return h(
    "li",
    { class: `card approval ${waits ? "waits" : failed ? "tone-bad" : "tone-busy"}` },
    h("div", { class: "line" }, title(approval)),
    asked(approval),
    approval.note && h("p", { class: "body words reason", "data-key": "note" }, approval.note),
    approval.commit && message(approval),
    waits && flags(approval),
    waits && approval.commit && reviewPlace(approval),
    operatorNote(approval),
    waits ? decision(approval, seen) : failed ? failure(approval) : progress(approval),
    !waits && logPlace(approval.id, failed ? LAST_LINES : undefined),
  );
}

/** @param {ApprovalView} approval */
function asked(approval) {
  return h(
    "p",
    { class: "meta", "data-key": "asked" },
    "asked by ",
    h("strong", null, approval.requested_by),
    " · ",
    ageOf(approval.requested_at_ms, " ago"),
    approval.commit_ref && [" · as ", h("code", { class: "words" }, approval.commit_ref)],
  );
}

/** The operator's, as the chip says: no text of anybody else has one. @param {{operator_note: string}} of */
export function operatorNote({ operator_note: said }) {
  if (!said) return null;
  const whose = h("span", { class: "chip" }, "said with the yes");
  return h("p", { class: "meta words reason", "data-key": "operator-note" }, whose, " ", said);
}

/** What the commit says of itself: its author wrote all of it. @param {ApprovalView} approval */
function message(approval) {
  const long = lineCount(approval.message) > MESSAGE_FLAT_LINES;
  const text = h("p", { class: "body words" }, approval.message || "(the commit has no message)");
  return h(
    "div",
    { class: "commit", "data-key": "commit" },
    long
      ? h(
          "details",
          { class: "fold", "data-key": "message" },
          h(
            "summary",
            null,
            headline(approval.message),
            h("span", { class: "hint" }, ` · ${lineCount(approval.message)} lines`),
          ),
          text,
        )
      : text,
    approval.author &&
      h(
        "p",
        { class: "meta", "data-key": "author" },
        "written by ",
        h("span", { class: "words" }, approval.author),
        approval.authored_at_ms && " · ",
        approval.authored_at_ms && ageOf(approval.authored_at_ms, " ago"),
      ),
  );
}

/** @param {ApprovalView} approval */
function flags({ id, flags }) {
  if (flags.length === 0) return null;
  return h(
    "div",
    { class: "flags", "data-key": "flags" },
    h(
      "p",
      { id: `flags-${id}` },
      h("span", { "aria-hidden": "true" }, "⚠ "),
      `${plural(flags.length, "thing")} to look at first`,
    ),
    h(
      "ul",
      { "aria-labelledby": `flags-${id}`, tabindex: flags.length > 6 ? "0" : null },
      flags.map((flag) =>
        h(
          "li",
          null,
          flag.path && h("code", { class: "words path" }, neutraliseCode(flag.path), flag.line > 0 && `:${flag.line}`),
          flag.path && " ",
          h("span", { class: "words" }, flag.text),
          " ",
          h("span", { class: "chip rule" }, flag.rule),
        ),
      ),
    ),
  );
}

/** The yes is there only when what it says yes to is on the screen (SECURITY 7). @param {ApprovalView} approval @param {boolean} seen */
function decision(approval, seen) {
  const needsCommit = approval.kind !== "spawn" || approval.commit;
  return h(
    "form",
    {
      "data-async": true,
      method: "post",
      action: `/approve/${approval.id}`,
      "data-key": "decision",
      "data-approval": approval.id,
    },
    approval.commit && h("input", { type: "hidden", name: "commit", value: approval.commit }), // the sha that is on screen
    h(
      "div",
      { class: "line" },
      h(
        "label",
        { class: "grow" },
        h("span", { class: "sr" }, "Note that goes with your decision"),
        h("input", {
          type: "text",
          name: "note",
          class: "input",
          maxlength: "4000",
          placeholder: "note with your decision",
          autocomplete: "off",
        }),
      ),
      seen || !needsCommit
        ? approve(approval)
        : h("span", { class: "hint", "data-key": "unseen" }, "◆ APPR0VE comes with the diff"),
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
function approve(approval) {
  const what = approval.commit ? `${approval.agent}, commit ${shortSha(approval.commit)}` : approval.agent;
  return h(
    "button",
    {
      class: "button primary",
      formaction: `/approve/${approval.id}`,
      "aria-label": `Approve ${approval.id}: ${what}`,
      "data-done": `Approved #${approval.id}. It is being carried out.`,
      "data-confirm-by": "unread",
      "data-yes": "◆ Approve",
    },
    leet("◆ APPR0VE"),
  );
}

const STEPS = new Map([
  ["build", "building its system"],
  ["switch", "switching to it"],
  ["back", "going back to what ran before"],
]);

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
    approval.step && h("span", { class: "words" }, STEPS.get(approval.step) ?? approval.step),
    h("span", { class: "spacer" }),
    logButton(approval.id),
  );
}

/** @param {ApprovalView} approval */
function failure(approval) {
  return h(
    "div",
    { "data-key": "failure", role: "status" },
    h(
      "div",
      { class: "line" },
      h("span", { class: "pill tone-bad" }, "✗ failed"),
      h("span", { class: "spacer" }),
      logButton(approval.id),
      h(
        "button",
        {
          type: "button",
          class: "button",
          "data-action": "dismiss",
          "data-approval": approval.id,
          "aria-label": `Dismiss failed approval ${approval.id}`,
        },
        "✓ seen",
      ),
    ),
    approval.outcome && h("p", { class: "body words" }, approval.outcome),
  );
}

/** @type {Record<string, [string, string]>} */
const OUTCOMES = { deployed: ["✓", "ok"], failed: ["✗", "bad"], denied: ["⊘", "off"] };

/** @param {ApprovalView} approval */
export function resolvedRow(approval) {
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
      h("span", { class: "spacer" }),
      approval.commit && diffButton(approval.id),
      approval.status !== "denied" && logButton(approval.id),
    ),
    approval.message && h("p", { class: "meta words", "data-key": "message" }, headline(approval.message)),
    approval.note && h("p", { class: "meta words reason", "data-key": "note" }, approval.note),
    operatorNote(approval),
    approval.outcome && h("p", { class: "body words", "data-key": "outcome" }, approval.outcome),
  );
}
