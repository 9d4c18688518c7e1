/** How calls of the hive's own tools read (SPEC section 10). */

import { h } from "./dom.js";
import { fold, isShort, quoted, sourced } from "./rows.js";
import { aside, linesOf, listOf, verb, whom } from "./tool_parts.js";
import { asText, clock, headline, remaining, shorten } from "./text.js";

/** @typedef {import("./tool_parts.js").Renderer} Renderer */
/** @typedef {import("./tool_parts.js").Entry} Entry */
/** @typedef {import("./dom.js").Child} Child */

/** @type {Renderer} */
function send(input) {
  const body = asText(input.body);
  const everyone = h("span", { class: "who who-all" }, "everyone");
  const reply = asText(input.in_reply_to);
  const line = [verb("send"), " → ", input.to === "*" ? everyone : whom(input.to), reply && aside(` ↩ #${shorten(reply, 20)}`), ": "];
  if (isShort(body)) return [...line, quoted(body, 1000)];
  return [fold([...line, quoted(headline(body, 100)), linesOf(body)], body)];
}

/** @type {Renderer} */
function recv(input) {
  const wait = Number(input.wait_seconds) || 0;
  const most = Number(input.max) || 0;
  return [verb("recv"), wait > 0 && aside(`  waits up to ${wait} s`), most > 1 && aside(`  at most ${most}`)];
}

/** @param {Record<string, unknown>} input @param {Child[]} begin */
function question(input, begin) {
  const options = listOf(input.options).map(asText);
  const seconds = Number(input.ttl_seconds) || 0;
  const text = asText(input.question);
  const rest = [
    options.length > 0 && aside(`  [ ${options.join(input.multi === true ? " + " : " | ")} ]`),
    seconds > 0 && aside(`  closes in ${remaining(seconds * 1000, 0)}`),
  ];
  if (isShort(text)) return [...begin, ": ", quoted(text, 600), ...rest];
  return [fold([...begin, ": ", quoted(headline(text, 100)), ...rest, linesOf(text)], text)];
}

/** @type {Renderer} */
function askOperator(input) {
  return question(input, [verb("ask operator")]);
}

/** @type {Renderer} */
function ask(input) {
  const reply = asText(input.in_reply_to);
  return question(input, [verb("ask"), " → ", whom(input.to), reply && aside(` ↩ #${shorten(reply, 20)}`)]);
}

/** @type {Renderer} */
function answer(input) {
  const text = asText(input.answer);
  const begin = [verb("answer"), ` question #${shorten(asText(input.id), 20) || "?"}: `];
  if (isShort(text)) return [...begin, quoted(text, 600)];
  return [fold([...begin, quoted(headline(text, 100)), linesOf(text)], text)];
}

/** @type {Renderer} */
function cancelLooseEnd(input) {
  return [verb("cancel"), ` ${shorten(asText(input.kind), 20)} #${shorten(asText(input.id), 20) || "?"}`];
}

/** @type {Renderer} */
function cancelQuestion(input) {
  return [verb("cancel question"), ` #${shorten(asText(input.question_id), 20) || "?"}`];
}

/** @type {Renderer} */
function remind(input) {
  const after = asText(input.after_seconds ?? input.delay_seconds);
  const at = Number(input.at) || Date.parse(asText(input.at)) / 1000 || 0; // Unix seconds, or ISO 8601
  const when = after ? `in ${after} s` : at > 0 ? `at ${clock(at * 1000)}` : "";
  const body = asText(input.body ?? input.message);
  const line = [verb("remind"), when && ` ${when}`, ": "];
  if (isShort(body)) return [...line, quoted(body, 600)];
  return [fold([...line, quoted(headline(body, 100)), linesOf(body)], body)];
}

/** @param {unknown} ref */
const commit = (ref) => sourced(shorten(asText(ref), 40), "commit");

/** @type {Renderer} */
function applyCommit(input) {
  const note = asText(input.note);
  return [verb("request apply commit"), " ", whom(input.agent), " ", commit(input.commit_ref || "HEAD"), note && aside(`  ${note}`)];
}

/** @type {Renderer} */
function requestSpawn(input) {
  const note = asText(input.note);
  const from = asText(input.commit_ref);
  return [verb("request spawn"), " ", whom(input.name), from && " ", from && commit(from), note && aside(`  ${note}`)];
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

const ON_AGENT = ["prepare_spawn", "kill", "start", "restart", "update", "logs"];

/** @type {Entry[]} */
const TOOLS = [
  ["send", send],
  ["recv", recv],
  ["ask_operator", askOperator],
  ["ask", ask],
  ["answer", answer],
  ["get_loose_ends", () => [verb("loose ends")]],
  ["cancel_loose_end", cancelLooseEnd],
  ["cancel_question", cancelQuestion],
  ["remind", remind],
  ["whoami", () => [verb("whoami")]],
  ["agents", () => [verb("agents")]],
  ["request_apply_commit", applyCommit],
  ["request_spawn", requestSpawn],
  ...ON_AGENT.map((name) => /** @type {Entry} */ ([name, onAgent(name.replace("_", " "))])),
];

/** @type {Entry[]} */
export const HIVE_TOOLS = TOOLS.map(([name, renderer]) => [`mcp__hyperhive__${name}`, renderer]);
