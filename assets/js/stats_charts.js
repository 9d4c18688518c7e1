/** Which charts the stats pages show, and how a report of core becomes them. */

import { count, duration, money, plural } from "./text.js";

/** @typedef {import("./charts.js").Chart} Chart */
/** @typedef {import("./charts.js").Series} Series */

/**
 * As hive_shared/wire.py has them: UsageSums and what is built on it.
 * @typedef {{turns: number, ok: number, duration_ms: number, longest_ms: number, input_tokens: number,
 *   cache_read_tokens: number, cache_creation_tokens: number, output_tokens: number, cost_usd: number}} Sums
 * @typedef {Sums & {agent: string, unread: number, kept: boolean}} AgentUsage
 * @typedef {Sums & {model: string}} ModelUsage
 * @typedef {Sums & {start_ms: number, tools: Record<string, number>, messages: number|null, approved: number,
 *   denied: number, failed: number}} Bucket
 * @typedef {{agent: string|null, since_ms: number, until_ms: number, bucket_ms: number, totals: Sums,
 *   median_ms: number, p95_ms: number, buckets: Bucket[], agents: AgentUsage[], models: ModelUsage[],
 *   tools: {tool: string, calls: number}[], first_turn_ms: number|null, last_turn_ms: number|null,
 *   unread: number, kept_turns: number, budget: import("./types.js").BudgetView|null}} Report
 */

export const DAY_MS = 86_400_000;
const TOOL_TONES = 8; // series-0 to series-8 of stats.css; the last is what remains
const OTHER_TOOLS = "other tools";

/** @type {{field: "input_tokens"|"cache_read_tokens"|"cache_creation_tokens"|"output_tokens", name: string, tells: string}[]} */
export const TOKENS = [
  { field: "input_tokens", name: "input", tells: "Prompt tokens that came from no cache." },
  { field: "cache_read_tokens", name: "cache read", tells: "Prompt tokens read from the cache, billed at a fraction." },
  { field: "cache_creation_tokens", name: "cache write", tells: "Prompt tokens written to the cache, billed with a premium." },
  { field: "output_tokens", name: "output", tells: "Tokens that the model wrote." },
];

/** As `money`, shorter for nothing. @param {number} amount */
export function dollars(amount) {
  return amount === 0 ? "$0" : money(amount);
}

/** @param {number} ms @param {boolean} daily */
function bucketLabel(ms, daily) {
  const date = new Date(ms);
  const day = date.toLocaleDateString([], { month: "short", day: "numeric" });
  if (daily) return day;
  return `${day}, ${date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false })}`;
}

/** The first, the middle and the last one. @param {string[]} labels */
function endsOf(labels) {
  if (labels.length < 3) return labels;
  return [labels[0], labels[Math.floor((labels.length - 1) / 2)], labels[labels.length - 1]];
}

/** @param {Report} report @returns {Chart[]} */
export function chartsOf(report) {
  const labels = report.buckets.map((bucket) => bucketLabel(bucket.start_ms, report.bucket_ms === DAY_MS));
  const each = report.bucket_ms === DAY_MS ? "day" : "hour";
  /** @param {(bucket: Bucket) => number} value */
  const values = (value) => report.buckets.map(value);
  /** @param {Partial<Chart> & Pick<Chart, "id"|"title"|"tells"|"series">} chart @returns {Chart} */
  const chart = (chart) => ({
    source: "agents",
    stacked: true,
    whole: (chart.format ?? count) === count,
    labels,
    ends: endsOf(labels),
    format: count,
    ...chart,
  });
  return [
    chart({
      id: "turns",
      title: `Turns by ${each}`,
      tells: "Turns that ended, those that failed or were cancelled on top.",
      series: [
        { name: "ended well", tone: "tone-ok", values: values((bucket) => bucket.ok) },
        { name: "failed or cancelled", tone: "tone-bad", values: values((bucket) => bucket.turns - bucket.ok) },
      ],
    }),
    chart({
      id: "durations",
      title: `Duration of a turn by ${each}`,
      tells: "The mean in front, the longest behind it.",
      stacked: false,
      format: duration,
      series: [
        { name: "mean", tone: "series-0", values: values((bucket) => bucket.duration_ms / Math.max(1, bucket.turns)) },
        { name: "longest", tone: "series-faint", values: values((bucket) => bucket.longest_ms) },
      ],
    }),
    chart({
      id: "cost",
      title: `Cost by ${each}`,
      tells: "What the turns were billed, in dollars.",
      format: dollars,
      series: [{ name: "cost", tone: "series-3", values: values((bucket) => bucket.cost_usd) }],
    }),
    chart({
      id: "tools",
      title: `Tools by ${each}`,
      tells: "Calls of tools, the most frequent ones apart.",
      series: toolSeries(report),
    }),
    ...TOKENS.map(({ field, name, tells }, index) =>
      chart({
        id: field,
        title: `Tokens: ${name}`,
        tells,
        series: [{ name, tone: `series-${index}`, values: values((bucket) => bucket[field]) }],
      }),
    ),
    ...(report.agent === null ? [chart(messagesChart(report, each))] : []),
    chart({
      id: "approvals",
      title: `Approvals decided by ${each}`,
      tells: "Approved ones, denied ones, and those that could not be carried out.",
      source: "core",
      series: [
        { name: "approved", tone: "tone-ok", values: values((bucket) => bucket.approved) },
        { name: "denied", tone: "tone-warn", values: values((bucket) => bucket.denied) },
        { name: "failed", tone: "tone-bad", values: values((bucket) => bucket.failed) },
      ],
    }),
  ];
}

/** @param {Report} report @param {string} each */
function messagesChart(report, each) {
  const gone = report.buckets.filter((bucket) => bucket.messages === null).length;
  const note = gone > 0 ? ` Of the first ${plural(gone, each)} messages were removed since.` : "";
  return {
    id: "messages",
    title: `Messages by ${each}`,
    tells: `Messages sent in the whole hive; a broadcast counts for each recipient.${note}`,
    source: /** @type {const} */ ("core"),
    series: [{ name: "messages", tone: "series-4", values: report.buckets.map((bucket) => bucket.messages ?? 0) }],
  };
}

/** The tools of all buckets, the most frequent first, what remains last. @param {Report} report @returns {Series[]} */
export function toolSeries(report) {
  /** @type {Map<string, number>} */
  const calls = new Map();
  for (const bucket of report.buckets) {
    for (const [tool, number] of Object.entries(bucket.tools)) calls.set(tool, (calls.get(tool) ?? 0) + number);
  }
  const named = [...calls.keys()]
    .filter((tool) => tool !== OTHER_TOOLS)
    .sort((a, b) => (calls.get(b) ?? 0) - (calls.get(a) ?? 0));
  const names = calls.has(OTHER_TOOLS) ? [...named, OTHER_TOOLS] : named;
  return names.map((tool, index) => ({
    name: tool,
    tone: tool === OTHER_TOOLS ? "series-rest" : `series-${index % TOOL_TONES}`,
    values: report.buckets.map((bucket) => (Object.hasOwn(bucket.tools, tool) ? bucket.tools[tool] : 0)),
  }));
}
