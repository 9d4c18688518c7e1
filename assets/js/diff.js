/** The lines two texts do not share, for showing an edit. */

const LINES_MAX = 400; // the table below grows with the square

/** @typedef {{mark: "+"|"-"|" ", text: string}} DiffLine */

/**
 * A line diff by longest common subsequence; of very long texts simply all old, then all new lines.
 * @param {string} before @param {string} after
 * @returns {DiffLine[]}
 */
export function diffLines(before, after) {
  const old = before === "" ? [] : before.split("\n");
  const now = after === "" ? [] : after.split("\n");
  if (old.length > LINES_MAX || now.length > LINES_MAX) {
    return [...old.map((text) => line("-", text)), ...now.map((text) => line("+", text))];
  }
  return walk(old, now, commonLengths(old, now));
}

/** @param {DiffLine["mark"]} mark @param {string} text @returns {DiffLine} */
function line(mark, text) {
  return { mark, text };
}

/** @param {string[]} old @param {string[]} now */
function commonLengths(old, now) {
  const lengths = Array.from({ length: old.length + 1 }, () => new Uint16Array(now.length + 1));
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = now.length - 1; j >= 0; j -= 1) {
      lengths[i][j] = old[i] === now[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  return lengths;
}

/** @param {string[]} old @param {string[]} now @param {Uint16Array[]} lengths @returns {DiffLine[]} */
function walk(old, now, lengths) {
  const lines = [];
  let i = 0;
  let j = 0;
  while (i < old.length && j < now.length) {
    if (old[i] === now[j]) {
      lines.push(line(" ", old[i]));
      i += 1;
      j += 1;
    } else if (lengths[i + 1][j] >= lengths[i][j + 1]) {
      lines.push(line("-", old[i]));
      i += 1;
    } else {
      lines.push(line("+", now[j]));
      j += 1;
    }
  }
  while (i < old.length) lines.push(line("-", old[i++]));
  while (j < now.length) lines.push(line("+", now[j++]));
  return lines;
}

/** A diff as text, as people paste it. @param {DiffLine[]} lines */
export function diffText(lines) {
  return lines.map(({ mark, text }) => `${mark} ${text}`).join("\n");
}
