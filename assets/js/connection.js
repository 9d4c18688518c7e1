/** The connection's state in the header: seen, and said once when it changes. */

import { one, setText } from "./dom.js";
import { announce } from "./notices.js";

/** @typedef {import("./stream.js").Connection} Connection */

/** @type {Connection} */
let current = { kind: "connecting" };
let wasLost = false;

/** @param {Connection} connection */
function words(connection) {
  if (connection.kind === "live") return "live";
  if (connection.kind === "connecting") return wasLost ? "reconnecting…" : "connecting…";
  const seconds = Math.max(0, Math.ceil(((connection.retryAtMs ?? 0) - Date.now()) / 1000));
  return `${current.status === 503 ? "not up" : "offline"} · again in ${seconds}s`;
}

function render() {
  const chip = one("#connection");
  chip.dataset.kind = current.kind;
  chip.title = current.reason ?? "";
  setText(one(".words", chip), words(current));
  // The name is without the countdown: a name that changes is read out again.
  const [state] = words(current).split(" · ");
  chip.setAttribute("aria-label", `Connection: ${state} (press to reload everything)`);
}

/** @param {Connection} connection */
export function showConnection(connection) {
  if (connection.kind === "waiting" && !wasLost) announce("Connection lost. Trying again.");
  if (connection.kind === "live" && wasLost) announce("Connected again.");
  if (connection.kind !== "connecting") wasLost = connection.kind === "waiting";
  current = connection;
  render();
}

setInterval(() => {
  if (current.kind === "waiting") render();
}, 1000);
