/** How large an agent's conversation is: the prompt of its last inference, and what the model can take. */

import { h } from "./dom.js";
import { count } from "./text.js";

const NEARLY_FULL = 0.8; // the harness compacts at three quarters, unless it is told otherwise

/** `ctx 142k / 200k`. @param {number} tokens @param {number} most  0: not known */
export function contextWords(tokens, most) {
  return `ctx ${count(tokens)}${most > 0 ? ` / ${count(most)}` : ""}`;
}

/** @param {number} tokens @param {number} most */
export function isNearlyFull(tokens, most) {
  return most > 0 && tokens >= NEARLY_FULL * most;
}

/** Of an agent's row; nothing for a conversation that is new, or of unknown size.
 * @param {import("./types.js").AgentView} agent */
export function contextChip({ report }) {
  const { context_tokens: tokens, window_tokens: most } = report;
  if (!(tokens > 0)) return "";
  const kind = isNearlyFull(tokens, most) ? "chip warn" : "chip";
  const title = "The size of its conversation: the prompt of its last inference";
  return h("span", { class: kind, "data-key": "context", title }, contextWords(tokens, most));
}
