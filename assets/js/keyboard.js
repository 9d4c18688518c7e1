/**
 * The keys of every page. KEYS is the one table: what is pressed is looked up in it, and the help dialog is
 * drawn from it. Nothing is taken from somebody who types, from a dialog, or from a browser's own shortcut;
 * and as single letters get in the way of speech input, they can be turned off (WCAG 2.1.4).
 */

import { here } from "./api.js";
import { areOff, showKeys } from "./keyboard_help.js";
import { currentRow, openRow, stepRow, writeInRow } from "./keyboard_rows.js";

/** @typedef {"hive"|"agent"|"other"} PageKind */
/**
 * `keys`: one, or two one after another · `on`: the pages that have it, all if it is not said ·
 * `act`: nothing for what another part of the page does and the help only tells
 * @typedef {{keys: string, words: string, group: "go to"|"rows"|"page"|"while you write", on?: PageKind[],
 *   act?: (kind: PageKind) => void}} Key
 */

const PREFIX_MS = 1500; // how long the second key of two is waited for

/** @type {PageKind[]} */
const HIVE = ["hive"];
/** @type {PageKind[]} */
const AGENT = ["agent"];

/** @type {Key[]} */
export const KEYS = [
  { keys: "g h", words: "the top of the dashboard", group: "go to", act: goTo("") },
  { keys: "g w", words: "what waits for you", group: "go to", act: goTo("waiting") },
  { keys: "g c", words: "containers", group: "go to", act: goTo("containers") },
  { keys: "g k", words: "kept state", group: "go to", act: goTo("tombstones") },
  { keys: "g q", words: "questions", group: "go to", act: goTo("questions") },
  { keys: "g p", words: "calls that wait for your permission", group: "go to", act: goTo("permissions") },
  { keys: "g i", words: "inbox", group: "go to", act: goTo("inbox") },
  { keys: "g a", words: "approvals", group: "go to", act: goTo("approvals") },
  { keys: "g m", words: "message flow", group: "go to", act: goTo("flow") },
  { keys: "g l", words: "last actions", group: "go to", act: goTo("activity") },
  { keys: "j", words: "next row", group: "rows", act: () => stepRow(1) },
  { keys: "k", words: "previous row", group: "rows", act: () => stepRow(-1) },
  { keys: "o", words: "open the row, or go into it (also Enter)", group: "rows", act: () => openRow() },
  { keys: "r", words: "write in the row: a note, an answer, a reply", group: "rows", on: HIVE, act: writeInRow },
  { keys: "l", words: "log of the row's agent", group: "rows", on: HIVE, act: pressInRow("logs") },
  { keys: "n", words: "notes of the row's agent", group: "rows", on: HIVE, act: pressInRow("notes") },
  { keys: "p", words: "permission rules for the row's agent", group: "rows", on: HIVE, act: pressInRow("rules") },
  { keys: "h", words: "history of the row's agent", group: "rows", on: HIVE, act: pressInRow("history") },
  { keys: "c", words: "copy the row", group: "rows", on: AGENT },
  { keys: "w", words: "write a message", group: "page", on: HIVE, act: focusOn("#compose textarea") },
  { keys: "w", words: "write to the agent", group: "page", on: AGENT, act: focusOn("#prompt-text") },
  { keys: "/", words: "search", group: "page", act: focusOn("main input[type=search]") },
  { keys: "t", words: "theme: dark, light, as the system", group: "page", act: press("[data-theme-toggle]") },
  { keys: "Esc", words: "leave a field, close a search, a panel, a dialog", group: "page" },
  { keys: "?", words: "these keys", group: "page", act: (kind) => showKeys(KEYS, kind) },
  { keys: "Ctrl+Enter", words: "send what is in a field of several lines", group: "while you write", on: HIVE },
  { keys: "Enter", words: "send · Shift+Enter begins a new line", group: "while you write", on: AGENT },
  { keys: "Tab", words: "complete a slash command", group: "while you write", on: AGENT },
  { keys: "↑ ↓", words: "what you sent before", group: "while you write", on: AGENT },
];

/** @returns {PageKind} */
function pageKind() {
  if (document.body.classList.contains("agent-page")) return "agent";
  return document.querySelector("#containers") ? "hive" : "other";
}

/** Takes the keyboard of this page. */
export function takeKeys() {
  const kind = pageKind();
  const mine = KEYS.filter((key) => key.act && (!key.on || key.on.includes(kind)));
  let prefix = "";
  let timer = 0;

  /** @param {KeyboardEvent} event @param {string} pressed */
  const run = (event, pressed) => {
    const key = mine.find((each) => each.keys === pressed);
    if (!key?.act) return;
    event.preventDefault();
    key.act(kind);
  };

  // Before anyone else sees it: the second of two keys is not that key's own meaning.
  document.addEventListener(
    "keydown",
    (event) => {
      if (!prefix || !isPlain(event) || event.key === "Shift") return;
      const pressed = `${prefix} ${event.key}`;
      prefix = "";
      run(event, pressed);
    },
    true,
  );
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return onEscape(event);
    if (!isPlain(event)) return undefined;
    if (mine.some((each) => each.keys.startsWith(`${event.key} `))) {
      prefix = event.key;
      clearTimeout(timer);
      timer = window.setTimeout(() => (prefix = ""), PREFIX_MS);
      return event.preventDefault();
    }
    if (event.key === "Enter" && event.target === currentRow()) return run(event, "o");
    return run(event, event.key);
  });
  document.addEventListener("click", (event) => {
    const asked = event.target instanceof Element && event.target.closest("[data-keys-help]");
    if (asked) showKeys(KEYS, kind);
  });
  if (kind === "hive") arrive();
}

/** Whether a key is nobody else's. @param {KeyboardEvent} event */
function isPlain(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return false;
  if (event.key !== "Enter" && areOff()) return false;
  return !isTyping(event.target) && !document.querySelector("dialog[open]");
}

/** @param {EventTarget|null} target @returns {target is HTMLElement} */
function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["radio", "checkbox", "button", "submit"].includes(target.type);
  return target.isContentEditable || target.matches("textarea, select");
}

/** Out of a field, to the row it is in; or what stands open is closed. @param {KeyboardEvent} event */
function onEscape(event) {
  const { target } = event;
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return undefined;
  if (isTyping(target)) {
    const clears = target instanceof HTMLInputElement && target.type === "search" && target.value !== "";
    if (clears || document.activeElement !== target) return undefined; // the browser empties it; or it was left
    const row = currentRow();
    target.blur();
    return row?.focus({ preventScroll: true });
  }
  const close = document.querySelector("#panel:not([hidden]) #panel-close");
  return close instanceof HTMLElement ? close.click() : undefined;
}

/** Of an agent's page too, where it has that section. @param {string} section its id; none: the top */
function goTo(section) {
  return (/** @type {PageKind} */ kind) => {
    if (kind === "hive" || (section && document.querySelector(`#${section}:not([hidden])`))) reach(section);
    else location.assign(here(section ? `/#${section}` : "/"));
  };
}

/** Puts the focus on a section's heading, from where `j` goes to its rows. @param {string} section */
function reach(section) {
  const place = document.querySelector(section ? `#${CSS.escape(section)} h2` : "#main");
  if (!(place instanceof HTMLElement)) return;
  place.tabIndex = -1;
  place.focus({ preventScroll: true });
  if (section) place.scrollIntoView({ block: "start" });
  else scrollTo({ top: 0 });
}

/** A link to a section is followed once the sections are filled; until then everything is at the top. */
function arrive() {
  const section = location.hash.slice(1);
  if (!section || !document.body.classList.contains("loading")) return;
  const filled = new MutationObserver(() => {
    if (document.body.classList.contains("loading")) return;
    filled.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => reach(section)));
  });
  filled.observe(document.body, { attributeFilter: ["class"] });
}

/** @param {string} selector */
function focusOn(selector) {
  return () => {
    const field = document.querySelector(selector);
    if (field instanceof HTMLElement) field.focus();
  };
}

/** @param {string} selector */
function press(selector) {
  return () => {
    const button = document.querySelector(selector);
    if (button instanceof HTMLElement) button.click();
  };
}

/** @param {string} action */
function pressInRow(action) {
  return () => {
    const button = currentRow()?.querySelector(`[data-action=${action}]`);
    if (!(button instanceof HTMLElement)) return;
    button.focus({ preventScroll: true }); // the panel gives the focus back to what opened it
    button.click();
  };
}
