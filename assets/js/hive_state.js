/** What the dashboard knows: a snapshot, kept current by events. Objects are replaced, never changed. */

/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./types.js").ApprovalView} ApprovalView */
/** @typedef {import("./types.js").AuditEntry} AuditEntry */

const INBOX_MAX = 50;
const MESSAGES_MAX = 1000;
const RESOLVED_MAX = 20;
const ACTIVITY_MAX = 200;

export const UNRESOLVED = new Set(["pending", "approved", "building"]);

/**
 * @typedef {"waiting"|"hive"|"agents"|"tombstones"|"approvals"|"questions"|"asks"|"permissions"|"schedules"|
 *   "inbox"|"messages"|"activity"} Part
 */

/** Which parts an event of a kind changes. @type {Record<string, Part[]>} */
const TOUCHES = {
  message: ["messages", "inbox"],
  agent: ["agents"],
  agent_gone: ["agents"],
  tombstones: ["tombstones"],
  approval: ["approvals"],
  question: ["questions"],
  ask: ["asks"],
  permission: ["permissions"],
  reminder: ["schedules"],
  schedule: ["schedules"],
  hive: ["hive"],
  waiting: ["waiting"],
  activity: ["activity"],
};

// How far an approval is: news that would turn one back is old.
const PROGRESS = ["pending", "approved", "building"];

export class HiveState {
  /** @param {Snapshot} snapshot */
  constructor(snapshot) {
    this.hive = snapshot.hive;
    this.agents = [...snapshot.agents].sort(managerFirst);
    this.tombstones = snapshot.tombstones;
    this.approvals = snapshot.approvals;
    this.questions = snapshot.questions;
    this.asks = snapshot.asks ?? []; // between agents
    this.permissions = snapshot.permissions ?? [];
    this.reminders = snapshot.reminders ?? [];
    this.schedules = snapshot.schedules ?? [];
    this.inbox = newestFirst(snapshot.inbox).slice(0, INBOX_MAX);
    this.messages = newestFirst(snapshot.messages);
    /** Newest first. @type {AuditEntry[]} */
    this.activity = [...(snapshot.activity ?? [])].reverse();
    this.session = snapshot.session ?? ""; // of this browser
    this.waiting = snapshot.waiting ?? { entries: [], total: 0 };
    this.position = snapshot.position;
  }

  /**
   * Applies one event and tells which parts it changed; one that was seen before changes nothing.
   * @param {string} kind @param {any} data @param {string|null} position
   * @returns {Part[]}
   */
  apply(kind, data, position) {
    if (position !== null && !isAfter(position, this.position)) return [];
    if (position !== null) this.position = position;
    switch (kind) {
      case "message":
        this.addMessage(data);
        break;
      case "agent":
        this.agents = upsert(this.agents, data, "name").sort(managerFirst);
        break;
      case "agent_gone":
        this.agents = this.agents.filter((agent) => agent.name !== data.name);
        break;
      case "tombstones":
        this.tombstones = data.agents;
        break;
      case "approval":
        if (this.isOld(data)) return [];
        this.approvals = sortApprovals(upsert(this.approvals, data, "id"));
        break;
      case "question":
        this.questions = upsert(this.questions, data, "id").filter(isOpen);
        break;
      case "ask":
        this.asks = upsert(this.asks, data, "id").filter(isOpen);
        break;
      case "permission":
        this.permissions = upsert(this.permissions, data, "id").filter((each) => !each.closed);
        break;
      case "reminder":
        this.reminders = upsert(this.reminders, data, "id").filter((each) => !each.closed).sort(soonestFirst);
        break;
      case "schedule":
        this.schedules = upsert(this.schedules, data, "id").filter((each) => !each.removed).sort(byAgent);
        break;
      case "activity":
        if (this.activity[0]?.id >= data.id) return [];
        this.activity = [data, ...this.activity].slice(0, ACTIVITY_MAX);
        break;
      case "waiting":
        this.waiting = data;
        break;
      case "hive":
        this.hive = data;
        break;
      default:
        return []; // a newer server may tell more than this page knows
    }
    return TOUCHES[kind];
  }

  /** Whether more is known of an approval already. @param {ApprovalView} approval */
  isOld(approval) {
    const known = this.approvals.find((each) => each.id === approval.id);
    return known !== undefined && progress(known) > progress(approval);
  }

  /** @param {Message} message */
  addMessage(message) {
    this.messages = withNew(this.messages, message, MESSAGES_MAX);
    if (message.to === "operator") this.inbox = withNew(this.inbox, message, INBOX_MAX);
  }

  /** @param {Message[]} older */
  addOlder(older) {
    this.messages = newestFirst([...this.messages, ...older]);
  }

  /** The agent of an approval, or nothing if it is too long ago. @param {number} id */
  agentOfApproval(id) {
    return this.approvals.find((each) => each.id === id)?.agent ?? "";
  }

  /** Approvals that wait for the operator or are being carried out. */
  get openApprovals() {
    return this.approvals.filter((each) => UNRESOLVED.has(each.status));
  }

  get resolvedApprovals() {
    return this.approvals.filter((each) => !UNRESOLVED.has(each.status));
  }

  get allowsMore() {
    return this.messages.length < MESSAGES_MAX;
  }
}

/** Positions are `<epoch>-<n>`; of another epoch is always news. @param {string} position @param {string} than */
export function isAfter(position, than) {
  const [epoch, number] = splitPosition(position);
  const [thanEpoch, thanNumber] = splitPosition(than);
  return epoch !== thanEpoch || number > thanNumber;
}

/** @param {string} position @returns {[string, number]} */
function splitPosition(position) {
  const dash = position.lastIndexOf("-");
  return [position.slice(0, dash), Number(position.slice(dash + 1))];
}

/** They come in order but for a few, so that most need no sorting.
 * @param {Message[]} messages newest first @param {Message} message @param {number} most */
function withNew(messages, message, most) {
  const { id } = message; // what is no message fails here, before it is kept
  if (messages.length === 0 || id > messages[0].id) return [message, ...messages.slice(0, most - 1)];
  return newestFirst([message, ...messages]).slice(0, most);
}

/** @param {Message[]} messages */
function newestFirst(messages) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  return [...byId.values()].sort((a, b) => b.id - a.id);
}

/** @template {Record<string, any>} T @param {T[]} list @param {T} item @param {string} key @returns {T[]} */
function upsert(list, item, key) {
  const index = list.findIndex((each) => each[key] === item[key]);
  return index < 0 ? [...list, item] : list.map((each, at) => (at === index ? item : each));
}

/** @param {{role: string, name: string}} a @param {{role: string, name: string}} b */
function managerFirst(a, b) {
  if (a.role !== b.role) return a.role === "manager" ? -1 : 1;
  return a.name < b.name ? -1 : 1;
}

/** @param {import("./types.js").ReminderView} a @param {import("./types.js").ReminderView} b */
function soonestFirst(a, b) {
  return a.due_at_ms - b.due_at_ms || a.id - b.id;
}

/** @param {import("./types.js").ScheduleView} a @param {import("./types.js").ScheduleView} b */
function byAgent(a, b) {
  return a.agent === b.agent ? a.id - b.id : a.agent < b.agent ? -1 : 1;
}

/** @param {{answer: string|null, closed?: string}} question */
export function isOpen(question) {
  return !question.closed && (question.answer ?? null) === null;
}

/** @param {ApprovalView} approval */
function progress(approval) {
  const step = PROGRESS.indexOf(approval.status);
  return step < 0 ? PROGRESS.length : step;
}

/** Open ones by age, then the newest resolved. @param {ApprovalView[]} approvals */
function sortApprovals(approvals) {
  const open = approvals.filter((each) => UNRESOLVED.has(each.status)).sort((a, b) => a.id - b.id);
  const resolved = approvals
    .filter((each) => !UNRESOLVED.has(each.status))
    .sort((a, b) => (b.resolved_at_ms ?? 0) - (a.resolved_at_ms ?? 0) || b.id - a.id);
  return [...open, ...resolved.slice(0, RESOLVED_MAX)];
}
