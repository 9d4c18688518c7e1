/** P3NDING APPR0VALS: nothing joins or changes in the swarm without a yes from here. */

import { resolvedRow, row } from "./approval_card.js";
import { draw as drawBuildLog, wantBuildLog } from "./build_log.js";
import { UNRESOLVED } from "./hive_state.js";
import { one, setText, show } from "./dom.js";
import { doubts, showError } from "./forms.js";
import { syncList } from "./morph.js";
import { isOnScreen, syncReviews, unread } from "./review.js";

/** @typedef {import("./types.js").ApprovalView} ApprovalView */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

/** Failed while this page was looking: their cards stay until they are dismissed. @type {Set<number>} */
const failedHere = new Set();
/** @type {Set<number>} */
const workedOn = new Set();

/** @param {HiveState} state */
export function renderApprovals(state) {
  const open = state.openApprovals;
  const resolved = state.resolvedApprovals;
  for (const each of open) if (each.status !== "pending") workedOn.add(each.id);
  for (const each of resolved) if (each.status === "failed" && workedOn.delete(each.id)) failedHere.add(each.id);
  const cards = [...open, ...resolved.filter((each) => failedHere.has(each.id))];
  syncList(one("#approval-list"), remembered(cards), (card) => card.approval.id, row);
  syncList(one("#resolved-list"), resolved, (approval) => approval.id, resolvedRow);
  const runs = new Map(state.agents.map((agent) => [agent.name, agent.commit]));
  syncReviews(
    open.filter((each) => each.status === "pending"),
    runs,
  );
  for (const each of cards) if (each.status !== "pending") showLog(each);
  setText(one("#approvals-count"), String(open.length));
  one("#approvals-count").classList.toggle(
    "hot",
    open.some((each) => each.status === "pending"),
  );
  show(one("#no-approvals"), cards.length === 0);
  show(one("#resolved"), resolved.length > 0);
  setText(one("#resolved-count"), String(resolved.length));
}

/** @typedef {import("./approval_card.js").Card} Card */
/** @type {Map<number, Card>} */
let last = new Map();

/** The same object as last time where nothing changed, so that the card is left alone. @param {ApprovalView[]} approvals */
function remembered(approvals) {
  last = new Map(
    approvals.map((approval) => {
      const before = last.get(approval.id);
      const seen = isOnScreen(approval);
      return [approval.id, before?.approval === approval && before.seen === seen ? before : { approval, seen }];
    }),
  );
  return [...last.values()];
}

/** @param {ApprovalView} approval */
function showLog(approval) {
  wantBuildLog(approval.id, approval.status === "failed");
  drawBuildLog(approval.id);
}

/** Whether this approval has just been decided and carried out. @param {ApprovalView} approval */
export function isResolved(approval) {
  return !UNRESOLVED.has(approval.status);
}

/** Enter in the note must not be the yes that a form's first button is, nor a no. @param {KeyboardEvent} event */
function decideNothingOnEnter(event) {
  const field = event.target;
  if (event.key !== "Enter" || event.isComposing || !(field instanceof HTMLInputElement)) return;
  if (field.name !== "note" || !field.form?.dataset.approval) return;
  event.preventDefault();
  showError(field.form, new Error("The note goes with either button: press the one that you mean."));
}

/** Takes over the cards' own buttons. @param {() => void} changed called when a card was dismissed */
export function takeApprovals(changed) {
  doubts.unread = (form) => unread(Number(form.dataset.approval));
  document.addEventListener("keydown", decideNothingOnEnter);
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-action=dismiss]") : null;
    if (!(button instanceof HTMLElement)) return;
    failedHere.delete(Number(button.dataset.approval));
    changed();
  });
}
