/** The agent page: its live tail, its state, its prompt. */

import { whyAsleep, whyEmpty } from "./advice.js";
import { Requests } from "./agent_requests.js";
import { ApiError, BASE, getJson } from "./api.js";
import { renderBadges } from "./badges.js";
import { showConnection } from "./connection.js";
import { keepAges, one, setText, show } from "./dom.js";
import { keepDrafts } from "./drafts.js";
import { Find } from "./find.js";
import { takeForms } from "./forms.js";
import { takeKeys } from "./keyboard.js";
import { renderLogin } from "./login_panel.js";
import { announce, toast } from "./notices.js";
import { nextFrame } from "./pace.js";
import { Prompt } from "./prompt.js";
import { RowTools } from "./row_tools.js";
import { follow } from "./stream.js";
import { Terminal } from "./terminal.js";
import { asText, shorten } from "./text.js";
import { Transcript } from "./transcript.js";
import { Usage } from "./usage.js";

/** @typedef {import("./types.js").HarnessState} HarnessState */
/** @typedef {import("./types.js").AgentView} AgentView */
/** @typedef {import("./types.js").LiveEvent} LiveEvent */

const HISTORY = 2000;
const OLDER = 500;

const name = decodeURIComponent(location.pathname.slice(BASE.length).split("/")[1] ?? "");
const base = `/agents/${encodeURIComponent(name)}/`;
const terminal = new Terminal();
const transcript = new Transcript();
const requests = new Requests(base);

/** @type {{state: HarnessState|null, agent: AgentView|null, reachable: boolean, heardAtMs: number, usage: Usage}} */
const now = { state: null, agent: null, reachable: false, heardAtMs: 0, usage: new Usage() };
let lastSeq = 0;
let oldestSeq = 0; // of the events that were asked for
let firstSeq = 1; // of all that the harness still has
let statesTold = 0; // by the stream: an answer that was asked for before is out of date
let viewsTold = 0; // likewise, of core
let cleared = 0; // events up to this one were wiped from view by /clear

function render() {
  renderBadges(now);
  if (now.state) renderLogin(now.state.login, now.reachable);
  const state = now.agent?.state;
  show(one("#start-form"), state === "stopped" || state === "crashed");
  show(one("#empty"), terminal.blocks.count === 0 && now.reachable);
  setText(one("#empty"), whyEmpty(now.state));
  renderAsleep();
  const thinks = now.state?.badge === "thinking" && now.reachable;
  document.title = `${requests.permissions.length > 0 ? "✋ " : thinks ? "🧠 " : ""}${name} · hyperhive`;
}

let isDue = false;

/** With the next frame: much may be told before it. */
function renderSoon() {
  if (isDue) return;
  isDue = true;
  nextFrame(() => {
    isDue = false;
    render();
  });
}

function renderAsleep() {
  const asleep = !now.reachable && now.agent && now.agent.state !== "running" ? now.agent : null;
  show(one("#asleep"), asleep !== null);
  setText(one("#asleep-name"), name);
  if (asleep) setText(one("#asleep-why"), whyAsleep(asleep));
}

/** @param {HarnessState} state */
function showState(state) {
  now.state = state;
  now.reachable = true;
  setText(one("#agent-name"), state.label || name);
  show(one("#gone"), false);
  render();
}

/** @param {LiveEvent[]} events @param {Transcript} [told]  of its own for what is older than what is shown */
function pastOf(events, told = transcript) {
  return events.map((event) => ({ seq: event.seq, rows: told.rows(event) }));
}

/** Snapshot: state and the recent past; the stream goes on after it. */
async function load() {
  await askCore();
  const [state, past] = await Promise.all([
    getJson(`${base}api/state`),
    getJson(`${base}events/history?limit=${HISTORY}`),
  ]);
  lastSeq = past.seq;
  firstSeq = past.first ?? 1;
  now.usage = new Usage();
  for (const event of past.events) now.usage.see(event);
  if (cleared > lastSeq) cleared = 0; // a new history
  terminal.replace(pastOf(past.events.filter((/** @type {LiveEvent} */ event) => event.seq > cleared)));
  showState(state);
  oldestSeq = cleared > 0 ? cleared + 1 : (past.events[0]?.seq ?? 0);
  offerOlder();
  return String(lastSeq);
}

/** What core says of the agent, which it also knows when the harness is silent. */
async function askCore() {
  const told = viewsTold;
  try {
    const agent = await getJson(`${base}api/agent`);
    if (told === viewsTold) now.agent = agent;
    render();
    await requests.ask();
    render();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    setText(one("#gone-name"), name);
    show(one("#gone"), true);
    throw error;
  }
}

async function refreshState() {
  const told = statesTold;
  try {
    const state = await getJson(`${base}api/state`);
    if (told === statesTold) showState(state);
  } catch (error) {
    console.warn("state could not be refreshed; the stream will tell", error);
  }
}

/** @param {import("./stream.js").ServerEvent} event */
function onEvent(event) {
  const data = JSON.parse(event.data);
  if (event.type === "state") {
    statesTold += 1;
    return showState(data);
  }
  if (event.type === "agent") {
    viewsTold += 1;
    now.agent = data;
    return render();
  }
  if (event.type === "permissions") {
    requests.take(data.requests);
    return render();
  }
  if (event.type === "live" && data.seq > lastSeq) showLive(data);
  return undefined;
}

/** @param {LiveEvent} event */
function showLive(event) {
  lastSeq = event.seq;
  const rows = transcript.see(event);
  if (rows) terminal.take(event.seq, rows);
  if (now.usage.see(event)) renderSoon();
  tell(event);
}

/** What is said aloud: turns and words, not every tool call. @param {LiveEvent} event */
function tell({ kind, data }) {
  if (kind === "turn_start") announce(`Turn from ${asText(data.from)}: ${shorten(asText(data.body), 120)}`);
  if (kind === "turn_end") announce(data.ok ? "Turn done." : `Turn failed. ${asText(data.note)}`);
  const said = kind === "stream" && data.type === "assistant" ? data.message?.content : null;
  const text = Array.isArray(said) ? asText(said.find((block) => block?.type === "text")?.text) : "";
  if (text) announce(`${name} says: ${shorten(text, 200)}`);
}

/** @param {import("./stream.js").Connection} connection */
function onConnection(connection) {
  showConnection(connection);
  if (connection.kind === "live" && !now.reachable) void refreshState();
  if (connection.kind === "waiting") {
    if (now.reachable) now.heardAtMs = Date.now();
    now.reachable = false;
    render();
    askCore().catch((error) => console.warn("core could not be asked", error));
  }
}

function hasOlder() {
  return oldestSeq > firstSeq && !terminal.isFull;
}

function offerOlder() {
  oldestSeq = terminal.takeTrimmed() || oldestSeq; // rows that were too many can be asked for again
  show(one("#older"), hasOlder());
}

async function loadOlder() {
  const button = /** @type {HTMLButtonElement} */ (one("#older"));
  button.disabled = true;
  try {
    const { events } = await getJson(`${base}events/history?limit=${OLDER}&before=${oldestSeq}`);
    cleared = 0;
    oldestSeq = events[0]?.seq ?? 0; // none left: the history ends here
    terminal.prepend(pastOf(events, new Transcript()));
  } catch (error) {
    toast(`Older events could not be loaded: ${error instanceof Error ? error.message : error}`, "error");
  } finally {
    button.disabled = false;
  }
}

function clear() {
  terminal.clear();
  cleared = lastSeq;
  oldestSeq = lastSeq + 1;
  offerOlder();
}

setText(one("#agent-name"), name);
new RowTools(terminal.blocks); // the keys of the terminal come before those of every page
new Find({ terminal, older: loadOlder, hasOlder });
takeForms();
takeKeys();
keepAges();
new Prompt({
  base,
  terminal,
  models: () => now.state?.models ?? [],
  idle: () => now.reachable && now.state?.badge === "idle",
  changed: () => void refreshState(),
  cleared: clear,
});
keepDrafts();
for (const form of document.querySelectorAll("form[data-path]")) {
  if (form instanceof HTMLFormElement) form.action = base + form.dataset.path;
}
for (const view of ["notes", "rules"]) one(`#${view}-link`).setAttribute("href", `../../#${view}-${name}`);
one("#start-form").setAttribute("action", `/start/${encodeURIComponent(name)}`);
one("#older").addEventListener("click", () => void loadOlder());
terminal.onRows(() => {
  offerOlder();
  show(one("#empty"), terminal.blocks.count === 0 && now.reachable);
});
const live = follow({ url: `${base}events/stream`, load, onEvent, onConnection });
one("#connection").addEventListener("click", () => live.reload());
document.addEventListener("hive:settled", () => requests.render()); // rows were left alone while busy
document.addEventListener("hive:done", () => (now.reachable ? void refreshState() : live.reload()));
