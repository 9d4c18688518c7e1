/**
 * Live events as terminal rows. Noise is dropped; an event of an unknown shape is shown folded, never lost.
 * Events are seen in their order, so that a result knows its call; the rows may be built later, in any order.
 */

import { prose } from "./prose.js";
import { h } from "./dom.js";
import { linked } from "./links.js";
import { hueOf } from "./messages.js";
import { renderTool } from "./renderers.js";
import { resultRows } from "./results.js";
import { asJson, fold, foldable, happened, isShort, row, standsFor, words } from "./rows.js";
import { asText, clock, count, duration, headline, money } from "./text.js";

/** @typedef {import("./types.js").LiveEvent} LiveEvent */
/** Of an event: when it was, and the calls whose results it brings. @typedef {{atMs: number, calls: Map<string, Call>}} Around */
/** @typedef {import("./results.js").Call} Call */

const NOISE = new Set([
  "result",
  "rate_limit_event",
  "stream_event",
  "control_response",
  "control_request",
  "keep_alive",
]);
const SYSTEM_TOLD = new Set(["compact_boundary", "status", "api_retry"]);
const CALLS = new Set(["tool_use", "server_tool_use", "mcp_tool_use"]);
const RESULTS = new Set(["tool_result", "mcp_tool_result"]);
const KINDS = new Set(["turn_start", "turn_end", "note", "stream"]);
const CALLS_REMEMBERED = 2000;
const TURN_FLAT_LINES = 12;
const THOUGHT_FLAT_CHARACTERS = 1500;

export class Transcript {
  constructor() {
    /** Calls by their id, to know whose result arrives. @type {Map<string, {name: string, atMs: number}>} */
    this.calls = new Map();
    /** The call that the newest row tells of, if it tells of one. */
    this.lastCall = "";
  }

  /** The rows of one event; none for noise. @param {LiveEvent} event @returns {HTMLElement[]} */
  rows(event) {
    return this.see(event)?.() ?? [];
  }

  /** Takes note of an event, and gives what builds its rows, now or later; null for noise.
   * @param {LiveEvent} event @returns {(() => HTMLElement[])|null} */
  see(event) {
    const data = event.data ?? {};
    if (isNoise(event.kind, data)) return null;
    const around = { atMs: event.at_ms, calls: this.note(blocksOf(data), event.at_ms) };
    return () => {
      const rows = told(event.kind, data, around);
      for (const each of rows) happened(each, event.at_ms);
      return rows;
    };
  }

  /** Remembers the calls, and finds those of the results. @param {any[]} blocks @param {number} atMs */
  note(blocks, atMs) {
    /** @type {Map<string, Call>} */
    const calls = new Map();
    for (const block of blocks) {
      if (CALLS.has(block?.type)) this.remember(asText(block.id), asText(block.name), atMs);
      if (!RESULTS.has(block?.type)) continue;
      const id = asText(block.tool_use_id);
      const call = this.calls.get(id);
      if (call) calls.set(id, { ...call, isLast: id === this.lastCall });
    }
    return calls;
  }

  /** @param {string} id @param {string} name @param {number} atMs */
  remember(id, name, atMs) {
    if (this.calls.size >= CALLS_REMEMBERED) this.calls.delete(this.calls.keys().next().value ?? "");
    this.calls.set(id, { name, atMs });
    this.lastCall = id;
  }
}

/** @param {string} kind @param {Record<string, any>} data */
function isNoise(kind, data) {
  if (!KINDS.has(kind)) return true;
  if (kind !== "stream") return false;
  return NOISE.has(data.type) || (data.type === "system" && !SYSTEM_TOLD.has(data.subtype));
}

/** What a line of the conversation holds. @param {Record<string, any>} line @returns {any[]} */
function blocksOf(line) {
  const content = line.message?.content;
  if (typeof content === "string") return [{ type: "text", text: content }];
  return Array.isArray(content) ? content : [];
}

/** @param {string} kind @param {Record<string, any>} data @param {Around} around */
function told(kind, data, around) {
  switch (kind) {
    case "turn_start":
      return [turnStart(data, around.atMs)];
    case "turn_end":
      return [turnEnd(data)];
    case "note":
      return [row("note", "·", words(asText(data.text)))];
    default:
      return stream(data, around);
  }
}

/** @param {Record<string, any>} line @param {Around} around */
function stream(line, around) {
  if (line.type === "assistant" || line.type === "user") return contents(line, around);
  if (line.type === "system") return system(line);
  return [row("note", "·", fold([words(asText(line.type) || "unknown event")], asJson(line)))];
}

/** What a helper inside the agent does is set in. @param {Record<string, any>} line @param {Around} around */
function contents(line, around) {
  const rows = blocksOf(line).flatMap((each) => block(each ?? {}, line.type, around));
  if (line.parent_tool_use_id) for (const each of rows) each.classList.add("row-sub");
  return rows;
}

/** @param {Record<string, any>} block @param {string} speaker @param {Around} around @returns {HTMLElement[]} */
function block(block, speaker, around) {
  if (CALLS.has(block.type)) return [row("tool", "→", ...renderTool(block.name, block.input))];
  if (RESULTS.has(block.type)) return resultRows(block, around.calls.get(asText(block.tool_use_id)) ?? null, around.atMs);
  switch (block.type) {
    case "text":
      return speaker === "assistant" ? text(asText(block.text)) : aside(asText(block.text));
    case "thinking":
      return thinking(asText(block.thinking));
    case "redacted_thinking":
      return thinking("");
    default:
      return [row("note", "·", fold([words(asText(block.type) || "content")], asJson(block)))];
  }
}

/** @param {string} said */
function text(said) {
  return said.trim() === "" ? [] : [row("text", "▌", prose(said.trim()))];
}

/** What the CLI itself put into the conversation. @param {string} said */
function aside(said) {
  return said.trim() === "" ? [] : [row("note", "·", foldable(said))];
}

/** @param {string} thought */
function thinking(thought) {
  const said = thought.trim();
  if (said === "") return [row("think", "·", "thinking …")];
  if (said.length <= THOUGHT_FLAT_CHARACTERS) return [row("think", "·", h("div", { class: "words" }, linked(said)))];
  return [row("think", "·", fold([words(headline(said, 140))], said))];
}

/** @param {Record<string, any>} line */
function system(line) {
  if (line.subtype === "compact_boundary")
    return [row("note", "⎯", "context compacted; the conversation goes on from a summary")];
  if (line.subtype === "status" && line.status === "compacting") return [row("note", "·", "compacting the context …")];
  if (line.subtype === "api_retry")
    return [row("note", "·", words(`the API asks to wait; attempt ${asText(line.attempt) || "?"}`))];
  return [];
}

/** @param {Record<string, any>} data @param {number} atMs */
function turnStart(data, atMs) {
  const from = asText(data.from) || "?";
  const unread = Number(data.unread) || 0;
  const head = h(
    "div",
    { class: "turn-head" },
    h("strong", null, "TURN"),
    " ← ",
    h("span", { class: hueOf(from) }, from),
    unread > 0 && ` · ${unread} unread`,
    data.redelivered === true && " ",
    data.redelivered === true && h("span", { class: "chip warn" }, "delivered again"),
    h("span", { class: "hint" }, ` · ${clock(atMs)}`),
  );
  return row("turn", "◆", head, turnBody(asText(data.body)));
}

/** What woke the agent; a long message is folded, as it is read elsewhere already. @param {string} body */
function turnBody(body) {
  const long = body.length > THOUGHT_FLAT_CHARACTERS || !(isShort(body) || body.split("\n").length <= TURN_FLAT_LINES);
  const shown = long ? foldable(body) : standsFor(h("div", { class: "words sourced" }, linked(body)), body);
  return h("div", { class: "turn-body" }, shown);
}

/** @param {Record<string, any>} data */
function turnEnd(data) {
  const outcome = asText(data.outcome);
  const stopped = outcome === "cancelled" || outcome === "interrupted";
  const [kind, mark, said] =
    data.ok === true ? ["ok", "✓", "ok"] : stopped ? ["note", "■", outcome] : ["fail", "✗", "failed"];
  const note = asText(data.note);
  return row(
    kind,
    mark,
    h("strong", null, `turn ${said}`),
    note && h("span", { class: "words" }, ` — ${note}`),
    h("span", { class: "hint" }, figures(data.stats)),
  );
}

/** @param {any} stats */
function figures(stats) {
  if (!stats || typeof stats !== "object") return "";
  const tokens = billedTokens(stats);
  const parts = [
    stats.duration_ms > 0 && duration(stats.duration_ms),
    tokens > 0 && `${count(tokens)} tokens`,
    stats.cost_usd > 0 && money(stats.cost_usd),
  ];
  return parts
    .filter(Boolean)
    .map((part) => ` · ${part}`)
    .join("");
}

/** All tokens of a turn, summed over its inferences: what is billed, not what is in context.
 * @param {import("./types.js").TurnStats} stats */
export function billedTokens(stats) {
  const { input_tokens = 0, output_tokens = 0, cache_read_tokens = 0, cache_creation_tokens = 0 } = stats;
  return input_tokens + output_tokens + cache_read_tokens + cache_creation_tokens;
}
