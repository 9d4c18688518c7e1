import { dangers, within } from "./page.js";

import assert from "node:assert/strict";
import test from "node:test";

import { RENDERED, renderTool, toolName } from "../../assets/js/renderers.js";
import { resultRows } from "../../assets/js/results.js";
import { unfold } from "../../assets/js/rows.js";

/** What a call reads like, with every fold opened. */
function read(name, input) {
  const box = within(renderTool(name, input));
  for (const fold of box.querySelectorAll("details")) unfold(fold);
  return box;
}
const line = (name, input) => read(name, input).textContent.replaceAll(/\s+/g, " ").trim();

test("the tools of every day read as people would say them", () => {
  assert.equal(line("Bash", { command: "ls -l", description: "look" }), "Bash $ ls -l # look");
  assert.equal(line("Read", { file_path: "/a.md", offset: 5, limit: 10 }), "Read /a.md :5–14");
  assert.match(line("Grep", { pattern: "x+", path: "src", glob: "*.py" }), /^Grep x\+ in src \*\.py/);
  assert.match(line("Glob", { pattern: "**/*.md" }), /^Glob \*\*\/\*\.md/);
  assert.match(line("Edit", { file_path: "a", old_string: "1\n2", new_string: "1\n3" }), /^Edit a \+1 −1.*- 2\+ 3/);
  assert.match(line("Write", { file_path: "a", content: "one\ntwo\n" }), /^Write a 2 lines/);
  assert.match(line("mcp__hyperhive__send", { to: "bob", body: "hi" }), /^send → bob: hi/);
  assert.match(line("mcp__forge__open_issue", { title: "bug" }), /^forge · open_issue title=bug/);
  assert.equal(line("Unheard", {}), "Unheard");
});

test("the registry is one, and knows each tool once", () => {
  assert.equal(new Set(RENDERED).size, RENDERED.length);
  for (const wanted of ["Bash", "Read", "Edit", "Write", "Glob", "Grep", "mcp__hyperhive__send"]) assert.ok(RENDERED.includes(wanted));
  assert.equal(toolName("mcp__hyperhive__ask_operator"), "ask operator");
  assert.ok(toolName("x".repeat(9999)).length < 200);
});

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "javascript:alert(1)",
  'https://a.example/" onmouseover="x',
  "https://user:pass@evil.example/",
  "\u202egnp.exe\u0000\u200b",
  "\u001b]8;;javascript:alert(1)\u001b\\click\u001b]8;;\u001b\\",
  "__proto__",
  "x".repeat(5000),
  "a\nb\nc\nd\ne <b>",
];
const SHAPES = [null, undefined, 0, -1, 1e308, NaN, true, [], [[]], {}, [null], { toString: 1 }, "", ...HOSTILE];
const FIELDS = [
  "command", "description", "timeout", "file_path", "offset", "limit", "old_string", "new_string", "edits", "content", "pattern", "path", "glob",
  "todos", "url", "prompt", "query", "allowed_domains", "to", "body", "question", "options", "ttl_seconds", "name", "note", "input", "plan", "skill",
  "notebook_path", "new_source", "patch", "in_reply_to", "after_seconds", "at", "agent", "commit_ref", "lines", "args", "changes", "constructor", "answer", "id", "kind",
]; // prettier-ignore

let seed = 17;
const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
const anything = (depth = 2) => {
  if (depth && random(5) === 0) return Array.from({ length: random(3) }, () => anything(depth - 1));
  if (depth && random(6) === 0) return Object.fromEntries([0, 1].map(() => [FIELDS[random(FIELDS.length)], anything(depth - 1)]));
  return SHAPES[random(SHAPES.length)];
};

/** Links lead to http and https, to whole hosts, and open without giving the page away. */
function assertSafe(box, about) {
  assert.deepEqual(dangers(box).map((each) => each.outerHTML), [], about);
  assert.ok(!/[\u0000\u001b\u202e\u200b]/.test(box.textContent), about);
  for (const link of box.querySelectorAll("a")) {
    assert.match(link.getAttribute("href"), /^https?:\/\/[a-z0-9.-]+[/?#]?/i);
    assert.ok(!link.getAttribute("href").includes("@evil"), about);
    assert.equal(link.getAttribute("rel"), "noopener noreferrer");
  }
}

test("no renderer breaks, acts or hides, whatever an agent hands over", () => {
  const complain = console.error;
  const broken = [];
  console.error = (said, tool, error) => (said === "tool call could not be rendered" && broken.push(`${tool}: ${error}`));
  for (const name of [...RENDERED, "Unheard", "mcp__<b>__<i>", "", null, {}]) {
    for (const shape of SHAPES) assertSafe(read(name, shape), String(name));
    for (let round = 0; round < 12; round += 1) {
      const input = Object.fromEntries(FIELDS.map((field) => [field, anything()]));
      assertSafe(read(name, input), String(name));
    }
  }
  console.error = complain;
  // An object where a number belongs is told in the sober way of any other tool: that one is meant to be caught.
  assert.deepEqual(broken.filter((each) => !each.includes("primitive value")), [], "a renderer had to be caught");
});

test("no result breaks, acts or hides either", () => {
  for (const name of [...RENDERED, "Unheard", null]) {
    for (const content of [...SHAPES, ...HOSTILE.map((text) => [{ type: "text", text }])]) {
      for (const is_error of [false, true]) {
        const call = name === null ? null : { name, atMs: 0, isLast: false };
        const box = within(resultRows({ content, is_error }, call, 0));
        for (const fold of box.querySelectorAll("details")) unfold(fold);
        assertSafe(box, String(name));
      }
    }
  }
});

test("long answers are folded behind their amount, short ones are not", () => {
  const box = (content, is_error = false) => within(resultRows({ content, is_error }, null, 0));
  assert.equal(box("fine").querySelector("details"), null);
  const long = Array.from({ length: 120 }, (_, n) => `line ${n}`).join("\n");
  assert.match(box(long).querySelector("summary").textContent, /^120 lines · line 0/);
  assert.match(box(`${long}\nError: no`, true).querySelector("summary").textContent, /Error: no$/);
});

test("the body of a fold is built when it is opened, and once", () => {
  const [fold] = within(renderTool("Write", { file_path: "a", content: "secret\n".repeat(50) })).querySelectorAll("details");
  assert.equal(fold.querySelector(".fold-body"), null);
  unfold(fold);
  unfold(fold);
  assert.equal(fold.querySelectorAll(".fold-body").length, 1);
});
