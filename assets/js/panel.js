/** The side panel: an agent's console log, what it ran, what building a commit printed, or who is logged in. */

import { getJson } from "./api.js";
import { ansi } from "./ansi.js";
import { h, one, setText, show } from "./dom.js";
import { showHistory } from "./history.js";
import { showSessions } from "./sessions.js";
import { plural } from "./text.js";

const LINES = 400;
const REFRESH_MS = 3000;

/** `of`: an agent's name, or an approval's number. @typedef {{view: "logs"|"history"|"build-log"|"sessions", of: string}} Opened */

/** @type {Opened|null} */
let opened = null;
let timer = 0;
/** @type {HTMLElement|null} */
let opener = null;
/** @type {string} */
let last = "";

const panel = () => one("#panel");

/** @type {Record<Opened["view"], (of: string) => string>} */
const TITLES = {
  logs: (of) => `Log of ${of}`,
  history: (of) => `History of ${of}`,
  "build-log": (of) => `Build log of #${of}`,
  sessions: () => "Browsers that are logged in",
};

/** Reads what the panel shows; the result puts it on the page. @type {Record<Opened["view"], (of: string) => Promise<() => void>>} */
const READ = {
  logs: async (of) => {
    const { lines } = await getJson(`/api/logs/${encodeURIComponent(of)}?lines=${LINES}`);
    return () => showLines(lines.map(String), 0);
  },
  "build-log": async (of) => {
    const { lines, first = 0 } = await getJson(`/api/approvals/${encodeURIComponent(of)}/log`);
    return () => showLines(lines.map(String), first);
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
};

/** Views whose rows have buttons; the others are lines of text. */
const isList = (/** @type {Opened} */ { view }) => view === "history" || view === "sessions";

async function load() {
  clearTimeout(timer);
  const wanted = opened;
  if (!wanted) return;
  /** @type {() => void} */
  let put;
  try {
    put = await READ[wanted.view](wanted.of);
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    put = () => setText(one("#panel-status"), problem);
  }
  if (wanted !== opened) return;
  put();
  const live = !isList(wanted); // of a history, events tell
  if (live) timer = window.setTimeout(() => void load(), document.hidden ? REFRESH_MS * 10 : REFRESH_MS);
}

/** @param {string[]} lines @param {number} before how many lines there are before these */
function showLines(lines, before) {
  const amount = before > 0 ? `last ${lines.length} of ${before + lines.length} lines` : plural(lines.length, "line");
  setText(one("#panel-status"), lines.length > 0 ? amount : "nothing logged yet");
  const text = lines.join("\n");
  if (text === last) return;
  last = text;
  const log = one("#panel-log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.replaceChildren(h("div", null, ansi(text)));
  if (atEnd) log.scrollTop = log.scrollHeight;
}

/** @param {Opened} wanted */
function open(wanted) {
  opened = wanted;
  last = "";
  setText(one("#panel-title"), TITLES[wanted.view](wanted.of));
  setText(one("#panel-status"), "loading…");
  one("#panel-log").replaceChildren();
  one("#panel-history").replaceChildren();
  show(one("#panel-log"), !isList(wanted));
  show(one("#panel-history"), isList(wanted));
  panel().hidden = false;
  document.body.classList.add("with-panel");
  one("#panel-close").focus();
  void load();
}

function close() {
  opened = null;
  clearTimeout(timer);
  panel().hidden = true;
  document.body.classList.remove("with-panel");
  if (opener?.isConnected) opener.focus();
}

/** Something happened to an agent, or to an approval of one: its history may be another.
 * @param {{name?: string, agent?: string}} about */
export function refreshPanel(about) {
  if (opened?.view === "history" && opened.of === (about.name ?? about.agent)) void load();
}

export function takePanel() {
  document.addEventListener("click", (event) => {
    const selector = Object.keys(READ).map((view) => `[data-action=${view}]`).join(", ");
    const button = event.target instanceof Element ? event.target.closest(selector) : null;
    if (!(button instanceof HTMLElement)) return;
    opener = button;
    const view = /** @type {Opened["view"]} */ (button.dataset.action);
    open({ view, of: button.dataset.agent ?? button.dataset.approval ?? "" });
  });
  one("#panel-close").addEventListener("click", close);
  panel().addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  panel().addEventListener("hive:done", () => void load());
}
