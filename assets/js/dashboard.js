/** The dashboard: snapshot, live events, and one render function per section. */

import { newsOf, renderActivity, takeActivity } from "./activity.js";
import { isIsolated, isRehearsal } from "./agent_words.js";
import { ApiError, getJson, here, keepKey, postForm } from "./api.js";
import { isResolved, renderApprovals, takeApprovals } from "./approvals.js";
import { renderAsks } from "./asks.js";
import { forgetBuildLogs, takeBuildLog } from "./build_log.js";
import { showConnection } from "./connection.js";
import { onWidth, renderContainers } from "./containers.js";
import { keepAges, one, setText, show } from "./dom.js";
import { keepDrafts } from "./drafts.js";
import { renderFilter, renderFlow, takeFlow } from "./flow.js";
import { takeForms } from "./forms.js";
import { HiveState, isOpen } from "./hive_state.js";
import { renderInbox, renderRecipients, unseen, watchInbox } from "./inbox.js";
import { followed, takeLog } from "./log_view.js";
import { takeKeys } from "./keyboard.js";
import { announce, toast } from "./notices.js";
import { showOutage, takeOutage } from "./outage.js";
import { refreshPanel, reloadPanel, takePanel } from "./panel.js";
import { renderPermissions } from "./permissions.js";
import { closedWithout, renderQuestions } from "./questions.js";
import { renderScheduleAgents, takeScheduleForm } from "./schedule_form.js";
import { renderSchedules } from "./schedules.js";
import { takeBell, tellNew } from "./notify.js";
import { takeCopying } from "./sha.js";
import { follow } from "./stream.js";
import { plural, shorten, shortSha } from "./text.js";
import { renderTombstones } from "./tombstones.js";
import { arrive, renderWaiting, takeWaiting } from "./waiting.js";
import { renderTour, takeTour } from "./tour.js";

const PULSE_MS = 4000;

/** @type {HiveState|null} */
let state = null;
/** @type {Set<string>} */
const dirty = new Set();
let scheduled = false;

/** @type {Record<string, (state: HiveState) => void>} */
const RENDER = {
  hive: renderHive,
  agents: (now) => {
    renderContainers(now);
    renderRecipients(now);
    renderScheduleAgents(now);
    renderFilter(now);
    renderApprovals(now); // a diff is against what its agent runs
  },
  tombstones: renderTombstones,
  questions: renderQuestions,
  asks: renderAsks,
  permissions: renderPermissions,
  schedules: renderSchedules,
  inbox: renderInbox,
  approvals: (now) => {
    renderApprovals(now);
    renderTombstones(now);
  },
  messages: renderFlow,
  waiting: (now) => {
    renderWaiting(now);
    tellNew(now.waiting.entries);
  },
  activity: (now) => {
    renderActivity(now);
    renderContainers(now); // each row tells who did what to it last
  },
};

/** Renders the named parts once, with the next frame. @param {Iterable<string>} parts */
function render(parts) {
  for (const part of parts) dirty.add(part);
  if (scheduled || dirty.size === 0) return;
  scheduled = true;
  if (document.hidden)
    setTimeout(flush, 250); // no frames are drawn in the background
  else requestAnimationFrame(flush);
}

function flush() {
  scheduled = false;
  const parts = [...dirty];
  dirty.clear();
  if (!state) return;
  for (const part of parts) RENDER[part](state);
  renderSummary(state);
  arrive();
  renderTour(state);
}

/** @param {HiveState} now */
function renderHive(now) {
  const { hive } = now;
  setText(one("#hive-facts"), `host ${hive.host} · runtime ${hive.runtime} · v${hive.version}`);
  setText(one("#hive-where"), `state in ${hive.state_root} · ${hive.store} · limits: ${hive.limits}`);
  show(one("#rehearsal-warning"), isRehearsal(hive.backend));
  show(one("#isolation-warning"), !isIsolated(hive.isolation));
}

/** The header's counts and the tab's title: what waits for the operator. @param {HiveState} now */
function renderSummary(now) {
  const waits = {
    questions: now.questions.length,
    inbox: unseen(now),
    approvals: now.openApprovals.filter((each) => each.status === "pending").length,
  };
  const labels = {
    questions: plural(waits.questions, "question"),
    inbox: `${waits.inbox} new in inbox`,
    approvals: plural(waits.approvals, "approval"),
  };
  for (const [name, label] of Object.entries(labels)) {
    const link = one(`#nav-${name}`);
    const amount = waits[/** @type {keyof typeof waits} */ (name)];
    setText(one(".amount", link), String(amount));
    setText(one(".what", link), label.slice(String(amount).length));
    link.classList.toggle("hot", amount > 0);
  }
  // Questions and approvals are told a moment before the queue that has them.
  const sum = Math.max(now.waiting.total, waits.questions + waits.approvals) + waits.inbox;
  const title = sum > 0 ? `(${sum}) hyperhive` : "hyperhive";
  if (document.title !== title) document.title = title;
}

let pulse = 0;

function pulseBanner() {
  const banner = one("#banner");
  banner.classList.add("awake");
  clearTimeout(pulse);
  pulse = window.setTimeout(() => banner.classList.remove("awake"), PULSE_MS);
}

/** What is said aloud of an event. @param {string} kind @param {any} data */
function tell(kind, data) {
  if (kind === "message" && data.to === "operator") announce(`${data.sender} writes: ${shorten(data.body, 160)}`);
  if (kind === "question" && isOpen(data)) announce(`${data.asker} asks: ${data.question}`);
  if (kind === "permission" && !data.closed) announce(`${data.agent} asks to use ${data.tool}`);
  if (kind === "approval" && data.status === "pending") announce(`Approval ${data.id} waits: ${data.agent}`);
  if (kind === "approval" && isResolved(data)) tellOutcome(data);
  if (kind === "question" && closedWithout(data)) toast(closedWithout(data));
  if (kind === "activity" && state && newsOf(data, state)) toast(newsOf(data, state));
}

/** @param {import("./types.js").ApprovalView} approval */
function tellOutcome({ id, agent, status, commit }) {
  announce(`Approval ${id} for ${agent}: ${status}`);
  if (status === "deployed")
    toast(`Approval ${id} is carried out: ${agent} runs${commit ? ` ${shortSha(commit)}` : ""}.`);
}

async function loadSnapshot() {
  state = new HiveState(await getJson("/api/state"));
  forgetBuildLogs();
  reloadPanel();
  document.body.classList.remove("loading");
  render(Object.keys(RENDER));
  return state.position;
}

/** @param {import("./stream.js").ServerEvent} event */
function onEvent(event) {
  if (!state) return;
  const data = JSON.parse(event.data);
  if (event.type === "build_log") takeBuildLog(data);
  if (event.type === "log") takeLog(data);
  const parts = state.apply(event.type, data, event.id);
  if (parts.length === 0) return;
  if (event.type === "message") pulseBanner();
  tell(event.type, data);
  render(parts);
  look();
  refreshPanel(event.type, data);
}

/** A refusal may mean that what is on the screen is no longer so: look again, and keep what was said in sight.
 * @param {Event} event */
async function onRefused(event) {
  if (!(event instanceof CustomEvent)) return;
  const { error, form } = event.detail;
  if (!(error instanceof ApiError) || (error.status !== 409 && error.status !== 404)) return;
  await loadSnapshot();
  flush();
  if (!form.isConnected) toast(error.message, "error");
}

async function logOut() {
  try {
    await postForm("/logout");
  } catch (error) {
    toast(`Logging out failed: ${error instanceof Error ? error.message : error}`, "error");
    return;
  }
  keepKey(null);
  location.replace(here("/login"));
}

/** In a multi-line field, Enter makes a line and Ctrl+Enter sends. @param {KeyboardEvent} event */
function sendWithKeys(event) {
  const field = event.target;
  const asked = event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing;
  if (asked && field instanceof HTMLTextAreaElement && field.dataset.submit === "ctrl") field.form?.requestSubmit();
}

/** One stream brings everything; with a log open in the panel, that log too. */
function streamUrl() {
  const agent = followed();
  return agent ? `/messages/stream?log=${encodeURIComponent(agent)}` : "/messages/stream";
}

/** @param {import("./stream.js").Connection} connection */
function tellConnection(connection) {
  showConnection(connection);
  showOutage(connection);
}

takeActivity();
takeTour();
takeBell();
takeWaiting();
takeForms();
takeKeys();
takeFlow();
takePanel();
takeCopying();
takeScheduleForm();
takeApprovals(() => render(["approvals"]));
keepAges();
keepDrafts();
const look = watchInbox(() => render(["inbox"]));
const live = follow({ url: streamUrl, load: loadSnapshot, onEvent, onConnection: tellConnection });
document.addEventListener("hive:follow", () => live.reopen());
takeOutage(() => live.reload());
document.addEventListener("keydown", sendWithKeys);
document.addEventListener("hive:settled", () => render(Object.keys(RENDER)));
onWidth(() => render(["agents"]));
document.addEventListener("hive:review", () => render(["approvals"]));
document.addEventListener("hive:refused", (event) => void onRefused(event).catch((error) => console.warn(error)));
one("#logout").addEventListener("click", () => void logOut());
one("#connection").addEventListener("click", () => live.reload());
