/** How each tool call reads in the terminal. One entry per tool; what is not listed gets a sober default. */

import { h } from "./dom.js";
import { diffLines } from "./diff.js";
import { hueOf } from "./messages.js";
import { asJson, fold, isShort, output, quoted, words } from "./rows.js";
import { asText, headline, lineCount, plural, remaining, shorten } from "./text.js";

/** @typedef {import("./dom.js").Child} Child */
/** @typedef {Record<string, any>} Input */
/** @typedef {(input: Input) => Child[]} Renderer */

const DIFF_OPEN_LINES = 14;

/** @param {string} name */
const verb = (name) => h("strong", { class: "verb" }, name);
/** @param {unknown} path */
const path = (path) => h("span", { class: "words path" }, asText(path) || "?");
/** @param {string} text */
const aside = (text) => h("span", { class: "hint words" }, text);
/** @param {unknown} name */
const whom = (name) => h("span", { class: hueOf(asText(name)) }, asText(name) || "?");

/** @type {Renderer} */
function bash(input) {
  const command = asText(input.command);
  const short = isShort(command);
  const line = [
    verb("Bash"),
    h("span", { class: "shell" }, " $ "),
    words(short ? command : headline(command, 120)),
    input.description && aside(`  # ${asText(input.description)}`),
    input.run_in_background === true && aside("  (in the background)"),
  ];
  return short ? line : [fold([...line, aside(`  ${plural(lineCount(command), "line")}`)], () => output(command))];
}

/** @type {Renderer} */
function read(input) {
  const from = Number(input.offset) || 0;
  const limit = Number(input.limit) || 0;
  const range = from || limit ? ` :${from || 1}${limit ? `–${(from || 1) + limit - 1}` : "…"}` : "";
  return [verb("Read"), " ", path(input.file_path ?? input.notebook_path), range && aside(range)];
}

/** @type {Renderer} */
function edit(input) {
  const edits = Array.isArray(input.edits) ? input.edits : [input];
  const lines = edits.flatMap((each) => diffLines(asText(each?.old_string), asText(each?.new_string)));
  const added = lines.filter((line) => line.mark === "+").length;
  const gone = lines.filter((line) => line.mark === "-").length;
  const counts = h(
    "span",
    null,
    h("span", { class: "plus" }, `+${added}`),
    " ",
    h("span", { class: "minus" }, `−${gone}`),
  );
  const line = [
    verb("Edit"),
    " ",
    path(input.file_path),
    " ",
    counts,
    input.replace_all === true && aside(" (every occurrence)"),
  ];
  return [fold(line, () => diff(lines), lines.length <= DIFF_OPEN_LINES)];
}

/** @param {import("./diff.js").DiffLine[]} lines */
function diff(lines) {
  const kind = { "+": "plus", "-": "minus", " ": "same" };
  return h(
    "div",
    { class: "diff words" },
    lines.map(({ mark, text }) => h("div", { class: kind[mark] }, `${mark} ${text}`)),
  );
}

/** @type {Renderer} */
function write(input) {
  const content = asText(input.content);
  return [
    fold([verb("Write"), " ", path(input.file_path), aside(`  ${plural(lineCount(content), "line")}`)], () =>
      output(content),
    ),
  ];
}

/** @type {Renderer} */
function search(input) {
  const where = [input.path, input.glob, input.type].map(asText).filter(Boolean).join(" ");
  return [words(asText(input.pattern) || "?"), where && aside(`  in ${where}`)];
}

const TODO_MARKS = /** @type {Record<string, string>} */ ({ completed: "☑", in_progress: "◐", pending: "☐" });

/** @type {Renderer} */
function todo(input) {
  const todos = Array.isArray(input.todos) ? input.todos : [];
  const item = (/** @type {any} */ each) => {
    const status = asText(each?.status);
    return h(
      "li",
      { class: `todo todo-${status in TODO_MARKS ? status : "pending"}` },
      `${TODO_MARKS[status] ?? "☐"} `,
      words(asText(each?.content)),
    );
  };
  return [verb("TodoWrite"), h("ul", { class: "todos" }, todos.map(item))];
}

/** @type {Renderer} */
function send(input) {
  const body = asText(input.body);
  const target = [
    verb("send"),
    " → ",
    input.to === "*" ? h("span", { class: "who who-all" }, "everyone") : whom(input.to),
  ];
  if (isShort(body)) return [...target, ": ", quoted(body, 1000)];
  return [
    fold([...target, ": ", quoted(headline(body, 100)), aside(`  ${plural(lineCount(body), "line")}`)], () =>
      output(body),
    ),
  ];
}

/** @type {Renderer} */
function askOperator(input) {
  const options = Array.isArray(input.options) ? input.options.map(asText) : [];
  const seconds = Number(input.ttl_seconds) || 0;
  return [
    verb("ask operator"),
    ": ",
    quoted(asText(input.question), 600),
    options.length > 0 && aside(`  [ ${options.join(" | ")} ]`),
    seconds > 0 && aside(`  closes in ${remaining(seconds * 1000, 0)}`),
  ];
}

/** @type {Renderer} */
function remind(input) {
  const after = asText(input.after_seconds ?? input.delay_seconds);
  const when = after ? `in ${after} s` : input.at ? `at ${asText(input.at)}` : "";
  return [verb("remind"), when && ` ${when}`, ": ", quoted(asText(input.body ?? input.message))];
}

/** @type {Renderer} */
function recv(input) {
  const wait = asText(input.wait_seconds);
  return [verb("recv"), wait && aside(`  waits up to ${wait} s`)];
}

/** @type {Renderer} */
function applyCommit(input) {
  return [
    verb("request apply commit"),
    " ",
    whom(input.agent),
    " ",
    h("code", { class: "words" }, shorten(asText(input.commit_ref) || "HEAD", 40)),
    input.note && aside(`  ${asText(input.note)}`),
  ];
}

/** @type {Renderer} */
function requestSpawn(input) {
  const commit = asText(input.commit_ref);
  return [
    verb("request spawn"),
    " ",
    whom(input.name),
    commit && " ",
    commit && h("code", { class: "words" }, shorten(commit, 40)),
    input.note && aside(`  ${asText(input.note)}`),
  ];
}

/** @type {Renderer} */
function cancelQuestion(input) {
  return [verb("cancel question"), ` #${shorten(asText(input.question_id), 20) || "?"}`];
}

/** A manager tool whose one argument is an agent's name. @param {string} name @returns {Renderer} */
function onAgent(name) {
  return (input) => [
    verb(name),
    " ",
    whom(input.name ?? input.agent),
    input.lines && aside(`  ${asText(input.lines)} lines`),
    input.note && aside(`  ${asText(input.note)}`),
  ];
}

/** @type {Map<string, Renderer>} */
const RENDERERS = new Map([
  ["Bash", bash],
  ["Read", read],
  ["Edit", edit],
  ["MultiEdit", edit],
  ["Write", write],
  ["Glob", (input) => [verb("Glob"), " ", ...search(input)]],
  ["Grep", (input) => [verb("Grep"), " ", ...search(input)]],
  ["TodoWrite", todo],
  ["mcp__hyperhive__send", send],
  ["mcp__hyperhive__recv", recv],
  ["mcp__hyperhive__ask_operator", askOperator],
  ["mcp__hyperhive__remind", remind],
  ["mcp__hyperhive__whoami", () => [verb("whoami")]],
  ["mcp__hyperhive__agents", () => [verb("agents")]],
  ["mcp__hyperhive__request_apply_commit", applyCommit],
  ["mcp__hyperhive__request_spawn", requestSpawn],
  ["mcp__hyperhive__cancel_question", cancelQuestion],
  ...["prepare_spawn", "kill", "start", "restart", "update", "logs"].map(
    (name) => /** @type {[string, Renderer]} */ ([`mcp__hyperhive__${name}`, onAgent(name.replace("_", " "))]),
  ),
]);

/** Any other tool: its name, and its arguments on one line, or folded. @param {string} name @param {Input} input */
function anyTool(name, input) {
  const [, server, tool] = /^mcp__(.+?)__(.+)$/.exec(name) ?? [];
  const json = asJson(input);
  const line = Object.entries(input)
    .map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
  const label = verb(server ? `${server} · ${tool}` : name);
  if (isShort(line)) return [label, " ", words(line)];
  return [fold([label, " ", words(shorten(line.replaceAll("\n", " "), 110))], () => output(json))];
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
