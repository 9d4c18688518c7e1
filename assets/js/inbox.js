/** 0PER4T0R 1NB0X: what agents wrote to the operator, answered in place; and writing to any agent. */

import { nameHere } from "./api.js";
import { h, leet, one, setText, show } from "./dom.js";
import { errorPlace } from "./forms.js";
import { bodyOf, metaOf } from "./messages.js";
import { syncList } from "./morph.js";
import { inThreads, threadLine } from "./thread.js";

/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

const SEEN_NAME = nameHere("hive.inbox.seen"); // id of the newest message that was on screen
const LOOK_MS = 1500;
const SHORT_LIST = 8;

let newest = 0;
let markedFrom = seen(); // messages after this one are marked new until the page is looked at afresh
let whole = false;
/** @type {HiveState|null} */
let shown = null;

function seen() {
  return Number(localStorage.getItem(SEEN_NAME) ?? 0) || 0;
}

/** @param {HiveState} state */
export function renderInbox(state) {
  shown = state;
  const { inbox } = state;
  newest = inbox[0]?.id ?? 0;
  const fresh = inbox.filter((message) => message.id > seen()).length;
  const entries = inThreads(whole ? inbox : inbox.slice(0, SHORT_LIST), state.messages);
  syncList(one("#inbox-list"), entries, (entry) => entry.message.id, row);
  setText(one("#inbox-count"), fresh > 0 ? `${fresh} new` : String(inbox.length));
  one("#inbox-count").classList.toggle("hot", fresh > 0);
  show(one("#no-inbox"), inbox.length === 0);
  const more = one("#inbox-more");
  show(more, inbox.length > SHORT_LIST);
  setText(more, whole ? "show fewer" : `show all ${inbox.length}`);
  more.setAttribute("aria-expanded", String(whole));
  renderRecipients(state);
}

/** How many messages came since the operator last looked. @param {HiveState} state */
export function unseen(state) {
  return state.inbox.filter((message) => message.id > seen()).length;
}

/** @param {HiveState} state */
export function renderRecipients(state) {
  const names = [
    ...(state.agents.length === 0 ? [""] : []),
    ...state.agents.map((agent) => agent.name),
    ...(state.agents.length > 1 ? ["*"] : []),
  ];
  const label = (/** @type {string} */ name) => (name === "" ? "choose…" : name === "*" ? "* everyone" : name);
  syncList(
    one("#compose-to"),
    names,
    (name) => name || "none",
    (name) => h("option", { value: name }, label(name)),
  );
}

/** @param {import("./thread.js").Entry} entry */
function row(entry) {
  const { message } = entry;
  const answerable = message.sender !== "system" && message.sender !== "operator";
  return h(
    "li",
    { class: message.id > markedFrom ? "message fresh" : "message" },
    metaOf(message),
    threadLine(entry),
    bodyOf(message.body),
    answerable &&
      h(
        "details",
        { class: "reply", "data-key": "reply" },
        h("summary", { "aria-label": `Reply to ${message.sender}` }, leet("↩ R3PLY")),
        h(
          "form",
          {
            "data-async": true,
            method: "post",
            action: "/send",
            "data-reset": true,
            "data-reply": true,
            "data-done": `Sent to ${message.sender}.`,
          },
          h("input", { type: "hidden", name: "to", value: message.sender }),
          h("input", { type: "hidden", name: "in_reply_to", value: message.id }),
          h(
            "label",
            { class: "field" },
            h("span", { class: "sr" }, `Reply to ${message.sender}`),
            h("textarea", {
              name: "body",
              class: "input",
              rows: "2",
              required: true,
              "data-submit": "ctrl",
              placeholder: `to ${message.sender}…`,
            }),
          ),
          h(
            "div",
            { class: "actions" },
            h("button", { class: "button primary", "aria-label": "Send reply" }, leet("▸ S3ND")),
            h("span", { class: "hint keys" }, "Ctrl+Enter"),
          ),
          errorPlace(),
        ),
      ),
  );
}

/** @param {() => void} changed  called when messages count as seen */
export function watchInbox(changed) {
  let timer = 0;
  let visible = false;
  const look = () => {
    clearTimeout(timer);
    if (!visible || document.hidden) return;
    timer = window.setTimeout(() => {
      if (newest <= seen()) return;
      localStorage.setItem(SEEN_NAME, String(newest));
      changed();
    }, LOOK_MS);
  };
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    look();
  }).observe(one("#inbox-list"));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) markedFrom = seen();
    look();
  });
  one("#inbox-more").addEventListener("click", () => {
    whole = !whole;
    if (shown) renderInbox(shown);
  });
  one("#inbox-list").addEventListener("hive:done", (event) => {
    const details = event.target instanceof Element ? event.target.closest("details") : null;
    if (details) details.open = false;
  });
  return look;
}
