/**
 * How full the context is, as the events tell: the size of the last prompt, which is another thing than what
 * a turn is billed for. Inferences of helpers inside the agent have contexts of their own and do not count.
 */

/** @typedef {import("./types.js").LiveEvent} LiveEvent */

const PROMPT_PARTS = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
const SYNTHETIC = "<synthetic>"; // words of the CLI itself, without an inference

/** @param {unknown} value */
const tokens = (value) => (typeof value === "number" && Number.isFinite(value) && value > 0 ? value : 0);

export class Usage {
  constructor() {
    /** Of the last inference; 0 is unknown. */
    this.contextTokens = 0;
    /** What the model can take; 0 is unknown. */
    this.windowTokens = 0;
  }

  /** @param {LiveEvent} event @returns {boolean} whether it told something */
  see({ kind, data }) {
    if (kind === "note" && data?.fresh === true) {
      this.contextTokens = 0; // a new conversation
      return true;
    }
    if (kind !== "stream" || !data) return false;
    if (data.type === "assistant") return this.prompted(data);
    if (data.type === "result") return this.ended(data.modelUsage);
    if (data.type !== "system" || data.subtype !== "compact_boundary") return false;
    this.contextTokens = tokens(data.compact_metadata?.post_tokens);
    return true;
  }

  /** @param {Record<string, any>} line */
  prompted(line) {
    const usage = line.message?.usage;
    if (line.parent_tool_use_id || !usage || line.message.model === SYNTHETIC) return false;
    const size = PROMPT_PARTS.reduce((sum, part) => sum + tokens(usage[part]), 0);
    if (size === 0 || size === this.contextTokens) return false;
    this.contextTokens = size;
    return true;
  }

  /** Of several models of a turn, the one that read most is the one that speaks. @param {unknown} models */
  ended(models) {
    if (!models || typeof models !== "object") return false;
    const read = (/** @type {any} */ each) => tokens(each?.inputTokens) + tokens(each?.cacheReadInputTokens);
    const [most] = Object.values(models).sort((a, b) => read(b) - read(a));
    const size = tokens(most?.contextWindow);
    if (size > 0) this.windowTokens = size;
    return size > 0;
  }
}
