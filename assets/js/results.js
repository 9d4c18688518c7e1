/** What a tool answered: short answers flat, long ones folded behind a headline, each tool's in its own way. */

import { stripAnsi } from "./ansi.js";
import { h } from "./dom.js";
import { toolName } from "./renderers.js";
import { asJson, fold, foldable, row, standsFor } from "./rows.js";
import { asText, duration, neutraliseCode, plural, size } from "./text.js";

/** @typedef {import("./dom.js").Child} Child */
/** @typedef {{name: string, atMs: number, isLast: boolean}} Call  of what this is the result; `isLast`: nothing stands between */

const SLOW_MS = 2000; // from here on it is worth saying how long a tool took
const LINES_MAX = 3000;
const SAVED = /^The file .{1,4000}? (has been (updated|edited)|was created)/s;

/** A result's content is a text, or blocks of which some are text. @param {unknown} content @returns {string} */
function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content === undefined || content === null ? "" : asJson(content);
  return content.map(blockText).join("\n");
}

/** @param {any} block */
function blockText(block) {
  if (typeof block?.text === "string") return block.text;
  if (block?.type === "tool_reference") return asText(block.tool_name);
  const kind = asText(block?.source?.media_type ?? block?.mimeType);
  const data = block?.source?.data ?? block?.data;
  const bytes = typeof data === "string" ? `, ${size(Math.round(data.length * 0.75))}` : "";
  return `[${asText(block?.type) || "content"}${kind ? ` ${kind}${bytes}` : ""}]`;
}

/** @param {string} text */
const hint = (text) => h("span", { class: "hint" }, text);

/** A file as `Read` gives it: its line numbers beside the text, and out of a selection. @param {string} text */
function numbered(text) {
  const lines = text.split("\n");
  const shown = lines.slice(0, LINES_MAX).map((line) => {
    const [, number, rest] = /^\s{0,8}(\d{1,7})[\t→](.*)$/s.exec(line) ?? [null, "", line];
    return h("div", null, h("span", { class: "num", "aria-hidden": "true" }, number), neutraliseCode(rest));
  });
  const more = lines.length - shown.length;
  return h("div", { class: "words numbered" }, shown, more > 0 && hint(`… ${plural(more, "more line")}`));
}

/** @param {string} text */
const unnumbered = (text) => text.replaceAll(/^\s{0,8}\d{1,7}[\t→]/gm, "");

/** @param {string} said */
function file(said) {
  if (!/^\s{0,8}\d{1,7}[\t→]/.test(said)) return null;
  const text = unnumbered(said).trimEnd();
  const element = foldable(text, { body: () => numbered(said) });
  return standsFor(element, text);
}

/** An edit that worked needs no repetition of the file. @param {string} said */
function saved(said) {
  if (!SAVED.test(said)) return null;
  return said.includes("\n") ? fold([hint("saved")], said) : hint("saved");
}

/** @type {Map<string, (said: string) => Child>} */
const SPECIAL = new Map([
  ["Read", file],
  ["NotebookRead", file],
  ["Edit", saved],
  ["MultiEdit", saved],
  ["Write", saved],
]);

/** @param {string} said @param {Call|null} call @param {boolean} failed @returns {Child} */
function shown(said, call, failed) {
  const special = failed || !call ? null : SPECIAL.get(call.name)?.(said);
  if (special) return special;
  if (stripAnsi(said).trim() === "") return hint(failed ? "failed without a word" : "done, no output");
  return foldable(said, { failed });
}

/**
 * The rows of one result: none where the call said it all.
 * @param {Record<string, any>} block @param {Call|null} call @param {number} atMs
 * @returns {HTMLElement[]}
 */
export function resultRows(block, call, atMs) {
  const failed = block.is_error === true;
  if (!failed && call?.name === "TodoWrite") return []; // the list itself was shown
  const said = textOf(block.content);
  const took = call && atMs > 0 && call.atMs > 0 ? atMs - call.atMs : 0;
  const about = [call && !call.isLast ? toolName(call.name) : "", took >= SLOW_MS ? duration(took) : ""];
  const before = about.filter(Boolean).join(" · ");
  return [
    row(
      failed ? "fail" : "result",
      failed ? "✗" : "←",
      before && h("span", { class: "hint before" }, before),
      shown(said, call, failed),
    ),
  ];
}
