/** How calls of the tools read that look something up on the web. */

import { quoted, sourced } from "./rows.js";
import { aside, listOf, verb } from "./tool_parts.js";
import { asText } from "./text.js";

/** @typedef {import("./tool_parts.js").Renderer} Renderer */
/** @typedef {import("./tool_parts.js").Entry} Entry */

/** @type {Renderer} */
function fetched(input) {
  const asked = asText(input.prompt);
  return [verb("WebFetch"), " ", sourced(asText(input.url) || "?"), asked && " ", asked && quoted(asked)];
}

/** @type {Renderer} */
function searched(input) {
  const only = listOf(input.allowed_domains).map(asText).filter(Boolean).join(", ");
  const not = listOf(input.blocked_domains).map(asText).filter(Boolean).join(", ");
  return [verb("WebSearch"), " ", quoted(asText(input.query) || "?"), only && aside(`  on ${only}`), not && aside(`  not on ${not}`)];
}

/** @type {Entry[]} */
export const WEB_TOOLS = [
  ["WebFetch", fetched],
  ["WebSearch", searched],
];
