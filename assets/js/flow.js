/** MESS4GE FL0W: everything the broker carries, newest first; filtered by agent, older on demand. */

import { getJson } from "./api.js";
import { h, one, setText, show } from "./dom.js";
import { bodyOf, metaOf, systemBody } from "./messages.js";
import { syncList } from "./morph.js";
import { toast } from "./notices.js";

/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

const PAGE = 100;

let chosen = "";
let exhausted = false;
/** @type {HiveState|null} */
let shown = null;

/** @param {HiveState} state */
export function renderFlow(state) {
  if (shown !== state) exhausted = false; // a new snapshot begins anew
  shown = state;
  const messages = chosen ? state.messages.filter(involves) : state.messages;
  syncList(one("#flow-list"), messages, (message) => message.id, row);
  setText(one("#flow-count"), `${messages.length}${chosen ? ` of ${state.messages.length}` : ""}`);
  show(one("#no-flow"), messages.length === 0);
  setText(
    one("#no-flow"),
    chosen
      ? `No messages from or to ${chosen} among those loaded.`
      : "Nothing was said yet. Write to the manager above and watch the hive wake up here.",
  );
  const oldest = state.messages.at(-1)?.id ?? 0;
  show(one("#flow-older"), oldest > 1 && !exhausted && state.allowsMore);
}

/** @param {Message} message */
function involves(message) {
  return message.sender === chosen || message.to === chosen;
}

/** @param {HiveState} state */
export function renderFilter(state) {
  const names = ["", "operator", ...state.agents.map((agent) => agent.name)];
  if (chosen && !names.includes(chosen)) names.push(chosen);
  syncList(
    one("#flow-filter"),
    names,
    (name) => name || "all",
    (name) => h("option", { value: name }, name || "everyone"),
  );
}

/** @param {Message} message */
function row(message) {
  return h(
    "li",
    { class: "message" },
    metaOf(message),
    message.sender === "system" ? systemBody(message.body) : bodyOf(message.body),
  );
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

export function takeFlow() {
  const filter = /** @type {HTMLSelectElement} */ (one("#flow-filter"));
  filter.addEventListener("change", () => {
    chosen = filter.value;
    if (shown) renderFlow(shown);
  });
  one("#flow-older").addEventListener("click", () => void loadOlder());
}
