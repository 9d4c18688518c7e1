/** One file of a commit's diff: parsed from unified text, shown line by line with every character visible. */

import { h } from "./dom.js";
import { neutraliseCode, plural } from "./text.js";

/** @typedef {import("./types.js").FileDiff} FileDiff */
/** @typedef {{kind: "plus"|"minus"|"same"|"hunk"|"said", number: number, text: string}} Line */

export const LINES_AT_ONCE = 1500; // the rest on demand: more would slow the page
export const LINE_MAX_CHARACTERS = 4000;

/** @type {Record<string, "plus"|"minus"|"same">} */
const KINDS = { "+": "plus", "-": "minus", " ": "same" };
const SPOKEN = { plus: "+", minus: "−", same: " ", hunk: "", said: "" };

/** The lines of a unified diff without file headers, with their numbers in the new file. @param {string} text */
export function parse(text) {
  /** @type {Line[]} */
  const lines = [];
  let number = 0;
  for (const line of text.replace(/\n$/, "").split("\n")) {
    const start = /^@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)$/.exec(line);
    const kind = KINDS[line[0] ?? " "];
    if (start) {
      number = Number(start[1]);
      lines.push({ kind: "hunk", number: 0, text: `from line ${number}${start[2] ? ` ·${start[2]}` : ""}` });
    } else if (kind) {
      lines.push({ kind, number: kind === "minus" ? 0 : number, text: line.slice(1) });
      if (kind !== "minus") number += 1;
    } else lines.push({ kind: "said", number: 0, text: line.replace(/^\\ /, "") });
  }
  return lines;
}

/** How many lines a file's diff has, without parsing it. @param {FileDiff} file */
export function linesOf(file) {
  return file.text === "" ? 0 : file.text.split("\n").length;
}

/** Whether not all of it can be read here. @param {FileDiff} file */
export function isCut(file) {
  return file.truncated || file.text.split("\n").some((line) => line.length > LINE_MAX_CHARACTERS);
}

/** @param {Line} line */
function row(line) {
  const rest = line.text.length - LINE_MAX_CHARACTERS;
  return h(
    "div",
    { class: line.kind, "data-line": line.number || null },
    h("span", { class: "num", "aria-hidden": "true" }, line.number ? String(line.number) : ""),
    h("span", { class: "sign" }, SPOKEN[line.kind]),
    h("span", { class: "code" }, neutraliseCode(line.text.slice(0, LINE_MAX_CHARACTERS))),
    rest > 0 && h("span", { class: "cut" }, `… ${rest} more characters of this line are not shown`),
  );
}

/** The body of a file's diff. @param {FileDiff} file */
export function fileBody(file) {
  const lines = file.text === "" ? [] : parse(file.text);
  const body = h("div", {
    class: "diff unified",
    tabindex: "0",
    role: "group",
    "aria-label": `Changes in ${file.path}`,
  });
  const more = h("button", { type: "button", class: "button quiet", "data-action": "more-lines" });
  let shown = 0;
  const grow = () => {
    const next = lines.slice(shown, shown + LINES_AT_ONCE);
    shown += next.length;
    more.before(...next.map(row));
    more.textContent = `↓ show the next of ${plural(lines.length - shown, "line")} left`;
    more.hidden = shown >= lines.length;
  };
  body.append(more);
  more.addEventListener("click", grow);
  grow();
  if (lines.length === 0 && !file.truncated) body.append(h("p", { class: "hint" }, empty(file)));
  if (file.truncated) body.append(h("p", { class: "cut" }, "Cut off here: it is too large to be shown whole."));
  return body;
}

/** Why there are no lines. @param {FileDiff} file */
function empty(file) {
  if (file.mode) return `only its mode changes: ${file.mode}`;
  return file.change === "added" ? "an empty file, or not text" : "not text: its content is not shown";
}
