import assert from "node:assert/strict";
import test from "node:test";

import { HiveState, isAfter, isOpen } from "../../assets/js/hive_state.js";

let seed = 3;
const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
const NAMES = ["hm1nd", "alice", "bob", "carol"];
const STEPS = ["pending", "approved", "building", "deployed"];

const agent = (name, state) => ({ name, role: name === "hm1nd" ? "manager" : "agent", state });
const copy = (value) => JSON.parse(JSON.stringify(value));

/** A server: what is true, and the events that tell of it. */
class Server {
  constructor() {
    this.at = 0;
    this.log = [];
    this.told = { agents: [agent("hm1nd", "running")], tombstones: [], approvals: [], questions: [], asks: [], inbox: [], messages: [], activity: [] };
    this.hive = { running: 0 };
  }

  snapshot(position = this.at) {
    return copy({ ...this.told, hive: this.hive, position: `e-${position}`, session: "" });
  }

  tell(kind, data) {
    this.at += 1;
    this.log.push([kind, copy(data), `e-${this.at}`]);
  }

  put(part, item, key = "id") {
    this.told[part] = [...this.told[part].filter((each) => each[key] !== item[key]), item];
  }

  step() {
    const { told } = this;
    const id = this.at + 1;
    switch (random(8)) {
      case 0: {
        const changed = agent(NAMES[random(4)], ["running", "stopped", "crashed"][random(3)]);
        this.put("agents", changed, "name");
        return this.tell("agent", changed);
      }
      case 1: {
        const name = NAMES[1 + random(3)];
        told.agents = told.agents.filter((each) => each.name !== name);
        return this.tell("agent_gone", { name });
      }
      case 2: {
        const message = { id, sender: "alice", to: random(2) ? "operator" : "bob", body: "…" };
        told.messages.push(message);
        if (message.to === "operator") told.inbox.push(message);
        return this.tell("message", message);
      }
      case 3: {
        const known = told.approvals.find((each) => each.status !== "deployed" && random(2));
        const next = known
          ? { ...known, status: STEPS[STEPS.indexOf(known.status) + 1] }
          : { id, agent: "bob", status: "pending", resolved_at_ms: null };
        if (next.status === "deployed") next.resolved_at_ms = id;
        this.put("approvals", next);
        return this.tell("approval", next);
      }
      case 4: {
        const known = told.questions.find(() => random(2));
        const next = known ? { ...known, closed: "answered", answer: "yes" } : { id, question: "?", answer: null, closed: "" };
        this.put("questions", next);
        told.questions = told.questions.filter((each) => !each.closed);
        return this.tell("question", next);
      }
      case 5: {
        const known = told.asks.find(() => random(2));
        const next = known ? { ...known, closed: "gone" } : { id, question: "?", answer: null, closed: "", answerer: "bob" };
        this.put("asks", next);
        told.asks = told.asks.filter((each) => !each.closed);
        return this.tell("ask", next);
      }
      case 6:
        told.tombstones = [agent(NAMES[1 + random(3)], "tombstone")];
        return this.tell("tombstones", { agents: told.tombstones });
      default:
        this.hive = { running: random(9) };
        return this.tell("hive", this.hive);
    }
  }
}

const ids = (list) => list.map((each) => each.id).sort((a, b) => a - b);
const byName = (list) => [...list].sort((a, b) => (a.name < b.name ? -1 : 1));
const byId = (list) => [...list].sort((a, b) => a.id - b.id);

function assertSame(page, server) {
  assert.deepEqual(byName(page.agents), byName(server.told.agents));
  assert.deepEqual(page.tombstones, server.told.tombstones);
  assert.deepEqual(byId(page.openApprovals), byId(server.told.approvals.filter((each) => each.status !== "deployed")));
  assert.deepEqual(byId(page.questions), byId(server.told.questions));
  assert.deepEqual(byId(page.asks), byId(server.told.asks));
  assert.deepEqual(ids(page.messages), ids(server.told.messages));
  assert.deepEqual(page.hive, server.hive);
  assert.equal(page.position, `e-${server.at}`);
}

test("whenever the snapshot was taken and however often the stream goes back, the page ends where the server is", () => {
  for (let round = 0; round < 300; round += 1) {
    const server = new Server();
    const steps = (amount) => Array.from({ length: amount }).forEach(() => server.step());
    steps(random(25));
    const position = server.at;
    steps(random(6)); // what happens while the snapshot is read is in it, and comes once more
    const page = new HiveState(server.snapshot(position));
    let next = position;
    steps(random(25));
    while (next < server.at) {
      page.apply(...server.log[next]);
      next += 1;
      if (random(5) === 0) next = Math.max(position, next - random(8));
    }
    assertSame(page, server);
  }
});

test("what was seen changes nothing and redraws nothing", () => {
  const server = new Server();
  for (let n = 0; n < 40; n += 1) server.step();
  const page = new HiveState(server.snapshot());
  const before = copy(page);
  for (const event of server.log) assert.deepEqual(page.apply(...event), []);
  assert.deepEqual(copy(page), before);
});

test("an approval never goes back, not even by an answer that came late", () => {
  const server = new Server();
  const page = new HiveState(server.snapshot());
  const approval = (status) => ({ id: 1, agent: "bob", status, resolved_at_ms: null });
  page.apply("approval", approval("building"), "e-1");
  assert.deepEqual(page.apply("approval", approval("approved"), null), []);
  assert.equal(page.approvals[0].status, "building");
  page.apply("approval", approval("failed"), "e-2");
  assert.deepEqual(page.apply("approval", approval("building"), null), []);
  assert.equal(page.resolvedApprovals.length, 1);
});

test("lists are replaced, never changed, so that a row knows its item is another", () => {
  const page = new HiveState(new Server().snapshot());
  const before = page.agents;
  page.apply("agent", agent("bob", "running"), "e-1");
  assert.notEqual(page.agents, before);
  assert.equal(before.length, 1);
  assert.deepEqual(page.agents.map((each) => each.name), ["hm1nd", "bob"]);
});

test("lists have an end", () => {
  const page = new HiveState(new Server().snapshot());
  for (let id = 1; id <= 1200; id += 1) page.apply("message", { id, to: "operator" }, `e-${id}`);
  assert.equal(page.messages.length, 1000);
  assert.equal(page.inbox.length, 50);
  assert.equal(page.messages[0].id, 1200);
  assert.equal(page.allowsMore, false);
});

test("positions of another daemon's life are news; an unknown kind is not", () => {
  assert.ok(isAfter("b-1", "a-900"));
  assert.ok(isAfter("a-b-10", "a-b-9"));
  assert.ok(!isAfter("a-9", "a-9"));
  const page = new HiveState(new Server().snapshot());
  assert.deepEqual(page.apply("weather", {}, "e-1"), []);
  assert.equal(page.position, "e-1");
});

test("a question is open until it is answered, cancelled or expired", () => {
  assert.deepEqual(
    [
      { answer: null, closed: "" },
      { answer: "", closed: "" },
      { answer: null, closed: "expired" },
    ].map(isOpen),
    [true, false, false],
  );
});
