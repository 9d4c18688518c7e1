/** Asking before something that hurts. A native dialog: focus is held inside, Escape says no. */

import { h } from "./dom.js";

/**
 * @param {{question: string, yes: string, danger?: boolean, typed?: string}} about
 *   `typed`: a text that must be typed out before yes is possible
 * @returns {Promise<boolean>}
 */
export function confirmed({ question, yes, danger = false, typed = "" }) {
  const before = document.activeElement;
  const accept = h(
    "button",
    { value: "yes", class: danger ? "button danger" : "button primary", disabled: Boolean(typed) },
    yes,
  );
  const field = typed ? typedField(typed, accept) : null;
  const dialog = h(
    "dialog",
    { class: "confirm", "aria-labelledby": "confirm-question" },
    h(
      "form",
      { method: "dialog" },
      h("p", { id: "confirm-question", class: "confirm-question" }, question),
      field,
      h(
        "div",
        { class: "actions end" },
        h("button", { value: "no", class: "button", formnovalidate: true, autofocus: !typed }, "Keep as is"),
        accept,
      ),
    ),
  );
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const input = dialog.querySelector("input");
      const matches = !typed || input?.value === typed;
      dialog.remove();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
      resolve(dialog.returnValue === "yes" && matches);
    });
    dialog.showModal();
  });
}

/** @param {string} typed @param {HTMLButtonElement} accept */
function typedField(typed, accept) {
  const input = h("input", {
    type: "text",
    class: "input",
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    autofocus: true,
  });
  input.addEventListener("input", () => {
    accept.disabled = input.value !== typed;
  });
  // Enter would press the first button, which is no.
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    if (!accept.disabled) accept.click();
  });
  return h(
    "label",
    { class: "field" },
    h("span", null, "Type ", h("strong", { class: "typed" }, typed), " to go on"),
    input,
  );
}
