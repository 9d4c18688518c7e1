/** SCH3DUL3S: what the operator has sent to agents at set times; the next runs, and what became of the last. */

import { ageOf, h, leet, one, setText, show, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";
import { renderReminders } from "./reminders.js";
import { fullTime } from "./text.js";

/** @typedef {import("./types.js").ScheduleView} ScheduleView */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

const FOLDED_CHARACTERS = 280; // longer messages are folded

/** Why it sends nothing. @type {Record<ScheduleView["paused"], string>} */
const PAUSED = {
  "": "",
  operator: "paused",
  purged: "paused: its agent was purged",
  over: "over: its time never comes again",
  broken: "paused: its time zone is no longer known here",
};

/** @param {HiveState} state */
export function renderSchedules(state) {
  syncList(one("#schedule-list"), state.schedules, (schedule) => schedule.id, card);
  setText(one("#schedules-count"), String(state.schedules.length));
  show(one("#no-schedules"), state.schedules.length === 0);
  renderReminders(state.reminders);
}

/** A time as the clocks of a zone show it: `Mon 23 Nov, 09:00 CET`. @param {number} atMs @param {string} timeZone */
export function zoned(atMs, timeZone) {
  /** @type {Intl.DateTimeFormatOptions} */
  const parts = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false };
  try {
    return new Date(atMs).toLocaleString("en-GB", { ...parts, timeZone, timeZoneName: "short" });
  } catch {
    return fullTime(atMs); // a browser may know fewer zones than the hive
  }
}

/** The next runs, in order. @param {number[]} runs @param {string} timeZone */
export function nextRuns(runs, timeZone) {
  const times = runs.map((atMs) =>
    h("li", null, h("time", { datetime: new Date(atMs).toISOString(), title: fullTime(atMs) }, zoned(atMs, timeZone))),
  );
  return h("ol", { class: "next-runs", "aria-label": "Next runs" }, times);
}

/** @param {ScheduleView} schedule */
function card(schedule) {
  const title = `schedule-title-${schedule.id}`;
  const { agent, cron, next_runs_ms: runs, paused, timezone } = schedule;
  return h(
    "li",
    { class: `card schedule ${paused === "" ? "" : "tone-warn"}`.trim() },
    h(
      "p",
      { class: "meta", id: title },
      h("strong", null, agent),
      " · ",
      h("span", { class: "schedule-means" }, schedule.means || "?"),
      " · ",
      h("code", null, cron),
      ` ${timezone} · #${schedule.id}`,
      paused !== "" && " ",
      paused !== "" && h("span", { class: "chip warn" }, PAUSED[paused]),
    ),
    message(schedule.body),
    runs.length > 0 && h("div", { class: "meta schedule-next" }, h("span", null, "next ", untilOf(runs[0])), nextRuns(runs, timezone)),
    lastRun(schedule),
    changeForm(schedule, title),
  );
}

/** @param {string} body */
function message(body) {
  if (body.length <= FOLDED_CHARACTERS) return h("p", { class: "words schedule-body" }, body);
  return h(
    "details",
    { class: "fold" },
    h("summary", null, `${body.slice(0, FOLDED_CHARACTERS / 2)}…`),
    h("p", { class: "words schedule-body" }, body),
  );
}

/** @param {ScheduleView} schedule */
function lastRun({ agent, last_at_ms: at, last_message_id: message, last_outcome: outcome, missed }) {
  if (at === null) return h("p", { class: "meta" }, "has not run yet");
  const skipped = outcome === "skipped";
  return h(
    "p",
    { class: "meta" },
    "last ",
    ageOf(at, " ago"),
    " ",
    h("span", { class: skipped ? "chip warn" : "chip ok" }, skipped ? "skipped" : `sent as message ${message}`),
    skipped && ` ${missed === 1 ? "" : `${missed} times now: `}${agent} is not done with message ${message}`,
  );
}

/** @param {ScheduleView} schedule @param {string} title */
function changeForm({ id, agent, paused }, title) {
  const change = paused === "" ? "pause" : "resume";
  return h(
    "form",
    { "data-async": true, method: "post", action: `/${change}-schedule/${id}`, "aria-labelledby": title },
    h(
      "div",
      { class: "actions" },
      paused === ""
        ? button(id, "pause", "❚❚ P4US3", "Pause", "is paused")
        : button(id, "resume", "▶ R3SUM3", "Resume", "goes on"),
      button(id, "run", "▸ RUN N0W", "Run now", `sent its message to ${agent}`),
      h("span", { class: "spacer" }),
      button(id, "remove", "✕ D3L3T3", "Delete", "is gone"),
    ),
    errorPlace(),
  );
}

/** @param {number} id @param {string} verb @param {string} face @param {string} words @param {string} done */
function button(id, verb, face, words, done) {
  const deletes = verb === "remove";
  return h(
    "button",
    {
      class: deletes ? "button quiet danger" : "button",
      formaction: `/${verb}-schedule/${id}`,
      "aria-label": `${words}: schedule ${id}`,
      "data-done": `Schedule ${id} ${done}.`,
      "data-confirm": deletes && `Delete schedule ${id}? Nothing is sent at its times any more.`,
      "data-yes": deletes && "Delete it",
      "data-danger": deletes,
    },
    leet(face),
  );
}
