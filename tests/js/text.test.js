import assert from "node:assert/strict";
import test from "node:test";

import * as text from "../../assets/js/text.js";

test("what is not seen is made visible", () => {
  assert.equal(text.neutralise("a\u0007b"), "a␇b");
  assert.equal(text.neutralise("\u202egnp.exe"), "‹U+202E›gnp.exe");
  assert.equal(text.neutralise("a\u{e0041}b\u200bc\u007f"), "a‹U+E0041›b‹U+200B›c␡");
  assert.equal(text.neutralise("one\r\ntwo\tthree"), "one\ntwo\tthree");
  assert.equal(text.neutralise("\ud800"), "\ufffd");
  assert.equal(text.neutralise("👩‍👩‍👧 ok"), "👩‍👩‍👧 ok");
  assert.equal(text.neutralise(null), "");
  assert.equal(text.neutralise(0), "0");
});

test("of program text every character is seen", () => {
  assert.equal(text.neutraliseCode("if (a\u200d) {\u00a0}"), "if (a‹U+200D›) {‹U+00A0›}");
  assert.equal(text.neutraliseCode("x\u3164=1\r\n"), "x‹U+3164›=1␍\n");
});

test("nothing hidden survives, whatever comes in", () => {
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/u;
  for (let code = 0; code <= 0x10ffff; code += code < 0x3200 ? 1 : 17) {
    assert.ok(!hidden.test(text.neutralise(String.fromCodePoint(code))), code.toString(16));
  }
});

test("ages and what remains, in the unit that fits", () => {
  const ago = (seconds) => text.age(0, seconds * 1000);
  assert.deepEqual([-5, 0, 59, 60, 3599, 3600, 172799, 172800].map(ago), ["0s", "0s", "59s", "1m", "59m", "1h", "47h", "2d"]);
  const left = (seconds) => text.remaining(seconds * 1000, 0);
  assert.deepEqual([0, -1, 0.2, 59, 60, 250, 3600, 11520, 86400, 187200].map(left), [
    "",
    "",
    "1s",
    "59s",
    "1m 0s",
    "4m 10s",
    "1h 0m",
    "3h 12m",
    "1d 0h",
    "2d 4h",
  ]);
  assert.equal(text.remaining(NaN), "");
});

test("sizes, amounts, durations and money", () => {
  assert.deepEqual([null, 0, 1023, 1024, 1536, 150 * 1024, 2 ** 40].map(text.size), [
    "size unknown",
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "150 KiB",
    "1.0 TiB",
  ]);
  assert.deepEqual([999, 1000, 23400, 123456, 2_500_000].map(text.count), ["999", "1.0k", "23.4k", "123k", "2.5M"]);
  assert.deepEqual([12, 1500, 61_000].map(text.duration), ["12 ms", "1.5 s", "1 min 1 s"]);
  assert.deepEqual([0.0123, 1.5].map(text.money), ["$0.0123", "$1.50"]);
  assert.deepEqual([text.plural(1, "file"), text.plural(2, "file"), text.plural(0, "reply", "replies")], [
    "1 file",
    "2 files",
    "0 replies",
  ]);
});

test("a headline is the first line that says something", () => {
  assert.equal(text.headline("\n=====\n  Tests failed\nmore"), "Tests failed");
  assert.equal(text.headline("---\n==="), "---");
  assert.equal(text.lastLine("first\nError: no such file\n\n}\n"), "Error: no such file");
  assert.equal(text.headline("x".repeat(200), 10), `${"x".repeat(10)}…`);
  assert.equal(text.shorten("👩".repeat(20), 5), `${"👩".repeat(5)}…`);
  assert.equal(text.shorten("short", 5), "short");
});

test("lines are counted as an editor counts them", () => {
  assert.deepEqual(["", "a", "a\n", "a\nb", "\n\n"].map(text.lineCount), [0, 1, 1, 2, 2]);
});

test("what agents call text may be anything", () => {
  assert.deepEqual(["a", 3, null, undefined, {}, [1], true].map(text.asText), ["a", "3", "", "", "", "", ""]);
});
