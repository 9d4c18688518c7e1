/** The stats pages' sections: totals, tables, and what is said while there is nothing to show. */

import { here } from "./api.js";
import { budgetPanel } from "./budgets.js";
import { drawChart, sourceChip } from "./charts.js";
import { h, one, setText, show } from "./dom.js";
import { morph, syncList } from "./morph.js";
import { chartsOf, dollars, TOKENS } from "./stats_charts.js";
import { count, duration, fullTime, plural } from "./text.js";

/** @typedef {import("./stats_charts.js").Report} Report */
/** @typedef {import("./stats_charts.js").Sums} Sums */

const HEADS = ["turns", "ok", "mean", ...TOKENS.map(({ name }) => name), "cost"];

/** @param {Report} report */
export function renderReport(report) {
  const empty = report.totals.turns === 0;
  setText(one("#stats-since"), `since ${fullTime(report.since_ms)}`);
  show(one("#stats-empty"), empty);
  if (empty) setText(one("#stats-empty"), nothingWords(report));
  renderTiles(report);
  renderAgents(report);
  renderModels(report);
  renderBudget(report);
  // Core's own counts are worth a look even when no turn ended; without either there is nothing to draw.
  const charts = chartsOf(report).filter((chart) => !empty || chart.source === "core");
  const any = charts.some((chart) => chart.series.some((each) => each.values.some((value) => value > 0)));
  show(one("#stats-over-time"), any);
  syncList(one("#stats-charts"), any ? charts : [], (chart) => chart.id, drawChart);
}

/** @param {Report} report */
function nothingWords(report) {
  const whose = report.agent ?? "an agent";
  const where = report.agent === null ? "the dashboard" : "its page";
  if (report.last_turn_ms === null) {
    const what = "Turns, durations, tokens, cost and tools";
    return `No turn has ended yet. ${what} appear here when ${whose} has worked on a first message; write one on ${where}.`;
  }
  return `No turn ended in this time. The last one ended ${fullTime(report.last_turn_ms)}: choose a longer time above.`;
}

/** @param {Report} report */
function renderTiles(report) {
  const { totals } = report;
  const share = totals.turns > 0 ? `${Math.floor((100 * totals.ok) / totals.turns)} % ended well` : "";
  const times = totals.turns > 0 ? `95 % within ${duration(report.p95_ms)}` : "";
  const sent = report.buckets.reduce((sum, bucket) => sum + (bucket.messages ?? 0), 0);
  const decided = report.buckets.reduce((sum, each) => sum + each.approved + each.denied + each.failed, 0);
  const tiles = [
    tile("turns", count(totals.turns), share, "agents"),
    tile("median turn", totals.turns > 0 ? duration(report.median_ms) : "–", times, "agents"),
    tile("cost", dollars(totals.cost_usd), "", "agents"),
    ...TOKENS.map(({ field, name }) => tile(`tokens, ${name}`, count(totals[field]), "", "agents")),
    report.agent === null ? tile("messages", count(sent), "", "core") : null,
    tile("approvals decided", count(decided), "", "core"),
    tile("unread now", count(report.unread), report.agent === null ? "in all agents' inboxes" : "in its inbox", "core"),
  ];
  const place = one("#stats-tiles");
  morph(place, h("dl", { id: place.id, class: place.className, "aria-label": "Totals" }, tiles.filter((each) => each !== null)));
}

/** @param {string} name @param {string} value @param {string} more @param {"agents"|"core"} source */
function tile(name, value, more, source) {
  return h(
    "div",
    { class: `tile tile-${source}`, "data-key": name },
    h("dt", null, name),
    h("dd", null, h("span", { class: "tile-value" }, value), h("span", { class: "hint" }, more), sourceChip(source)),
  );
}

/** @param {Report} report */
function renderAgents(report) {
  const section = document.querySelector("#stats-agents");
  if (!(section instanceof HTMLElement)) return; // an agent's page has none
  show(section, report.agents.length > 0);
  const most = Math.max(0, ...report.agents.map((agent) => agent.cost_usd));
  const rows = report.agents.map((agent) =>
    h(
      "tr",
      { "data-key": agent.agent },
      h(
        "th",
        { scope: "row" },
        h("a", { href: here(`/agents/${agent.agent}/stats${location.search}`) }, agent.agent),
        agent.kept ? h("span", { class: "hint" }, " † destroyed") : null,
      ),
      ...figures(agent).slice(0, -1),
      h("td", null, dollars(agent.cost_usd), meter(agent.cost_usd, most)),
      h("td", null, count(agent.unread)),
    ),
  );
  fillTable(one("#stats-agents-table"), "By agent", ["agent", ...HEADS, "unread now"], rows);
}

/** @param {Report} report */
function renderBudget({ budget }) {
  const section = document.querySelector("#stats-budget");
  if (!(section instanceof HTMLElement)) return; // the hive's page has none
  show(section, budget !== null);
  const place = one("#stats-budget-panel");
  if (budget) morph(place, h("div", { id: place.id }, budgetPanel(budget)));
}

/** A share of the dearest, for the eye; the figure stands beside it. @param {number} value @param {number} most */
function meter(value, most) {
  if (!(most > 0)) return null;
  return h("progress", { class: "share", max: 100, value: Math.round((100 * value) / most), "aria-hidden": "true" });
}

/** @param {Report} report */
function renderModels(report) {
  show(one("#stats-models"), report.models.length > 0);
  const rows = report.models.map((model) =>
    h(
      "tr",
      { "data-key": model.model },
      h("th", { scope: "row", class: "words" }, model.model || "not told"),
      ...figures(model),
    ),
  );
  fillTable(one("#stats-models-table"), "By model", ["model", ...HEADS], rows);
}

/** The cells that every table has. @param {Sums} sums */
function figures(sums) {
  const mean = sums.turns > 0 ? duration(sums.duration_ms / sums.turns) : "–";
  const share = sums.turns > 0 ? `${Math.floor((100 * sums.ok) / sums.turns)} %` : "–";
  const tokens = TOKENS.map(({ field }) => count(sums[field]));
  return [count(sums.turns), share, mean, ...tokens, dollars(sums.cost_usd)].map((text) => h("td", null, text));
}

/** @param {HTMLElement} place @param {string} caption @param {string[]} heads @param {HTMLElement[]} rows */
function fillTable(place, caption, heads, rows) {
  const table = h(
    "table",
    { class: "figures" },
    h("caption", { class: "sr" }, caption),
    h("thead", null, h("tr", null, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", null, ...rows),
  );
  const old = place.querySelector("table");
  if (old) morph(old, table);
  else place.append(table);
}

/** The words for who is listening. @param {Report} report */
export function spoken(report) {
  return `${plural(report.totals.turns, "turn")}, ${dollars(report.totals.cost_usd)}.`;
}
