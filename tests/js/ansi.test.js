import { dangers, within } from "./page.js";

import assert from "node:assert/strict";
import test from "node:test";

import { ansi, stripAnsi } from "../../assets/js/ansi.js";
import { TRUE, contrast, cssOf, readable, rgbOf } from "../../assets/js/ansi_colours.js";

const ESC = "\u001b";
const spans = (text) => [...within(ansi(text)).querySelectorAll("span")].map((each) => [each.className, each.textContent]);

test("plain text stays one string", () => {
  assert.deepEqual(ansi("nothing here\nat all"), ["nothing here\nat all"]);
});

test("colours and traits become classes, and end where they are reset", () => {
  assert.deepEqual(spans(`a ${ESC}[31mred${ESC}[0m b ${ESC}[1;4;92mloud${ESC}[22m thin${ESC}[m c`), [
    ["ansi-red", "red"],
    ["ansi-bold ansi-underline ansi-green", "loud"],
    ["ansi-underline ansi-green", " thin"],
  ]);
});

test("palette, true colours and colons", () => {
  for (const code of ["38;5;208", "38:5:208", "38;2;255;135;0", "38:2::255:135:0"]) {
    const [span] = within(ansi(`${ESC}[${code}mwarm${ESC}[0m`)).querySelectorAll("span");
    assert.equal(span.className, "ansi-ink", code);
    assert.equal(span.style.getPropertyValue("--ink"), "#ff8700", code);
  }
  assert.deepEqual(spans(`${ESC}[38;5;999mx`), [], "a colour that does not exist is none");
});

test("what is written on a background can be read, whatever it asks for", () => {
  const named = Array.from({ length: 256 }, (_, place) => rgbOf(place));
  for (const paper of [...named, 0, 0xffffff, 0x777777]) {
    for (const ink of [null, paper, 0, 0xffffff]) assert.ok(contrast(readable(ink, paper), paper) >= 4.5, cssOf(paper));
  }
  assert.equal(rgbOf(TRUE + 0x123456), 0x123456);
});

test("every other sequence is dropped with what it says", () => {
  const hostile = [
    [`${ESC}]0;title\u0007shown`, "shown"],
    [`${ESC}]8;;javascript:alert(1)${ESC}\\link${ESC}]8;;${ESC}\\`, "link"],
    [`${ESC}[2J${ESC}[Hup${ESC}[5A`, "up"],
    [`${ESC}P1$r0m${ESC}\\rest`, "rest"],
    [`\u009b31mred\u009b0m`, "red"],
    [`10%\r50%\r100%\ndone`, "100%\ndone"],
    [`a\r\nb`, "a\nb"],
  ];
  for (const [text, shown] of hostile) {
    assert.equal(within(ansi(text)).textContent, shown);
    assert.equal(stripAnsi(text), shown);
  }
});

test("a text of nothing but colours does not grow without end", () => {
  const many = `${ESC}[31mx${ESC}[32my`.repeat(20_000);
  const box = within(ansi(many));
  assert.ok(box.childNodes.length < 5000);
  assert.equal(box.textContent.length, 40_000);
});

test("no sequence makes an element that acts", () => {
  let seed = 7;
  const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
  const pieces = [ESC, "[", "]8;;", "31", ";", "m", "<script>", "javascript:x", "\u0007", "\u009b", "38;2;1;2;3", "7", "https://a.example/", " ", "\r", "\n"];
  for (let round = 0; round < 500; round += 1) {
    const text = Array.from({ length: 30 }, () => pieces[random(pieces.length)]).join("");
    const box = within(ansi(text));
    assert.deepEqual(dangers(box), []);
  }
});
