/** Terminal output as text: colours become classes, every other escape sequence is dropped. */

import { NAMES, TRUE, cssOf, readable, rgbOf } from "./ansi_colours.js";
import { h } from "./dom.js";
import { linked } from "./links.js";

// CSI, OSC and other string sequences (ended by BEL or ST), then two-character escapes.
const SEQUENCE =
  /\u001b\[([0-?]*)[ -/]*([@-~])|\u009b([0-?]*)[ -/]*([@-~])|\u001b[\]PX^_][^\u0007\u001b]{0,4096}(?:\u0007|\u001b\\)?|\u001b[ -/]*[0-~]/g;
const PIECES_MAX = 4000; // of one text: each costs an element, and what comes after them is shown plain
const DEFAULT_INK = 0xcdd6f4; // only where inverse text swaps what was never set
const DEFAULT_PAPER = 0x1e1e2e;

/** @typedef {import("./ansi_colours.js").Colour} Colour */
/** @typedef {"bold"|"dim"|"italic"|"underline"|"strike"|"inverse"} Trait */
/** @typedef {{ink: Colour|null, paper: Colour|null, traits: ReadonlySet<Trait>}} Style */

/** @type {Style} */
const PLAIN = { ink: null, paper: null, traits: new Set() };

/** Blinking and hidden text are left out on purpose: everything is shown, and stands still. @type {Record<number, Trait>} */
const ON = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
/** @type {Record<number, Trait[]>} */
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };

/** @param {Style} style @param {Trait[]} added @param {Trait[]} gone @returns {Style} */
function changed(style, added, gone) {
  const traits = new Set([...style.traits, ...added]);
  for (const each of gone) traits.delete(each);
  return { ...style, traits };
}

/**
 * A colour after 38 or 48: `5;n`, `2;r;g;b`, or with colons, where a colour space may stand before red.
 * @param {number[]} codes @param {boolean} colons
 * @returns {{colour: Colour|null, used: number}}  `used`: how many codes belonged to it
 */
function extended(codes, colons) {
  const part = (/** @type {number} */ at) => (codes[at] >= 0 && codes[at] <= 255 ? codes[at] : null);
  if (codes[0] === 5) return { colour: part(1), used: 2 };
  if (codes[0] !== 2) return { colour: null, used: 1 };
  const first = colons && codes.length >= 5 ? 2 : 1;
  const [red, green, blue] = [part(first), part(first + 1), part(first + 2)];
  const whole = red !== null && green !== null && blue !== null;
  return { colour: whole ? TRUE + red * 0x10000 + green * 0x100 + blue : null, used: first + 3 };
}

/** @param {Style} style @param {number} code @returns {Style} */
function select(style, code) {
  if (code === 0) return PLAIN;
  if (ON[code]) return changed(style, [ON[code]], []);
  if (OFF[code]) return changed(style, [], OFF[code]);
  if (code === 39) return { ...style, ink: null };
  if (code === 49) return { ...style, paper: null };
  const colour = [30, 40, 90, 100].find((from) => code >= from && code <= from + 7);
  if (colour === undefined) return style;
  const place = code - colour + (colour >= 90 ? 8 : 0);
  return colour === 30 || colour === 90 ? { ...style, ink: place } : { ...style, paper: place };
}

/** @param {Style} style @param {string} parameters @returns {Style} */
function selectAll(style, parameters) {
  const groups = parameters.split(";", 64).map((group) => group.split(":", 8).map(Number));
  let next = style;
  for (let at = 0; at < groups.length; at += 1) {
    const [code, ...rest] = groups[at];
    if (code !== 38 && code !== 48) {
      next = select(next, code);
      continue;
    }
    const colons = rest.length > 0;
    const { colour, used } = extended(colons ? rest : groups.slice(at + 1).map(([first]) => first), colons);
    if (!colons) at += used;
    if (colour !== null) next = code === 38 ? { ...next, ink: colour } : { ...next, paper: colour };
  }
  return next;
}

/** The element of a piece that is not plain. @param {Style} style @param {(Node|string)[]} inside */
function coloured({ ink, paper, traits }, inside) {
  const classes = [...traits].filter((trait) => trait !== "inverse").map((trait) => `ansi-${trait}`);
  const boxed = paper !== null || traits.has("inverse");
  if (boxed) classes.push("ansi-paper");
  else if (ink !== null) classes.push(ink < 16 ? `ansi-${NAMES[ink % 8]}` : "ansi-ink");
  const element = h("span", { class: classes.join(" ") }, inside);
  if (boxed) paint(element, ink, paper, traits.has("inverse"));
  else if (ink !== null && ink >= 16) element.style.setProperty("--ink", cssOf(rgbOf(ink)));
  return element;
}

/** @param {HTMLElement} element @param {Colour|null} ink @param {Colour|null} paper @param {boolean} inverse */
function paint(element, ink, paper, inverse) {
  const above = ink === null ? null : rgbOf(ink);
  const below = paper === null ? null : rgbOf(paper);
  const ground = inverse ? (above ?? DEFAULT_INK) : (below ?? DEFAULT_PAPER);
  element.style.setProperty("--paper", cssOf(ground));
  element.style.setProperty("--ink", cssOf(readable(inverse ? below : above, ground)));
}

/** @param {Style} style */
function isPlain({ ink, paper, traits }) {
  return ink === null && paper === null && traits.size === 0;
}

/** What of a line remains after carriage returns wrote over it. @param {string} text */
function settle(text) {
  if (!text.includes("\r")) return text;
  return text
    .replaceAll(/\r+\n/g, "\n")
    .replaceAll(/[^\n\r]*\r(?=[^\n\r])/g, "")
    .replaceAll("\r", "");
}

/** @param {string} text */
export function stripAnsi(text) {
  return /[\u001b\u009b\r]/.test(text) ? settle(text).replace(SEQUENCE, "") : text;
}

/** `text` as nodes. @param {string} text @returns {(Node|string)[]} */
export function ansi(text) {
  const settled = settle(text);
  if (!/[\u001b\u009b]/.test(settled)) return linked(settled);
  /** @type {(Node|string)[]} */
  const nodes = [];
  let style = PLAIN;
  let from = 0;
  const put = (/** @type {string} */ piece) => {
    if (piece) nodes.push(...(isPlain(style) ? linked(piece) : [coloured(style, linked(piece))]));
  };
  for (const match of settled.matchAll(SEQUENCE)) {
    if (nodes.length >= PIECES_MAX) {
      nodes.push(...linked(settled.slice(from).replace(SEQUENCE, "")));
      return nodes;
    }
    put(settled.slice(from, match.index));
    from = match.index + match[0].length;
    if ((match[2] ?? match[4]) === "m") style = selectAll(style, match[1] ?? match[3] ?? "");
  }
  put(settled.slice(from));
  return nodes;
}
