import "./page.js";

import assert from "node:assert/strict";
import test from "node:test";

let seed = 9;
const random = (below) => (seed = (seed * 48271) % 2147483647) % below;

globalThis.localStorage = { getItem: () => "key" };
globalThis.location = { pathname: "/", search: "", origin: "http://hive.example", replace: (to) => left.push(to) };
const listeners = {};
globalThis.addEventListener = (name, listener) => (listeners[name] = listener);
globalThis.window = globalThis;
const left = [];

const { EventParser, follow } = await import("../../assets/js/stream.js");

function parsed(chunks) {
  const events = [];
  const parser = new EventParser((event) => events.push(event));
  for (const chunk of chunks) parser.push(chunk);
  return events;
}

const TEXT = [
  ": ping\n\n",
  "event: agent\nid: e-1\ndata: {\"a\":1}\n\n",
  "data: one\r\ndata:  two\r\rdata\n\n",
  "id: e-2\n\n",
  "event: message\nid: e-3\ndata: ünïcode ✓\n\n",
  "retry: 5\nnonsense\ndata: last\n\n",
  "data: never ended\n",
].join("");

test("events come out the same, however the bytes were cut", () => {
  const whole = parsed([TEXT]);
  assert.deepEqual(whole, [
    { type: "agent", id: "e-1", data: '{"a":1}' },
    { type: "message", id: null, data: "one\n two" },
    { type: "message", id: null, data: "" },
    { type: "message", id: "e-3", data: "ünïcode ✓" },
    { type: "message", id: null, data: "last" },
  ]);
  for (let round = 0; round < 300; round += 1) {
    const chunks = [];
    for (let at = 0; at < TEXT.length; ) {
      const size = 1 + random(9);
      chunks.push(TEXT.slice(at, at + size));
      at += size;
    }
    assert.deepEqual(parsed(chunks), whole);
  }
});

test("an event without end is refused before it fills the memory", () => {
  assert.throws(() => parsed(Array.from({ length: 9 }, () => "x".repeat(1024 * 1024))), /too large/);
  assert.throws(() => parsed(Array.from({ length: 9 }, () => `data: ${"x".repeat(1024 * 1024)}\n`)), /too large/);
});

/** A server that answers each connection with the next of `answers`; what is slept is told, not waited for. */
async function followed(answers, { until, load = async () => "e-0" }) {
  const real = { fetch: globalThis.fetch, setTimeout: globalThis.setTimeout, random: Math.random };
  const seen = { waits: [], states: [], events: [], asked: [], loads: 0 };
  Math.random = () => 0.5;
  globalThis.setTimeout = (wake, ms, ...more) => {
    if (ms >= 45_000) return real.setTimeout(wake, ms, ...more).unref();
    if (ms > 0) seen.waits.push(ms); // 0: the parser gives way
    return real.setTimeout(wake, 0, ...more);
  };
  globalThis.fetch = async (_url, { headers }) => {
    seen.asked.push(headers["Last-Event-ID"]);
    const answer = answers[Math.min(seen.asked.length - 1, answers.length - 1)];
    if (answer instanceof Error) throw answer;
    return answer();
  };
  await new Promise((resolve) => {
    const stream = follow({
      url: "/api/events",
      load: async () => {
        seen.loads += 1;
        return load(seen.loads);
      },
      onEvent: (event) => seen.events.push(event.data),
      onConnection: (connection) => {
        seen.states.push(connection);
        if (until(seen)) {
          stream.stop();
          resolve(undefined);
        }
      },
    });
  });
  Object.assign(globalThis, { fetch: real.fetch, setTimeout: real.setTimeout });
  Math.random = real.random;
  return seen;
}

const said = (text) => () => new Response(text, { status: 200 });
const refused = (status) => () => new Response(JSON.stringify({ error: { code: "failed", message: "not now" } }), { status });

test("each failure is waited for twice as long, up to a quarter of a minute, and told", async () => {
  const seen = await followed([new TypeError("network")], { until: ({ waits }) => waits.length >= 8 });
  assert.deepEqual(seen.waits.slice(0, 8), [400, 800, 1600, 3200, 6400, 12800, 15000, 15000]);
  const waiting = seen.states.filter(({ kind }) => kind === "waiting");
  assert.ok(waiting.every(({ retryAtMs, reason }) => retryAtMs > Date.now() - 60_000 && reason === "network"));
  assert.equal(seen.loads, 1, "the snapshot is kept while the server cannot be reached");
});

test("an event sets the patience back, and the stream goes on after it", async () => {
  const seen = await followed(
    [new TypeError("x"), new TypeError("x"), said("id: e-7\ndata: hello\n\n"), new TypeError("x")],
    { until: ({ waits }) => waits.length >= 4 },
  );
  assert.deepEqual(seen.waits.slice(0, 4), [400, 800, 400, 800]);
  assert.deepEqual(seen.asked.slice(0, 4), ["e-0", "e-0", "e-0", "e-7"]);
  assert.deepEqual(seen.events, ["hello"]);
  assert.ok(seen.states.some(({ kind }) => kind === "live"));
});

test("after `reset` a new snapshot is taken, and nothing of the old history is shown", async () => {
  const seen = await followed([said("event: reset\ndata: {}\n\nid: e-9\ndata: old\n\n"), new TypeError("x")], {
    until: ({ asked }) => asked.length >= 2,
    load: async (time) => `e-${time * 100}`,
  });
  assert.deepEqual(seen.asked.slice(0, 2), ["e-100", "e-200"]);
  assert.deepEqual(seen.events, []);
});

test("the reason and status of a refusal are told", async () => {
  const seen = await followed([refused(503)], { until: ({ waits }) => waits.length >= 2 });
  const waiting = seen.states.find(({ kind }) => kind === "waiting");
  assert.deepEqual([waiting.reason, waiting.status], ["not now", 503]);
});

test("who is not logged in any more goes to the login, once", async () => {
  left.length = 0;
  const done = followed([refused(401)], { until: () => left.length > 0 });
  await Promise.race([done, new Promise((resolve) => setTimeout(resolve, 50))]);
  assert.equal(left.length, 1);
  assert.match(left[0], /\/login\?return=/);
});

test("one event that cannot be shown does not end the stream", async () => {
  const complain = console.error;
  console.error = () => {};
  const events = [];
  const real = globalThis.fetch;
  let calls = 0;
  globalThis.fetch = async () => {
    calls += 1;
    return new Response("data: bad\n\ndata: good\n\n");
  };
  await new Promise((resolve) => {
    const stream = follow({
      url: "/x",
      load: async () => "e-0",
      onConnection: () => {},
      onEvent: ({ data }) => {
        if (data === "bad") throw new Error("planted");
        events.push(data);
        stream.stop();
        resolve(undefined);
      },
    });
  });
  globalThis.fetch = real;
  console.error = complain;
  assert.deepEqual([events, calls], [["good"], 1]);
});
