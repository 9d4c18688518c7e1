/**
 * The diff on an approval's card: what its commit changes, against one of three bases.
 *
 * It fills the card's `[data-review]` island, which nothing else touches. Only what is on the screen can be
 * approved: `isOnScreen` tells, and `hive:review` is sent when that changes.
 */

import { getJson } from "./api.js";
import { h, setText } from "./dom.js";
import { fileBody, isCut, linesOf } from "./unified.js";
import { neutraliseCode, plural, shortSha } from "./text.js";

/** @typedef {import("./types.js").ApprovalView} ApprovalView */
/** @typedef {import("./types.js").DiffBase} DiffBase */
/** @typedef {import("./types.js").FileDiff} FileDiff */
/** @typedef {import("./types.js").DiffSummary} DiffSummary */
/**
 * @typedef {{approval: ApprovalView, key: string, base: DiffBase, state: "waiting"|"loading"|"shown"|"failed",
 *   problem: string, summary: DiffSummary|null, files: FileDiff[], opened: Set<string>, asked: number}} Review
 */

const OPEN_LINES_PER_FILE = 80;
const OPEN_LINES = 300; // of all files together; what is larger opens on demand

/** @type {Record<DiffBase, [string, string]>} */
export const BASES = {
  running: ["what runs now", "nothing runs yet"],
  approved: ["last approved", "none approved yet"],
  proposed: ["previous proposal", "no earlier proposal"],
};

/** @type {Map<number, Review>} */
const reviews = new Map();
let loading = false;

/** Where a card's diff goes. @param {ApprovalView} approval */
export function reviewPlace(approval) {
  return h("div", { class: "review", "data-island": true, "data-key": "review", "data-review": approval.id });
}

/** Whether this approval can be decided by what is seen. @param {ApprovalView} approval */
export function isOnScreen(approval) {
  const review = reviews.get(approval.id);
  return review?.state === "shown" && review.summary?.approval.commit === approval.commit;
}

/**
 * Brings the reviews in line with the cards that wait; `runs` is the commit each agent runs.
 * Call it when the cards are on the page.
 * @param {ApprovalView[]} waiting @param {Map<string, string|null>} runs
 */
export function syncReviews(waiting, runs) {
  const wanted = new Map(waiting.filter((each) => each.commit).map((each) => [each.id, each]));
  for (const id of reviews.keys()) if (!wanted.has(id)) reviews.delete(id);
  for (const approval of wanted.values()) {
    const { running, approved, proposed } = approval.bases;
    const key = [approval.commit, running, approved, proposed, runs.get(approval.agent)].join(" ");
    const review = reviews.get(approval.id) ?? fresh(approval);
    reviews.set(approval.id, review);
    review.approval = approval;
    if (review.key !== key) ask(review, review.base, key);
    if (!placeOf(review)?.firstChild) draw(review);
  }
  void loadNext();
}

/** @param {ApprovalView} approval @returns {Review} */
function fresh(approval) {
  return {
    approval, key: "", base: "running", state: "waiting", problem: "", summary: null, files: [], opened: new Set(), asked: 0,
  }; // prettier-ignore
}

/** @param {Review} review @param {DiffBase} base @param {string} [key] */
function ask(review, base, key = review.key) {
  Object.assign(review, { base, key, state: "waiting", asked: review.asked + 1 });
  changed(review);
}

/** One after the other: the first card's first. */
async function loadNext() {
  const review = loading ? undefined : [...reviews.values()].find((each) => each.state === "waiting");
  if (!review) return;
  loading = true;
  review.state = "loading";
  try {
    await load(review);
  } finally {
    loading = false;
    void loadNext();
  }
}

/** @param {Review} review */
async function load(review) {
  const { approval, base, asked } = review;
  /** @type {Partial<Review>} */
  let news;
  try {
    const { summary, files } = await getJson(`/api/approvals/${approval.id}/diff?base=${base}`);
    if (summary.approval.commit !== approval.commit)
      throw new Error("the approval is for another commit by now; reload");
    news = { state: "shown", summary, files, opened: new Set() };
  } catch (error) {
    news = { state: "failed", problem: error instanceof Error ? error.message : String(error) };
  }
  if (review.asked !== asked) return; // another base was chosen meanwhile
  Object.assign(review, news);
  changed(review);
}

/** @param {Review} review */
function changed(review) {
  draw(review);
  document.dispatchEvent(new CustomEvent("hive:review"));
}

/** @param {Review} review */
function placeOf(review) {
  return document.querySelector(`[data-review="${review.approval.id}"]`);
}

/** @param {Review} review */
function draw(review) {
  const place = placeOf(review);
  if (!place) return;
  if (!place.firstChild) {
    place.append(
      baseChoice(review),
      h("p", { class: "meta review-status", role: "status" }),
      h("div", { class: "files" }),
    );
  }
  drawBases(place, review);
  const status = place.querySelector(".review-status");
  if (status) setText(status, statusWords(review));
  const files = place.querySelector(".files");
  if (!files) return;
  files.toggleAttribute("hidden", review.state !== "shown" && review.state !== "failed");
  if (review.state === "shown") files.replaceChildren(...fileList(review));
  if (review.state === "failed") files.replaceChildren(problem(review));
}

/** @param {Review} review */
function baseChoice(review) {
  const name = `base-${review.approval.id}`;
  return h(
    "div",
    { class: "bases", role: "radiogroup", "aria-label": `Compare ${review.approval.agent}'s commit with` },
    h("span", { class: "label", "aria-hidden": "true" }, "against"),
    Object.keys(BASES).map((base) =>
      h(
        "label",
        { class: "option base" },
        h("input", { type: "radio", name, value: base, on: { change: () => choose(review, base) } }),
        h("span", { class: "base-words" }),
      ),
    ),
  );
}

/** @param {Review} review @param {string} base */
function choose(review, base) {
  ask(review, /** @type {DiffBase} */ (base));
  void loadNext();
}

/** @param {Element} place @param {Review} review */
function drawBases(place, review) {
  for (const input of place.querySelectorAll(".bases input")) {
    if (!(input instanceof HTMLInputElement)) continue;
    const base = /** @type {DiffBase} */ (input.value);
    const commit = review.approval.bases[base];
    input.checked = base === review.base;
    input.disabled = !commit && base !== "running";
    const words = input.parentElement?.querySelector(".base-words");
    if (words) setText(words, commit ? `${BASES[base][0]} · ${shortSha(commit)}` : BASES[base][1]);
    input.parentElement?.classList.toggle("absent", input.disabled);
  }
}

/** @param {Pick<Review, "state"|"summary">} review */
export function statusWords(review) {
  const { state, summary } = review;
  if (state === "failed") return "The diff could not be loaded.";
  if (state !== "shown" || !summary) return "Loading the diff…";
  const against = summary.base_commit
    ? `against ${BASES[summary.base][0]}, ${shortSha(summary.base_commit)}`
    : "all of it is new: there is nothing to compare with";
  if (summary.files === 0) return `Nothing changes ${against}.`;
  return `${plural(summary.files, "file")} · +${summary.added} −${summary.deleted} · ${against}`;
}

/** @param {Review} review */
function problem(review) {
  const again = { click: () => choose(review, review.base) };
  return h(
    "p",
    { class: "form-error", role: "alert" },
    review.problem,
    " ",
    h("button", { type: "button", class: "button", on: again }, "↻ try again"),
  );
}

/** @param {Pick<Review, "files"|"opened">} review */
export function fileList(review) {
  let room = OPEN_LINES;
  return review.files.map((file) => {
    const lines = linesOf(file);
    const open = lines <= OPEN_LINES_PER_FILE && lines <= room;
    if (open) room -= lines;
    return fileFold(review, file, open);
  });
}

/** @type {Record<string, string>} */
const GLYPHS = { added: "+", deleted: "−", modified: "±" };

/** @param {Pick<Review, "opened">} review @param {FileDiff} file @param {boolean} open */
function fileFold(review, file, open) {
  const fold = h(
    "details",
    { class: "fold file" },
    h(
      "summary",
      null,
      h(
        "span",
        { class: `change change-${GLYPHS[file.change] ? file.change : "modified"}` },
        GLYPHS[file.change] ?? "±",
      ),
      h("span", { class: "sr" }, file.change),
      h("span", { class: "words path" }, neutraliseCode(file.path)),
      h("span", { class: "plus" }, `+${file.added}`),
      h("span", { class: "minus" }, `−${file.deleted}`),
      file.mode && h("span", { class: "chip warn" }, `mode ${file.mode}`),
      isCut(file) && h("span", { class: "chip warn" }, "cut off"),
    ),
  );
  const show = () => {
    review.opened.add(file.path);
    if (fold.childElementCount === 1) fold.append(fileBody(file));
  };
  fold.addEventListener("toggle", () => fold.open && show());
  if (open) {
    show();
    fold.open = true;
  }
  return fold;
}

/** What of the diff was not read before approving, as a question; empty if all was. @param {number} id */
export function unread(id) {
  const review = reviews.get(id);
  if (!review) return "";
  const closed = review.files.filter((file) => !review.opened.has(file.path)).length;
  const cut = review.files.filter(isCut).length;
  const said = [
    closed > 0 && `${closed} of ${plural(review.files.length, "file")} ${closed === 1 ? "was" : "were"} not opened`,
    cut > 0 && `${plural(cut, "file")} ${cut === 1 ? "is" : "are"} cut off, so what follows there was not shown`,
  ].filter(Boolean);
  return said.length > 0 ? `${said.join(", and ")}. Approve all the same?` : "";
}
