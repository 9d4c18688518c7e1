/** What an agent's approved agent.nix says of its tools: to be read; only a commit changes it. */

import { h } from "./dom.js";
import { duration } from "./text.js";

/** @typedef {import("./types.js").ConfiguredRule} ConfiguredRule */
/** @typedef {import("./types.js").ConfiguredRules} ConfiguredRules */

/** @param {ConfiguredRules} configured */
export function configuredCard(configured) {
  const { rules, problem } = configured;
  return h(
    "li",
    { class: "card", "aria-label": "Rules of its agent.nix" },
    h(
      "p",
      { class: "meta", "data-key": "whose" },
      h("span", { class: "chip" }, "agent.nix"),
      problem ? " could not be read: " : " as you approved it; a new commit changes it.",
      problem,
    ),
    !problem && rules.map(line),
    !problem && otherwise(configured),
  );
}

/** @param {ConfiguredRule} rule */
function line({ decision, rule, option }) {
  return h(
    "div",
    { class: "line", "data-key": `${decision} ${rule} ${option}` },
    h("span", { class: decision === "allow" ? "chip ok" : "chip bad" }, decision),
    h("code", { class: "words rule-text" }, rule),
    h("span", { class: "hint" }, option),
  );
}

/** What becomes of a call that no rule names, of these and of the operator's. @param {ConfiguredRules} configured */
function otherwise({ rules, is_policy: isPolicy, default: what, ask_timeout_seconds: seconds }) {
  return h(
    "p",
    { class: "hint", "data-key": "otherwise" },
    !isPolicy && rules.length === 0 && "It names no tools: those that are usual are allowed. ",
    what === "ask" ? "You are asked about every other call" : "Every other call is denied",
    seconds !== null && `; without an answer in ${duration(seconds * 1000)} it is denied`,
    isPolicy ? "." : ", and you are not asked: it has no policy (hyperhive.permissions).",
  );
}
