/** M1ND H4S QU3STI0NS: what agents ask the operator. Free text is always possible beside the options. */

import { ageOf, h, leet, one, setText, show, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";

/** @typedef {import("./types.js").QuestionView} QuestionView */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

/** @param {HiveState} state */
export function renderQuestions(state) {
  const { questions } = state;
  syncList(one("#question-list"), questions, (question) => question.id, row);
  setText(one("#questions-count"), String(questions.length));
  one("#questions").classList.toggle("pulse", questions.length > 0);
  show(one("#no-questions"), questions.length === 0);
}

/** @param {QuestionView} question */
function row(question) {
  const title = `question-${question.id}`;
  return h(
    "li",
    { class: "card question" },
    h(
      "p",
      { class: "meta" },
      h("strong", null, question.asker),
      " asks · ",
      ageOf(question.asked_at_ms, " ago"),
      ` · #${question.id}`,
      question.expires_at_ms && " ",
      question.expires_at_ms && h("span", { class: "chip warn" }, "closes ", untilOf(question.expires_at_ms)),
    ),
    h("p", { class: "question-text words", id: title }, question.question),
    h(
      "form",
      {
        "data-async": true,
        method: "post",
        action: `/answer-question/${question.id}`,
        "data-encode": "answer",
        "data-done": `Answered question ${question.id}.`,
        "aria-labelledby": title,
      },
      question.options.length > 0 && options(question, title),
      h(
        "label",
        { class: "field" },
        h("span", { class: "label" }, question.options.length > 0 ? "or in your own words" : "your answer"),
        h("textarea", { name: "free", class: "input", rows: "2", maxlength: "4000", "data-submit": "ctrl" }),
      ),
      h(
        "div",
        { class: "actions" },
        h("button", { class: "button primary", "aria-label": `Answer question ${question.id}` }, leet("▸ 4NSW3R")),
        question.multi && h("span", { class: "hint" }, "several may be chosen"),
        h("span", { class: "spacer" }),
        cancel(question),
      ),
      errorPlace(),
    ),
  );
}

/** Not answered, not waited for: the asker is told so. @param {QuestionView} question */
function cancel(question) {
  return h(
    "button",
    {
      class: "button quiet",
      formaction: `/cancel-question/${question.id}`,
      formnovalidate: true,
      "aria-label": `Cancel question ${question.id}`,
      "data-encode": "nothing",
      "data-confirm": `Close question #${question.id} without an answer? ${question.asker} is told that it was cancelled.`,
      "data-yes": "Close it",
      "data-done": `Question ${question.id} is closed.`,
    },
    leet("✕ C4NC3L"),
  );
}

/** What is said of a question that is gone without an answer, or nothing. @param {QuestionView} question */
export function closedWithout(question) {
  if (question.closed !== "expired" && question.closed !== "cancelled") return "";
  const how = question.closed === "expired" ? "has expired" : "was taken back";
  return `Question ${question.id} of ${question.asker} ${how}.`;
}

/** @param {QuestionView} question @param {string} title */
function options(question, title) {
  const type = question.multi ? "checkbox" : "radio";
  return h(
    "div",
    { class: "options", role: question.multi ? "group" : "radiogroup", "aria-labelledby": title },
    question.options.map((option) =>
      h(
        "label",
        { class: "option" },
        h("input", { type, name: "choice", value: option }),
        h("span", { class: "words" }, option),
      ),
    ),
  );
}
