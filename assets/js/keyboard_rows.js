/** Rows for the keyboard: which one has the focus, the next one, and what opening one means. */

const ROWS = ".cards > li, .messages > li, .deeds > li, .waiting-list > li";
const CONTROLS = "a[href], summary, button:not(:disabled), input:not([type=hidden], :disabled), select, textarea";
const FIELDS = "textarea, input:not([type=hidden], [type=radio], [type=checkbox])";

/** The row in which the focus is, of a section's list or of an agent's terminal. @returns {HTMLElement|null} */
export function currentRow() {
  const row = document.activeElement?.closest(`${ROWS}, #rows .row`);
  return row instanceof HTMLElement ? row : null;
}

/** Every row that can be seen, where the focus is: in the panel, or on the page. @returns {HTMLElement[]} */
function rows() {
  const place = document.activeElement?.closest("#panel") ?? document.querySelector("main") ?? document.body;
  const all = /** @type {NodeListOf<HTMLElement>} */ (place.querySelectorAll(ROWS));
  return [...all].filter((row) => row.checkVisibility());
}

/** The focus goes to the next row, from wherever it is; at the ends it stays. @param {number} by 1 or -1 */
export function stepRow(by) {
  const terminal = document.querySelector("#terminal");
  if (terminal) {
    // Its rows come and go by thousands; row_tools.js, which listens there, knows where to begin.
    terminal.dispatchEvent(new KeyboardEvent("keydown", { key: by > 0 ? "j" : "k", cancelable: true }));
    return;
  }
  const all = rows();
  const now = currentRow();
  const at = now ? all.indexOf(now) : -1;
  const next = at >= 0 ? all[at + by] : beside(all, by);
  if (!next) return;
  next.tabIndex = -1;
  next.focus({ preventScroll: true });
  const tall = next.getBoundingClientRect().height > innerHeight / 2;
  next.scrollIntoView({ block: tall ? "start" : "nearest" });
}

/** The first row after, or the last one before, what has the focus. @param {HTMLElement[]} all @param {number} by */
function beside(all, by) {
  const from = document.activeElement;
  if (!from || from === document.body) return by > 0 ? all[0] : undefined;
  const follows = (/** @type {HTMLElement} */ row) =>
    Boolean(from.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING);
  return by > 0 ? all.find(follows) : all.findLast((row) => !follows(row));
}

/** An agent's row leads to its page, words unfold, and what asks for something takes the focus inside. */
export function openRow() {
  const row = currentRow();
  if (!row) return;
  const page = row.querySelector("a.agent-name");
  if (page instanceof HTMLElement) return page.click();
  const fold = row.matches(".question, .approval") ? null : row.querySelector("details");
  if (fold) {
    fold.open = !fold.open;
    return undefined;
  }
  const first = [...row.querySelectorAll(CONTROLS)].find((each) => each.checkVisibility());
  return first instanceof HTMLElement ? first.focus() : undefined;
}

/** To the field of the row, out of its fold if it has to be opened. */
export function writeInRow() {
  const field = [...(currentRow()?.querySelectorAll(FIELDS) ?? [])].at(-1);
  if (!(field instanceof HTMLElement)) return;
  const fold = field.closest("details");
  if (fold) fold.open = true;
  field.focus();
}
