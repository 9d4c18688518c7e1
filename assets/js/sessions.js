/** The browsers that are logged in, and the end of each. */

import { ageOf, h, leet, one, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";
import { shorten } from "./text.js";

/** @typedef {import("./types.js").SessionView} SessionView */

/** @param {SessionView[]} sessions @param {string} current the session of this browser */
export function showSessions(sessions, current) {
  syncList(
    one("#panel-history"),
    [...sessions, null],
    (each) => each?.id ?? "all",
    (each) => (each ? row(each, each.id === current) : everyone()),
  );
}

/** @param {SessionView} session @param {boolean} ours */
function row({ id, created_at_ms: created, last_seen_ms: seen, ends_at_ms: ends, client }, ours) {
  return h(
    "li",
    { class: ours ? "card tone-idle" : "card" },
    h(
      "div",
      { class: "line" },
      h("code", null, id),
      ours && h("span", { class: "chip ok", "data-key": "ours" }, "this browser"),
      h("span", { class: "hint" }, "logged in ", ageOf(created, " ago")),
      h("span", { class: "hint" }, "used ", ageOf(seen, " ago")),
      h("span", { class: "hint" }, "ends ", untilOf(ends)),
    ),
    h("p", { class: "body words" }, client ? shorten(client, 200) : "(a browser that did not say its name)"),
    ending(
      `/end-session/${encodeURIComponent(id)}`,
      {
        label: `Log out session ${id}`,
        question: ours ? "Log this browser out?" : `Log out the browser of session ${id}?`,
        yes: "Log out",
      },
      "L0G 0UT",
    ),
  );
}

function everyone() {
  return h(
    "li",
    { class: "line" },
    ending(
      "/logout-all",
      {
        label: "Log out all browsers",
        question: "Log out all browsers, this one too, and void the logins that were not used yet?",
        yes: "Log out all",
      },
      "L0G 0UT 4LL",
    ),
  );
}

/** @param {string} action @param {{label: string, question: string, yes: string}} words @param {string} shown */
function ending(action, { label, question, yes }, shown) {
  return h(
    "form",
    { "data-async": true, method: "post", action, "data-key": "end" },
    h(
      "button",
      {
        class: "button warn",
        "aria-label": label,
        "data-confirm": question,
        "data-yes": yes,
        "data-done": "Logged out.",
      },
      leet(shown),
    ),
    errorPlace(),
  );
}
