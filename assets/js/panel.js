/** The side panel: an agent's console log. */

import { getJson } from "./api.js";
import { ansi } from "./ansi.js";
import { h, one, setText } from "./dom.js";

const LINES = 400;
const REFRESH_MS = 3000;

let agent = "";
let timer = 0;
/** @type {HTMLElement|null} */
let opener = null;

const panel = () => one("#panel");

async function load() {
  clearTimeout(timer);
  const wanted = agent;
  if (!wanted) return;
  try {
    const { lines } = await getJson(`/api/logs/${encodeURIComponent(wanted)}?lines=${LINES}`);
    if (wanted === agent) showLines(lines.map(String));
  } catch (error) {
    if (wanted === agent) showLines([], error instanceof Error ? error.message : String(error));
  }
  if (wanted === agent) timer = window.setTimeout(() => void load(), document.hidden ? REFRESH_MS * 10 : REFRESH_MS);
}

/** @type {string} */
let last = "";

/** @param {string[]} lines @param {string} [problem] */
function showLines(lines, problem = "") {
  setText(one("#panel-status"), problem || (lines.length > 0 ? `last ${lines.length} lines` : "nothing logged yet"));
  const text = lines.join("\n");
  if (problem || text === last) return;
  last = text;
  const log = one("#panel-log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.replaceChildren(h("div", null, ansi(text)));
  if (atEnd) log.scrollTop = log.scrollHeight;
}

/** @param {string} name */
function open(name) {
  agent = name;
  last = "";
  setText(one("#panel-title"), `Log of ${name}`);
  setText(one("#panel-status"), "loading…");
  one("#panel-log").replaceChildren();
  panel().hidden = false;
  document.body.classList.add("with-panel");
  one("#panel-close").focus();
  void load();
}

function close() {
  agent = "";
  clearTimeout(timer);
  panel().hidden = true;
  document.body.classList.remove("with-panel");
  if (opener?.isConnected) opener.focus();
}

export function takePanel() {
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-action=logs]") : null;
    if (!(button instanceof HTMLElement)) return;
    opener = button;
    open(button.dataset.agent ?? "");
  });
  one("#panel-close").addEventListener("click", close);
  panel().addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
}
