/** How an agent's state is told, the same on the dashboard and on its own page. */

/** @typedef {import("./types.js").AgentView} AgentView */

/** A badge: glyph, words, tone (a CSS class), and whether something is under way. */
/** @typedef {{glyph: string, words: string, tone: string}} Told */

/** @type {Record<string, Told>} */
const BADGES = {
  offline: { glyph: "○", words: "offline", tone: "off" },
  idle: { glyph: "💤", words: "idle", tone: "idle" },
  thinking: { glyph: "🧠", words: "thinking", tone: "busy" },
  compacting: { glyph: "🗜", words: "compacting", tone: "busy" },
  rate_limited: { glyph: "⏳", words: "waiting for limit", tone: "warn" },
  needs_login: { glyph: "🔑", words: "needs login", tone: "warn" },
  waiting_for_you: { glyph: "✋", words: "waiting for you", tone: "warn" },
};

/** @type {Record<string, Told>} */
const STATES = {
  stopped: { glyph: "○", words: "stopped", tone: "off" },
  crashed: { glyph: "✗", words: "crashed", tone: "bad" },
  tombstone: { glyph: "†", words: "destroyed", tone: "off" },
};

/** In these, something is under way and the buttons give way to a pill. */
const IN_FLIGHT = new Set(["starting", "stopping", "rebuilding", "creating", "destroying"]);

/** @param {string} state */
export function inFlight(state) {
  return IN_FLIGHT.has(state);
}

/** @param {string} badge @returns {Told} */
export function tellBadge(badge) {
  return BADGES[badge] ?? { glyph: "·", words: badge || "unknown", tone: "off" };
}

/** What the agent is doing, container and harness together. @param {AgentView} agent @returns {Told} */
export function tellAgent(agent) {
  if (inFlight(agent.state)) return { glyph: "◐", words: `${agent.state}…`, tone: "busy" };
  if (agent.state === "running") return tellBadge(agent.report.badge);
  return STATES[agent.state] ?? { glyph: "·", words: agent.state, tone: "off" };
}

/** Since when it does that, Unix milliseconds. @param {AgentView} agent */
export function agentSince(agent) {
  const told = agent.state === "running" ? agent.report.since_ms : 0;
  return told || agent.since_ms;
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
