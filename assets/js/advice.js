/** What to do about an agent that is not well: one line in its row, in the words of somebody who was there. */

import { h } from "./dom.js";
import { clock } from "./text.js";

/** @typedef {import("./types.js").AgentView} AgentView */

/** What core does about a crash, on every page. */
export const STARTS_AGAIN = "It is started again by itself.";

/** What an empty tail says. @param {import("./types.js").HarnessState|null} state */
export function whyEmpty(state) {
  if (state?.badge !== "rate_limited")
    return "Nothing happened yet. Write below: your message wakes the agent, and its turn shows here as it goes.";
  const until = state.resumes_at_ms ? `It goes on by itself at ${clock(state.resumes_at_ms)}` : "It tries again by itself";
  return `Nothing to show: its model's limit is reached. ${until}; what you write waits in its inbox until then.`;
}

/** What to do about an agent that is not up. @param {AgentView} agent */
export function whyAsleep({ state, note }) {
  const inbox = "What you write meanwhile waits in its inbox.";
  if (state === "crashed")
    return `has crashed${note && `: ${note}`}. ${STARTS_AGAIN} Press ▶ ST4RT above to try at once. ${inbox}`;
  if (state === "stopped") return `is stopped. Press ▶ ST4RT above to wake it. ${inbox}`;
  return `is ${state}. This page connects as soon as it is up.`;
}

/** @param {AgentView} agent */
export function adviceOf(agent) {
  const { status } = agent;
  if (status === "crashed") return `${STARTS_AGAIN} If it keeps crashing, L0GS tells why; R3BU1LD repairs.`;
  if (status === "stopped") return agent.unread > 0 ? "Its inbox keeps filling. ▶ ST4RT lets it read." : "";
  if (status === "offline")
    return "Its container runs, but its harness does not answer. Wait a moment; then L0GS tells why and ↺ R3ST4RT helps.";
  if (status === "needs_login") return "It cannot think until it is logged in. Messages wait in its inbox.";
  if (status === "waiting_for_limit")
    return agent.status_until_ms
      ? `Its model's limit is reached. It goes on by itself at ${clock(agent.status_until_ms)}; messages wait.`
      : "Its model's limit is reached. It tries again by itself; messages wait in its inbox.";
  if (status === "parked") {
    const until = agent.status_until_ms ? ` It goes on by itself at ${clock(agent.status_until_ms)}.` : "";
    return `Held back: ${agent.status_note}.${until} What waits for you above has the decision.`;
  }
  return "";
}

/** @param {AgentView} agent */
export function adviceLine(agent) {
  const words = adviceOf(agent);
  return words !== "" && h("p", { class: "advice", "data-key": "advice" }, words);
}
