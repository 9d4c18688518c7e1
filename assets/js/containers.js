/** C0NTAINERS: one two-line row per agent, with what it does and what can be done to it. */

import { doneTo, told as toldDeed } from "./activity.js";
import { adviceLine } from "./advice.js";
import { agentSince, inFlight, isIsolated, isRehearsal, tellAgent, toldUntil } from "./agent_words.js";
import { here } from "./api.js";
import { contextChip } from "./context_size.js";
import { budgetChip } from "./budgets.js";
import { ageOf, h, leet, one, setText, show } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";
import { shaChip } from "./sha.js";
import { plural } from "./text.js";

/** @typedef {import("./types.js").AgentView} AgentView */
/** @typedef {import("./types.js").AuditEntry} AuditEntry */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

/** @param {HiveState} state */
export function renderContainers(state) {
  const { agents } = state;
  const stale = agents.filter((agent) => agent.needs_update);
  const lastDeeds = lastByAgent(state);
  const items = agents.map((agent) => ({ agent, deed: lastDeeds.get(agent.name) ?? null, state }));
  syncList(one("#container-list"), remembered(items), (item) => item.agent.name, row);
  setText(
    one("#containers-count"),
    `${agents.filter((agent) => agent.state === "running").length}/${agents.length} up`,
  );
  show(one("#update-all"), stale.length > 0);
  setText(one("#update-all-count"), ` (${stale.length})`);
  show(one("#no-containers"), agents.length === 0);
  show(one("#only-manager"), agents.length > 0 && agents.every((agent) => agent.role === "manager"));
}

/** @param {AgentView} agent */
export function agentPath(agent) {
  return here(`/agents/${encodeURIComponent(agent.name)}/`);
}

/** `deed`: what was done to it last. @typedef {{agent: AgentView, deed: AuditEntry|null, state: HiveState}} Item */
/** @type {Map<string, Item>} */
let last = new Map();

// On a phone a row would be all buttons: what is pressed seldom is folded there.
const narrow = matchMedia("(max-width: 640px)");

/** Rows are built for the window's width. @param {() => void} render */
export function onWidth(render) {
  narrow.addEventListener("change", () => {
    last.clear();
    render();
  });
}

/** The same object as last time where nothing changed, so that the row is left alone. @param {Item[]} items */
function remembered(items) {
  last = new Map(
    items.map((item) => {
      const before = last.get(item.agent.name);
      return [item.agent.name, before?.agent === item.agent && before.deed === item.deed ? before : item];
    }),
  );
  return [...last.values()];
}

const ON_ITSELF = new Set(["start", "kill", "restart", "rebuild", "update", "rollback", "approve", "deployed", "crash", "silent"]);

/** @param {HiveState} state */
function lastByAgent(state) {
  /** @type {Map<string, AuditEntry>} */
  const deeds = new Map();
  for (const entry of state.activity) {
    const name = doneTo(entry, state);
    const counts = ON_ITSELF.has(entry.action) && !entry.outcome.startsWith("refused");
    if (counts && !deeds.has(name)) deeds.set(name, entry);
  }
  return deeds;
}

/** @param {Item} item */
function row({ agent, deed, state }) {
  const told = tellAgent(agent);
  return h(
    "li",
    { class: `card agent tone-${told.tone}` },
    h(
      "div",
      { class: "line" },
      h("a", { class: "agent-name", href: agentPath(agent) }, agent.name),
      roleChip(agent.role),
      statePill(agent),
      badges(agent),
      h("span", { class: "facts" }, facts(agent)),
      h("a", { class: "chip", href: `${agentPath(agent)}stats`, "aria-label": `Stats of ${agent.name}` }, "stats"),
    ),
    agent.note && h("p", { class: "note-line words" }, agent.note),
    agent.status === "offline" &&
      agent.status_note !== agent.note &&
      h("p", { class: "note-line words", "data-key": "status-note" }, agent.status_note),
    adviceLine(agent),
    h(
      "form",
      { "data-async": true, method: "post", action: `/restart/${encodeURIComponent(agent.name)}`, class: "line" },
      actions(agent),
      errorPlace(),
    ),
    deed &&
      h("p", { class: "deed-line hint", "data-key": "deed" }, `${toldDeed(deed, state)} · `, ageOf(deed.at_ms, " ago")),
  );
}

/** @param {string} role */
export function roleChip(role) {
  const manager = role === "manager";
  return h(
    "span",
    { class: `chip role-${manager ? "m1nd" : "ag3nt"}` },
    leet(manager ? "m1nd" : "ag3nt"),
    h("span", { class: "sr" }, manager ? "manager" : "agent"),
  );
}

/** @param {AgentView} agent */
function statePill(agent) {
  const told = tellAgent(agent);
  return h(
    "span",
    { class: `pill tone-${told.tone}`, "data-key": "state" },
    h("span", { "aria-hidden": "true", class: told.glyph === "◐" ? "glyph spin" : "glyph" }, told.glyph),
    ` ${told.words}${toldUntil(agent)} · `,
    ageOf(agentSince(agent)),
  );
}

/** @param {AgentView} agent */
function badges(agent) {
  const { report } = agent;
  const running = agent.state === "running";
  return [
    agent.status === "needs_login" &&
      h("a", { class: "chip warn", "data-key": "login", href: agentPath(agent) }, "log it in →"),
    agent.status === "waiting_for_you" &&
      h("a", { class: "chip warn", "data-key": "permission", href: "#permissions" }, "allow or deny →"),
    agent.bypass &&
      h(
        "span",
        { class: "chip bad", "data-key": "bypass", title: "You let it use every tool without asking" },
        "bypass",
      ),
    budgetChip(agent),
    agent.needs_update && h("span", { class: "chip warn", "data-key": "update" }, "needs update"),
    agent.isolation !== "" &&
      !isIsolated(agent.isolation) &&
      h(
        "span",
        { class: "chip bad", "data-key": "isolation", title: "This agent runs as a plain process of this machine" },
        "not isolated",
      ),
    running &&
      isRehearsal(report.backend) &&
      h(
        "span",
        { class: "chip info", "data-key": "rehearsal", title: "Follows plain commands; no language model thinks here" },
        "rehearsal",
      ),
    agent.status === "waiting_for_limit" &&
      agent.status_note &&
      h("span", { class: "chip words", "data-key": "limit" }, agent.status_note),
    running &&
      report.model &&
      !isRehearsal(report.backend) &&
      h("span", { class: "chip", "data-key": "model" }, report.model),
    contextChip(agent),
    agent.commit && shaChip(agent.commit, "runs"),
    agent.may_write_to &&
      h(
        "span",
        { class: "chip", "data-key": "allowed", title: "The setting send_allow says whom this agent may write to" },
        `writes only to ${agent.may_write_to.join(", ") || "you"}`,
      ),
    agent.paused_with?.length > 0 &&
      h(
        "span",
        { class: "chip warn", "data-key": "paused", title: "They kept answering each other; messages are refused" },
        `paused with ${agent.paused_with.join(", ")}`,
      ),
    agent.restarts > 0 && h("span", { class: "chip", "data-key": "restarts" }, plural(agent.restarts, "restart")),
  ];
}

/** @param {AgentView} agent */
function facts(agent) {
  return [
    agent.unread > 0 ? `${agent.unread} unread` : "",
    agent.container,
    `:${agent.port}`,
    agent.host === "local" ? "" : agent.host,
  ]
    .filter(Boolean)
    .join(" · ");
}

/** @param {AgentView} agent */
function actions(agent) {
  const reading = [
    opener(agent, "logs", "≡ L0GS", "Logs"),
    opener(agent, "notes", "✎ N0T3S", "Notes"),
    opener(agent, "rules", "§ RUL3S", "Permission rules"),
    opener(agent, "history", "↶ H1ST0RY", "History"),
  ];
  if (inFlight(agent.state)) {
    return reading; // that is always possible; the pill above tells what is under way
  }
  const running = agent.state === "running";
  const isAgent = agent.role !== "manager";
  const [logs, ...others] = reading;
  const first = [
    running
      ? button(agent, "restart", "↺ R3ST4RT", "Restart", {
          "data-confirm": `Restart ${agent.name}? A turn that runs now begins again afterwards.`,
          "data-yes": "Restart",
        })
      : button(agent, "start", "▶ ST4RT", "Start", { class: "button go" }),
    running &&
      isAgent &&
      button(agent, "kill", "■ ST0P", "Stop", {
        "data-confirm": `Stop ${agent.name}? Its inbox keeps filling until it is started again.`,
        "data-yes": "Stop",
      }),
  ];
  const rebuild = button(agent, "rebuild", "↻ R3BU1LD", "Rebuild");
  const endings = isAgent ? [h("span", { class: "spacer" }), ...goodbyes(agent)] : [];
  if (!narrow.matches) return [...first, rebuild, ...reading, ...endings];
  const more = [rebuild, ...others, ...endings];
  return [
    ...first,
    logs,
    h(
      "details",
      { class: "more", "data-key": "more" },
      h("summary", { class: "button", "aria-label": `More for ${agent.name}` }, leet("⋯ M0R3")),
      h("div", { class: "actions" }, more),
    ),
  ];
}

/** @param {AgentView} agent */
function goodbyes(agent) {
  return [
    button(agent, "destroy", "DESTR0Y", "Destroy", {
      class: "button danger quiet",
      "data-confirm": `Destroy ${agent.name}? Its container goes; its state and credentials are kept and it can be revived.`,
      "data-yes": "Destroy",
      "data-danger": true,
    }),
    button(agent, "purge", "PURG3", "Purge", {
      class: "button danger quiet",
      "data-confirm": `Purge ${agent.name}? Container, notes, credentials and configuration are deleted for ever.`,
      "data-confirm-typed": agent.name,
      "data-yes": "Delete everything",
      "data-danger": true,
    }),
  ];
}

/** Opens the side panel. @param {AgentView} agent @param {string} view @param {string} label @param {string} plain */
function opener(agent, view, label, plain) {
  const about = { "data-action": view, "data-agent": agent.name, "aria-label": `${plain} of ${agent.name}` };
  return h("button", { type: "button", class: "button", ...about }, leet(label));
}

/**
 * @param {AgentView} agent @param {string} verb @param {string} label @param {string} plain
 * @param {Record<string, any>} [more]
 */
function button(agent, verb, label, plain, more = {}) {
  const done = {
    restart: "restarted",
    start: "started",
    kill: "stopped",
    rebuild: "rebuilt",
    destroy: "destroyed",
    purge: "purged",
  }[verb];
  return h(
    "button",
    {
      class: "button",
      formaction: `/${verb}/${encodeURIComponent(agent.name)}`,
      "aria-label": `${plain} ${agent.name}`,
      "data-done": `${agent.name} is ${done}.`,
      ...more,
    },
    leet(label),
  );
}
