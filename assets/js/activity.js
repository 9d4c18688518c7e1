/** WH0 D1D WH4T: the last things people, the manager and the hive itself did, as the audit has them. */

import { getJson } from "./api.js";
import { ageOf, h, one, setText, show } from "./dom.js";
import { syncList } from "./morph.js";
import { toast } from "./notices.js";
import { shorten } from "./text.js";

/** @typedef {import("./types.js").AuditEntry} AuditEntry */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

const SHOWN = 8;
const PAGE = 50;
const MANAGER = "hm1nd";

/** What was done, in the past tense; `%` stands for what it was done to. @type {Record<string, string>} */
const DONE = {
  start: "started %",
  kill: "stopped %",
  restart: "restarted %",
  rebuild: "rebuilt %",
  update: "updated %",
  destroy: "destroyed %",
  purge: "purged %",
  crash: "saw % crash",
  silent: "heard nothing from %",
  request_spawn: "asked for %",
  request_apply_commit: "asked to change %",
  rollback: "asked to roll % back",
  dismiss: "put % away",
  approve: "approved %",
  deny: "denied %",
  deployed: "carried out %",
  failed: "could not carry out %",
  answer: "answered %",
  cancel_question: "closed %",
  expire_question: "let % expire",
  answer_permission: "answered %",
  expire_permission: "let % expire",
  add_permission_rule: "made a rule for %",
  remove_permission_rule: "took back a rule for %",
  pause: "paused %",
  end_pause: "ended the pause of %",
  set_aside: "set aside a message with which % ended again and again",
  requeue: "had a message that was set aside delivered to % again",
  take_out: "took a message that was set aside out of the inbox of %",
  add_schedule: "added %",
  remove_schedule: "deleted %",
  pause_schedule: "paused %",
  resume_schedule: "resumed %",
  run_schedule: "ran %",
  cancel_reminder: "took back %",
  send: "wrote to %",
  login: "logged in",
  logout: "logged out",
  end_session: "logged out session %",
  logout_all: "logged out every browser",
  "page send": "wrote to %",
  "page api/cancel": "cancelled the turn of %",
  "page api/compact": "compacted %",
  "page api/new-session": "gave % a new session",
  "page api/model": "changed the model of %",
  "page login/start": "began the login of %",
  "page login/code": "logged % in",
  "page login/cancel": "cancelled the login of %",
};

/** Tried and refused, where the past tense would be a lie. @param {string} outcome */
const isRefused = (outcome) => outcome.startsWith("refused");

/**
 * Who it was, for people: this browser, another one, the command line, an agent, or the hive itself.
 * @param {string} principal as `operator (session ab12)` @param {string} ours the session of this browser
 */
export function actorOf(principal, ours) {
  const [, name, via = ""] = /^(\S+)(?: \((.*)\))?$/s.exec(principal) ?? [principal, principal];
  if (name === "system") return "the hive";
  if (name !== "operator") return name;
  const session = /^session (\S+)$/.exec(via)?.[1];
  if (session) return session === ours ? "you" : `operator · session ${session}`;
  if (via === "host socket") return "operator · command line";
  return via ? `operator · ${via}` : "operator";
}

/** What it was done to: an agent's name, or `#3 (alice)`. @param {AuditEntry} entry @param {HiveState} state */
function objectOf({ subject }, state) {
  const [, what, number] = /^(approval|question) (\d+)$/.exec(subject) ?? [];
  if (!what) return shorten(subject, 80);
  if (what === "question") return `question ${number}`;
  const agent = state.agentOfApproval(Number(number));
  return agent ? `#${number} (${agent})` : `#${number}`;
}

/** @param {AuditEntry} entry @param {HiveState} state */
function deed(entry, state) {
  const done = DONE[entry.action] ?? `${entry.action} %`;
  const rule = entry.action.endsWith("_permission_rule") && entry.detail ? `: ${shorten(entry.detail, 120)}` : "";
  const words = done.replace("%", () => objectOf(entry, state)) + rule;
  return isRefused(entry.outcome) ? `was refused: ${words}` : words;
}

/** One line: `operator · session ab12 stopped bob`. @param {AuditEntry} entry @param {HiveState} state */
export function told(entry, state) {
  return `${actorOf(entry.principal, state.session)} ${deed(entry, state)}`;
}

/** Which agent a deed was done to, or nothing. @param {AuditEntry} entry @param {HiveState} state */
export function doneTo(entry, state) {
  const approval = /^approval (\d+)$/.exec(entry.subject);
  return approval ? state.agentOfApproval(Number(approval[1])) : entry.subject;
}

/** @type {HiveState|null} */
let shown = null;
/** Read on demand; the state keeps the newest. @type {AuditEntry[]} */
let older = [];
let open = false;
let exhausted = false;

/** @param {HiveState} state */
export function renderActivity(state) {
  if (shown !== state) {
    older = []; // a new snapshot begins anew
    exhausted = false;
  }
  shown = state;
  const all = [...state.activity, ...older];
  syncList(one("#activity-list"), open ? all : all.slice(0, SHOWN), (entry) => entry.id, (entry) => row(entry, state));
  setText(one("#activity-count"), all.length > 0 ? "who did what" : "");
  show(one("#no-activity"), all.length === 0);
  const more = one("#activity-more");
  show(more, (!open && all.length > SHOWN) || (open && !exhausted && all.length > 0));
  setText(more, open ? "↓ load older" : `show all ${all.length}`);
}

/** @param {AuditEntry} entry @param {HiveState} state */
function row(entry, state) {
  const actor = actorOf(entry.principal, state.session);
  const tone = isRefused(entry.outcome) || entry.outcome === "failed" || entry.outcome === "crashed" ? "bad" : "";
  const kind = actor === "you" ? "you" : actor === "the hive" ? "hive" : actor === MANAGER ? "mind" : "other";
  return h(
    "li",
    { class: `deed ${tone}` },
    h("span", { class: `actor actor-${kind}` }, actor),
    h("span", { class: "words" }, deed(entry, state)),
    tone && entry.detail && h("span", { class: "hint words" }, shorten(entry.detail, 200)),
    h("span", { class: "hint when" }, ageOf(entry.at_ms, " ago")),
  );
}

async function loadOlder() {
  const state = shown;
  if (!state) return;
  if (!open) {
    open = true;
    return renderActivity(state);
  }
  const last = older.at(-1) ?? state.activity.at(-1);
  const button = /** @type {HTMLButtonElement} */ (one("#activity-more"));
  button.disabled = true;
  try {
    const { activity } = await getJson(`/api/activity?before=${last?.id ?? 1}&limit=${PAGE}`);
    older = [...older, ...activity.reverse()];
    exhausted = activity.length < PAGE;
    if (shown === state) renderActivity(state);
  } catch (error) {
    toast(`Older entries could not be loaded: ${error instanceof Error ? error.message : error}`, "error");
  } finally {
    button.disabled = false;
  }
  return undefined;
}

/** Deeds of others that take something off this page: said, so that nobody wonders where it went. */
const TOLD = new Set(["approve", "deny", "answer", "cancel_question", "answer_permission", "destroy", "purge", "kill", "logout_all"]);

/** What to say of a deed just heard of; nothing of one's own. @param {AuditEntry} entry @param {HiveState} state */
export function newsOf(entry, state) {
  const actor = actorOf(entry.principal, state.session);
  const byPerson = entry.principal.startsWith("operator") && actor !== "you";
  if (!byPerson || !TOLD.has(entry.action) || isRefused(entry.outcome)) return "";
  const line = told(entry, state);
  return `${line[0].toUpperCase()}${line.slice(1)}.`;
}

export function takeActivity() {
  one("#activity-more").addEventListener("click", () => void loadOlder());
}
