/**
 * Search through everything that was said: words, and an agent's name. The store is asked piece by piece,
 * newest first, until a page is full; what arrives live is looked at here, by the same rule.
 */

import { getJson } from "./api.js";
import { h } from "./dom.js";
import { headline, lineCount } from "./text.js";

/** @typedef {import("./types.js").Message} Message */

const PAGE = 50;
const FOUND_MAX = 1000;
const BEFORE_HIT = 60; // characters shown before the first hit of a long message
const FLAT_CHARACTERS = 800;
const WORDS_MAX = 8; // as the store takes them

/** @typedef {"idle"|"looking"|"more"|"done"|"failed"} Stage */

export class HistorySearch {
  /** @param {() => void} changed called whenever there is more to show */
  constructor(changed) {
    this.changed = changed;
    this.agent = "";
    /** @type {string[]} */
    this.words = [];
    /** @type {Message[]} */
    this.found = [];
    /** @type {number|null} */
    this.before = null;
    /** @type {Stage} */
    this.stage = "idle";
    this.problem = "";
    this.asked = 0; // a newer question makes the answers to older ones void
  }

  get active() {
    return this.agent !== "" || this.words.length > 0;
  }

  /** @param {string} agent @param {string} text */
  ask(agent, text) {
    this.agent = agent;
    this.words = text.split(/\s+/).filter(Boolean).slice(0, WORDS_MAX);
    this.found = [];
    this.before = null;
    this.stage = "idle";
    this.asked += 1;
    if (this.active) void this.more();
    else this.changed();
  }

  /** Goes on until one more page is found, or nothing is left. */
  async more() {
    const { asked } = this;
    const wanted = this.found.length + PAGE;
    this.stage = "looking";
    this.changed();
    try {
      while (this.stage === "looking") {
        const { messages, looked_to: lookedTo } = await getJson(this.path());
        if (asked !== this.asked) return;
        this.found = [...this.found, ...messages.reverse()];
        this.before = lookedTo;
        if (lookedTo === null) this.stage = "done";
        else if (this.found.length >= wanted || this.found.length >= FOUND_MAX) this.stage = "more";
        this.changed();
      }
    } catch (error) {
      if (asked !== this.asked) return;
      this.stage = "failed";
      this.problem = error instanceof Error ? error.message : String(error);
      this.changed();
    }
  }

  path() {
    const query = new URLSearchParams({ q: this.words.join(" "), limit: String(PAGE) });
    if (this.agent) query.set("agent", this.agent);
    if (this.before !== null) query.set("before", String(this.before));
    return `/api/messages/search?${query}`;
  }

  /** @param {Message} message */
  matches(message) {
    if (this.agent && message.sender !== this.agent && message.to !== this.agent) return false;
    const body = message.body.toLowerCase();
    return this.words.every((word) => body.includes(word.toLowerCase()));
  }

  /** What matches, newest first: of what the page has anyway, and of what was found. @param {Message[]} loaded */
  results(loaded) {
    const byId = new Map(this.found.map((message) => [message.id, message]));
    for (const message of loaded) if (this.matches(message)) byId.set(message.id, message);
    return [...byId.values()].sort((a, b) => b.id - a.id);
  }

  /** @param {number} amount */
  status(amount) {
    const found = `${amount} found`;
    if (this.stage === "looking")
      return `${found} · looking${this.before === null ? "" : ` before #${this.before}`}…`;
    if (this.stage === "more") return `${found} so far`;
    if (this.stage === "failed") return `${found} · ${this.problem}`;
    return found;
  }
}

/** Text with every hit marked. @param {string} text @param {string[]} words @returns {(Node|string)[]} */
export function marked(text, words) {
  const hits = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (hits.length === 0) return [text];
  return text
    .split(new RegExp(`(${hits.join("|")})`, "giu"))
    .map((part, at) => (at % 2 === 1 ? h("mark", null, part) : part));
}

/** A body in which something was found; a long one is folded behind the place of the first hit.
 * @param {string} body @param {string[]} words */
export function foundBody(body, words) {
  if (lineCount(body) <= 8 && body.length <= FLAT_CHARACTERS)
    return h("p", { class: "body words" }, marked(body, words));
  const at = Math.max(0, ...words.map((word) => body.toLowerCase().indexOf(word.toLowerCase())));
  const from = Math.max(0, at - BEFORE_HIT);
  const excerpt = headline(`${from > 0 ? "…" : ""}${body.slice(from).replaceAll("\n", " ")}`, 200);
  return h(
    "details",
    { class: "fold", "data-key": "body" },
    h(
      "summary",
      null,
      h("span", { class: "words" }, marked(excerpt, words)),
      h("span", { class: "hint" }, ` · ${lineCount(body)} lines`),
    ),
    h("p", { class: "body words" }, marked(body, words)),
  );
}
