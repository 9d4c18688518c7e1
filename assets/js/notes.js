/** What an agent wrote down for itself, in the panel: its files, and what one of them says, kept current. */

import { getJson } from "./api.js";
import { ageOf, h, one, setText } from "./dom.js";
import { syncList } from "./morph.js";
import { plural, size } from "./text.js";

/** @typedef {import("./types.js").NoteFile} NoteFile */
/** @typedef {import("./types.js").NoteText} NoteText */

/** Which note is shown, of whom, and as it was when. */
const shown = { agent: "", path: "", version: "" };
let reads = 0; // only the last one counts

/** @param {string} agent @returns {Promise<() => void>} */
export async function readNotes(agent) {
  const { notes, left_out: leftOut } = await getJson(`/api/agents/${encodeURIComponent(agent)}/notes`);
  return () => {
    const kept = shown.agent === agent && notes.some((/** @type {NoteFile} */ each) => each.path === shown.path);
    shown.agent = agent;
    shown.path = kept ? shown.path : (notes[0]?.path ?? "");
    const status = [plural(notes.length, "note"), leftOut > 0 && `${leftOut} not shown`];
    setText(one("#panel-status"), status.filter(Boolean).join(" · "));
    draw(agent, notes);
  };
}

/** @param {string} agent @param {NoteFile[]} notes */
function draw(agent, notes) {
  const place = one("#panel-notes");
  if (notes.length === 0) {
    const where = "Agents keep theirs in notes.md and in files below notes/.";
    place.replaceChildren(h("p", { class: "empty" }, `${agent} has written nothing down yet. ${where}`));
    return;
  }
  if (!place.querySelector(".note-files")) {
    const files = h("ul", { class: "note-files", "aria-label": `Notes of ${agent}` });
    const text = h("div", { class: "note-text", tabindex: "0", role: "region", "aria-label": "The note" });
    place.replaceChildren(files, text);
    shown.version = "";
  }
  syncList(one(".note-files", place), notes, (note) => note.path, fileOf);
  const note = notes.find(({ path }) => path === shown.path);
  const version = note ? `${note.path} ${note.changed_at_ms} ${note.size_bytes}` : "";
  if (version !== shown.version) void read(shown.path);
  shown.version = version;
}

/** @param {NoteFile} note */
function fileOf({ path, size_bytes: bytes, changed_at_ms: at }) {
  const props = { type: "button", class: "button small note-file", "data-note": path };
  const button = h("button", { ...props, "aria-pressed": String(path === shown.path) }, h("bdi", null, path));
  return h("li", null, button, h("span", { class: "hint" }, `${size(bytes)} · `, ageOf(at, " ago")));
}

/** Shows a note; one that is shown already changes in place, where its reader is. @param {string} path */
async function read(path) {
  const { agent } = shown;
  const other = path !== shown.path;
  const number = ++reads;
  shown.path = path;
  const text = one("#panel-notes .note-text");
  for (const button of document.querySelectorAll("#panel-notes [data-note]")) {
    button.setAttribute("aria-pressed", String(button instanceof HTMLElement && button.dataset.note === path));
  }
  try {
    const part = path.split("/").map(encodeURIComponent).join("/");
    const note = await getJson(`/api/agents/${encodeURIComponent(agent)}/notes/${part}`);
    if (number === reads) put(text, note);
  } catch (error) {
    if (number === reads) setText(text, error instanceof Error ? error.message : String(error));
  }
  if (other) text.scrollTop = 0;
}

/** As it is written: an agent's words, and never anything else. @param {HTMLElement} place @param {NoteText} note */
function put(place, { text, truncated, size_bytes: bytes }) {
  const cut = truncated && h("p", { class: "hint" }, `… cut: the file has ${size(bytes)}`);
  const next = h("div", null, h("pre", { class: "words" }, text || "(empty)"), cut);
  if (next.textContent === place.textContent) return; // somebody may have selected a part of it
  const { scrollTop } = place;
  place.replaceChildren(...next.childNodes);
  place.scrollTop = scrollTop;
}

export function takeNotes() {
  one("#panel-notes").addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-note]") : null;
    if (button instanceof HTMLElement) void read(button.dataset.note ?? "");
  });
}
