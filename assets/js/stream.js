/**
 * Live updates: a snapshot, then the events after it, for ever. Server-sent events are read with fetch,
 * because EventSource cannot send the key. After a drop the stream resumes from the last event seen;
 * if the server cannot resume it says `reset`, and a new snapshot is taken.
 */

import { errorOf, goToLogin, headers, here } from "./api.js";
import { giveWay, SLICE_MS } from "./pace.js";

/** @typedef {{type: string, id: string|null, data: string}} ServerEvent */
/** @typedef {{kind: "connecting"|"live"|"waiting", retryAtMs?: number, reason?: string, status?: number}} Connection */

const SILENCE_MS = 45_000; // the server pings every 15 s
const FIRST_DELAY_MS = 400;
const LONGEST_DELAY_MS = 15_000;
const EVENT_MAX_CHARACTERS = 8 * 1024 * 1024;

/** Splits a text stream into events, as the HTML standard says. */
export class EventParser {
  /** @param {(event: ServerEvent) => void} emit */
  constructor(emit) {
    this.emit = emit;
    this.rest = "";
    this.type = "";
    /** @type {string|null} */
    this.id = null;
    /** @type {string[]} */
    this.data = [];
    this.size = 0;
  }

  reset() {
    this.type = "";
    this.id = null;
    this.data = [];
    this.size = 0;
  }

  /** @param {string} chunk */
  push(chunk) {
    // A CR at the end may be half of a CRLF: it waits for the next chunk.
    const text = this.rest + chunk;
    const held = text.endsWith("\r") ? 1 : 0;
    const lines = text.slice(0, text.length - held).split(/\r\n|\n|\r/);
    this.rest = (lines.pop() ?? "") + (held ? "\r" : "");
    if (this.rest.length > EVENT_MAX_CHARACTERS) throw new Error("one event was too large");
    for (const line of lines) this.line(line);
  }

  /** @param {string} line */
  line(line) {
    if (line === "") return this.dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined; // a comment: the server's ping
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.type = value;
    if (field === "id" && !value.includes("\0")) this.id = value;
    if (field === "data") this.addData(value);
    return undefined;
  }

  /** @param {string} value */
  addData(value) {
    this.size += value.length;
    if (this.size > EVENT_MAX_CHARACTERS) throw new Error("one event was too large");
    this.data.push(value);
  }

  dispatch() {
    const event = { type: this.type || "message", id: this.id, data: this.data.join("\n") };
    const empty = this.data.length === 0;
    this.reset();
    if (!empty) this.emit(event);
  }
}

/**
 * One connection; returns when the server ends it.
 * @param {string} url @param {string} lastId
 * @param {{signal: AbortSignal, onOpen: () => void, onBytes: () => void, onEvent: (event: ServerEvent) => void}} how
 */
async function readOnce(url, lastId, { signal, onOpen, onBytes, onEvent }) {
  const wanted = headers({ Accept: "text/event-stream", "Last-Event-ID": lastId });
  const response = await fetch(here(url), {
    headers: wanted,
    credentials: "same-origin",
    cache: "no-store",
    redirect: "error",
    signal,
  });
  if (!response.ok) throw await errorOf(response);
  if (!response.body) throw new Error("the browser gives no stream");
  onOpen();
  const parser = new EventParser(onEvent);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let spentMs = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes();
    const beganMs = performance.now();
    parser.push(value);
    spentMs += performance.now() - beganMs;
    if (spentMs < SLICE_MS) continue;
    await giveWay(); // what has come already would be read in one go, and the server waits as long
    spentMs = 0;
  }
}

/**
 * Follows a snapshot and its stream until `stop()`.
 * @param {{
 *   url: string|(() => string),
 *   load: () => Promise<string>,
 *   onEvent: (event: ServerEvent) => void,
 *   onConnection: (connection: Connection) => void,
 * }} how  `load` takes the snapshot and returns the position the stream goes on from; `url` may change,
 *   which `reopen` puts into effect where the stream is
 * @returns {{stop: () => void, reload: () => void, reopen: () => void}}
 */
export function follow({ url, load, onEvent, onConnection }) {
  let stopped = false;
  let stale = true;
  let reopening = false;
  let lastId = "";
  let delayMs = FIRST_DELAY_MS;
  let current = new AbortController();
  let wake = () => {};

  const connectOnce = async () => {
    if (!reopening) onConnection({ kind: "connecting" });
    reopening = false;
    current = new AbortController();
    const { signal } = current;
    if (stale) {
      lastId = await load();
      stale = false;
    }
    let timer = 0;
    const heard = () => {
      clearTimeout(timer);
      timer = window.setTimeout(() => current.abort(new Error("the server went silent")), SILENCE_MS);
    };
    heard();
    try {
      await readOnce(typeof url === "string" ? url : url(), lastId, {
        signal,
        onOpen: () => onConnection({ kind: "live" }),
        onBytes: heard,
        onEvent: (event) => {
          if (stale) return; // what follows a reset belongs to another history
          delayMs = FIRST_DELAY_MS;
          if (event.type === "reset") {
            stale = true;
            current.abort(new Error("a new snapshot is needed"));
            return;
          }
          if (event.id !== null) lastId = event.id;
          deliver(event, onEvent);
        },
      });
    } finally {
      clearTimeout(timer);
    }
  };

  const pause = async (/** @type {any} */ error) => {
    const reason = error instanceof Error ? error.message : "the connection was lost";
    const waitMs = delayMs * (0.75 + Math.random() / 2);
    delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS);
    onConnection({ kind: "waiting", retryAtMs: Date.now() + waitMs, reason, status: error?.status });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, waitMs);
      wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
    wake = () => {};
  };

  const run = async () => {
    while (!stopped) {
      /** @type {unknown} */
      let failure = new Error("the server closed the stream");
      try {
        await connectOnce();
      } catch (error) {
        failure = current.signal.aborted ? (current.signal.reason ?? error) : error;
        if (/** @type {any} */ (error)?.status === 401) return goToLogin();
      }
      if (!stopped && !reopening) await pause(failure);
    }
    return undefined;
  };

  addEventListener("online", () => wake());
  document.addEventListener("visibilitychange", () => document.hidden || wake());
  addEventListener("pagehide", () => current.abort(new Error("the page was left")));
  void run();
  return {
    stop() {
      stopped = true;
      current.abort(new Error("stopped"));
      wake();
    },
    reopen() {
      reopening = true;
      current.abort(new Error("reopen"));
      wake();
    },
    reload() {
      stale = true;
      delayMs = FIRST_DELAY_MS;
      current.abort(new Error("reload"));
      wake();
    },
  };
}

/** One bad event must not end the stream. @param {ServerEvent} event @param {(event: ServerEvent) => void} onEvent */
function deliver(event, onEvent) {
  try {
    onEvent(event);
  } catch (error) {
    console.error("event could not be shown", event.type, event.id, error);
  }
}
