/**
 * The shapes the server sends, as hive_shared/wire.py and hive_shared/events.py define them.
 * Only types: nothing in here runs.
 *
 * @typedef {{id: number, sender: string, to: string, body: string, sent_at_ms: number,
 *   in_reply_to: number|null, broadcast: boolean, redelivered: boolean, asks: number|null,
 *   asks_closed: boolean, answers: number|null}} Message
 * @typedef {{messages: Message[], cut: boolean}} MessageThread
 *
 * @typedef {"offline"|"idle"|"thinking"|"compacting"|"rate_limited"|"needs_login"|"waiting_for_you"} Badge
 * @typedef {"stopped"|"starting"|"running"|"stopping"|"rebuilding"|"creating"|"destroying"|"crashed"
 *   |"tombstone"} AgentState
 * @typedef {"offline"|"starting"|"needs_login"|"idle"|"thinking"|"compacting"|"waiting_for_you"
 *   |"waiting_for_limit"|"parked"|"crashed"|"stopped"|"creating"|"rebuilding"|"stopping"|"destroying"
 *   |"destroyed"} AgentStatus
 * @typedef {"manager"|"agent"} Role
 * @typedef {"spawn"|"apply_commit"} ApprovalKind
 * @typedef {"pending"|"approved"|"building"|"deployed"|"failed"|"denied"} ApprovalStatus
 *
 * @typedef {{badge: Badge, since_ms: number, backend: string, model: string, note: string,
 *   resumes_at_ms: number|null, context_tokens: number, window_tokens: number}} HarnessReport
 *
 * @typedef {{name: string, role: Role, container: string, host: string, port: number, state: AgentState,
 *   status: AgentStatus, status_since_ms: number, status_until_ms: number|null, status_note: string,
 *   since_ms: number, isolation: string, needs_update: boolean, pid: number|null, restarts: number,
 *   unread: number, note: string, report: HarnessReport, state_bytes: number|null,
 *   has_credentials: boolean, commit: string|null, may_write_to: string[]|null, bypass: boolean,
 *   paused_with: string[], budget: BudgetView|null}} AgentView
 *
 * @typedef {{used: number, limit: number, own: boolean}} BudgetAmount
 * @typedef {{agent: string, turns: BudgetAmount, tokens: BudgetAmount, microdollars: BudgetAmount,
 *   day_ends_at_ms: number, day_ends: string, stopped: boolean, left: boolean,
 *   reached: ("turns"|"tokens"|"microdollars")[], since_ms: number}} BudgetView
 *
 * @typedef {{id: number, kind: ApprovalKind, agent: string, status: ApprovalStatus, requested_by: string,
 *   requested_at_ms: number, resolved_by: string|null, resolved_at_ms: number|null, commit: string|null,
 *   note: string, operator_note: string, outcome: string, step: string, revives: boolean, rollback: boolean,
 *   commit_ref: string, message: string, author: string, authored_at_ms: number|null, flags: RiskFlag[],
 *   bases: DiffBases}} ApprovalView
 *
 * @typedef {{path: string, line: number, rule: string, text: string}} RiskFlag
 * @typedef {"running"|"approved"|"proposed"} DiffBase
 * @typedef {Record<DiffBase, string|null>} DiffBases
 *
 * @typedef {{path: string, change: "added"|"deleted"|"modified", added: number, deleted: number, text: string,
 *   truncated: boolean, mode: string}} FileDiff
 * @typedef {{approval: ApprovalView, base: DiffBase, base_commit: string|null, files: number,
 *   added: number, deleted: number}} DiffSummary
 *
 * @typedef {{approval_id: number, commit: string, message: string, deployed_at_ms: number|null,
 *   approved_by: string|null, operator_note: string, running: boolean, rollback: boolean}} Deployment
 *
 * @typedef {{path: string, size_bytes: number, changed_at_ms: number}} NoteFile
 * @typedef {{path: string, text: string, size_bytes: number, changed_at_ms: number, truncated: boolean}} NoteText
 *
 * @typedef {{id: string, created_at_ms: number, last_seen_ms: number, ends_at_ms: number,
 *   client: string}} SessionView
 *
 * @typedef {{id: number, asker: string, question: string, options: string[], multi: boolean,
 *   asked_at_ms: number, answer: string|null, answered_at_ms: number|null, answered_by: string|null,
 *   expires_at_ms: number|null, closed: ""|"answered"|"cancelled"|"expired"|"gone",
 *   answerer: string, message_id: number|null}} QuestionView
 *
 * @typedef {{kind: "approval"|"question"|"stop"|"login"|"permission"|"failure"|"budget", id: string, who: string, summary: string,
 *   said: string, since_ms: number, expires_at_ms: number|null, blocked: string[], otherwise: string,
 *   link: string}} WaitingEntry
 * @typedef {{entries: WaitingEntry[], total: number}} WaitingList
 *
 * @typedef {{id: number, agent: string, tool: string, input: string, truncated: boolean, cwd: string,
 *   reason: string, message_id: number, asked_at_ms: number, expires_at_ms: number|null, rule: string,
 *   closed: ""|"allowed"|"denied"|"expired"|"withdrawn", scope: "once"|"session"|"always"|null, message: string,
 *   answered_at_ms: number|null, answered_by: string|null}} PermissionView
 *
 * @typedef {{id: number, agent: string, decision: "allow"|"deny", rule: string, session: boolean,
 *   made_at_ms: number, made_by: string}} PermissionRuleView
 * @typedef {{decision: "allow"|"deny", rule: string, option: string}} ConfiguredRule
 * @typedef {{agent: string, rules: ConfiguredRule[], is_policy: boolean, default: "ask"|"deny",
 *   ask_timeout_seconds: number|null, problem: string, more: number}} ConfiguredRules
 *
 * @typedef {{id: number, agent: string, body: string, truncated: boolean, due_at_ms: number, set_at_ms: number,
 *   closed: ""|"delivered"|"cancelled"|"dropped"}} ReminderView
 * @typedef {{id: number, agent: string, cron: string, timezone: string, body: string, means: string,
 *   made_at_ms: number, made_by: string, paused: ""|"operator"|"purged"|"over"|"broken",
 *   next_runs_ms: number[], last_at_ms: number|null, last_outcome: ""|"sent"|"skipped",
 *   last_message_id: number|null, missed: number, removed: boolean}} ScheduleView
 *
 * @typedef {{version: string, host: string, pid: number, started_at_ms: number, dashboard_url: string,
 *   runtime: string, isolation: string, limits: string, backend: string, state_root: string, run_root: string,
 *   agents: number, running: number, pending_approvals: number, open_questions: number,
 *   operator_unread: number, store: string}} HiveStatus
 *
 * @typedef {{id: number, at_ms: number, principal: string, action: string, subject: string, outcome: string,
 *   detail: string}} AuditEntry
 *
 * @typedef {{agent: string, first: number, lines: string[], ended: string}} LogNews
 *
 * @typedef {{position: string, hive: HiveStatus, agents: AgentView[], tombstones: AgentView[],
 *   approvals: ApprovalView[], questions: QuestionView[], asks: QuestionView[], permissions: PermissionView[],
 *   reminders: ReminderView[], schedules: ScheduleView[], waiting: WaitingList,
 *   inbox: Message[], messages: Message[], activity: AuditEntry[], session: string}} Snapshot
 *
 * @typedef {{message_id: number|null, started_at_ms: number, duration_ms: number, input_tokens: number,
 *   output_tokens: number, cache_read_tokens: number, cache_creation_tokens: number, context_tokens: number,
 *   cost_usd: number, model: string, outcome: string, tools: Record<string, number>}} TurnStats
 *
 * @typedef {{needed: boolean, stage: string, url: string|null, message: string}} LoginState
 *
 * @typedef {{name: string, role: Role, label: string, backend: string, backend_label: string,
 *   is_model: boolean, model: string, models: string[], badge: Badge, since_ms: number, note: string,
 *   resumes_at_ms: number|null, unread: number, turn: {from: string, started_at_ms: number}|null,
 *   last_turn: TurnStats|null, context_tokens: number, window_tokens: number, login: LoginState, warm: boolean,
 *   isolation: string, operator_pronouns: string, seq: number, storing: boolean, totals?: TurnTotals,
 *   capabilities?: Capabilities}} HarnessState
 *
 * @typedef {{login: boolean, compact: boolean, models: boolean, cost: boolean}} Capabilities
 *
 * @typedef {{turns: number, tokens: number, cost_usd: number}} TurnTotals
 *
 * @typedef {{seq: number, at_ms: number, kind: "turn_start"|"stream"|"note"|"turn_end"|"state",
 *   data: Record<string, any>}} LiveEvent
 */

export {};
