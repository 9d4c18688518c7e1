/** Live events as terminal rows. Noise is dropped; an event of an unknown shape is shown folded, never lost. */

import { prose } from "./prose.js";
import { h } from "./dom.js";
import { linked } from "./links.js";
import { hueOf } from "./messages.js";
import { renderTool } from "./renderers.js";
import { resultRows } from "./results.js";
import { asJson, fold, foldable, happened, isShort, row, standsFor, words } from "./rows.js";
import { asText, clock, count, duration, headline, money } from "./text.js";

/** @typedef {import("./types.js").LiveEvent} LiveEvent */

const NOISE = new Set([
  "result",
  "rate_limit_event",
  "stream_event",
  "control_response",
  "control_request",
  "keep_alive",
]);
const CALLS_REMEMBERED = 2000;
const TURN_FLAT_LINES = 12;
const THOUGHT_FLAT_CHARACTERS = 1500;

export class Transcript {
  constructor() {
    /** Calls by their id, to know whose result arrives. @type {Map<string, {name: string, atMs: number}>} */
    this.calls = new Map();
    /** The call that the newest row tells of, if it tells of one. */
    this.lastCall = "";
    this.atMs = 0;
  }

  /** The rows of one event; none for noise. @param {LiveEvent} event @returns {HTMLElement[]} */
  rows(event) {
    this.atMs = event.at_ms;
    const rows = this.told(event);
    for (const each of rows) happened(each, event.at_ms);
    return rows;
  }

  /** @param {LiveEvent} event */
  told(event) {
    const data = event.data ?? {};
    switch (event.kind) {
      case "turn_start":
        return [turnStart(data, event.at_ms)];
      case "turn_end":
        return [turnEnd(data)];
      case "note":
        return [row("note", "·", words(asText(data.text)))];
      case "stream":
        return this.stream(data);
      default:
        return [];
    }
  }

  /** @param {Record<string, any>} line */
  stream(line) {
    if (line.type === "assistant" || line.type === "user") return this.contents(line);
    if (line.type === "system") return system(line);
    if (NOISE.has(line.type)) return [];
    return [row("note", "·", fold([words(asText(line.type) || "unknown event")], asJson(line)))];
  }

  /** What a helper inside the agent does is set in. @param {Record<string, any>} line */
  contents(line) {
    const content = line.message?.content;
    const blocks = typeof content === "string" ? [{ type: "text", text: content }] : content;
    if (!Array.isArray(blocks)) return [];
    const rows = blocks.flatMap((block) => this.block(block ?? {}, line.type));
    if (line.parent_tool_use_id) for (const each of rows) each.classList.add("row-sub");
    return rows;
  }

  /** @param {Record<string, any>} block @param {string} speaker @returns {HTMLElement[]} */
  block(block, speaker) {
    switch (block.type) {
      case "text":
        return speaker === "assistant" ? text(asText(block.text)) : aside(asText(block.text));
      case "thinking":
        return thinking(asText(block.thinking));
      case "redacted_thinking":
        return thinking("");
      case "tool_use":
      case "server_tool_use":
      case "mcp_tool_use":
        this.remember(asText(block.id), asText(block.name));
        return [row("tool", "→", ...renderTool(block.name, block.input))];
      case "tool_result":
      case "mcp_tool_result":
        return this.result(block);
      default:
        return [row("note", "·", fold([words(asText(block.type) || "content")], asJson(block)))];
    }
  }

  /** @param {string} id @param {string} name */
  remember(id, name) {
    if (this.calls.size >= CALLS_REMEMBERED) this.calls.delete(this.calls.keys().next().value ?? "");
    this.calls.set(id, { name, atMs: this.atMs });
    this.lastCall = id;
  }

  /** @param {Record<string, any>} block */
  result(block) {
    const id = asText(block.tool_use_id);
    const call = this.calls.get(id);
    const isLast = id === this.lastCall;
    return resultRows(block, call ? { ...call, isLast } : null, this.atMs);
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
