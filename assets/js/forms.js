/**
 * Every change is a form: `data-async` is posted url-encoded by one delegated listener, which asks
 * (`data-confirm`), shows that it works, tells an error beside the button, and always gives the form back.
 *
 * Attributes, on the form or on the pressed button (which wins):
 *   data-confirm        question to ask first · data-yes: the accepting button's words · data-danger: it hurts
 *   data-confirm-typed  text that must be typed out · posted as `confirm`
 *   data-confirm-by     names one of `doubts`, which finds the question to ask when it is pressed
 *   data-done           what to say when it all worked
 *   data-encode         names an encoder (see `encoders`)
 * and on the form: data-reset empties it when it worked.
 */

import { ApiError, postForm } from "./api.js";
import { confirmed } from "./confirm.js";
import { h, setText } from "./dom.js";
import { toast } from "./notices.js";
import { asText } from "./text.js";

/**
 * Named ways to turn a form into fields, for forms that are not sent as they stand. May throw ApiError.
 * @type {Record<string, (data: FormData) => Record<string, string>>}
 */
export const encoders = { answer: encodeAnswer, nothing: () => ({}) };

/** Chosen options and free text, joined with commas (SPEC 11). @param {FormData} data */
function encodeAnswer(data) {
  const parts = [...data.getAll("choice"), data.get("free") ?? ""].map((part) => String(part).trim());
  const answer = parts.filter(Boolean).join(", ");
  if (!answer) throw new ApiError(0, "bad_request", "Choose an option or write an answer first.", "free");
  return { answer };
}

/**
 * Questions that depend on what is on the page when a button is pressed. Empty: nothing to ask.
 * @type {Record<string, (form: HTMLFormElement) => string>}
 */
export const doubts = {};

/** Takes over every `form[data-async]` of the page, present and future. */
export function takeForms() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || !form.hasAttribute("data-async")) return;
    event.preventDefault();
    const first = form.querySelector("button:not([type=button])");
    const button = event.submitter ?? first;
    void submit(form, button instanceof HTMLButtonElement ? button : null);
  });
}

/** @param {HTMLFormElement} form @param {HTMLButtonElement|null} button */
async function submit(form, button) {
  if (form.hasAttribute("data-busy")) return;
  const setting = (/** @type {string} */ name) => button?.dataset[name] ?? form.dataset[name];
  const path = button?.getAttribute("formaction") ?? form.getAttribute("action") ?? "";
  showError(form, null);
  try {
    const fields = encode(form, button);
    const typed = setting("confirmTyped");
    const question = setting("confirm") ?? doubts[setting("confirmBy") ?? ""]?.(form);
    if (
      question &&
      !(await confirmed({ question, yes: setting("yes") ?? "Go on", danger: setting("danger") !== undefined, typed }))
    )
      return;
    if (typed) fields.confirm = typed;
    await post(form, button, path, fields, setting("done"));
  } catch (error) {
    showError(form, error);
    const target = form.isConnected ? form : document;
    target.dispatchEvent(new CustomEvent("hive:refused", { bubbles: true, detail: { error, form } }));
  }
}

/**
 * @param {HTMLFormElement} form @param {HTMLButtonElement|null} button
 * @returns {Record<string, string>}
 */
function encode(form, button) {
  const data = new FormData(form, button);
  const encoder = encoders[button?.dataset.encode ?? form.dataset.encode ?? ""];
  if (encoder) return encoder(data);
  /** @type {Record<string, string>} */
  const fields = {};
  for (const [name, value] of data) if (typeof value === "string") fields[name] = value;
  return fields;
}

/**
 * @param {HTMLFormElement} form @param {HTMLButtonElement|null} button @param {string} path
 * @param {Record<string, string>} fields @param {string|undefined} done
 */
async function post(form, button, path, fields, done) {
  const release = occupy(form, button);
  let result;
  try {
    result = await postForm(path, fields);
  } finally {
    release();
    form.dispatchEvent(new CustomEvent("hive:settled", { bubbles: true }));
  }
  if (form.hasAttribute("data-reset")) form.reset();
  if (done) toast([done, sentence(result?.note)].filter(Boolean).join(" "));
  form.dispatchEvent(new CustomEvent("hive:done", { bubbles: true }));
}

/** @param {unknown} note */
function sentence(note) {
  const text = asText(note);
  return text && text[0].toUpperCase() + text.slice(1);
}

/**
 * Marks the form busy; the returned function gives it back, whatever happened in between.
 * @param {HTMLFormElement} form @param {HTMLButtonElement|null} button
 */
function occupy(form, button) {
  const focused = document.activeElement;
  const disabled = [...form.elements].filter((each) => each instanceof HTMLButtonElement && !each.disabled);
  form.setAttribute("data-busy", "");
  button?.setAttribute("aria-busy", "true");
  for (const each of disabled) /** @type {HTMLButtonElement} */ (each).disabled = true;
  return () => {
    form.removeAttribute("data-busy");
    button?.removeAttribute("aria-busy");
    for (const each of disabled) /** @type {HTMLButtonElement} */ (each).disabled = false;
    const lost = document.activeElement === document.body || document.activeElement === null;
    if (lost && focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
  };
}

/** What went wrong. Where no answer came, nobody here knows what was done. @param {unknown} error */
function wordsOf(error) {
  const lost = error instanceof ApiError && error.code === "unreachable";
  const said = error instanceof Error ? error.message : String(error);
  return lost ? `${said}. It may have been done all the same: look before you try again.` : said;
}

/** @param {HTMLFormElement} form @param {unknown} error */
export function showError(form, error) {
  const message = error === null ? "" : wordsOf(error);
  if (message && !form.isConnected) return toast(message, "error"); // its row is gone
  const place = form.querySelector(".form-error") ?? form.appendChild(errorPlace());
  if (place instanceof HTMLElement) place.hidden = message === "";
  setText(place, message);
  for (const each of form.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  const name = error instanceof ApiError ? error.field : null;
  const field = name ? form.elements.namedItem(name) : null;
  if (field instanceof HTMLElement) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
  return undefined;
}

/** Where a form tells its error; the form's script owns it, not the data. */
export function errorPlace() {
  return h("p", { class: "form-error", role: "alert", "data-island": true, hidden: true });
}
