/** Y0UR C4LL: everything that waits for the operator, as core puts it in order, and the way to each of it. */

import { here } from "./api.js";
import { budgetAnswers } from "./budgets.js";
import { ageOf, h, leet, one, setText, show, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";
import { openByLink } from "./panel.js";

/** @typedef {import("./types.js").WaitingEntry} WaitingEntry */
/** @typedef {import("./hive_state.js").HiveState} HiveState */

const SHOWN_FLAT = 6;
const CARD = /^#(approval|question|permission)-([1-9][0-9]{0,18})$/;
const BUDGET = /^#budget-([a-z][a-z0-9-]*)$/;

/** What each kind is called, and its glyph. @type {Record<WaitingEntry["kind"], [string, string]>} */
const KINDS = {
  approval: ["◆", "approval"],
  question: ["?", "question"],
  stop: ["■", "stopped"],
  login: ["🔑", "login"],
  permission: ["✋", "permission"],
  failure: ["✗", "failed"],
  budget: ["⏸", "budget"],
};

/** Where the cards of a kind are, unless they are approvals. @type {Record<string, string[]>} */
const LISTS = { question: ["#question-list"], permission: ["#permission-list"] };

let whole = false;
/** @type {HiveState|null} */
let last = null;

/** @param {HiveState} state */
export function renderWaiting(state) {
  last = state;
  const { entries, total } = state.waiting;
  const shown = whole ? entries : entries.slice(0, SHOWN_FLAT);
  syncList(one("#waiting-list"), shown, keyOf, row);
  setText(one("#waiting-count"), String(total));
  one("#waiting-count").classList.toggle("hot", total > 0);
  show(one("#no-waiting"), total === 0);
  const more = one("#waiting-more");
  show(more, total > SHOWN_FLAT);
  more.setAttribute("aria-expanded", String(whole));
  setText(more, moreWords(entries.length, total));
  showOnTab(total > 0);
}

/** @param {number} listed @param {number} total */
function moreWords(listed, total) {
  if (!whole) return `show ${total - SHOWN_FLAT} more`;
  return total > listed ? `show less (${total - listed} more when these are settled)` : "show less";
}

/** What an entry is known by for as long as it waits. @param {WaitingEntry} entry */
export function keyOf(entry) {
  return `${entry.kind}:${entry.id}`;
}

/** @param {WaitingEntry} entry */
function row(entry) {
  const [glyph, name] = KINDS[entry.kind] ?? ["·", entry.kind];
  const onPage = entry.link.startsWith("#");
  return h(
    "li",
    { class: `waiting-row waiting-${entry.kind}` },
    h(
      "a",
      { class: "waiting-go", href: onPage ? entry.link : here(entry.link), "data-waiting": onPage },
      h("span", { class: "chip", "data-key": "kind" }, h("span", { "aria-hidden": "true" }, `${glyph} `), name),
      h("strong", { class: "words", "data-key": "summary" }, entry.summary),
      entry.said && h("span", { class: "waiting-said words", "data-key": "said" }, entry.said),
    ),
    h(
      "p",
      { class: "meta", "data-key": "meta" },
      "for ",
      ageOf(entry.since_ms),
      entry.blocked.length > 0 && [" · ", h("span", { class: "waiting-held" }, `holds up ${entry.blocked.join(", ")}`)],
      " · ",
      entry.expires_at_ms !== null && [h("span", { class: "chip warn" }, untilOf(entry.expires_at_ms)), " "],
      h("span", { class: "words" }, entry.otherwise),
    ),
    entry.kind === "failure" && dismissal(entry),
    entry.kind === "budget" && budgetAnswers(entry),
  );
}

/** @param {WaitingEntry} entry */
function dismissal(entry) {
  return h(
    "form",
    {
      "data-async": true,
      method: "post",
      action: `/dismiss/${encodeURIComponent(entry.id)}`,
      class: "waiting-dismiss",
      "data-key": "dismiss",
    },
    h("button", { class: "button quiet", "aria-label": `Dismiss failed approval ${entry.id}` }, leet("✓ S33N")),
    errorPlace(),
  );
}

/** A tab among many shows by its picture that something waits. @param {boolean} waits */
function showOnTab(waits) {
  const icon = document.querySelector("link[rel=icon]");
  const wanted = `static/favicon${waits ? "-waiting" : ""}.svg`;
  if (icon && icon.getAttribute("href") !== wanted) icon.setAttribute("href", wanted);
}

/**
 * Goes to what a link of the queue, or to a view of the panel, leads to; returns whether that is on the page.
 * @param {string} hash
 */
export function reveal(hash) {
  if (openByLink(hash)) return true;
  const match = CARD.exec(hash);
  const budget = BUDGET.exec(hash);
  const card = budget ? rowOf(`budget:${budget[1]}`) : match && cardOf(match[1], match[2]);
  const target = hash === "#waiting" ? one("#waiting") : card;
  if (!(target instanceof HTMLElement)) return false;
  const fold = target.closest("details");
  if (fold) fold.open = true;
  if (!target.hasAttribute("tabindex")) target.tabIndex = -1;
  target.scrollIntoView({ block: "start" });
  target.focus({ preventScroll: true });
  target.classList.remove("arrived");
  void target.offsetWidth; // begins the animation anew
  target.classList.add("arrived");
  return true;
}

/** An entry that has no card elsewhere: what can be done stands in its row. @param {string} key */
function rowOf(key) {
  return document.querySelector(`#waiting-list > [data-key="${key}"]`);
}

/** @param {string} kind @param {string} id */
function cardOf(kind, id) {
  const lists = LISTS[kind] ?? ["#approval-list", "#resolved-list"];
  for (const list of lists) {
    const card = document.querySelector(`${list} > [data-key="${id}"]`);
    if (card) return card;
  }
  return null;
}

/** A link of another kind leaves the page. @param {string} link */
export function go(link) {
  if (!link.startsWith("#")) return location.assign(here(link));
  history.replaceState(history.state, "", link);
  reveal(link);
  return undefined;
}

/** The address that the page was opened with may lead to a card, which is there after the first snapshot. */
let wanted = location.hash;

/** Called whenever something was drawn. */
export function arrive() {
  if (wanted && reveal(wanted)) wanted = "";
}

/** Takes over the list's links and the button for more. */
export function takeWaiting() {
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[data-waiting]") : null;
    if (!link || !(event instanceof MouseEvent) || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link.getAttribute("href") ?? "");
  });
  addEventListener("hashchange", () => reveal(location.hash));
  one("#waiting-more").addEventListener("click", () => {
    whole = !whole;
    if (last) renderWaiting(last);
  });
}
