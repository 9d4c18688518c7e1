import { within } from "./page.js";

import assert from "node:assert/strict";
import test from "node:test";

import { diffLines, diffText } from "../../assets/js/diff.js";
import { LINE_MAX_CHARACTERS, LINES_AT_ONCE, isCut, linesOf, parse } from "../../assets/js/unified.js";
import * as unified from "../../assets/js/unified.js";

let seed = 11;
const random = (below) => (seed = (seed * 48271) % 2147483647) % below;

test("an edit shows what changed between what stays", () => {
  assert.equal(diffText(diffLines("one\ntwo\nthree", "one\n2\nthree\nfour")), "  one\n- two\n+ 2\n  three\n+ four");
  assert.deepEqual(diffLines("", ""), []);
  assert.equal(diffText(diffLines("", "new")), "+ new");
  assert.equal(diffText(diffLines("old", "")), "- old");
});

test("both sides can be had back from any diff", () => {
  for (let round = 0; round < 300; round += 1) {
    const text = () => Array.from({ length: random(12) }, () => "abcd"[random(4)]).join("\n");
    const [before, after] = [text(), text()];
    const lines = diffLines(before, after);
    const side = (gone) => lines.filter(({ mark }) => mark !== gone).map((each) => each.text).join("\n");
    assert.equal(side("+"), before);
    assert.equal(side("-"), after);
  }
});

test("very long texts are not compared, and nothing of them is lost", () => {
  const long = Array.from({ length: 5000 }, (_, n) => `line ${n}`).join("\n");
  const lines = diffLines(long, "short");
  assert.equal(lines.length, 5001);
  assert.equal(lines[5000].mark, "+");
});

const TEXT = `@@ -1,3 +1,4 @@ { pkgs, ... }:
 same
-gone
+come
+more
@@ -30 +31,2 @@
+late
\\ No newline at end of file`;

test("a unified diff has the numbers of the new file", () => {
  assert.deepEqual(
    parse(TEXT).map(({ kind, number, text }) => [kind, number, text]),
    [
      ["hunk", 0, "from line 1 · { pkgs, ... }:"],
      ["same", 1, "same"],
      ["minus", 0, "gone"],
      ["plus", 2, "come"],
      ["plus", 3, "more"],
      ["hunk", 0, "from line 31"],
      ["plus", 31, "late"],
      ["said", 0, "No newline at end of file"],
    ],
  );
});

const file = (text, more = {}) => ({ path: "a.nix", change: "modified", added: 1, deleted: 0, text, truncated: false, mode: "", ...more });
const build = Object.values(unified).find((each) => typeof each === "function" && ![parse, linesOf, isCut].includes(each));

test("a hidden character in a commit is seen", () => {
  const box = within(build(file("@@ -0,0 +1 @@\n+x = \u202e1\u200b;")));
  assert.match(box.textContent, /x = ‹U\+202E›1‹U\+200B›;/);
});

test("long diffs come in parts, and long lines are cut and say so", () => {
  const many = file(`@@ -0,0 +1,4000 @@\n${"+x\n".repeat(4000)}`);
  const box = within(build(many));
  assert.equal(box.querySelectorAll(".plus").length, LINES_AT_ONCE - 1);
  box.querySelector("[data-action=more-lines]").dispatchEvent(new Event("click"));
  assert.equal(box.querySelectorAll(".plus").length, 2 * LINES_AT_ONCE - 1);
  const wide = file(`+${"y".repeat(LINE_MAX_CHARACTERS + 5)}`);
  assert.ok(isCut(wide));
  assert.ok(!isCut(many));
  assert.match(within(build(wide)).textContent, /5 more characters of this line are not shown/);
});

test("what has no text says why", () => {
  assert.match(within(build(file("", { mode: "100644 → 100755" }))).textContent, /only its mode changes: 100644 → 100755/);
  assert.match(within(build(file("", { truncated: true }))).textContent, /too large to be shown whole/);
  assert.equal(linesOf(file("")), 0);
});
