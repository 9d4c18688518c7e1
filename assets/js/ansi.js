/** Terminal output as text: colours become classes, every other escape sequence is dropped. */

import { h } from "./dom.js";

// CSI, OSC and other string sequences (ended by BEL or ST), then two-character escapes.
const SEQUENCE =
  /\u001b\[([0-?]*)[ -/]*([@-~])|\u009b([0-?]*)[ -/]*([@-~])|\u001b[\]PX^_][^\u0007\u001b]{0,4096}(?:\u0007|\u001b\\)?|\u001b[ -/]*[0-~]/g;
const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

/** @typedef {{colour: string, bold: boolean, dim: boolean}} Style */

/** @returns {Style} */
function plain() {
  return { colour: "", bold: false, dim: false };
}

/** @param {Style} style @param {string} parameters @returns {Style} */
function select(style, parameters) {
  const codes = parameters.split(/[;:]/).map(Number);
  let next = { ...style };
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index];
    if (code === 0) next = plain();
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 22) next = { ...next, bold: false, dim: false };
    else if (code === 39) next.colour = "";
    else if (code >= 30 && code <= 37) next.colour = COLOURS[code - 30];
    else if (code >= 90 && code <= 97) next.colour = COLOURS[code - 90];
    else if (code === 38 || code === 48) index += codes[index + 1] === 5 ? 2 : 4; // palette and RGB: not drawn
  }
  return next;
}

/** @param {Style} style */
function classOf({ colour, bold, dim }) {
  return [colour && `ansi-${colour}`, bold && "ansi-bold", dim && "ansi-dim"].filter(Boolean).join(" ");
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
  return settle(text).replace(SEQUENCE, "");
}

/** `text` as nodes. @param {string} text @returns {(Node|string)[]} */
export function ansi(text) {
  const settled = settle(text);
  if (!/[\u001b\u009b]/.test(settled)) return [settled];
  /** @type {(Node|string)[]} */
  const nodes = [];
  let style = plain();
  let from = 0;
  const put = (/** @type {string} */ piece) => {
    if (!piece) return;
    const name = classOf(style);
    nodes.push(name ? h("span", { class: name }, piece) : piece);
  };
  for (const match of settled.matchAll(SEQUENCE)) {
    put(settled.slice(from, match.index));
    from = match.index + match[0].length;
    if ((match[2] ?? match[4]) === "m") style = select(style, match[1] ?? match[3] ?? "");
  }
  put(settled.slice(from));
  return nodes;
}
