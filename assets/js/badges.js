/** The agent page's state row: what it does and since when, its backend and model, context and cost. */

import { agentSince, isIsolated, isRehearsal, tellAgent, tellBadge } from "./agent_words.js";
import { ageOf, h, one, setText, show } from "./dom.js";
import { billedTokens } from "./transcript.js";
import { clock, count, duration, money } from "./text.js";

/** @typedef {import("./types.js").HarnessState} HarnessState */
/** @typedef {import("./types.js").AgentView} AgentView */

/**
 * @param {{state: HarnessState|null, agent: AgentView|null, reachable: boolean}} now
 *   `state`: what the harness said last; `agent`: what core says; `reachable`: whether the harness answers
 */
export function renderBadges({ state, agent, reachable }) {
  const told =
    reachable && state
      ? tellBadge(state.badge)
      : agent && agent.state !== "running"
        ? tellAgent(agent)
        : tellBadge("offline");
  const since = reachable && state ? state.since_ms : agent ? agentSince(agent) : 0;
  const badge = one("#badge");
  if (badge.dataset.words !== told.words) flash(badge, told.words);
  badge.className = `pill state tone-${told.tone}`;
  const glyph = h("span", { class: "glyph", "aria-hidden": "true" }, told.glyph);
  badge.replaceChildren(glyph, ` ${told.words}`, ...(since ? [" · ", ageOf(since)] : []));
  const thinking = reachable && (state?.badge === "thinking" || state?.badge === "compacting");
  document.body.classList.toggle("thinking", thinking);
  show(one("#cancel"), thinking);
  one("#banner").classList.toggle("awake", thinking);
  if (state) renderChips(state, reachable);
}

/** @param {HTMLElement} badge @param {string} words */
function flash(badge, words) {
  badge.dataset.words = words;
  badge.getAnimations().forEach((each) => each.cancel());
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!still) badge.animate([{ filter: "brightness(1.8)" }, { filter: "none" }], { duration: 600 });
}

/** @param {HarnessState} state @param {boolean} reachable */
function renderChips(state, reachable) {
  const last = state.last_turn;
  setText(one("#model"), `model · ${state.model || "default"}`);
  show(one("#model"), state.is_model);
  const backend = one("#backend");
  show(backend, true);
  setText(backend, state.is_model ? state.backend_label || state.backend : "rehearsal — not a model");
  backend.className = state.is_model && !isRehearsal(state.backend) ? "chip" : "chip warn";
  chip("#context", state.context_tokens > 0 && `ctx ${count(state.context_tokens)}`);
  chip("#cost", last && lastTurn(last));
  chip("#unread", state.unread > 0 && `${state.unread} unread`);
  chip("#warm", state.is_model && state.warm && "warm");
  chip("#isolation", state.isolation && !isIsolated(state.isolation) && "not isolated");
  chip("#storing", !state.storing && "history is not stored");
  chip("#limit", reachable && told(state));
}

/** @param {import("./types.js").TurnStats} last */
function lastTurn(last) {
  const tokens = billedTokens(last);
  return [
    "last turn",
    last.duration_ms > 0 && duration(last.duration_ms),
    tokens > 0 && `${count(tokens)} tok`,
    last.cost_usd > 0 && money(last.cost_usd),
  ]
    .filter(Boolean)
    .join(" · ");
}

/** Why it waits, and until when. @param {HarnessState} state */
function told(state) {
  const until = state.badge === "rate_limited" && state.resumes_at_ms ? `goes on at ${clock(state.resumes_at_ms)}` : "";
  return [state.note, until].filter(Boolean).join(" · ");
}

/** @param {string} selector @param {string|false|null} text */
function chip(selector, text) {
  const element = one(selector);
  show(element, Boolean(text));
  if (text) setText(element, text);
}
