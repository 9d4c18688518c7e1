/** The dialog that `?` opens: the keys of this page, drawn from the one table, and the switch for them. */

import { h } from "./dom.js";

/** @typedef {import("./keyboard.js").Key} Key */

const OFF_NAME = "hive.keys";

/** Whether single keys are turned off in this browser. */
export function areOff() {
  return localStorage.getItem(OFF_NAME) === "off";
}

/** @param {Key[]} keys @param {import("./keyboard.js").PageKind} kind */
export function showKeys(keys, kind) {
  if (document.querySelector("dialog[open]")) return;
  const before = document.activeElement;
  const here = keys.filter((key) => !key.on || key.on.includes(kind));
  const groups = [...new Set(here.map((key) => key.group))];
  const dialog = h(
    "dialog",
    { class: "confirm key-help", "aria-labelledby": "keys-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "keys-title" }, "Keys"),
      h(
        "div",
        { class: "key-groups", tabindex: "0", role: "group", "aria-labelledby": "keys-title" },
        h(
          "div",
          { class: "key-columns" },
          groups.map((group) => table(group, here.filter((key) => key.group === group))), // prettier-ignore
        ),
      ),
      onOff(),
      h("div", { class: "actions end" }, h("button", { class: "button primary", autofocus: true }, "Close")),
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** @param {string} group @param {Key[]} keys */
function table(group, keys) {
  return h(
    "table",
    { class: "key-table" },
    h("caption", null, group),
    h(
      "tbody",
      null,
      keys.map(({ keys: pressed, words }) =>
        h("tr", null, h("th", { scope: "row" }, caps(pressed)), h("td", null, words)),
      ),
    ),
  );
}

/** @param {string} pressed */
function caps(pressed) {
  return pressed.split(" ").flatMap((key, at) => [at > 0 ? " " : "", h("kbd", null, key)]);
}

/** Speech input says letters, and some hands press more than they mean. */
function onOff() {
  const box = h("input", { type: "checkbox", checked: !areOff() });
  box.addEventListener("change", () => {
    if (box.checked) localStorage.removeItem(OFF_NAME);
    else localStorage.setItem(OFF_NAME, "off");
  });
  return h("label", { class: "option" }, box, h("span", null, "Single keys work (remembered in this browser)"));
}
