/** Words and figures for people. `neutralise` is the one place where hostile characters are made visible. */

const HIDDEN = new RegExp(
  `[${[
    "\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f", // C0 (but tab and newline), DEL, C1
    "\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069", // line separators, bidi marks and controls
    "\\u00ad\\u180e\\u200b\\u2060-\\u2065\\u206a-\\u206f\\ufeff\\ufff9-\\ufffb", // invisible; joiners stay: emoji need them
    "\\u115f\\u1160\\u3164\\uffa0", // fillers: letters without a shape
    "\\u{e0000}-\\u{e007f}", // tags: invisible text
    "\\ud800-\\udfff", // lone surrogates
  ].join("")}]`,
  "gu",
);

/** @param {string} character */
function placeholder(character) {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  if (code >= 0xd800 && code <= 0xdfff) return "\ufffd";
  return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
}

/**
 * `value` with every control, bidi and invisible character replaced by a visible placeholder
 * (SECURITY 4). Tabs and newlines stay; CRLF becomes a newline.
 * @param {unknown} value
 */
export function neutralise(value) {
  return String(value ?? "")
    .replaceAll("\r\n", "\n")
    .replace(HIDDEN, placeholder);
}

// In program text these are seen neither: joiners, fillers, blanks, selectors, and spaces that are not U+0020.
const HIDDEN_IN_CODE = new RegExp(
  `[${[
    "\\u00a0\\u034f\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200d\\u202f\\u205f",
    "\\u2800\\u3000\\u3164\\ufe00-\\ufe0f\\uffa0\\u{e0100}-\\u{e01ef}",
  ].join("")}]`,
  "gu",
);

/** As `neutralise`, stricter: of a diff or a path, every character must be seen. @param {unknown} value */
export function neutraliseCode(value) {
  return String(value ?? "")
    .replace(HIDDEN, placeholder)
    .replace(HIDDEN_IN_CODE, placeholder);
}

/** A commit as people name it. @param {string} commit */
export function shortSha(commit) {
  return commit.slice(0, 12);
}

/** `value` if it is a string or number, else empty: agents send anything. @param {unknown} value */
export function asText(value) {
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : "";
}

/** How long ago, in the largest unit that fits. @param {number} fromMs @param {number} [nowMs] */
export function age(fromMs, nowMs = Date.now()) {
  const seconds = Math.max(0, Math.round((nowMs - fromMs) / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}

/** How long until then: `4m 10s`, `3h 12m`, `2d 4h`; empty when it has passed.
 * @param {number} atMs @param {number} [nowMs] */
export function remaining(atMs, nowMs = Date.now()) {
  const seconds = Math.ceil((atMs - nowMs) / 1000);
  if (!(seconds > 0)) return "";
  const pair = (
    /** @type {number} */ size,
    /** @type {string} */ large,
    /** @type {number} */ part,
    /** @type {string} */ small,
  ) => `${Math.floor(seconds / size)}${large} ${Math.floor((seconds % size) / part)}${small}`;
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return pair(60, "m", 1, "s");
  if (seconds < 86400) return pair(3600, "h", 60, "m");
  return pair(86400, "d", 3600, "h");
}

/** @param {number} ms */
export function clock(ms) {
  const date = new Date(ms);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const today = new Date().toDateString() === date.toDateString();
  return today ? time : `${date.toLocaleDateString([], { month: "short", day: "2-digit" })} ${time}`;
}

/** @param {number} ms */
export function fullTime(ms) {
  return new Date(ms).toLocaleString();
}

/** @param {number|null|undefined} bytes */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "size unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** 23400 → `23.4k`. @param {number} amount */
export function count(amount) {
  if (amount < 1000) return String(amount);
  if (amount < 1_000_000) return `${(amount / 1000).toFixed(amount < 100_000 ? 1 : 0)}k`;
  return `${(amount / 1_000_000).toFixed(1)}M`;
}

/** @param {number} ms */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** @param {number} dollars */
export function money(dollars) {
  return `$${dollars.toFixed(dollars < 0.1 ? 4 : 2)}`;
}

/** @param {number} amount @param {string} one @param {string} [many] */
export function plural(amount, one, many = `${one}s`) {
  return `${amount} ${amount === 1 ? one : many}`;
}

/** The first line that says something, cut to `limit` characters. @param {string} text @param {number} [limit] */
export function headline(text, limit = 100) {
  return shorten(speaking(text.split("\n", 50)), limit);
}

/** The last such line. @param {string} text @param {number} [limit] */
export function lastLine(text, limit = 100) {
  return shorten(speaking(text.slice(-20_000).split("\n").reverse()), limit);
}

/** The first of `lines` with a letter or digit in it, else the first that is not blank. @param {string[]} lines */
function speaking(lines) {
  const trimmed = lines.map((each) => each.trim()).filter(Boolean);
  return trimmed.find((each) => /[\p{L}\p{N}]/u.test(each)) ?? trimmed[0] ?? "";
}

/** @param {string} text @param {number} limit */
export function shorten(text, limit) {
  const characters = text.length > limit ? Array.from(text.slice(0, limit * 2)) : null;
  return characters && (characters.length > limit || text.length > limit * 2)
    ? `${characters.slice(0, limit).join("")}…`
    : text;
}

/** @param {string} text */
export function lineCount(text) {
  return text === "" ? 0 : text.replace(/\n$/, "").split("\n").length;
}
