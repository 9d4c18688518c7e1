/** How a message looks, in the inbox and in the flow. */

import { ageOf, h } from "./dom.js";
import { clock, headline, lineCount, shorten } from "./text.js";

/** @typedef {import("./types.js").Message} Message */

const FLAT_LINES = 8;
const FLAT_CHARACTERS = 800;

/** A stable colour class per name, so that who speaks is seen at a glance. @param {string} name */
export function hueOf(name) {
  if (name === "operator" || name === "system" || name === "hm1nd") return `who who-${name}`;
  let hash = 0;
  for (const character of name) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 0;
  return `who who-${hash % 6}`;
}

/** @param {string} name */
export function who(name) {
  return h("span", { class: hueOf(name) }, name);
}

/** The body as text; a long one is folded behind its headline. @param {string} body */
export function bodyOf(body) {
  const lines = lineCount(body);
  if (lines <= FLAT_LINES && body.length <= FLAT_CHARACTERS) return h("p", { class: "body words" }, body);
  const summary = h(
    "summary",
    null,
    h("span", { class: "words" }, headline(body, 140)),
    h("span", { class: "hint" }, ` · ${lines} lines`),
  );
  return h("details", { class: "fold", "data-key": "body" }, summary, h("p", { class: "body words" }, body));
}

/** A `system` body is one helper event as JSON: told as a short line, with the JSON behind it.
 * @param {string} body */
export function systemBody(body) {
  const event = parseEvent(body);
  if (!event) return bodyOf(body);
  const rest = Object.entries(event)
    .filter(([name, value]) => name !== "event" && value !== "" && value !== null)
    .map(([name, value]) => `${name} ${shorten(String(value), 120)}`);
  return h(
    "p",
    { class: "body words" },
    h("strong", null, String(event.event).replaceAll("_", " ")),
    rest.length > 0 ? ` · ${rest.join(" · ")}` : "",
  );
}

/** @param {string} body @returns {Record<string, unknown>|null} */
function parseEvent(body) {
  if (!body.startsWith("{") || body.length > 20_000) return null;
  try {
    const value = JSON.parse(body);
    const flat =
      value &&
      typeof value.event === "string" &&
      Object.values(value).every((each) => typeof each !== "object" || each === null);
    return flat ? value : null;
  } catch {
    return null;
  }
}

/** @param {Message} message */
function answered({ sender, answers }) {
  return `${sender === "system" ? "about" : "answers"} question #${answers}`;
}

/** @param {Message} message */
export function metaOf(message) {
  return h(
    "p",
    { class: "meta" },
    h("span", { class: "clock", title: new Date(message.sent_at_ms).toLocaleString() }, clock(message.sent_at_ms)),
    " ",
    who(message.sender),
    h("span", { class: "arrow", "aria-label": "to" }, " → "),
    message.broadcast
      ? h("span", { class: "who who-all", title: `delivered to ${message.to}` }, `${message.to} (all)`)
      : who(message.to),
    (message.asks ?? message.answers) !== null && " ",
    message.asks !== null && h("span", { class: "chip info" }, `asks question #${message.asks}`),
    message.answers !== null && h("span", { class: "chip info" }, answered(message)),
    h("span", { class: "hint" }, ` #${message.id} · `, ageOf(message.sent_at_ms)),
  );
}
