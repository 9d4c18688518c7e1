/** The side panel: a thread, an agent's log, its notes, the rules for it, what it ran, a build's output or diff, or who is logged in. */

import { getJson } from "./api.js";
import { draw as drawBuildLog, logPlace, wantBuildLog } from "./build_log.js";
import { readDiff } from "./decided_diff.js";
import { one, setText, show } from "./dom.js";
import { showHistory } from "./history.js";
import { closeLog, followed, openLog, takeLogView } from "./log_view.js";
import { readNotes, takeNotes } from "./notes.js";
import { readRules } from "./rules.js";
import { showSessions } from "./sessions.js";
import { plural } from "./text.js";
import { continuesThread, showThread } from "./thread.js";

const BUILD_LINES = 2000;
const GATHER_MS = 500; // an agent that works tells much: its notes are looked at once for all of it
const LINK = /^#(logs|notes|rules|history)-([a-z][a-z0-9-]*)$/;

/** `of`: an agent's name, or the number of an approval or a message.
 * @typedef {{view: "logs"|"notes"|"rules"|"history"|"build-log"|"diff"|"sessions"|"thread", of: string}} Opened */

/** @type {Opened|null} */
let opened = null;
/** @type {HTMLElement|null} */
let opener = null;
let asked = 0; // only the answer to the last question counts
let gathering = 0;

const panel = () => one("#panel");

/** @type {Record<Opened["view"], (of: string) => string>} */
const TITLES = {
  logs: (of) => `Log of ${of}`,
  notes: (of) => `Notes of ${of}`,
  rules: (of) => `Rules for ${of}`,
  history: (of) => `History of ${of}`,
  "build-log": (of) => `Build log of #${of}`,
  diff: (of) => `Diff of #${of}`,
  sessions: () => "Browsers that are logged in",
  thread: (of) => `Thread of #${of}`,
};

/** Where each view is drawn. @type {Record<Opened["view"], string>} */
const PLACES = {
  logs: "#panel-log",
  notes: "#panel-notes",
  rules: "#panel-history",
  history: "#panel-history",
  "build-log": "#panel-body",
  diff: "#panel-body",
  sessions: "#panel-history",
  thread: "#panel-history",
};

/** Reads what the panel shows; the result puts it on the page. Logs are told by events instead.
 * @type {Record<Opened["view"], (of: string) => Promise<() => void>>} */
const READ = {
  logs: () => Promise.resolve(() => {}),
  notes: readNotes,
  rules: readRules,
  "build-log": (of) => Promise.resolve(() => showBuildLog(Number(of))),
  diff: async (of) => {
    const put = await readDiff(of);
    return () => {
      put();
      setText(one("#panel-status"), "");
    };
  },
  history: async (of) => {
    const { deployments } = await getJson(`/api/agents/${encodeURIComponent(of)}/history`);
    return () => {
      showHistory(of, deployments);
      setText(one("#panel-status"), deployments.length > 0 ? plural(deployments.length, "deployment") : "");
    };
  },
  sessions: async () => {
    const { sessions, current } = await getJson("/api/sessions");
    return () => {
      showSessions(sessions, current);
      setText(one("#panel-status"), plural(sessions.length, "browser"));
    };
  },
  thread: async (of) => {
    const thread = await getJson(`/api/threads/${encodeURIComponent(of)}`);
    return () => {
      showThread(Number(of), thread);
      setText(one("#panel-status"), plural(thread.messages.length, "message"));
    };
  },
};

/** How much of a build's output is there. @param {Event} event */
function tellBuildLog(event) {
  if (!(event instanceof CustomEvent) || opened?.view !== "build-log") return;
  const { id, first, lines } = event.detail;
  if (opened.of !== String(id)) return;
  const amount = first > 0 ? `last ${lines} of ${first + lines} lines` : plural(lines, "line");
  setText(one("#panel-status"), lines > 0 ? amount : "nothing printed yet");
}

/** @param {number} id */
function showBuildLog(id) {
  one("#panel-body").replaceChildren(logPlace(id, BUILD_LINES));
  wantBuildLog(id, true);
  drawBuildLog(id);
}

/** Whether an event may have changed what a view shows of `of`.
 * @type {Partial<Record<Opened["view"], (kind: string, data: any, of: string) => boolean>>} */
const CHANGES = {
  // A file has no event of its own; whoever writes in its notes works, and is told of.
  notes: (kind, data, of) => kind === "agent" && data.name === of,
  rules: (kind, data, of) =>
    (kind === "permission" && data.closed !== "" && data.agent === of) ||
    (kind === "approval" && data.status === "deployed" && data.agent === of) ||
    (kind === "activity" && data.action.endsWith("_permission_rule") && data.subject === of),
  history: (kind, data, of) =>
    (kind === "agent" && data.name === of) || (kind === "approval" && data.agent === of),
  sessions: (kind, data) => kind === "activity" && /^(log|end_session)/.test(data.action),
  thread: (kind, data) => kind === "message" && continuesThread(data),
};

async function load() {
  const wanted = opened;
  if (!wanted) return;
  const number = ++asked;
  /** @type {() => void} */
  let put;
  try {
    put = await READ[wanted.view](wanted.of);
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    put = () => setText(one("#panel-status"), problem);
  }
  if (wanted === opened && number === asked) put();
}

/** Tells the page that its stream is to bring another log, or none. */
function followLog(/** @type {string} */ agent) {
  const before = followed();
  if (agent) openLog(agent);
  else closeLog();
  if (before !== followed()) document.dispatchEvent(new CustomEvent("hive:follow"));
}

/** @param {Opened} wanted */
function open(wanted) {
  opened = wanted;
  setText(one("#panel-title"), TITLES[wanted.view](wanted.of));
  setText(one("#panel-status"), "loading…");
  for (const place of new Set(Object.values(PLACES))) {
    one(place).replaceChildren();
    show(one(place), PLACES[wanted.view] === place);
  }
  show(one("#log-tools"), wanted.view === "logs");
  panel().hidden = false;
  document.body.classList.add("with-panel");
  one("#panel-close").focus();
  followLog(wanted.view === "logs" ? wanted.of : "");
  void load();
}

function close() {
  opened = null;
  followLog("");
  panel().hidden = true;
  document.body.classList.remove("with-panel");
  if (opener?.isConnected) opener.focus();
}

/** Something happened, which may have changed what the panel shows. @param {string} kind @param {any} data */
export function refreshPanel(kind, data) {
  if (!opened || !CHANGES[opened.view]?.(kind, data, opened.of)) return;
  if (opened.view !== "notes") return void load();
  gathering ||= window.setTimeout(() => {
    gathering = 0;
    void load();
  }, GATHER_MS);
}

/** The page has begun anew, and does not know what happened meanwhile. */
export function reloadPanel() {
  if (opened && CHANGES[opened.view]) void load();
}

/** Opens what a link such as `#notes-alice` leads to; returns whether it is one. @param {string} hash */
export function openByLink(hash) {
  const [, view, of] = LINK.exec(hash) ?? [];
  if (view) open({ view: /** @type {Opened["view"]} */ (view), of });
  return view !== undefined;
}

export function takePanel() {
  takeLogView();
  takeNotes();
  document.addEventListener("click", (event) => {
    const selector = Object.keys(READ)
      .map((view) => `[data-action=${view}]`)
      .join(", ");
    const button = event.target instanceof Element ? event.target.closest(selector) : null;
    if (!(button instanceof HTMLElement)) return;
    if (!panel().contains(button)) opener = button;
    const view = /** @type {Opened["view"]} */ (button.dataset.action);
    open({ view, of: button.dataset.agent ?? button.dataset.approval ?? button.dataset.message ?? "" });
  });
  one("#panel-close").addEventListener("click", close);
  panel().addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  document.addEventListener("hive:build-log", tellBuildLog);
  panel().addEventListener("hive:done", () => void load());
  panel().addEventListener("hive:panel", () => void load());
}
