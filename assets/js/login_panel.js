/** Logging an agent's backend in: start, open the provider's page, paste the code. */

import { h, one, safeHref, setText, show } from "./dom.js";

/** @typedef {import("./types.js").LoginState} LoginState */

/** @type {Record<string, string>} */
const STAGES = {
  none: "This agent has no credentials yet. Start the login, open the link, and paste the code you get.",
  starting: "Starting the login…",
  awaiting_code: "Open the link, allow access, and paste the code here.",
  verifying: "Checking the code…",
  failed: "The login failed. Start it again.",
  done: "Logged in. The agent goes on with its waiting messages.",
};

let shownUrl = "";

/** @param {LoginState} login @param {boolean} reachable */
export function renderLogin(login, reachable) {
  const under = !["none", "done", "failed"].includes(login.stage);
  show(one("#agent-login"), reachable && (login.needed || under));
  setText(one("#login-stage"), STAGES[login.stage] ?? login.stage);
  setText(one("#login-message"), login.message);
  show(one("#login-message"), login.message !== "");
  show(one("#login-start"), !under);
  show(one("#login-cancel"), under);
  show(one("#login-code"), login.stage === "awaiting_code" || login.stage === "verifying");
  renderUrl(login.url ?? "");
}

/** The link comes from inside the container: only https is made a link, and its host is shown. @param {string} url */
function renderUrl(url) {
  if (url === shownUrl) return;
  shownUrl = url;
  const place = one("#login-url");
  const target = url.startsWith("https://") ? safeHref(url) : null;
  show(place, url !== "");
  if (target === null) {
    place.replaceChildren(h("span", { class: "words" }, url));
    return;
  }
  const host = URL.canParse(target) ? new URL(target).host : "unknown host";
  place.replaceChildren(
    h("a", { href: target, target: "_blank", rel: "noopener noreferrer", class: "button go" }, `open ${host} ↗`),
    h("span", { class: "hint words" }, target),
  );
}
