/** How calls of the tools read that read and change files: paths, ranges, and what an edit changes. */

import { diffLines, diffText } from "./diff.js";
import { h } from "./dom.js";
import { asJson, fold, standsFor } from "./rows.js";
import { aside, linesOf, listOf, path, verb } from "./tool_parts.js";
import { asText, neutraliseCode, plural } from "./text.js";

/** @typedef {import("./tool_parts.js").Renderer} Renderer */
/** @typedef {import("./tool_parts.js").Entry} Entry */
/** @typedef {import("./diff.js").DiffLine} DiffLine */

const DIFF_OPEN_LINES = 14;
const KINDS = { "+": "plus", "-": "minus", " ": "same" };

/** @type {Renderer} */
function read(input) {
  const from = Number(input.offset) || 0;
  const limit = Number(input.limit) || 0;
  const range = from || limit ? ` :${from || 1}${limit ? `–${(from || 1) + limit - 1}` : "…"}` : "";
  const pages = asText(input.pages);
  return [verb("Read"), " ", path(input.file_path ?? input.notebook_path), aside(range), pages && aside(`  pages ${pages}`)];
}

/** @type {Renderer} */
function edit(input) {
  const edits = Array.isArray(input.edits) ? input.edits : [input];
  const hunks = edits.map((each) => diffLines(asText(each?.old_string), asText(each?.new_string)));
  const line = [
    verb("Edit"),
    " ",
    path(input.file_path),
    " ",
    counts(hunks.flat()),
    edits.length > 1 && aside(`  ${plural(edits.length, "edit")}`),
    edits.some((each) => each?.replace_all === true) && aside(" (every occurrence)"),
  ];
  return [changes(line, hunks)];
}

/** @param {DiffLine[]} lines */
function counts(lines) {
  const added = lines.filter((line) => line.mark === "+").length;
  const gone = lines.filter((line) => line.mark === "-").length;
  return h("span", null, h("span", { class: "plus" }, `+${added}`), " ", h("span", { class: "minus" }, `−${gone}`));
}

/** @param {import("./dom.js").Child[]} summary @param {DiffLine[][]} hunks */
function changes(summary, hunks) {
  const source = hunks.map(diffText).join("\n");
  const length = hunks.reduce((sum, lines) => sum + lines.length, 0);
  return fold(summary, source, () => standsFor(h("div", { class: "hunks sourced" }, hunks.map(diff)), source), length <= DIFF_OPEN_LINES);
}

/** @param {DiffLine[]} lines */
function diff(lines) {
  return h(
    "div",
    { class: "diff words" },
    lines.map(({ mark, text }) => h("div", { class: KINDS[mark] }, `${mark} ${neutraliseCode(text)}`)),
  );
}

/** @type {Renderer} */
function write(input) {
  const content = asText(input.content);
  return [fold([verb("Write"), " ", path(input.file_path), linesOf(content)], content)];
}

/** @type {Renderer} */
function notebook(input) {
  const mode = asText(input.edit_mode) || "replace";
  const cell = asText(input.cell_id ?? input.cell_number);
  const lines = diffLines("", asText(input.new_source));
  const line = [
    verb("NotebookEdit"),
    " ",
    path(input.notebook_path),
    aside(`  ${mode === "insert" ? "new cell" : `${mode} cell`}${cell ? `${mode === "insert" ? " after" : ""} ${cell}` : ""}`),
    input.cell_type && aside(` (${asText(input.cell_type)})`),
  ];
  return mode === "delete" || lines.length === 0 ? line : [changes([...line, " ", counts(lines)], [lines])];
}

/** A patch as other backends hand it over: text in the manner of `diff`. @type {Renderer} */
function patch(input) {
  const text = asText(input.patch ?? input.input ?? input.diff) || asJson(listOf(input.changes));
  return [fold([verb("Patch"), linesOf(text)], text)];
}

/** @type {Entry[]} */
export const FILE_TOOLS = [
  ["Read", read],
  ["NotebookRead", read],
  ["Edit", edit],
  ["MultiEdit", edit],
  ["Write", write],
  ["NotebookEdit", notebook],
  ["apply_patch", patch],
];
