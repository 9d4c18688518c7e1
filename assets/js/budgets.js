/** What agents may use in a day: the chip of a row, the answers to one that is stopped, and the form on its stats. */

import { ageOf, h, leet, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { money } from "./text.js";

/** @typedef {import("./types.js").BudgetView} BudgetView */
/** @typedef {import("./types.js").BudgetAmount} BudgetAmount */
/** @typedef {import("./types.js").WaitingEntry} WaitingEntry */

const MICRO = 1_000_000;
const NEAR = 0.8;

/** What is limited, and how it is told. @type {["turns"|"tokens"|"microdollars", (amount: number) => string, string][]} */
const KINDS = [
  ["turns", (amount) => amount.toLocaleString("en"), " turns"],
  ["tokens", short, " tokens"],
  ["microdollars", (amount) => (amount === 0 ? "$0" : money(amount / MICRO)), ""],
];

/** 1200000 as 1.2M. @param {number} amount */
function short(amount) {
  return amount.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
}

/** The limit that is nearest, in a chip's words, with all of them. @param {BudgetView} budget */
export function tellBudget(budget) {
  const limited = KINDS.filter(([kind]) => budget[kind].limit > 0);
  const [kind, tell, unit] = limited.reduce((nearest, each) =>
    share(budget[each[0]]) > share(budget[nearest[0]]) ? each : nearest,
  );
  const near = share(budget[kind]) >= NEAR;
  const words = limited.map(([each, telling, of]) => used(budget[each], telling, of)).join(", ");
  return {
    text: (budget.stopped ? "budget used up: " : "") + used(budget[kind], tell, unit),
    title: `Today ${words}; the day ends at ${budget.day_ends}`,
    look: `chip ${budget.stopped ? "bad" : near ? "warn" : ""}`.trim(),
  };
}

/** The limit that is nearest, for a row. @param {{name: string, budget: BudgetView|null}} agent */
export function budgetChip({ name, budget }) {
  if (!budget) return null;
  const { text, title, look } = tellBudget(budget);
  return h("span", { class: look, "data-key": "budget", id: `budget-chip-${name}`, title }, text);
}

/** @param {BudgetAmount} amount */
function share(amount) {
  return amount.limit > 0 ? amount.used / amount.limit : 0;
}

/** @param {BudgetAmount} amount @param {(amount: number) => string} tell @param {string} unit */
function used(amount, tell, unit) {
  return amount.limit > 0 ? `${tell(amount.used)} / ${tell(amount.limit)}${unit}` : `${tell(amount.used)}${unit}`;
}

/** What the operator can say to one that waits. @param {WaitingEntry} entry */
export function budgetAnswers(entry) {
  return h(
    "form",
    {
      "data-async": true,
      method: "post",
      action: `/answer-budget/${encodeURIComponent(entry.id)}`,
      class: "waiting-answers actions",
      "data-key": "answers",
      "aria-label": `The budget of ${entry.id}`,
    },
    answer(entry, "again", "▸ 4S MUCH 4G41N", "As much again today", "primary"),
    answer(entry, "one_turn", "0N3 M0R3 TURN", "One more turn", ""),
    answer(entry, "wait", "L3T 1T W41T", "Let it wait", "quiet"),
    errorPlace(),
  );
}

/** @param {WaitingEntry} entry @param {string} value @param {string} face @param {string} words @param {string} look */
function answer(entry, value, face, words, look) {
  return h(
    "button",
    {
      class: `button ${look}`.trim(),
      name: "answer",
      value,
      "aria-label": `${words}: ${entry.id}`,
      "data-done": `${entry.id}: ${words.toLowerCase()}.`,
    },
    leet(face),
  );
}

/** Today's use and the form for other limits, on an agent's stats. @param {BudgetView} budget */
export function budgetPanel(budget) {
  return [
    h(
      "p",
      { "data-key": "state", class: "hint" },
      `the day ends at ${budget.day_ends}, `,
      untilOf(budget.day_ends_at_ms),
    ),
    budget.stopped &&
      h(
        "p",
        { "data-key": "stopped", class: "warning" },
        "Used up: its messages wait. It was handed the last one ",
        ageOf(budget.since_ms, " ago"),
        ".",
      ),
    h(
      "form",
      {
        "data-async": true,
        "data-reset": true,
        "data-key": "form",
        method: "post",
        action: `/set-budget/${encodeURIComponent(budget.agent)}`,
        class: "budget-form",
      },
      ...KINDS.map(([kind, tell, unit]) => limitField(kind, tell, unit, budget[kind])),
      h(
        "div",
        { class: "actions" },
        h(
          "button",
          { class: "button primary", "data-done": "The limits are set.", "aria-label": "Set these limits" },
          leet("▸ S3T"),
        ),
        h(
          "button",
          {
            class: "button quiet",
            name: "default",
            value: "true",
            "data-done": "The defaults hold.",
            "aria-label": "Back to the default limits",
          },
          leet("D3F4ULT"),
        ),
      ),
      errorPlace(),
    ),
  ];
}

/** @param {string} kind @param {(amount: number) => string} tell @param {string} unit @param {BudgetAmount} amount */
function limitField(kind, tell, unit, amount) {
  const name = kind === "microdollars" ? "dollars" : kind;
  const whose = amount.limit === 0 ? "no limit" : amount.own ? "its own" : "the default";
  return h(
    "label",
    { class: "field", "data-key": kind },
    h("span", { class: "label" }, `${name} in a day: ${used(amount, tell, unit)} (${whose})`),
    h("input", {
      class: "input",
      name,
      inputmode: "decimal",
      autocomplete: "off",
      maxlength: "20",
      placeholder: "as it is; 0 for no limit",
    }),
  );
}
