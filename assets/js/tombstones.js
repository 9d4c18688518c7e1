/** K3PT ST4T3: agents that were destroyed with their state kept. */

import { ageOf, h, leet, one, setText, show } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";
import { size } from "./text.js";

/** @typedef {import("./types.js").AgentView} AgentView */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

/** @param {HiveState} state */
export function renderTombstones(state) {
  const waiting = new Set(state.openApprovals.filter((each) => each.kind === "spawn").map((each) => each.agent));
  const items = state.tombstones.map((agent) => ({ agent, waits: waiting.has(agent.name) }));
  const list = one("#tombstone-list");
  syncList(list, remembered(items), (item) => item.agent.name, row);
  setText(one("#tombstones-count"), String(items.length));
  show(one("#no-tombstones"), items.length === 0);
}

/** @typedef {{agent: AgentView, waits: boolean}} Item */
/** @type {Map<string, Item>} */
let last = new Map();

/** The same object as last time where nothing changed, so that the row is left alone. @param {Item[]} items */
function remembered(items) {
  const next = new Map(
    items.map((item) => {
      const before = last.get(item.agent.name);
      return [item.agent.name, before?.agent === item.agent && before.waits === item.waits ? before : item];
    }),
  );
  last = next;
  return [...next.values()];
}

/** @param {Item} item */
function row({ agent, waits }) {
  return h(
    "li",
    { class: "card tomb" },
    h(
      "div",
      { class: "line" },
      h("span", { class: "agent-name gone" }, h("span", { "aria-hidden": "true" }, "† "), agent.name),
      h("span", { class: "chip" }, size(agent.state_bytes)),
      h("span", { class: "chip" }, "destroyed ", ageOf(agent.since_ms, " ago")),
      h(
        "span",
        { class: agent.has_credentials ? "chip ok" : "chip" },
        agent.has_credentials ? "credentials kept" : "no credentials",
      ),
    ),
    h(
      "form",
      { "data-async": true, method: "post", action: "/request-spawn", class: "line" },
      h("input", { type: "hidden", name: "name", value: agent.name }),
      h("input", { type: "hidden", name: "note", value: `revive ${agent.name} with its kept state` }),
      waits
        ? h("a", { class: "chip info", href: "#approvals", "data-key": "waits" }, "revival waits for your approval ↓")
        : h(
            "button",
            {
              class: "button go",
              "aria-label": `Revive ${agent.name}`,
              "data-done": `Revival of ${agent.name} waits under Pending approvals.`,
            },
            leet("⊕ R3V1V3"),
          ),
      h("span", { class: "spacer" }),
      h(
        "button",
        {
          class: "button danger quiet",
          formaction: `/purge-tombstone/${encodeURIComponent(agent.name)}`,
          "aria-label": `Purge ${agent.name}`,
          "data-confirm": `Purge what is kept of ${agent.name}? Notes, credentials and configuration are deleted for ever.`,
          "data-confirm-typed": agent.name,
          "data-yes": "Delete everything",
          "data-danger": true,
          "data-done": `${agent.name} is purged.`,
        },
        leet("PURG3"),
      ),
      errorPlace(),
    ),
  );
}
