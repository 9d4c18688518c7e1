/** Threads: what a message answers, said in its row, and the whole thread in the side panel, in order. */

import { h, one } from "./dom.js";
import { bodyOf, metaOf, systemBody } from "./messages.js";
import { syncList } from "./morph.js";
import { headline, plural } from "./text.js";

/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./types.js").MessageThread} MessageThread */

/** A message with what is known of its thread; the same object for as long as that is the same.
 * @typedef {{message: Message, above: Message|undefined, answers: number}} Entry */

const QUOTED_CHARACTERS = 90;
const DEPTH_MAX = 5; // steps that are indented

/** @type {WeakMap<Message, Entry>} */
const entries = new WeakMap();
/** Ids of what the panel shows. @type {Set<number>} */
let shown = new Set();

/** @param {Message[]} messages what to show @param {Message[]} known where to look for what they answer
 * @returns {Entry[]} */
export function inThreads(messages, known) {
  /** @type {Map<number, Message>} */
  const byId = new Map();
  /** @type {Map<number, number>} */
  const answers = new Map();
  for (const message of known) {
    byId.set(message.id, message);
    const above = message.in_reply_to;
    if (above !== null) answers.set(above, (answers.get(above) ?? 0) + 1);
  }
  return messages.map((message) => {
    const above = message.in_reply_to === null ? undefined : byId.get(message.in_reply_to);
    const fresh = { message, above, answers: answers.get(message.id) ?? 0 };
    const old = entries.get(message);
    if (old && old.above === fresh.above && old.answers === fresh.answers) return old;
    entries.set(message, fresh);
    return fresh;
  });
}

/** What a message answers and how often it was answered, as far as the page knows; both lead to the thread.
 * @param {Entry} entry */
export function threadLine({ message, above, answers }) {
  const { in_reply_to: number } = message;
  if (number === null && answers === 0) return null;
  return h(
    "p",
    { class: "thread-line" },
    number !== null && opening(number, `↩ ${quoted(number, above)}`, "Show the thread: answers"),
    answers > 0 && opening(message.id, `↪ ${plural(answers, "answer")}`, "Show the thread:"),
  );
}

/** @param {number} number @param {string} text @param {string} what */
function opening(number, text, what) {
  const label = `${what} ${text.slice(2)}`;
  return h(
    "button",
    { type: "button", class: "thread-go words", "data-action": "thread", "data-message": number, "aria-label": label },
    text,
  );
}

/** @param {number} number @param {Message|undefined} above */
function quoted(number, above) {
  if (!above) return `#${number}`;
  return `${above.sender}: ${headline(above.body, QUOTED_CHARACTERS)}`;
}

/** Draws a thread, with the message that was asked for marked and in sight.
 * @param {number} of @param {MessageThread} thread */
export function showThread(of, { messages, cut }) {
  const list = one("#panel-history");
  const depth = depths(messages);
  shown = new Set(messages.map((message) => message.id));
  list.replaceChildren();
  syncList(
    list,
    inThreads(messages, messages),
    (entry) => entry.message.id,
    (entry) => row(entry, depth.get(entry.message.id) ?? 0, entry.message.id === of),
  );
  if (cut) {
    const words = "The thread is longer than this. Open another of its messages to see more of it.";
    list.append(h("li", { class: "empty", "data-key": "cut" }, words));
  }
  list.querySelector("[aria-current]")?.scrollIntoView({ block: "center" });
}

/** @param {Entry} entry @param {number} depth @param {boolean} current */
function row(entry, depth, current) {
  const { message } = entry;
  return h(
    "li",
    { class: `message thread-row depth-${Math.min(depth, DEPTH_MAX)}`, "aria-current": current && "true" },
    metaOf(message),
    depth > 1 && threadLine({ ...entry, answers: 0 }),
    message.sender === "system" ? systemBody(message.body) : bodyOf(message.body),
  );
}

/** How many steps each is below the first. @param {Message[]} messages */
function depths(messages) {
  /** @type {Map<number, number>} */
  const depth = new Map();
  for (const { id, in_reply_to: above } of messages) {
    const from = above === null ? undefined : depth.get(above);
    depth.set(id, from === undefined ? 0 : from + 1);
  }
  return depth;
}

/** Whether a new message belongs to the thread that was drawn last. @param {Message} message */
export function continuesThread(message) {
  return message.in_reply_to !== null && shown.has(message.in_reply_to);
}
