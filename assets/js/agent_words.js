/** How an agent's state is told, the same on the dashboard and on its own page. */

import { clock } from "./text.js";

/** @typedef {import("./types.js").AgentView} AgentView */

/** A badge: glyph, words, tone (a CSS class), and whether something is under way. */
/** @typedef {{glyph: string, words: string, tone: string}} Told */

/** The same words as hive_shared/status_words.py has. @type {Record<string, Told>} */
const STATUSES = {
  offline: { glyph: "○", words: "offline", tone: "bad" },
  starting: { glyph: "◐", words: "starting", tone: "busy" },
  needs_login: { glyph: "🔑", words: "needs login", tone: "warn" },
  idle: { glyph: "💤", words: "idle", tone: "idle" },
  thinking: { glyph: "🧠", words: "thinking", tone: "busy" },
  compacting: { glyph: "🗜", words: "compacting", tone: "busy" },
  waiting_for_you: { glyph: "✋", words: "waiting for you", tone: "warn" },
  waiting_for_limit: { glyph: "⏳", words: "waiting for limit", tone: "warn" },
  parked: { glyph: "⏸", words: "parked", tone: "warn" },
  crashed: { glyph: "✗", words: "crashed", tone: "bad" },
  stopped: { glyph: "○", words: "stopped", tone: "off" },
  creating: { glyph: "◐", words: "creating", tone: "busy" },
  rebuilding: { glyph: "◐", words: "rebuilding", tone: "busy" },
  stopping: { glyph: "◐", words: "stopping", tone: "busy" },
  destroying: { glyph: "◐", words: "destroying", tone: "busy" },
  destroyed: { glyph: "†", words: "destroyed", tone: "off" },
};

/** Those that a harness told of itself: without one they are not known any more. */
const OF_HARNESS = new Set(["needs_login", "idle", "thinking", "compacting", "waiting_for_you", "waiting_for_limit"]);

/** In these, something is under way and the buttons give way to a pill. */
const IN_FLIGHT = new Set(["starting", "stopping", "rebuilding", "creating", "destroying"]);

/** @param {string} state */
export function inFlight(state) {
  return IN_FLIGHT.has(state);
}

/** What a harness says of itself, where core has said nothing. @param {string} badge @returns {Told} */
export function tellBadge(badge) {
  return tellStatus(badge === "rate_limited" ? "waiting_for_limit" : badge);
}

/** @param {string} status @returns {Told} */
export function tellStatus(status) {
  return STATUSES[status] ?? { glyph: "·", words: status || "unknown", tone: "off" };
}

/** What the agent is doing, as core says. @param {AgentView} agent @returns {Told} */
export function tellAgent(agent) {
  return tellStatus(agent.status);
}

/** When it goes on by itself, where that is known. @param {AgentView} agent */
export function toldUntil(agent) {
  return agent.status_until_ms ? ` until ${clock(agent.status_until_ms)}` : "";
}

/** Whether its status is what its harness told. @param {AgentView} agent */
export function toldByHarness(agent) {
  return OF_HARNESS.has(agent.status);
}

/** Since when it does that, Unix milliseconds. @param {AgentView} agent */
export function agentSince(agent) {
  return agent.status_since_ms || agent.since_ms;
}

/** Whether the harness runs where the host is out of its reach. Anything unknown counts as no.
 * @param {string} isolation */
export function isIsolated(isolation) {
  return /^(bubblewrap|bwrap|nspawn|nixos|systemd-nspawn)/i.test(isolation);
}

/** @param {string} backend */
export function isRehearsal(backend) {
  return /rehearsal/i.test(backend);
}
