/** W4NTS T0 USE: tool calls that an agent may not make before the operator allows or denies them. */

import { diffLines, diffText } from "./diff.js";
import { ageOf, h, leet, one, setText, show, untilOf } from "./dom.js";
import { errorPlace } from "./forms.js";
import { syncList } from "./morph.js";

/** @typedef {import("./types.js").PermissionView} PermissionView */

const OPEN_CHARACTERS = 1200; // longer ones are folded

/** On the dashboard those of all agents, on an agent's page its own. @param {{permissions: PermissionView[]}} state */
export function renderPermissions(state) {
  const { permissions } = state;
  syncList(one("#permission-list"), permissions, (request) => request.id, card);
  setText(one("#permissions-count"), String(permissions.length));
  one("#permissions").classList.toggle("pulse", permissions.length > 0);
  show(one("#permissions"), permissions.length > 0);
}

/** @param {PermissionView} request */
function card(request) {
  const title = `permission-title-${request.id}`;
  return h(
    "li",
    { class: "card permission" },
    h(
      "p",
      { class: "meta", id: title },
      h("strong", null, request.agent),
      " asks to use ",
      h("strong", { class: "words" }, request.tool),
      " · ",
      ageOf(request.asked_at_ms, " ago"),
      ` · #${request.id}`,
      request.expires_at_ms && " ",
      request.expires_at_ms && h("span", { class: "chip warn" }, "denied ", untilOf(request.expires_at_ms)),
    ),
    shownCall(request),
    h("p", { class: "meta words" }, `in ${request.cwd || "?"}`),
    request.reason && h("p", { class: "words" }, h("span", { class: "label" }, "it says: "), request.reason),
    answerForm(request, title),
  );
}

/** @param {PermissionView} request */
function shownCall(request) {
  const text = tellCall(request);
  const call = h("pre", { class: "permission-call words", tabindex: "0" }, text);
  if (text.length <= OPEN_CHARACTERS) return call;
  return h("details", null, h("summary", null, `${text.length.toLocaleString("en")} characters`), call);
}

/** The arguments, each under its name; an edit as what it changes. @param {PermissionView} request */
export function tellCall(request) {
  /** @type {unknown} */
  let input;
  try {
    input = JSON.parse(request.input);
  } catch {
    return request.input;
  }
  if (typeof input !== "object" || input === null || Array.isArray(input)) return request.input;
  const { old_string: before, new_string: after, ...rest } = /** @type {Record<string, unknown>} */ (input);
  const isEdit = typeof before === "string" && typeof after === "string";
  const lines = Object.entries(isEdit ? rest : input).map(([name, value]) => `${name}: ${asText(value)}`);
  if (isEdit) lines.push(diffText(diffLines(before, after)));
  if (request.truncated) lines.push("… (cut: it is longer, or hides what looks like a secret)");
  return lines.join("\n");
}

/** @param {unknown} value */
function asText(value) {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
}

/** @param {PermissionView} request @param {string} title */
function answerForm(request, title) {
  return h(
    "form",
    {
      "data-async": true,
      method: "post",
      action: `/answer-permission/${request.id}`,
      "aria-labelledby": title,
    },
    h(
      "label",
      { class: "field" },
      h("span", { class: "label" }, "if you deny it: what the agent should know"),
      // Of several lines: Enter in it must not press the first button, which allows.
      h("textarea", { name: "message", class: "input", rows: "1", maxlength: "4000" }),
    ),
    h(
      "div",
      { class: "actions" },
      button(request, "once", "▸ 4LL0W 0NCE", "Allow once", "primary"),
      request.rule !== "" && button(request, "session", "TH1S S3SS10N", "Allow for this session", ""),
      request.rule !== "" && button(request, "always", "4LW4YS", "Always allow", ""),
      h("span", { class: "spacer" }),
      button(request, "", "✕ D3NY", "Deny", "quiet"),
    ),
    request.rule !== "" &&
      h("p", { class: "hint permission-rule" }, "for longer than once writes the rule ", h("code", null, request.rule)),
    errorPlace(),
  );
}

/** @param {PermissionView} request @param {string} scope @param {string} face @param {string} words @param {string} look */
function button(request, scope, face, words, look) {
  const always = scope === "always";
  return h(
    "button",
    {
      class: `button ${look}`.trim(),
      name: "scope",
      value: scope,
      "aria-label": `${words}: permission ${request.id}`,
      "data-done": `Permission ${request.id}: ${scope === "" ? "denied" : "allowed"}.`,
      "data-confirm": always && `From now on ${request.agent} may do this without asking: ${request.rule}`,
      "data-yes": always && "Write the rule",
    },
    leet(face),
  );
}
