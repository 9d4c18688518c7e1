/** What agents will remind themselves of: to read, and to take back. Their words, shown as text. */

import { h, leet, one, setText, show, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";

/** @typedef {import("./types.js").ReminderView} ReminderView */

/** @param {ReminderView[]} reminders */
export function renderReminders(reminders) {
  syncList(one("#reminder-list"), reminders, (reminder) => reminder.id, row);
  setText(one("#reminders-count"), String(reminders.length));
  show(one("#reminders"), reminders.length > 0);
}

/** @param {ReminderView} reminder */
function row({ id, agent, body, due_at_ms: dueMs, truncated }) {
  return h(
    "li",
    { class: "reminder" },
    h(
      "p",
      { class: "words" },
      h("span", { class: "meta" }, h("strong", null, agent), " ", untilOf(dueMs), " · "),
      body,
      truncated && " … (cut)",
    ),
    h(
      "form",
      { "data-async": true, method: "post", action: `/cancel-reminder/${id}` },
      h(
        "button",
        {
          class: "button quiet",
          "aria-label": `Cancel reminder ${id} of ${agent}`,
          "data-done": `Reminder ${id} of ${agent} is off.`,
        },
        leet("✕ C4NC3L"),
      ),
      errorPlace(),
    ),
  );
}
