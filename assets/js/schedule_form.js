/** The form for a new schedule: it shows what is meant, and the next runs, while one still writes. */

import { ApiError, getJson } from "./api.js";
import { h, one } from "./dom.js";
import { syncList } from "./morph.js";
import { nextRuns } from "./schedules.js";

/** @typedef {import("./hive_state.js").HiveState} HiveState */

const PAUSE_MS = 250; // after the last key, before the hive is asked

let asked = 0; // only the answer to the last question counts

/** Takes over the form. */
export function takeScheduleForm() {
  const form = one("#schedule-add");
  const zone = one("#schedule-zone");
  // As the default, so that emptying the form brings it back.
  zone.setAttribute("value", Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC");
  const names = Intl.supportedValuesOf("timeZone");
  one("#schedule-zones").append(...["UTC", ...names].map((name) => h("option", { value: name })));
  let waiting = 0;
  form.addEventListener("input", (event) => {
    if (!(event.target instanceof HTMLInputElement)) return;
    clearTimeout(waiting);
    waiting = window.setTimeout(() => void preview(), PAUSE_MS);
  });
  form.addEventListener("reset", () => setTimeout(() => void preview()));
}

/** Whom a schedule can be for. @param {HiveState} state */
export function renderScheduleAgents(state) {
  const names = state.agents.map((agent) => agent.name);
  syncList(
    one("#schedule-agent"),
    names,
    (name) => name,
    (name) => h("option", { value: name }, name),
  );
}

async function preview() {
  const cron = field("#schedule-cron");
  const zone = field("#schedule-zone");
  const number = ++asked;
  /** @type {Node[]} */
  let found = [];
  let wrong = "";
  if (cron.value.trim() !== "" && zone.value.trim() !== "") {
    const query = new URLSearchParams({ cron: cron.value, timezone: zone.value });
    try {
      const { means, next_runs_ms: runs } = await getJson(`/api/schedule-preview?${query}`);
      found = [h("span", { class: "schedule-means" }, means), nextRuns(runs, zone.value)];
    } catch (error) {
      wrong = error instanceof ApiError ? (error.field ?? "cron") : "";
      found = [h("span", { class: "schedule-wrong" }, error instanceof Error ? error.message : String(error))];
    }
  }
  if (number !== asked) return;
  cron.toggleAttribute("aria-invalid", wrong === "cron");
  zone.toggleAttribute("aria-invalid", wrong === "timezone");
  one("#schedule-preview").replaceChildren(...found);
}

/** @param {string} selector */
function field(selector) {
  return /** @type {HTMLInputElement} */ (one(selector));
}
