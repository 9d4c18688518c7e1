/**
 * The chips below an agent's name. Context and cost are kept apart: the one is the size of the last prompt,
 * the other what was billed, for the last turn and since the agent began.
 */

import { isIsolated, isRehearsal } from "./agent_words.js";
import { tellBudget } from "./budgets.js";
import { contextWords, isNearlyFull } from "./context_size.js";
import { one, setText, show, untilOf } from "./dom.js";
import { billedTokens } from "./transcript.js";
import { clock, count, duration, money } from "./text.js";

/** @typedef {import("./types.js").HarnessState} HarnessState */
/** @typedef {{contextTokens: number, windowTokens: number}} Context */

/** @param {HarnessState} state @param {boolean} reachable @param {Context} [context] as the events told last */
export function renderChips(state, reachable, context) {
  setText(one("#model"), `model · ${state.model || "default"}`);
  show(one("#model"), state.is_model);
  const backend = one("#backend");
  show(backend, true);
  setText(backend, state.is_model ? state.backend_label || state.backend : "rehearsal — not a model");
  backend.title = cannot(state);
  if (backend.title && state.is_model) backend.append(` · ${backend.title}`);
  backend.className = state.is_model && !isRehearsal(state.backend) ? "chip" : "chip warn";
  renderContext(context?.contextTokens || state.context_tokens, state.window_tokens || (context?.windowTokens ?? 0));
  chip("#cost", state.last_turn && lastTurn(state.last_turn));
  chip("#total", inAll(state));
  chip("#unread", state.unread > 0 && `${state.unread} unread`);
  chip("#warm", reachable && state.is_model && state.warm && "warm");
  chip("#isolation", state.isolation && !isIsolated(state.isolation) && "not isolated");
  chip("#storing", !state.storing && "history is not stored");
  chip("#limit", reachable && told(state));
  const resumes = reachable && state.badge === "rate_limited" ? state.resumes_at_ms : null;
  if (resumes) one("#limit").append(" · ", untilOf(resumes));
}

/** What core says of the agent, beside what its harness tells. @param {import("./types.js").AgentView} agent */
export function renderCoreChips({ budget, bypass }) {
  const told = budget && tellBudget(budget);
  chip("#budget", told && told.text);
  if (told) {
    one("#budget").title = told.title;
    one("#budget").className = told.look;
  }
  chip("#bypass", bypass && "bypass");
}

/** What this backend cannot do, in a few words. @param {HarnessState} state */
function cannot(state) {
  if (!state.capabilities || !state.is_model) return "";
  const { login, compact, models, cost } = state.capabilities;
  const missing = [!login && "login here", !compact && "compacting on demand", !models && "list of models", !cost && "costs"];
  const words = missing.filter(Boolean).join(", ");
  return words && `no ${words}`;
}

/** Chips of a harness that is silent are old, and say since when. @param {number} heardAtMs 0: it answers */
export function renderAsOf(heardAtMs) {
  chip("#as-of", heardAtMs > 0 && `as of ${clock(heardAtMs)}`);
  document.body.classList.toggle("harness-away", heardAtMs > 0);
}

/** @param {number} tokens @param {number} most */
function renderContext(tokens, most) {
  const element = one("#context");
  const share = most > 0 ? Math.min(1, tokens / most) : 0;
  const percent = most > 0 ? ` · ${Math.round(share * 100)} %` : "";
  chip("#context", tokens > 0 && `${contextWords(tokens, most)}${percent}`);
  element.classList.toggle("warn", isNearlyFull(tokens, most));
  element.classList.toggle("filling", most > 0);
  element.style.setProperty("--share", `${Math.round(share * 100)}%`);
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

/** @param {HarnessState} state */
function inAll({ totals }) {
  if (!totals || totals.turns < 2) return "";
  const cost = totals.cost_usd > 0 ? money(totals.cost_usd) : `${count(totals.tokens)} tok`;
  return `total · ${count(totals.turns)} turns · ${cost}`;
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
