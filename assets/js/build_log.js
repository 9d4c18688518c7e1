/**
 * What building an approval's commit prints, as it is printed.
 *
 * Every line has a number, so that the events of the feed and the log that is asked for fit together whatever
 * their order: what is known is skipped, and a gap is closed by asking. Fills `[data-build-log]` islands.
 */

import { ansi } from "./ansi.js";
import { getJson } from "./api.js";
import { h } from "./dom.js";
import { shorten } from "./text.js";

const LINES_KEPT = 2000;
const LINES_SHOWN = 300; // on the card; the panel has all
const LINE_SHOWN_CHARACTERS = 2000;
const LOGS_KEPT = 30;
const AHEAD_MAX = 200; // events that wait for a gap to be closed
const AGAIN_MS = 700; // the log on the disk may be a moment behind the feed
const TRIES = 5;
const NEAR_BOTTOM_PX = 40;

/** @typedef {{first: number, lines: string[]}} Piece */

/** One log: its lines from number `first` on. */
export class BuildLog {
  constructor() {
    this.first = 0;
    /** @type {string[]} */
    this.lines = [];
    this.story = 0; // of how many builds, one after the other, this log tells
    /** What came before its predecessors did. @type {Piece[]} */
    this.ahead = [];
  }

  get next() {
    return this.first + this.lines.length;
  }

  /**
   * Takes what is new of a piece. False: something is missing in between, or it tells another story
   * (a build that began again); then the whole log is needed.
   * @param {Piece} piece @returns {boolean}
   */
  add(piece) {
    if (piece.first > this.next) {
      if (this.ahead.length < AHEAD_MAX) this.ahead.push(piece);
      return false;
    }
    if (!this.agrees(piece)) return false;
    this.append(piece.lines.slice(this.next - piece.first));
    return true;
  }

  /** Whether the lines that both know are the same. @param {Piece} piece */
  agrees({ first, lines }) {
    return lines.every((line, at) => {
      const known = this.lines[first + at - this.first];
      return known === undefined || known === line;
    });
  }

  /** The log as it was asked for. What is known beyond it stays, and what came ahead of it follows.
   * False: there still is a gap. @param {Piece} whole @returns {boolean} */
  replace(whole) {
    const fits = whole.first <= this.next && this.agrees(whole);
    if (fits) this.append(whole.lines.slice(this.next - whole.first));
    else {
      this.story += 1;
      this.first = whole.first;
      this.lines = [];
      this.append(whole.lines);
    }
    const ahead = this.ahead.sort((a, b) => a.first - b.first);
    this.ahead = [];
    for (const piece of ahead) this.add(piece);
    return this.ahead.length === 0;
  }

  /** @param {string[]} lines */
  append(lines) {
    this.lines.push(...lines);
    const excess = this.lines.length - LINES_KEPT;
    if (excess > 0) {
      this.lines.splice(0, excess);
      this.first += excess;
    }
  }
}

/** @type {Map<number, BuildLog>} */
const logs = new Map();
/** @type {Set<number>} */
const asking = new Set();
/** Logs that were asked for whole, and whether the build had ended then. @type {Map<number, boolean>} */
const asked = new Map();

/** @param {number} id */
function logOf(id) {
  const log = logs.get(id) ?? new BuildLog();
  logs.set(id, log);
  for (const old of [...logs.keys()].slice(0, Math.max(0, logs.size - LOGS_KEPT))) {
    logs.delete(old);
    asked.delete(old);
  }
  return log;
}

/** The feed's event `build_log`. @param {any} data */
export function takeBuildLog(data) {
  const id = Number(data.approval_id);
  const fits = logOf(id).add({ first: Number(data.first), lines: data.lines.map(String) });
  if (!fits) void askFor(id);
  draw(id);
}

/** Everything known is forgotten: the connection begins anew, and the log is asked for again. */
export function forgetBuildLogs() {
  asked.clear();
}

/**
 * Asks for a log once; the feed keeps it current. Once it has ended, it is asked for again: of a very long one the
 * feed tells only the beginning.
 * @param {number} id @param {boolean} ended
 */
export function wantBuildLog(id, ended) {
  const before = asked.get(id);
  if (before !== undefined && (before || !ended)) return;
  asked.set(id, ended);
  void askFor(id);
}

/** @param {number} id */
async function askFor(id) {
  if (asking.has(id)) return;
  asking.add(id);
  try {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const { first = 0, lines } = await getJson(`/api/approvals/${id}/log`);
      if (logOf(id).replace({ first, lines: lines.map(String) })) break;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  } catch (error) {
    asked.delete(id); // nothing is built yet, or the connection is gone: the next news asks again
    console.warn("the build log could not be read", id, error);
  } finally {
    asking.delete(id);
  }
  draw(id);
}

/** Where a card's log goes. @param {number} id @param {number} [most] how many of the last lines are shown */
export function logPlace(id, most = LINES_SHOWN) {
  return h("div", {
    class: "build-log",
    "data-island": true,
    "data-key": "build-log",
    "data-build-log": id,
    "data-most": most,
    tabindex: "0",
    role: "log",
    "aria-live": "off",
    "aria-label": `Build log of approval ${id}`,
    hidden: true,
  });
}

/** Shows what is known wherever it is wanted. @param {number} id */
export function draw(id) {
  for (const place of document.querySelectorAll(`[data-build-log="${id}"]`)) {
    if (place instanceof HTMLElement) drawInto(place, logOf(id));
  }
  const { first, lines } = logOf(id);
  document.dispatchEvent(new CustomEvent("hive:build-log", { detail: { id, first, lines: lines.length } }));
}

/** Adds what is new and drops what is too old; a reader at the bottom stays there.
 * @param {HTMLElement} place @param {BuildLog} log */
function drawInto(place, log) {
  const most = Number(place.dataset.most);
  const story = String(log.story);
  if (place.dataset.story !== story) place.replaceChildren();
  const drawn = place.dataset.story === story ? Number(place.dataset.next) : 0;
  Object.assign(place.dataset, { story, next: log.next });
  place.hidden = log.lines.length === 0;
  const atEnd = place.scrollHeight - place.scrollTop - place.clientHeight < NEAR_BOTTOM_PX;
  const from = Math.max(drawn, log.first, log.next - most);
  place.append(...log.lines.slice(from - log.first).map(lineOf));
  while (place.childElementCount > most) place.firstElementChild?.remove();
  if (atEnd) place.scrollTop = place.scrollHeight;
}

/** @param {string} text */
function lineOf(text) {
  return h("div", null, ansi(shorten(text, LINE_SHOWN_CHARACTERS)));
}
