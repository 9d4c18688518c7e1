/** How each tool call reads in the terminal: the registry of all tools, and a sober default for any other. */

import { FILE_TOOLS } from "./tools_files.js";
import { HIVE_TOOLS } from "./tools_hive.js";
import { SYSTEM_TOOLS } from "./tools_system.js";
import { WEB_TOOLS } from "./tools_web.js";
import { aside, told, verb } from "./tool_parts.js";
import { asJson, fold, isShort, words } from "./rows.js";
import { asText, shorten } from "./text.js";

/** @typedef {import("./dom.js").Child} Child */
/** @typedef {import("./tool_parts.js").Input} Input */

const NAME_MAX_CHARACTERS = 120;

const RENDERERS = new Map([...SYSTEM_TOOLS, ...FILE_TOOLS, ...WEB_TOOLS, ...HIVE_TOOLS]);

/** The names of all tools that have a rendering of their own. */
export const RENDERED = [...RENDERERS.keys()];

/** A tool as people name it: `server · tool` for those of other MCP servers, `send` for the hive's own.
 * @param {unknown} name */
export function toolName(name) {
  const called = shorten(asText(name), NAME_MAX_CHARACTERS) || "tool";
  const [, server, tool] = /^mcp__(.+?)__(.+)$/.exec(called) ?? [];
  if (!server) return called;
  return server === "hyperhive" ? tool.replaceAll("_", " ") : `${server} · ${tool}`;
}

/** Any other tool: its name, and its arguments on one line, or folded. @param {string} name @param {Input} input */
function anyTool(name, input) {
  const line = Object.entries(input)
    .map(([key, value]) => `${key}=${told(value)}`)
    .join(" ");
  const label = verb(toolName(name));
  if (isShort(line)) return [label, " ", words(line)];
  const amount = Object.keys(input).length;
  const head = [label, " ", words(shorten(line.replaceAll("\n", " "), 110)), amount > 1 && aside(`  ${amount} arguments`)];
  return [fold(head, asJson(input))];
}

/**
 * What a tool call looks like. Input comes from an agent: any shape is possible, and none may break the page.
 * @param {unknown} name @param {unknown} input
 * @returns {Child[]}
 */
export function renderTool(name, input) {
  const called = asText(name) || "tool";
  const fields = /** @type {Input} */ (input && typeof input === "object" && !Array.isArray(input) ? input : { input });
  try {
    return RENDERERS.get(called)?.(fields) ?? anyTool(called, fields);
  } catch (error) {
    console.error("tool call could not be rendered", called, error);
    return anyTool(called, fields);
  }
}
