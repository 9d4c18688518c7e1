/**
 * An agent's log in the panel, as it is printed: it comes in the page's one stream. Narrowed to one unit or to
 * lines that hold a text; at the bottom it follows, scrolled up it stays and says how many lines came.
 */

import { ansi, stripAnsi } from "./ansi.js";
import { h, one, setText, show } from "./dom.js";
import { syncList } from "./morph.js";
import { plural } from "./text.js";

/** @typedef {import("./types.js").LogNews} LogNews */
/** `shown`: without colours, for looking. @typedef {{raw: string, plain: string, unit: string}} Line */

const LINES_KEPT = 5000;
const NEAR_BOTTOM_PX = 40;

/** Where a line says who printed it, the first that fits. */
const UNITS = [
  /^--- (?:h-|hm1nd|the container|the journal)/, // hive-c0re's own notes about the container
  /^(?:\d[\d:.T ZW+-]*\s+)?(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL)\s+([A-Za-z_][\w-]*)[\w.-]*:/, // a harness's logger
  /^\[\s*(?:OK|FAILED|DEPEND|INFO|\*+)\s*\]/, // systemd while the container starts
  /^(?:[A-Z][a-z]{2} +\d+ [\d:]+ \S+ )?([A-Za-z_][\w@.-]*)\[\d+\]:/, // syslog
];
const NAMES = ["container", "", "systemd", ""];

/** Who printed it; of a line that does not say, whoever printed the one before.
 * @param {string} plain @param {string} before */
export function unitOf(plain, before) {
  for (const [at, pattern] of UNITS.entries()) {
    const match = pattern.exec(plain);
    if (match) return NAMES[at] || match[1];
  }
  return before;
}

let agent = "";
/** @type {Line[]} */
let lines = [];
let next = 0;
let unread = 0;
let ended = "";
let unit = "";
let text = "";

/** @param {string} name */
export function openLog(name) {
  agent = name;
  unit = "";
  text = "";
  /** @type {HTMLInputElement} */ (one("#log-text")).value = "";
  clear();
}

export function closeLog() {
  agent = "";
  clear();
}

/** The agent whose log is followed, or nothing. */
export function followed() {
  return agent;
}

function clear() {
  lines = [];
  next = 0;
  unread = 0;
  ended = "";
  one("#panel-log").replaceChildren();
  status();
}

/** The stream's event `log`. @param {LogNews} news */
export function takeLog(news) {
  if (news.agent !== agent) return;
  if (news.first === 0 && next > 0) clear(); // the connection began anew, and with it the log
  const fresh = news.lines.map(String).map(parsed);
  if (news.first > next) fresh.unshift(parsed(`--- ${news.first - next} lines came too fast to be shown`));
  next = news.first + news.lines.length;
  ended = news.ended;
  lines = [...lines, ...fresh].slice(-LINES_KEPT);
  const matching = fresh.filter(wanted);
  const log = one("#panel-log");
  const atEnd = isAtEnd(log);
  log.append(...matching.map(lineOf));
  while (log.childElementCount > LINES_KEPT) log.firstElementChild?.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
  else unread += matching.length;
  units();
  status();
}

/** @param {string} raw @returns {Line} */
function parsed(raw) {
  const plain = stripAnsi(raw);
  const before = lines.at(-1)?.unit ?? "container";
  return { raw, plain, unit: unitOf(plain, before) };
}

/** @param {Line} line */
function wanted(line) {
  return (unit === "" || line.unit === unit) && (text === "" || line.plain.toLowerCase().includes(text));
}

/** @param {Line} line */
function lineOf({ raw }) {
  return h("div", null, raw === "" ? "\u00a0" : ansi(raw));
}

/** @param {HTMLElement} log */
function isAtEnd(log) {
  return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_BOTTOM_PX;
}

function redraw() {
  const log = one("#panel-log");
  log.replaceChildren(...lines.filter(wanted).map(lineOf));
  log.scrollTop = log.scrollHeight;
  unread = 0;
  status();
}

function units() {
  const names = [...new Set(lines.map((line) => line.unit))].sort();
  if (unit && !names.includes(unit)) names.push(unit);
  syncList(
    one("#log-unit"),
    ["", ...names],
    (name) => name || "all",
    (name) => h("option", { value: name }, name || "every unit"),
  );
}

function status() {
  if (!agent) return;
  const amount = one("#panel-log").childElementCount;
  const of = unit || text ? ` of ${lines.length}` : "";
  const said = next === 0 && !ended ? "nothing logged yet" : `${plural(amount, "line")}${of}`;
  setText(one("#panel-status"), ended ? `${said} · ${ended}` : `${said} · live`);
  const more = one("#log-newer");
  show(more, unread > 0);
  setText(more, `↓ ${unread} new`);
}

export function takeLogView() {
  const log = one("#panel-log");
  const choice = /** @type {HTMLSelectElement} */ (one("#log-unit"));
  const field = /** @type {HTMLInputElement} */ (one("#log-text"));
  choice.addEventListener("change", () => {
    unit = choice.value;
    redraw();
  });
  field.addEventListener("input", () => {
    text = field.value.toLowerCase();
    redraw();
  });
  log.addEventListener("scroll", () => {
    if (unread === 0 || !isAtEnd(log)) return;
    unread = 0;
    status();
  });
  one("#log-newer").addEventListener("click", () => {
    log.scrollTop = log.scrollHeight;
    log.focus();
  });
}
