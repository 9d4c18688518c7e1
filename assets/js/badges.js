/** The agent page's state row: what it does and since when, and the chips. */

import { agentSince, tellAgent, tellBadge, tellStatus, toldByHarness, toldUntil } from "./agent_words.js";
import { renderAsOf, renderChips, renderCoreChips } from "./chips.js";
import { ageOf, h, one, show } from "./dom.js";
import { announce } from "./notices.js";

/** @typedef {import("./types.js").HarnessState} HarnessState */
/** @typedef {import("./types.js").AgentView} AgentView */

/**
 * @param {{state: HarnessState|null, agent: AgentView|null, reachable: boolean, heardAtMs?: number,
 *   usage?: import("./chips.js").Context}} now
 *   `heardAtMs`: when the harness was lost;
 *   `state`: what the harness said last; `agent`: what core says, whose status counts; `reachable`: whether
 *   the harness answers;
 *   `usage`: how full the context is, as the events tell
 */
export function renderBadges({ state, agent, reachable, heardAtMs, usage }) {
  const { told, since, note, until } = statusOf({ state, agent, reachable });
  const badge = one("#badge");
  if (badge.dataset.words !== told.words) {
    // The badge itself is no live region: its age changes every second.
    const turns = ["idle", "thinking"]; // told by their events
    if (badge.dataset.words && !turns.includes(told.words)) announce(told.words);
    flash(badge, told.words);
  }
  badge.className = `pill state tone-${told.tone}`;
  badge.title = note;
  const glyph = h("span", { class: "glyph", "aria-hidden": "true" }, told.glyph);
  badge.replaceChildren(glyph, ` ${told.words}${until}`, ...(since ? [" · ", ageOf(since)] : []));
  const thinking = reachable && (state?.badge === "thinking" || state?.badge === "compacting");
  document.body.classList.toggle("thinking", thinking);
  show(one("#cancel"), thinking);
  one("#banner").classList.toggle("awake", thinking);
  if (state) renderChips(state, reachable, usage);
  if (agent) renderCoreChips(agent);
  renderAsOf(reachable ? 0 : (heardAtMs ?? 0));
}

/** What core says; what the harness said, until core has; and that of neither, once it is lost.
 * @param {{state: HarnessState|null, agent: AgentView|null, reachable: boolean}} now */
function statusOf({ state, agent, reachable }) {
  if (agent && (reachable || !toldByHarness(agent)))
    return { told: tellAgent(agent), since: agentSince(agent), note: agent.status_note, until: toldUntil(agent) };
  if (reachable && state) return { told: tellBadge(state.badge), since: state.since_ms, note: state.note, until: "" };
  return { told: tellStatus("offline"), since: agent ? agentSince(agent) : 0, note: "", until: "" };
}

/** @param {HTMLElement} badge @param {string} words */
function flash(badge, words) {
  badge.dataset.words = words;
  badge.getAnimations().forEach((each) => each.cancel());
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!still) badge.animate([{ filter: "brightness(1.8)" }, { filter: "none" }], { duration: 600 });
}
