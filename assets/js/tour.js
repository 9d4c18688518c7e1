/**
 * The first visit: what to click first. Each step ticks itself off when it was done, whoever did it and however.
 * It opens by itself in an empty hive, can be put away for good, and called back from the foot of the page.
 */

import { nameHere } from "./api.js";
import { h, one, setText, show } from "./dom.js";
import { syncList } from "./morph.js";

/** @typedef {import("./hive_state.js").HiveState} HiveState */
/** `to`: a selector of what to look at. @typedef {{name: string, title: string, words: string, to: string, go: string,
 *   done: (state: HiveState) => boolean}} Step */

const KEPT_AS = nameHere("hive.tour"); // "away" once it was put away, "open" while it was called back
const VISITED = nameHere("hive.tour.visited");
const MANAGER = "hm1nd";

/** @type {Step[]} */
const STEPS = [
  {
    name: "manager",
    title: "Meet the manager",
    words: "hm1nd runs the hive for you. When its row says idle, it listens.",
    to: "#containers",
    go: "show me",
    done: (state) => state.agents.some((agent) => agent.role === "manager" && agent.status === "idle"),
  },
  {
    name: "hello",
    title: "Say what you want",
    words: "Write to hm1nd in plain words. Its answer arrives in your inbox.",
    to: "#compose textarea",
    go: "write",
    done: (state) => state.messages.some((message) => message.sender === "operator"),
  },
  {
    name: "spawn",
    title: "Ask for a first agent",
    words: "Give it a short name and press R3QU3ST SP4WN. The manager may ask for agents, too.",
    to: "#spawn-name",
    go: "name it",
    done: (state) => state.approvals.length > 0 || others(state),
  },
  {
    name: "approve",
    title: "Say yes",
    words: "Nothing joins or changes without you: press ◆ APPR0VE, and watch it being built.",
    to: "#approvals",
    go: "show me",
    done: others,
  },
  {
    name: "page",
    title: "Look over its shoulder",
    words: "An agent's name leads to its own page: all it reads, thinks and runs, as it happens.",
    to: "#container-list .agent-name",
    go: "show me",
    done: (state) => others(state) && Boolean(localStorage.getItem(VISITED)),
  },
];

/** @param {HiveState} state */
function others(state) {
  return state.agents.some((agent) => agent.name !== MANAGER) || state.tombstones.length > 0;
}

/** @param {HiveState} state */
function isEmpty(state) {
  return !others(state) && !state.messages.some((message) => message.sender === "operator");
}

let opened = false;
/** @type {HiveState|null} */
let shown = null;

/** @param {HiveState} state */
export function renderTour(state) {
  shown = state;
  const kept = localStorage.getItem(KEPT_AS);
  if (!opened && kept !== "away" && (kept === "open" || isEmpty(state))) opened = true;
  show(one("#tour"), opened);
  if (!opened) return;
  localStorage.setItem(KEPT_AS, "open"); // it stays until it is put away, though the hive is empty no more
  const left = STEPS.filter((step) => !step.done(state));
  const items = STEPS.map((step) => `${step.name} ${step.done(state) ? "done" : step === left[0] ? "now" : "later"}`);
  syncList(
    one("#tour-steps"),
    items,
    (item) => item.split(" ")[0],
    (item) => row(item),
  );
  setText(one("#tour-count"), left.length === 0 ? "that is all" : `${STEPS.length - left.length} of ${STEPS.length}`);
}

/** @param {string} item */
function row(item) {
  const [name, when] = item.split(" ");
  const step = /** @type {Step} */ (STEPS.find((each) => each.name === name));
  return h(
    "li",
    { class: `tour-step tour-${when}`, "aria-current": when === "now" ? "step" : null },
    h("span", { class: "tour-mark", "aria-hidden": "true" }, when === "done" ? "✓" : "○"),
    h("span", { class: "sr" }, when === "done" ? "done: " : ""),
    h("strong", null, step.title),
    h("span", { class: "tour-words" }, step.words),
    when !== "done" &&
      h(
        "button",
        {
          type: "button",
          class: when === "now" ? "button primary" : "button quiet",
          "data-tour": step.to,
          "aria-label": `${step.title}: ${step.go}`,
        },
        `${step.go} →`,
      ),
  );
}

/** @param {string} selector */
function lead(selector) {
  const target = document.querySelector(selector);
  if (!(target instanceof HTMLElement)) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
  if (!target.matches("a, button, input, textarea, select")) target.tabIndex = -1;
  target.focus({ preventScroll: true });
  if (!still) target.animate([{ outline: "3px solid currentColor" }, { outline: "3px solid transparent" }], 1600);
}

export function takeTour() {
  one("#tour-steps").addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-tour]") : null;
    if (button instanceof HTMLElement) lead(button.dataset.tour ?? "");
  });
  one("#tour-close").addEventListener("click", () => {
    localStorage.setItem(KEPT_AS, "away");
    opened = false;
    if (shown) renderTour(shown);
    one("#tour-again").focus();
  });
  one("#tour-again").addEventListener("click", () => {
    localStorage.setItem(KEPT_AS, "open");
    if (shown) renderTour(shown);
    one("#tour-title").focus();
  });
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("#container-list a.agent-name") : null;
    if (link) localStorage.setItem(VISITED, "yes");
  });
}
