/** The words tool calls are told with: the verb, a path, an aside, a name; and how a renderer reads its input. */

import { h } from "./dom.js";
import { hueOf } from "./messages.js";
import { linked } from "./links.js";
import { sourced } from "./rows.js";
import { asText, lineCount, plural } from "./text.js";

/** @typedef {import("./dom.js").Child} Child */
/** Arguments come from an agent: any shape is possible. @typedef {Record<string, any>} Input */
/** @typedef {(input: Input) => Child[]} Renderer */
/** @typedef {[string, Renderer]} Entry  a tool's name, and how a call of it reads */

/** @param {string} name */
export const verb = (name) => h("strong", { class: "verb" }, name);
/** @param {unknown} path */
export const path = (path) => sourced(asText(path) || "?", "path");
/** @param {string} text */
export const aside = (text) => h("span", { class: "hint words" }, linked(text));
/** @param {unknown} name */
export const whom = (name) => h("span", { class: hueOf(asText(name)) }, asText(name) || "?");
/** @param {string} text */
export const linesOf = (text) => aside(`  ${plural(lineCount(text), "line")}`);

/** A list, whatever came. @param {unknown} value @returns {any[]} */
export const listOf = (value) => (Array.isArray(value) ? value : []);

/** `value` on one line: a text as it is, anything else as JSON. @param {unknown} value */
export const told = (value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
