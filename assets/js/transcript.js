/** Live events as terminal rows. Noise is dropped; an event of an unknown shape is shown folded, never lost. */

import { h } from "./dom.js";
import { hueOf } from "./messages.js";
import { renderTool } from "./renderers.js";
import { asJson, fold, foldable, output, row, words } from "./rows.js";
import { asText, clock, count, duration, money } from "./text.js";

/** @typedef {import("./types.js").LiveEvent} LiveEvent */

const NOISE = new Set([
  "result",
  "rate_limit_event",
  "stream_event",
  "control_response",
  "control_request",
  "keep_alive",
]);
const TOOLS_REMEMBERED = 2000;

export class Transcript {
  constructor() {
    /** Tool names by the id of their call, to know whose result arrives. @type {Map<string, string>} */
    this.tools = new Map();
  }

  /** The rows of one event; none for noise. @param {LiveEvent} event @returns {HTMLElement[]} */
  rows(event) {
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
    return [
      row(
        "note",
        "·",
        fold([words(asText(line.type) || "unknown event")], () => output(asJson(line))),
      ),
    ];
  }

  /** @param {Record<string, any>} line */
  contents(line) {
    const content = line.message?.content;
    if (typeof content === "string") return line.type === "assistant" ? text(content) : aside(content);
    if (!Array.isArray(content)) return [];
    return content.flatMap((block) => this.block(block ?? {}, line.type));
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
        this.remember(asText(block.id), asText(block.name));
        return [row("tool", "→", ...renderTool(block.name, block.input))];
      case "tool_result":
        return this.result(block);
      default:
        return [
          row(
            "note",
            "·",
            fold([words(asText(block.type) || "content")], () => output(asJson(block))),
          ),
        ];
    }
  }

  /** @param {string} id @param {string} name */
  remember(id, name) {
    if (this.tools.size >= TOOLS_REMEMBERED) this.tools.delete(this.tools.keys().next().value ?? "");
    this.tools.set(id, name);
  }

  /** @param {Record<string, any>} block */
  result(block) {
    const tool = this.tools.get(asText(block.tool_use_id)) ?? "";
    const said = resultText(block.content);
    const failed = block.is_error === true;
    if (!failed && tool === "TodoWrite") return []; // the list itself was shown
    if (said.trim() === "")
      return [
        row(
          failed ? "fail" : "result",
          failed ? "✗" : "←",
          h("span", { class: "hint" }, failed ? "failed without a word" : "done, no output"),
        ),
      ];
    return [row(failed ? "fail" : "result", failed ? "✗" : "←", foldable(said, failed))];
  }
}

/** @param {string} said */
function text(said) {
  return said.trim() === "" ? [] : [row("text", "▌", h("div", { class: "words" }, said.trim()))];
}

/** What the CLI itself put into the conversation. @param {string} said */
function aside(said) {
  return said.trim() === "" ? [] : [row("note", "·", foldable(said))];
}

/** @param {string} thought */
function thinking(thought) {
  if (thought.trim() === "") return [row("think", "·", "thinking …")];
  return [row("think", "·", h("div", { class: "words" }, thought.trim()))];
}

/** A result's content is a text, or blocks of which some are text. @param {unknown} content @returns {string} */
function resultText(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content === undefined || content === null ? "" : asJson(content);
  return content
    .map((block) => (typeof block?.text === "string" ? block.text : `[${asText(block?.type) || "content"}]`))
    .join("\n");
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
    ` · ${unread} unread`,
    data.redelivered === true && " ",
    data.redelivered === true && h("span", { class: "chip warn" }, "delivered again"),
    h("span", { class: "hint" }, ` · ${clock(atMs)}`),
  );
  return row("turn", "◆", head, h("div", { class: "words turn-body" }, asText(data.body)));
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
