/**
 * Updating in place. A live page must never take away what a person is typing, reading or has opened,
 * so rows are matched by key and changed where they differ; elements stay the same objects.
 * Rows must therefore hold no listeners of their own: use delegated ones.
 */

/** @type {WeakMap<Element, unknown>} */
const shownItem = new WeakMap();

// Set by the person, by keyboard.js or by forms.js, not by the data: never overwritten.
const KEPT = new Set(["open", "tabindex", "aria-invalid", "data-busy"]);

/**
 * Makes the children of `parent` show `items` in order. A row is built when its key is new, morphed when
 * its item is another object than last time, and left untouched otherwise.
 * @template T
 * @param {Element} parent
 * @param {readonly T[]} items
 * @param {(item: T) => string|number} keyOf
 * @param {(item: T) => HTMLElement} build
 * @param {() => boolean} [isEnough]  asked before each row but the first that would be built: the others stay
 *   as they are, or away, until the next call
 * @returns {boolean} whether all is shown
 */
export function syncList(parent, items, keyOf, build, isEnough = () => false) {
  /** @type {Map<string, Element>} */
  const present = new Map();
  for (const child of parent.children) present.set(child.getAttribute("data-key") ?? "", child);
  let built = 0;
  let left = 0;
  const rows = items.flatMap((item) => {
    const key = String(keyOf(item));
    const row = present.get(key);
    present.delete(key);
    if (row && shownItem.get(row) === item) return [row];
    if (left > 0 || (built > 0 && isEnough())) {
      left += 1;
      return row ? [row] : [];
    }
    built += 1;
    const fresh = build(item);
    fresh.setAttribute("data-key", key);
    const kept = row && row.tagName === fresh.tagName ? row : fresh;
    if (row && kept === row) morph(row, fresh);
    // A busy form was passed over: the row is not up to date yet.
    if (kept.querySelector("[data-busy]")) shownItem.delete(kept);
    else shownItem.set(kept, item);
    return [kept];
  });
  arrange(parent, rows);
  return left === 0;
}

/**
 * Makes `parent` hold exactly `nodes`. What stays is moved only when the order really changed.
 * @param {Element} parent @param {Node[]} nodes
 */
function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  const focused = document.activeElement;
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  let cursor = parent.firstChild;
  for (const node of nodes) {
    if (node === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(node, cursor);
  }
  if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) {
    focused.focus({ preventScroll: true });
  }
}

/**
 * Changes `old` into `next`, keeping elements, focus, typed values, open details and busy forms.
 * An element marked `data-island` belongs to its script and is not touched.
 * @param {Element} old @param {Element} next
 */
export function morph(old, next) {
  if (old.hasAttribute("data-island") || old.hasAttribute("data-busy")) return;
  syncAttributes(old, next);
  const spare = [...old.childNodes];
  const children = [...next.childNodes].map((child) => {
    const index = spare.findIndex((candidate) => matches(candidate, child));
    if (index < 0) return child;
    const [kept] = spare.splice(index, 1);
    if (kept instanceof Element && child instanceof Element) morph(kept, child);
    else if (kept instanceof Text && child instanceof Text && kept.data !== child.data) kept.data = child.data;
    return kept;
  });
  arrange(old, children);
}

/** @param {Node} a @param {Node} b */
function matches(a, b) {
  if (a instanceof Text && b instanceof Text) return true;
  if (!(a instanceof Element) || !(b instanceof Element) || a.tagName !== b.tagName) return false;
  return keyOf(a) === keyOf(b);
}

/** @param {Element} element */
function keyOf(element) {
  return (
    element.getAttribute("data-key") ??
    `${element.getAttribute("name") ?? ""}/${element.getAttribute("formaction") ?? ""}/${element.getAttribute("value") ?? ""}`
  );
}

/** @param {Element} old @param {Element} next */
function syncAttributes(old, next) {
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (!KEPT.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}
