import "./page.js";

import assert from "node:assert/strict";
import test from "node:test";

import { h } from "../../assets/js/dom.js";
import { morph, syncList } from "../../assets/js/morph.js";

let seed = 5;
const random = (below) => (seed = (seed * 48271) % 2147483647) % below;

const row = ({ id, text }) => h("li", null, h("b", null, `#${id}`), " ", text);
const list = () => document.body.appendChild(h("ul", null));
const show = (place, items) => syncList(place, items, (item) => item.id, row);
const texts = (place) => [...place.children].map((each) => each.textContent);

test("in whatever order items come, rows follow, and stay the same elements by their key", () => {
  for (let round = 0; round < 200; round += 1) {
    const place = list();
    const known = new Map();
    for (let step = 0; step < 6; step += 1) {
      const items = Array.from({ length: 8 }, (_, id) => ({ id, text: "abc"[random(3)] }))
        .filter(() => random(3) > 0)
        .map((each) => [random(1000), each])
        .sort(([a], [b]) => a - b)
        .map(([, each]) => each);
      show(place, items);
      assert.deepEqual(texts(place), items.map(({ id, text }) => `#${id} ${text}`));
      for (const child of place.children) {
        const key = child.getAttribute("data-key");
        if (known.has(key)) assert.ok(known.get(key) === child, "a row that stayed is another element");
        known.set(key, child);
      }
      for (const key of [...known.keys()]) if (!items.some(({ id }) => String(id) === key)) known.delete(key);
    }
    place.remove();
  }
});

test("a row is not built again for the item that it shows", () => {
  const place = list();
  let built = 0;
  const item = { id: 1, text: "x" };
  const build = (each) => {
    built += 1;
    return row(each);
  };
  for (let n = 0; n < 3; n += 1) syncList(place, [item], (each) => each.id, build);
  assert.equal(built, 1);
  syncList(place, [{ ...item }], (each) => each.id, build);
  assert.equal(built, 2);
});

test("what a person opened, typed or is sending stays", () => {
  const details = (text) => h("li", null, h("details", null, h("summary", null, "more"), text), h("input", { name: "note" }));
  const old = details("before");
  old.querySelector("details").setAttribute("open", "");
  const input = old.querySelector("input"); // what is typed is the element's own, no attribute
  morph(old, details("after"));
  assert.ok(old.querySelector("details").hasAttribute("open"));
  assert.match(old.textContent, /after/);
  assert.ok(old.querySelector("input") === input);
});

test("a busy form and an island are not touched, and the form is brought up to date afterwards", () => {
  const place = list();
  const build = ({ text }) => h("li", null, h("form", null, h("button", null, text)), h("p", null, text));
  const sync = (text) => syncList(place, [{ id: 1, text }], (each) => each.id, build);
  sync("one");
  const form = place.querySelector("form");
  form.setAttribute("data-busy", "");
  const item = { id: 1, text: "two" };
  syncList(place, [item], (each) => each.id, build);
  assert.deepEqual([form.textContent, place.querySelector("p").textContent], ["one", "two"]);
  form.removeAttribute("data-busy");
  syncList(place, [item], (each) => each.id, build);
  assert.equal(form.textContent, "two");

  const island = h("div", { "data-island": true }, "mine");
  morph(island, h("div", { "data-island": true }, "yours"));
  assert.equal(island.textContent, "mine");
});

test("of many rows some are built at a time, the first ones first, and the others stay until their turn", () => {
  const place = list();
  const some = (items, most) => {
    let asked = 1;
    return syncList(place, items, (item) => item.id, row, () => asked++ >= most);
  };
  const old = [3, 2, 1].map((id) => ({ id, text: "old" }));
  assert.equal(some(old, 9), true);
  const kept = place.lastElementChild;
  const items = [{ id: 5, text: "new" }, { id: 4, text: "new" }, { id: 3, text: "new" }, old[1], old[2]];
  assert.equal(some(items, 1), false);
  assert.deepEqual(texts(place), ["#5 new", "#3 old", "#2 old", "#1 old"]);
  assert.equal(some(items, 1), false);
  assert.deepEqual(texts(place), ["#5 new", "#4 new", "#3 old", "#2 old", "#1 old"]);
  assert.equal(some(items.slice(0, 4), 0), true, "one is built, however little time there is");
  assert.deepEqual(texts(place), ["#5 new", "#4 new", "#3 new", "#2 old"]);
  assert.equal(kept.isConnected, false, "what goes needs no time");
});

test("attributes come, change and go", () => {
  const old = h("p", { class: "a", title: "x", open: true });
  morph(old, h("p", { class: "b", lang: "en" }));
  assert.deepEqual(
    [...old.attributes].map(({ name, value }) => `${name}=${value}`).sort(),
    ["class=b", "lang=en", "open="],
  );
});

test("any tree becomes any other", () => {
  const tree = (depth) =>
    h(["p", "b", "div"][random(3)], random(2) ? { class: "xyz"[random(3)] } : null, ...Array.from({ length: depth && random(4) }, () => (random(2) ? tree(depth - 1) : `t${random(9)}`)));
  for (let round = 0; round < 300; round += 1) {
    const [old, next] = [h("section", null, tree(3), tree(3)), h("section", null, tree(3), tree(3))];
    const wanted = next.outerHTML;
    morph(old, next);
    assert.equal(old.outerHTML, wanted);
  }
});
