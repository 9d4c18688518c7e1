/** RUL3S: what the operator lets an agent do without asking or forbids it, in the panel; one more, one less. */

import { getJson } from "./api.js";
import { actorOf } from "./activity.js";
import { ageOf, h, leet, one, setText } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";
import { configuredCard } from "./rules_configured.js";
import { plural } from "./text.js";

/** @typedef {import("./types.js").PermissionRuleView} PermissionRuleView */
/** @typedef {import("./types.js").ConfiguredRules} ConfiguredRules */

const EVERYTHING = "*";

/** @param {string} agent @returns {Promise<() => void>} */
export async function readRules(agent) {
  /** @type {{rules: PermissionRuleView[], configured: ConfiguredRules}} */
  const { rules, configured } = await getJson(`/api/agents/${encodeURIComponent(agent)}/rules`);
  return () => {
    setText(one("#panel-status"), counted(rules.length, configured.rules.length));
    draw(agent, rules, configured);
  };
}

/** @param {number} made @param {number} configured */
function counted(made, configured) {
  if (configured === 0) return made > 0 ? plural(made, "rule") : "no rules";
  return `${made} of yours, ${configured} of agent.nix`;
}

/** @param {PermissionRuleView} rule */
const isBypass = ({ decision, rule }) => decision === "allow" && rule === EVERYTHING;

/** @param {string} agent @param {PermissionRuleView[]} rules @param {ConfiguredRules} configured */
function draw(agent, rules, configured) {
  const add = { id: `add-${agent}`, row: () => h("li", { class: "card" }, addForm(agent, rules.some(isBypass))) };
  const none = { id: "none", row: () => h("li", { class: "empty" }, `You have made no rules for ${agent}.`) };
  const made = rules.map((rule) => ({ id: rule.id, row: () => rowOf(rule) }));
  syncList(
    one("#panel-history"),
    [add, ...(made.length > 0 ? made : [none]), { id: "configured", row: () => configuredCard(configured) }],
    (each) => each.id,
    (each) => each.row(),
  );
}

/** @param {string} agent @param {boolean} bypassed */
function addForm(agent, bypassed) {
  return h(
    "form",
    {
      "data-async": true,
      "data-reset": true,
      "data-key": "add",
      method: "post",
      action: `/add-permission-rule/${encodeURIComponent(agent)}`,
      class: "rule-form",
      "aria-label": `Add a rule for ${agent}`,
    },
    h(
      "label",
      { class: "field" },
      h("span", { class: "label" }, "from now on"),
      h("select", { name: "decision", class: "input" }, h("option", { value: "allow" }, "allow"), h("option", { value: "deny" }, "deny")),
    ),
    h(
      "label",
      { class: "field grow" },
      h("span", { class: "label" }, "tool or tool(pattern)"),
      h("input", {
        name: "rule",
        class: "input",
        required: true,
        maxlength: "2000",
        autocomplete: "off",
        autocapitalize: "none",
        spellcheck: "false",
        placeholder: "Bash(git *)",
      }),
    ),
    h("button", { class: "button primary", "aria-label": "Add the rule", "data-done": "The rule holds." }, leet("⊕ 4DD")),
    !bypassed && bypassButton(agent),
    errorPlace(),
    h(
      "p",
      { class: "hint" },
      "Such as Read, Edit(/state/*), WebFetch(domain:example.org), mcp__server__tool. Your rules and those of its ",
      "agent.nix hold together: denied beats allowed, and allowed beats asked, whoever made the rule. Rules guide ",
      "an agent; what it can reach is up to its container.",
    ),
  );
}

/** Allows everything, which nobody does by the way. @param {string} agent */
function bypassButton(agent) {
  return h(
    "button",
    {
      class: "button danger quiet",
      formaction: `/bypass-permissions/${encodeURIComponent(agent)}`,
      formnovalidate: true,
      "aria-label": `Bypass: let ${agent} use every tool without asking`,
      "data-confirm": `Let ${agent} use every tool that it has without asking? What is denied stays denied.`,
      "data-yes": "Allow everything",
      "data-danger": true,
      "data-done": `${agent} asks for nothing any more.`,
    },
    leet("BYP4SS"),
  );
}

/** @param {PermissionRuleView} rule */
function rowOf(rule) {
  const { id, agent, decision, session, made_at_ms: at, made_by: by } = rule;
  const allows = decision === "allow";
  return h(
    "li",
    { class: `card ${isBypass(rule) ? "tone-warn" : allows ? "tone-idle" : "tone-bad"}` },
    h(
      "div",
      { class: "line" },
      h("span", { class: allows && !isBypass(rule) ? "chip ok" : "chip bad", "data-key": "decision" }, decision),
      h("code", { class: "words rule-text" }, isBypass(rule) ? "everything: bypass" : rule.rule),
      session && h("span", { class: "chip", "data-key": "session" }, "until its conversation ends"),
    ),
    h(
      "form",
      { "data-async": true, method: "post", action: `/remove-permission-rule/${id}`, class: "line", "data-key": "remove" },
      h("span", { class: "hint" }, `#${id} · made `, ageOf(at, " ago"), ` by ${actorOf(by, "")}`),
      h("span", { class: "spacer" }),
      h(
        "button",
        {
          class: "button quiet",
          "aria-label": `Remove rule ${id}: ${decision} ${rule.rule}`,
          "data-done": `Rule ${id} is gone.`,
          "data-confirm": !allows && `From now on this is not denied to ${agent} any more: ${rule.rule}`,
          "data-yes": "Remove the rule",
        },
        leet("✕ R3M0V3"),
      ),
      errorPlace(),
    ),
  );
}
