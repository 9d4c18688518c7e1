/**
 * Notifications of this browser, for what is new in the queue while nobody looks at the page. They are off until
 * the operator presses the bell, and the choice is this browser's own.
 */

import { nameHere } from "./api.js";
import { h, one } from "./dom.js";
import { toast } from "./notices.js";
import { neutralise, plural, shorten } from "./text.js";
import { go, keyOf } from "./waiting.js";

/** @typedef {import("./types.js").WaitingEntry} WaitingEntry */
/** @typedef {"on"|"off"|"blocked"|"missing"} Bell */

const CHOICE_NAME = nameHere("hive.notify");
const ONE_BY_ONE = 3;
const SAID_CHARACTERS = 120;

/** @type {Record<Bell, [string, string, string]>} glyph, label, and what a press says where it changes nothing */
const BELLS = {
  on: ["🔔", "Notifications are on", ""],
  off: ["🔕", "Notifications are off", ""],
  blocked: [
    "🔕",
    "Notifications are blocked by the browser",
    "This browser blocks notifications of this page. Allow them in its settings for this site, then press the bell.",
  ],
  missing: [
    "🔕",
    "Notifications are not possible here",
    "This browser gives pages no notifications here; most need https or localhost. Core can send them, too.",
  ],
};

/** What was known when last looked; nothing before the first snapshot. @type {Set<string>|null} */
let known = null;
/** Those that are on the screen, by tag. @type {Map<string, Notification>} */
const shown = new Map();
let broken = false;

/** @returns {Bell} */
export function bell() {
  if (broken || !("Notification" in globalThis) || !globalThis.isSecureContext) return "missing";
  if (Notification.permission === "denied") return "blocked";
  return Notification.permission === "granted" && localStorage.getItem(CHOICE_NAME) === "on" ? "on" : "off";
}

function drawBell() {
  const [glyph, label] = BELLS[bell()];
  const button = one("#bell");
  button.dataset.bell = bell();
  button.setAttribute("aria-pressed", String(bell() === "on"));
  button.setAttribute("aria-label", label);
  button.title = label;
  button.replaceChildren(h("span", { "aria-hidden": "true" }, glyph));
}

async function press() {
  const before = bell();
  if (before === "on") localStorage.setItem(CHOICE_NAME, "off");
  if (before === "off") {
    localStorage.setItem(CHOICE_NAME, "on");
    if (Notification.permission !== "granted") await Notification.requestPermission();
  }
  drawBell();
  const [, , why] = BELLS[bell()];
  if (why) toast(why, "error");
}

/** Takes the bell in the header. */
export function takeBell() {
  one("#bell").addEventListener("click", () => void press());
  addEventListener("storage", drawBell); // another tab of this browser
  document.addEventListener("visibilitychange", drawBell); // what is allowed may have changed meanwhile
  drawBell();
}

/**
 * Tells what is new since the last call, if nobody looks. What is settled disappears from the screen.
 * @param {WaitingEntry[]} entries
 */
export function tellNew(entries) {
  const before = known;
  known = new Set(entries.map(keyOf));
  for (const tag of shown.keys()) if (!known.has(tag)) take(tag);
  if (before === null || !document.hidden || bell() !== "on") return;
  const fresh = entries.filter((entry) => !before.has(keyOf(entry)));
  if (fresh.length > ONE_BY_ONE) return tellTogether(fresh);
  for (const entry of fresh) {
    const body = shorten(neutralise(entry.said || entry.otherwise), SAID_CHARACTERS);
    put(keyOf(entry), neutralise(entry.summary), body, entry.link);
  }
  return undefined;
}

/** @param {WaitingEntry[]} fresh */
function tellTogether(fresh) {
  const who = [...new Set(fresh.map((entry) => entry.who))];
  const body = `for ${who.slice(0, 5).join(", ")}${who.length > 5 ? " and others" : ""}`;
  put("waiting", `${plural(fresh.length, "thing")} wait for you`, neutralise(body), "#waiting");
}

/**
 * One tag is one notification, whichever tab put it there.
 * @param {string} tag @param {string} title @param {string} body @param {string} link
 */
function put(tag, title, body, link) {
  try {
    const options = { body, tag: nameHere(`hive.${tag}`), icon: "static/favicon-waiting.svg" };
    const notification = new Notification(title, options);
    notification.addEventListener("click", () => {
      window.focus();
      go(link);
      notification.close();
    });
    notification.addEventListener("close", () => shown.delete(tag));
    shown.set(tag, notification);
  } catch (error) {
    broken = true; // some browsers of phones leave notifications to a service worker
    console.warn("notifications are not possible here", error);
    drawBell();
  }
}

/** @param {string} tag */
function take(tag) {
  shown.get(tag)?.close();
  shown.delete(tag);
}
