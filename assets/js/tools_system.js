/** How calls of the tools read that run programs and look for files, and those that plan. */

import { h } from "./dom.js";
import { fold, isShort, quoted, sourced, words } from "./rows.js";
import { aside, linesOf, listOf, verb } from "./tool_parts.js";
import { asText, duration, headline } from "./text.js";

/** @typedef {import("./tool_parts.js").Renderer} Renderer */
/** @typedef {import("./tool_parts.js").Entry} Entry */

const DEFAULT_TIMEOUT_MS = 120_000; // of Claude Code; only another one is worth a word

/** @type {Renderer} */
function bash(input) {
  const command = asText(input.command);
  const short = isShort(command);
  const timeout = Number(input.timeout) || 0;
  const line = [
    verb("Bash"),
    h("span", { class: "shell" }, " $ "),
    short ? sourced(command) : words(headline(command, 120)),
    input.description && aside(`  # ${asText(input.description)}`),
    input.run_in_background === true && aside("  (in the background)"),
    timeout > 0 && timeout !== DEFAULT_TIMEOUT_MS && aside(`  (at most ${duration(timeout)})`),
  ];
  return short ? line : [fold([...line, linesOf(command)], command)];
}

/** A tool about a program in the background. @param {string} name @returns {Renderer} */
function background(name) {
  return (input) => [
    verb(name),
    " ",
    sourced(asText(input.bash_id ?? input.shell_id ?? input.task_id) || "?"),
    input.filter && aside(`  lines with ${asText(input.filter)}`),
  ];
}

/** @param {import("./tool_parts.js").Input} input @param {string[]} [how] */
function searched(input, how = []) {
  const where = [input.path, input.glob, input.type].map(asText).filter(Boolean).join(" ");
  return [
    sourced(asText(input.pattern) || "?"),
    where && aside(`  in ${where}`),
    how.length > 0 && aside(`  (${how.join(", ")})`),
  ];
}

/** @type {Renderer} */
function grep(input) {
  const around = input["-C"] ?? input["-A"] ?? input["-B"];
  const modes = /** @type {Record<string, string>} */ ({ count: "counts", content: "lines" });
  const how = [
    modes[asText(input.output_mode)] ?? "",
    input["-i"] === true ? "any case" : "",
    input.multiline === true ? "across lines" : "",
    asText(around) && `±${asText(around)} lines`,
    asText(input.head_limit) && `first ${asText(input.head_limit)}`,
  ];
  return [verb("Grep"), " ", ...searched(input, how.filter(Boolean))];
}

const TODO_MARKS = /** @type {Record<string, string>} */ ({ completed: "☑", in_progress: "◐", pending: "☐" });
const TODO_WORDS = /** @type {Record<string, string>} */ ({ completed: "done", in_progress: "in progress", pending: "to do" });

/** @type {Renderer} */
function todo(input) {
  const item = (/** @type {any} */ each) => {
    const status = asText(each?.status) in TODO_MARKS ? asText(each.status) : "pending";
    const mark = h("span", { "aria-label": TODO_WORDS[status], role: "img" }, TODO_MARKS[status]);
    return h("li", { class: `todo todo-${status}` }, mark, " ", words(asText(each?.content)));
  };
  const todos = listOf(input.todos);
  const done = todos.filter((each) => each?.status === "completed").length;
  const share = todos.length > 0 && aside(`  ${done} of ${todos.length} done`);
  return [verb("TodoWrite"), share, h("ul", { class: "todos" }, todos.map(item))];
}

/** A piece of work that is handed to a helper inside the agent. @type {Renderer} */
function task(input) {
  const prompt = asText(input.prompt);
  const line = [
    verb("Task"),
    " ",
    quoted(asText(input.description) || headline(prompt, 100) || "?"),
    input.subagent_type && aside(`  by ${asText(input.subagent_type)}`),
    input.model && aside(`  with ${asText(input.model)}`),
    input.run_in_background === true && aside("  (in the background)"),
  ];
  return prompt ? [fold([...line, linesOf(prompt)], prompt)] : line;
}

/** @type {Renderer} */
function plan(input) {
  const text = asText(input.plan);
  return text ? [fold([verb("Plan"), " ", words(headline(text, 110)), linesOf(text)], text, undefined, true)] : [verb("Plan")];
}

/** @type {Renderer} */
function skill(input) {
  const name = asText(input.skill ?? input.command) || "?";
  return [verb("Skill"), " ", sourced(name), input.args && aside(`  ${asText(input.args)}`)];
}

/** @type {Entry[]} */
export const SYSTEM_TOOLS = [
  ["Bash", bash],
  ["BashOutput", background("output of")],
  ["TaskOutput", background("output of")],
  ["KillShell", background("stop")],
  ["KillBash", background("stop")],
  ["TaskStop", background("stop")],
  ["Glob", (input) => [verb("Glob"), " ", ...searched(input)]],
  ["Grep", grep],
  ["LS", (input) => [verb("LS"), " ", sourced(asText(input.path) || ".", "path")]],
  ["TodoWrite", todo],
  ["Task", task],
  ["Agent", task],
  ["ExitPlanMode", plan],
  ["Skill", skill],
  ["SlashCommand", skill],
];
