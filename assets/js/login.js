/** The operator's login: a one-time code from the URL's fragment, or pasted; never sent in a URL. */

import { ApiError, keepKey, postForm, safeReturn } from "./api.js";
import { one, setText, show } from "./dom.js";

const form = /** @type {HTMLFormElement} */ (one("#login"));
const field = /** @type {HTMLInputElement} */ (one("#code"));
const button = /** @type {HTMLButtonElement} */ (one("#enter"));
const problem = one("#problem");
const progress = one("#progress");

/** The code in what was pasted: a bare code, or the whole URL. @param {string} pasted */
export function codeIn(pasted) {
  const text = pasted.trim();
  const hash = text.lastIndexOf("#");
  return hash >= 0 ? text.slice(hash + 1).trim() : text;
}

/** @param {unknown} error */
function explain(error) {
  if (!(error instanceof ApiError)) return `Something went wrong in this page: ${error}`;
  if (error.code === "unreachable") return "hive-c0re cannot be reached. Is it running? Then try again.";
  return error.message;
}

/** @param {string} text */
function fail(text) {
  setText(problem, text);
  show(problem, true);
  field.setAttribute("aria-invalid", "true");
  field.focus();
  field.select();
}

/** @param {string} code */
async function enter(code) {
  show(problem, false);
  field.removeAttribute("aria-invalid");
  if (!code) return fail("Paste the login URL or its code first.");
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  setText(progress, "Checking the code…");
  try {
    const { key } = await postForm("/login", { code });
    keepKey(key);
    setText(progress, "Welcome. Opening the hive…");
    location.replace(safeReturn(new URLSearchParams(location.search).get("return")));
  } catch (error) {
    setText(progress, "");
    fail(explain(error));
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
  return undefined;
}

/** Takes the code out of the address before anything else can see it. */
function codeFromAddress() {
  const code = codeIn(location.hash);
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  return code;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void enter(codeIn(field.value));
});

function start() {
  field.disabled = button.disabled = false; // until now the browser itself would have sent the form, and shown the reply
  const code = codeFromAddress();
  if (!code && new URLSearchParams(location.search).has("ended"))
    setText(progress, "Your session has ended: it was logged out, or not used for long. After a login you come back to where you were.");
  if (!code) return field.focus();
  field.value = code;
  void enter(code);
  return undefined;
}

addEventListener("hashchange", start); // a second login URL opened over this page
start();
