/** MESS4GE FL0W: everything the broker carries, newest first; by agent or by words, back to the first one. */

import { getJson } from "./api.js";
import { h, one, setText, show } from "./dom.js";
import { bodyOf, metaOf, systemBody } from "./messages.js";
import { syncList } from "./morph.js";
import { announce, toast } from "./notices.js";
import { nextFrame, slice } from "./pace.js";
import { foundBody, HistorySearch } from "./search.js";
import { inThreads, threadLine } from "./thread.js";

/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

const PAGE = 100;
const TYPING_MS = 250;

let exhausted = false;
let isDue = false; // with the next frame
/** @type {HiveState|null} */
let shown = null;
const search = new HistorySearch(() => {
  if (shown) renderFlow(shown);
});

/** @param {HiveState} state */
export function renderFlow(state) {
  if (shown !== state) exhausted = false; // a new snapshot begins anew
  shown = state;
  const messages = search.active ? search.results(state.messages) : state.messages;
  const entries = inThreads(messages, state.messages);
  if (!syncList(one("#flow-list"), entries, (entry) => entry.message.id, row, slice())) goOn();
  setText(one("#flow-count"), search.active ? search.status(messages.length) : String(messages.length));
  one("#flow-list").setAttribute("aria-busy", String(search.stage === "looking"));
  show(one("#no-flow"), messages.length === 0 && search.stage !== "looking");
  setText(one("#no-flow"), emptyWords());
  const oldest = state.messages.at(-1)?.id ?? 0;
  const goesOn = search.stage === "more" || search.stage === "failed";
  show(one("#flow-older"), search.active ? goesOn : oldest > 1 && !exhausted && state.allowsMore);
  show(one("#flow-clear"), search.active);
}

/** Many messages at once are built over several frames, the newest first. */
function goOn() {
  if (isDue) return;
  isDue = true;
  nextFrame(() => {
    isDue = false;
    if (shown) renderFlow(shown);
  });
}

function emptyWords() {
  if (search.stage === "failed") return `The search stopped: ${search.problem}. Press “load older” to go on.`;
  const what = search.words.length > 0 ? `with “${search.words.join(" ")}”` : "";
  const whom = search.agent ? `from or to ${search.agent}` : "";
  if (search.active) return `${["No message", what, whom].filter(Boolean).join(" ")}, back to the first one.`;
  return "Nothing was said yet. Write to the manager above and watch the hive wake up here.";
}

/** @param {HiveState} state */
export function renderFilter(state) {
  const gone = state.tombstones.map((agent) => agent.name);
  const names = [...new Set(["", "operator", ...state.agents.map((agent) => agent.name), ...gone, "system"])];
  if (search.agent && !names.includes(search.agent)) names.push(search.agent);
  syncList(
    one("#flow-filter"),
    names,
    (name) => name || "all",
    (name) => h("option", { value: name }, name || "everyone"),
  );
}

/** @param {import("./thread.js").Entry} entry */
function row(entry) {
  const { message } = entry;
  return h("li", { class: "message" }, metaOf(message), threadLine(entry), body(message));
}

/** @param {Message} message */
function body(message) {
  if (search.words.length > 0) return foundBody(message.body, search.words);
  return message.sender === "system" ? systemBody(message.body) : bodyOf(message.body);
}

async function loadOlder() {
  const state = shown;
  const oldest = state?.messages.at(-1);
  if (!state || !oldest) return;
  const button = /** @type {HTMLButtonElement} */ (one("#flow-older"));
  button.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    const { messages } = await getJson(`/api/messages?before=${oldest.id}&limit=${PAGE}`);
    exhausted = messages.length === 0;
    state.addOlder(messages);
    if (shown === state) renderFlow(state);
    if (exhausted) toast("That was the first message.");
  } catch (error) {
    toast(`Older messages could not be loaded: ${error instanceof Error ? error.message : error}`, "error");
  } finally {
    button.removeAttribute("aria-busy");
    button.disabled = false;
  }
}

function ask() {
  const text = /** @type {HTMLInputElement} */ (one("#flow-search")).value;
  const agent = /** @type {HTMLSelectElement} */ (one("#flow-filter")).value;
  one("#flow-list").replaceChildren(); // the same messages read otherwise: their hits are marked
  search.ask(agent, text);
}

export function takeFlow() {
  let typing = 0;
  const field = /** @type {HTMLInputElement} */ (one("#flow-search"));
  const filter = /** @type {HTMLSelectElement} */ (one("#flow-filter"));
  filter.addEventListener("change", ask);
  field.addEventListener("input", () => {
    clearTimeout(typing);
    typing = window.setTimeout(ask, TYPING_MS);
  });
  one("#flow-find").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    ask();
    announce(`Looking for ${field.value || "everything"}`);
  });
  one("#flow-clear").addEventListener("click", () => {
    clearTimeout(typing);
    field.value = "";
    filter.value = "";
    ask();
    field.focus();
  });
  one("#flow-older").addEventListener("click", () => void (search.active ? search.more() : loadOlder()));
}
