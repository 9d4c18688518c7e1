/** What agents have asked each other and is still open: under the questions to the operator, folded. */

import { ageOf, h, leet, one, setText, show, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { who } from "./messages.js";
import { syncList } from "./morph.js";
import { plural } from "./text.js";

/** @typedef {import("./types.js").QuestionView} QuestionView */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

/** @param {HiveState} state */
export function renderAsks(state) {
  const { asks } = state;
  syncList(one("#ask-list"), asks, (ask) => ask.id, row);
  setText(one("#asks-summary"), `${plural(asks.length, "open question")} between agents`);
  show(one("#asks"), asks.length > 0);
}

/** @param {QuestionView} ask */
function row(ask) {
  return h(
    "li",
    { class: "ask-row" },
    h(
      "p",
      { class: "meta" },
      who(ask.asker),
      " asks ",
      who(ask.answerer),
      " · ",
      ageOf(ask.asked_at_ms, " ago"),
      ` · #${ask.id}`,
      ask.expires_at_ms && " ",
      ask.expires_at_ms && h("span", { class: "chip" }, "closes ", untilOf(ask.expires_at_ms)),
    ),
    h("p", { class: "words" }, ask.question),
    h(
      "form",
      {
        "data-async": true,
        method: "post",
        action: `/cancel-question/${ask.id}`,
        "data-confirm": `Close question ${ask.id} without an answer? ${ask.asker} is told that it was cancelled.`,
        "data-yes": "Close it",
        "data-done": `Question ${ask.id} is closed.`,
      },
      h(
        "div",
        { class: "actions" },
        h(
          "button",
          {
            type: "button",
            class: "button quiet",
            "data-action": "thread",
            "data-message": ask.message_id ?? 0,
            "aria-label": `Thread of question ${ask.id}`,
          },
          leet("↩ THR34D"),
        ),
        h("button", { class: "button quiet", "aria-label": `Cancel question ${ask.id}` }, leet("✕ C4NC3L")),
      ),
      errorPlace(),
    ),
  );
}
