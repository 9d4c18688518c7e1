/** The stats pages: of the hive at `/stats`, of one agent at `/agents/<name>/stats`. */

import { ApiError, BASE, getJson } from "./api.js";
import { takeCharts } from "./charts.js";
import { showConnection } from "./connection.js";
import { one, setText, show } from "./dom.js";
import { download } from "./download.js";
import { takeForms } from "./forms.js";
import { takeKeys } from "./keyboard.js";
import { announce, toast } from "./notices.js";
import { renderReport, spoken } from "./stats_view.js";
import { follow } from "./stream.js";

/** @typedef {import("./stats_charts.js").Report} Report */

const RANGES = ["24h", "7d", "30d", "all"];
const AGAIN_MS = 3000; // after a turn: others may be ending too
const AGAIN_FACTOR = 10; // and so many times as long as the figures took: a large hive is not kept adding up

/** The agent of this page; empty on the hive's. */
const name = decodeURIComponent(location.pathname.slice(BASE.length).split("/")[1] ?? "");
const base = name ? `/api/agents/${encodeURIComponent(name)}/stats` : "/api/stats";
let tookMs = 0;
let asked = 0; // an answer to an earlier choice is not shown

function range() {
  const wanted = new URLSearchParams(location.search).get("range") ?? "";
  return RANGES.includes(wanted) ? wanted : RANGES[0];
}

/** The figures, and the position in the feed that they include. @returns {Promise<{position: string, report: Report}>} */
async function load() {
  asked += 1;
  const mine = asked;
  const offset = -new Date().getTimezoneOffset();
  const beganMs = performance.now();
  try {
    const found = await getJson(`${base}?range=${range()}&utc_offset_minutes=${offset}`);
    tookMs = performance.now() - beganMs;
    if (mine !== asked) return found;
    show(one("#stats-gone"), false);
    renderReport(found.report);
    document.body.classList.remove("loading");
    return found;
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    setText(one("#stats-gone"), `There is no agent ${name}, and none was destroyed with its state kept. ${error.message}`);
    show(one("#stats-gone"), true);
    throw error;
  }
}

let soon = 0;

/** @param {import("./stream.js").ServerEvent} event */
function onEvent(event) {
  if (event.type !== "usage" || soon) return;
  const about = JSON.parse(event.data);
  if (name && about.agent !== name) return;
  soon = window.setTimeout(() => {
    soon = 0;
    load().catch((error) => console.warn("the figures could not be refreshed; the next turn tries again", error));
  }, Math.max(AGAIN_MS, AGAIN_FACTOR * tookMs));
}

/** @param {string} wanted */
async function choose(wanted) {
  history.replaceState(null, "", `${location.pathname}?range=${wanted}`);
  try {
    announce(spoken((await load()).report));
  } catch (error) {
    toast(`The figures could not be loaded: ${error instanceof Error ? error.message : error}`, "error");
  }
}

/** @param {HTMLButtonElement} button */
async function exportAs(button) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const file = await download(`${base}/${button.dataset.export}?range=${range()}`);
    toast(`Saved ${file}.`);
  } catch (error) {
    toast(`The export failed: ${error instanceof Error ? error.message : error}`, "error");
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

function takeChoices() {
  const place = one("#stats-range");
  for (const input of place.querySelectorAll("input")) input.checked = input.value === range();
  place.addEventListener("change", (event) => {
    if (event.target instanceof HTMLInputElement) void choose(event.target.value);
  });
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-export]") : null;
    if (button instanceof HTMLButtonElement) void exportAs(button);
  });
}

if (name) {
  setText(one("#stats-name"), name);
  one("#stats-title").setAttribute("aria-label", `Stats of ${name}`);
  document.title = `stats of ${name} · hyperhive`;
}
takeKeys();
takeChoices();
takeForms();
document.addEventListener("hive:done", () => void load());
takeCharts(one("#stats-charts"));
const live = follow({ url: "/messages/stream", load: async () => (await load()).position, onEvent, onConnection: showConnection });
one("#connection").addEventListener("click", () => live.reload());
