/** What is typed into fields with `data-draft` survives a reload or a detour to the login page. */

const PREFIX = "hive.draft.";

/** Restores and keeps the drafts of every `[data-draft]` field now on the page. */
export function keepDrafts() {
  for (const field of document.querySelectorAll("[data-draft]")) {
    if (!(field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement)) continue;
    const name = PREFIX + location.pathname + field.dataset.draft;
    const kept = sessionStorage.getItem(name);
    if (kept && !field.value) field.value = kept;
    field.addEventListener("input", () => keep(name, field.value));
    field.form?.addEventListener("reset", () => keep(name, ""));
    field.dispatchEvent(new Event("input"));
  }
}

/** @param {string} name @param {string} value */
function keep(name, value) {
  if (value) sessionStorage.setItem(name, value.slice(0, 100_000));
  else sessionStorage.removeItem(name);
}
