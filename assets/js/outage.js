/**
 * While hive-c0re does not answer: a line below the header that says so, since when what is shown is old, and
 * what to do. A connection that is back at once is not worth a word.
 */

import { one, setText, show } from "./dom.js";
import { age, clock } from "./text.js";

/** @typedef {import("./stream.js").Connection} Connection */

const PATIENCE_MS = 2500;

let lostAtMs = 0;
let heardAtMs = 0;
/** @type {Connection} */
let current = { kind: "connecting" };

/** @param {Connection} connection */
export function showOutage(connection) {
  if (connection.kind === "live") {
    lostAtMs = 0;
    heardAtMs = Date.now();
  } else if (connection.kind === "waiting") {
    lostAtMs ||= Date.now();
  }
  if (connection.kind !== "connecting") current = connection;
  render();
}

/** What happened, and what to do about it. @param {Connection} connection */
export function explain({ status = 0, reason = "" }) {
  if (status === 429) return ["This browser has too many pages of the hive open.", "Close some of them."];
  if (status === 503)
    return ["hive-c0re is starting or stopping.", "This page comes back by itself when it is up."];
  if (status > 0) return [`hive-c0re refused the connection: ${reason}.`, "Its log tells more."];
  if (!navigator.onLine) return ["This device is offline.", "The page goes on by itself when it is back."];
  return [
    "hive-c0re does not answer.",
    "It may be restarting. If it stays away, start it where it runs: hive-c0re serve. Agents keep what they have.",
  ];
}

function render() {
  const lost = lostAtMs > 0 && Date.now() - lostAtMs >= PATIENCE_MS;
  show(one("#outage"), lost);
  document.body.classList.toggle("stale", lost);
  if (!lost) return;
  const [what, advice] = explain(current);
  const seen = heardAtMs > 0 ? `What you see is from ${clock(heardAtMs > lostAtMs ? heardAtMs : lostAtMs)}` : "";
  setText(one("#outage-what"), what);
  setText(one("#outage-advice"), advice);
  setText(one("#outage-since"), seen && `${seen}, ${age(lostAtMs)} ago.`);
}

/** @param {() => void} again tries at once */
export function takeOutage(again) {
  one("#outage-again").addEventListener("click", again);
  setInterval(() => lostAtMs > 0 && render(), 1000);
}
