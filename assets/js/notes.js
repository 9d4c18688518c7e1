/** What an agent wrote down for itself, in the panel: its files, and what one of them says. */

import { getJson } from "./api.js";
import { ageOf, h, one, setText } from "./dom.js";
import { plural, size } from "./text.js";

/** @typedef {import("./types.js").NoteFile} NoteFile */
/** @typedef {import("./types.js").NoteText} NoteText */

/** Which note is shown, of whom. */
const shown = { agent: "", path: "" };

/** @param {string} agent @returns {Promise<() => void>} */
export async function readNotes(agent) {
  const { notes, left_out: leftOut } = await getJson(`/api/agents/${encodeURIComponent(agent)}/notes`);
  const kept = shown.agent === agent && notes.some((/** @type {NoteFile} */ each) => each.path === shown.path);
  shown.agent = agent;
  shown.path = kept ? shown.path : (notes[0]?.path ?? "");
  return () => {
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
  const text = h("div", { class: "note-text", tabindex: "0", role: "region", "aria-label": "The note" });
  const files = notes.map((each) => fileOf(agent, each, text));
  place.replaceChildren(h("ul", { class: "note-files", "aria-label": `Notes of ${agent}` }, files), text);
  void read(agent, shown.path, text);
}

/** @param {string} agent @param {NoteFile} note @param {HTMLElement} text  where it is shown */
function fileOf(agent, { path, size_bytes: bytes, changed_at_ms: at }, text) {
  const button = h("button", { type: "button", class: "button small note-file", "data-note": path }, h("bdi", null, path));
  button.addEventListener("click", () => void read(agent, path, text));
  return h("li", null, button, h("span", { class: "hint" }, `${size(bytes)} · `, ageOf(at, " ago")));
}

/** @param {string} agent @param {string} path @param {HTMLElement} place */
async function read(agent, path, place) {
  shown.path = path;
  for (const button of document.querySelectorAll("#panel-notes [data-note]")) {
    button.setAttribute("aria-pressed", String(button instanceof HTMLElement && button.dataset.note === path));
  }
  try {
    const part = path.split("/").map(encodeURIComponent).join("/");
    const note = await getJson(`/api/agents/${encodeURIComponent(agent)}/notes/${part}`);
    if (shown.agent === agent && shown.path === path) put(place, note);
  } catch (error) {
    setText(place, error instanceof Error ? error.message : String(error));
  }
}

/** As it is written: an agent's words, and never anything else. @param {HTMLElement} place @param {NoteText} note */
function put(place, { text, truncated, size_bytes: bytes }) {
  const cut = truncated && h("p", { class: "hint" }, `… cut: the file has ${size(bytes)}`);
  place.replaceChildren(h("pre", { class: "words" }, text || "(empty)"), ...(cut ? [cut] : []));
  place.scrollTop = 0;
}
