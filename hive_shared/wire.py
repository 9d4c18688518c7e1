"""Typed requests and replies of the three surfaces (SPEC section 4).

One JSON object a line. A request is `{"op": …, "id"?: …, …fields}`; a reply is
`{"id"?: …, "ok": true, "result": {…}}` or `{"id"?: …, "ok": false, "error": {"code", "message",
"field"?}}`. An operation that follows something sends `{"id"?: …, "ok": true, "item": {…}}` lines
until its final `result`.

Sender, agent and host are never fields: they are what socket the request came in by.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import to_json

from hive_shared.errors import BadRequest, BodyTooLarge, Forbidden, UnknownOp
from hive_shared.names import OPERATOR
from hive_shared.permissions import RULE_MAX_CHARACTERS

LINE_MAX_BYTES = 1024 * 1024
BODY_MAX_BYTES = 256 * 1024
BATCH_MAX_BYTES = 900 * 1024  # of encoded messages in one reply, so that the line stays under its limit
RECV_WAIT_DEFAULT_SECONDS = 30.0
RECV_WAIT_MAX_SECONDS = 180.0
RECV_MAX_MESSAGES = 100
PACK_NAME_PATTERN = r"^submit-[0-9a-f]{32}\.pack$"
PACK_MAX_BYTES = 32 * 1024 * 1024  # of a submitted pack: one configuration with its whole history
TURNS_PER_REPORT = 50
TURN_MAX_MS = 30 * 86_400_000  # a turn may wait for a limit for days
TURN_MAX_DOLLARS = 100_000.0
TOKENS_MAX = 10**10  # of one kind in one turn; 20,000 such turns still add up
TOOLS_OF_A_TURN_MAX = 64
TOOL_NAME_MAX_CHARACTERS = 96
TOOL_CALLS_MAX = 1_000_000
STATS_MAX_SECONDS = 400 * 86_400.0
PERMISSION_INPUT_MAX_CHARACTERS = 32 * 1024  # of a tool call's arguments, as JSON
TEXT_MAX_CHARACTERS = 4096  # notes, questions, options: what a person reads on one card

MessageId = Annotated[int, Field(ge=1, le=2**63 - 1)]
RequestId = str | int


class Surface(StrEnum):
    """The three kinds of socket; which one you can open is who you are."""

    AGENT = "agent"
    MANAGER = "manager"
    HOST = "host"


class Model(BaseModel):
    """A value on the wire."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Empty(Model):
    """The result of an operation that has nothing to tell."""


# --- values -----------------------------------------------------------------


class Message(Model):
    """One message as its recipient, or the operator, sees it.

    `asks` is the question that it carries to whoever shall answer it, `answers` the question that it
    answers, or tells the end of. Core sets both; a message that was merely sent has neither. With
    `asks_closed`, nobody waited for the answer any more when the message was handed out.
    """

    id: int
    sender: str
    to: str
    body: str
    sent_at_ms: int
    in_reply_to: int | None = None
    broadcast: bool = False
    redelivered: bool = False
    asks: int | None = None
    asks_closed: bool = False
    answers: int | None = None


class AgentState(StrEnum):
    """What core knows of an agent's container."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    REBUILDING = "rebuilding"
    CREATING = "creating"
    DESTROYING = "destroying"
    CRASHED = "crashed"
    TOMBSTONE = "tombstone"


class Badge(StrEnum):
    """What a harness says it is doing (SPEC section 11, state badge)."""

    OFFLINE = "offline"
    IDLE = "idle"
    THINKING = "thinking"
    COMPACTING = "compacting"
    RATE_LIMITED = "rate_limited"
    NEEDS_LOGIN = "needs_login"
    WAITING_FOR_YOU = "waiting_for_you"  # the turn is parked until the operator allows or denies a tool call


class AgentStatus(StrEnum):
    """What an agent does, from all that is known of it: core alone says so, and the same everywhere."""

    OFFLINE = "offline"
    STARTING = "starting"
    NEEDS_LOGIN = "needs_login"
    IDLE = "idle"
    THINKING = "thinking"
    COMPACTING = "compacting"
    WAITING_FOR_YOU = "waiting_for_you"
    WAITING_FOR_LIMIT = "waiting_for_limit"
    PARKED = "parked"  # held back by the hive: a budget that is spent, messages that were stopped
    CRASHED = "crashed"
    STOPPED = "stopped"
    CREATING = "creating"
    REBUILDING = "rebuilding"
    STOPPING = "stopping"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class TurnOutcome(StrEnum):
    """How a turn ended, as its harness tells it."""

    OK = "ok"
    CANCELLED = "cancelled"
    OVERFLOW = "overflow"
    RATE_LIMITED = "rate_limited"
    AUTH = "auth"
    FAILED = "failed"


ToolName = Annotated[str, Field(min_length=1, max_length=TOOL_NAME_MAX_CHARACTERS)]
Tokens = Annotated[int, Field(ge=0, le=TOKENS_MAX)]


class TurnUsage(Model):
    """What one turn took, as its harness tells it: its form is checked, its truth is not.

    `key` is the turn's own, so that telling it twice counts once: 16 to 64 hexadecimal digits. Tokens are
    summed over the turn's inferences, at most 10^10 of a kind; `input_tokens` are those read from no cache
    and written to none. A turn lasts 30 days and costs $100,000 at most, and calls up to 64 tools.
    """

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    ended_at_ms: Annotated[int, Field(ge=0, le=2**53)]
    duration_ms: Annotated[int, Field(ge=0, le=TURN_MAX_MS)] = 0
    message_id: MessageId | None = None
    outcome: TurnOutcome
    model: Annotated[str, Field(max_length=128)] = ""
    input_tokens: Tokens = 0
    cache_read_tokens: Tokens = 0
    cache_creation_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cost_usd: Annotated[float, Field(ge=0, le=TURN_MAX_DOLLARS, allow_inf_nan=False)] = 0.0
    tools: Annotated[
        dict[ToolName, Annotated[int, Field(ge=1, le=TOOL_CALLS_MAX)]], Field(max_length=TOOLS_OF_A_TURN_MAX)
    ] = {}


class UsageSums(Model):
    """Turns added up, as their harnesses told them."""

    turns: int = 0
    ok: int = 0  # of them, those that ended well
    duration_ms: int = 0
    longest_ms: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


class AgentUsage(UsageSums):
    """One agent's part of the hive's turns, and how many messages wait for it now."""

    agent: str
    unread: int = 0
    kept: bool = False  # it was destroyed, and its state kept


class ModelUsage(UsageSums):
    """The turns of one model; the rarest ones share the name `other models`."""

    model: str


class ToolUse(Model):
    """How often a tool was called; the rarest ones share the name `other tools`."""

    tool: str
    calls: int


class UsageBucket(UsageSums):
    """One hour or day. The first and the last one of a report are seldom whole."""

    start_ms: int
    tools: dict[str, int] = {}
    messages: int | None = None  # None: of one agent, or of a time whose messages were removed
    approved: int = 0
    denied: int = 0
    failed: int = 0


class BudgetAmount(Model):
    """What is used of a limit of today: `limit` is 0 where there is none, `own` unless it is the default."""

    used: int = 0
    limit: int = 0
    own: bool = False


class BudgetView(Model):
    """What an agent may use in a day, and has used of it. Money is in millionths of a dollar.

    Turns are core's own count: messages handed out. Tokens (those read from a cache left out) and money are
    what the agent's harness tells. `stopped`: it is handed nothing before the day ends.
    """

    agent: str
    turns: BudgetAmount = BudgetAmount()
    tokens: BudgetAmount = BudgetAmount()
    microdollars: BudgetAmount = BudgetAmount()
    day_ends_at_ms: int
    day_ends: str  # as the clocks of the hive's time zone show it, such as "00:00 Europe/Berlin"
    stopped: bool = False
    left: bool = False  # the operator lets it wait for the next day
    reached: list[Literal["turns", "tokens", "microdollars"]] = []
    since_ms: int = 0  # when it was last handed a message today


class BudgetAnswer(StrEnum):
    """What the operator says to an agent that has used up its budget."""

    AGAIN = "again"  # as much again, for today
    ONE_TURN = "one_turn"
    WAIT = "wait"  # until tomorrow; nothing waits for the operator any more


class StatsReport(Model):
    """What turns took since `since_ms`, of one agent or of all, and what core counted besides.

    Turns, durations, tokens, cost and tools are what harnesses say of themselves. Messages, approvals
    and unread messages are core's own.
    """

    agent: str | None
    since_ms: int
    until_ms: int
    bucket_ms: int
    totals: UsageSums
    median_ms: int = 0
    p95_ms: int = 0
    buckets: list[UsageBucket]
    agents: list[AgentUsage] = []
    models: list[ModelUsage] = []
    tools: list[ToolUse] = []
    first_turn_ms: int | None = None  # of all that are kept, whatever was asked for
    last_turn_ms: int | None = None
    unread: int = 0
    kept_turns: int = 0  # how many of one agent are kept
    budget: BudgetView | None = None  # of one agent that is here


class HarnessReport(Model):
    """What a harness last said about itself; about itself alone, so it is shown, never trusted."""

    badge: Badge = Badge.OFFLINE
    since_ms: int = 0
    backend: str = ""
    model: str = ""
    note: str = ""
    resumes_at_ms: int | None = None
    context_tokens: int = 0  # of the last inference's prompt; 0 is unknown, or a new conversation
    window_tokens: int = 0  # what the model can take; 0 is unknown


class Peer(Model):
    """Another agent, as agents may know it."""

    name: str
    role: Literal["manager", "agent"]
    running: bool


class AgentView(Model):
    """One agent as the operator and the manager see it.

    `status` is made of `state`, `report` and what else core knows; those two are what it came from.
    """

    name: str
    role: Literal["manager", "agent"]
    container: str
    host: str
    port: int
    status: AgentStatus = AgentStatus.OFFLINE
    status_since_ms: int = 0
    status_until_ms: int | None = None  # when it goes on by itself, where that is known
    status_note: str = ""  # why, where that needs saying
    state: AgentState
    since_ms: int
    isolation: str = ""
    needs_update: bool = False
    pid: int | None = None
    restarts: int = 0
    unread: int = 0
    note: str = ""
    report: HarnessReport = HarnessReport()
    state_bytes: int | None = None
    has_credentials: bool = False
    commit: str | None = None  # of its configuration, as it runs
    may_write_to: list[str] | None = None  # None: everyone
    paused_with: list[str] = []  # messages between them are refused until the operator decides
    bypass: bool = False  # the operator lets it use every tool without asking; denied ones stay denied
    budget: BudgetView | None = None  # of today; None: it has no limit


class ApprovalKind(StrEnum):
    """What is asked for: a new agent, or another commit of an agent's configuration."""

    SPAWN = "spawn"
    APPLY_COMMIT = "apply_commit"


class ApprovalStatus(StrEnum):
    """pending → approved → building → deployed or failed; or denied (SPEC section 6)."""

    PENDING = "pending"
    APPROVED = "approved"
    BUILDING = "building"
    DEPLOYED = "deployed"
    FAILED = "failed"
    DENIED = "denied"


class DiffBase(StrEnum):
    """What a proposed commit is compared with (SPEC section 6)."""

    RUNNING = "running"  # what the agent runs now; for a resolved approval, what it ran then
    APPROVED = "approved"  # what the operator approved last
    PROPOSED = "proposed"  # what was asked for last


class DiffBases(Model):
    """The shas that a proposed commit can be compared with."""

    running: str | None = None
    approved: str | None = None
    proposed: str | None = None


class RiskFlag(Model):
    """A construct that the operator should look at before approving (SECURITY 8). Never a refusal."""

    path: str
    line: int
    rule: str  # a slug, such as "fetch" or "path-outside"
    text: str  # what it may do, in a sentence


class ApprovalView(Model):
    """One approval, pending or resolved.

    `note` is what the requester said, `operator_note` what the operator said with the yes, `outcome` what
    became of it: the operator's reason to deny, or why it failed. Message, author, `commit_ref` and `flags`
    come out of a commit that an agent wrote.
    """

    id: int
    kind: ApprovalKind
    agent: str
    status: ApprovalStatus
    requested_by: str
    requested_at_ms: int
    resolved_by: str | None = None
    resolved_at_ms: int | None = None
    commit: str | None = None  # the whole sha, pinned as tag proposal/<id>
    note: str = ""
    operator_note: str = ""
    outcome: str = ""
    step: str = ""
    revives: bool = False
    rollback: bool = False  # asked for by the operator, to a commit that had been deployed before
    commit_ref: str = ""
    message: str = ""
    author: str = ""
    authored_at_ms: int | None = None
    flags: list[RiskFlag] = []
    bases: DiffBases = DiffBases()


class FileDiff(Model):
    """One file of a diff. `text` is a unified diff without headers, empty for what is no text."""

    path: str
    change: Literal["added", "deleted", "modified"]
    added: int = 0
    deleted: int = 0
    text: str = ""
    truncated: bool = False
    mode: str = ""  # such as "100644 → 100755" when it changed


class Deployment(Model):
    """A commit that an agent ran, or runs. `operator_note` is what the operator said with the yes to it."""

    approval_id: int
    commit: str
    message: str = ""
    deployed_at_ms: int | None = None
    approved_by: str | None = None
    operator_note: str = ""
    running: bool = False
    rollback: bool = False  # it had been deployed before


class PermissionScope(StrEnum):
    """For how long a tool call is allowed."""

    ONCE = "once"
    SESSION = "session"  # until the agent's conversation ends
    ALWAYS = "always"  # a rule is written


class QuestionView(Model):
    """One question to the operator, or (`answerer`) to an agent; open while `closed` is empty.

    `message_id` is the message that took it to the agent. `gone`: the agent was destroyed before it answered.
    """

    id: int
    asker: str
    question: str
    options: list[str]
    multi: bool
    asked_at_ms: int
    answer: str | None = None
    answered_at_ms: int | None = None
    answered_by: str | None = None
    expires_at_ms: int | None = None
    closed: Literal["", "answered", "cancelled", "expired", "gone"] = ""
    answerer: str = OPERATOR
    message_id: int | None = None


class PermissionView(Model):
    """One request of an agent to use a tool; open while `closed` is empty.

    `tool`, `input` (JSON, with `truncated` a shortened one), `cwd` and `reason` are what the agent says.
    `rule` is what "always" writes unless the operator chooses another one; "" where no rule can be told.
    """

    id: int
    agent: str
    tool: str
    input: str
    truncated: bool = False
    cwd: str = ""
    reason: str = ""
    message_id: int
    asked_at_ms: int
    expires_at_ms: int | None = None
    rule: str = ""
    closed: Literal["", "allowed", "denied", "expired", "withdrawn"] = ""
    scope: PermissionScope | None = None  # of an allowed one
    message: str = ""  # what the agent is told with a refusal
    answered_at_ms: int | None = None
    answered_by: str | None = None


class PermissionRuleView(Model):
    """A rule that the operator made. With `session` it ends with the agent's conversation."""

    id: int
    agent: str
    decision: Literal["allow", "deny"]
    rule: str
    session: bool = False
    made_at_ms: int
    made_by: str


class ConfiguredRule(Model):
    """A rule of an agent's approved configuration, and the option of `agent.nix` that makes it."""

    decision: Literal["allow", "deny"]
    rule: str
    option: str


class ConfiguredRules(Model):
    """What an agent's configuration says of its tools, beside the operator's rules; denied beats allowed.

    `default` is what becomes of a call that no rule of either names. Without `is_policy` nothing is asked,
    and without rules the backend's usual tools are allowed. `problem`: why this is not known. `more` counts
    rules that found no room.
    """

    agent: str
    rules: list[ConfiguredRule] = []
    is_policy: bool = False
    default: Literal["ask", "deny"] = "deny"
    ask_timeout_seconds: int | None = None
    problem: str = ""
    more: int = 0


class AuditEntry(Model):
    """Who did what, when, and how it ended."""

    id: int
    at_ms: int
    principal: str
    action: str
    subject: str
    outcome: str
    detail: str = ""


# --- results ----------------------------------------------------------------


class Sent(Model):
    """The ids under which the message was committed: one, or one a recipient for a broadcast."""

    ids: list[int]


class Received(Model):
    """Messages now leased to this connection, oldest first; `unread` counts what is left.

    `notice` is a fact of the hive's about the agent itself, such as that it nears a limit of its budget.
    """

    messages: list[Message]
    unread: int
    notice: str = ""


class Acked(Model):
    """How many messages this call took out of the inbox; those acked before do not count."""

    acked: int


class Standing(Model):
    """Who I am, what waits for me, who else is here, and whom I may write to."""

    me: str
    role: Literal["manager", "agent"]
    unread: int
    peers: list[Peer]
    operator_pronouns: str
    may_write_to: list[str] | None = None  # None: everyone
    paused_with: list[str] = []  # messages between them and me are refused until the operator decides
    budget: BudgetView | None = None  # of today; None: there is no limit


class NextTurnAsked(Model):
    """The turn comes after what waits in the inbox by the end of this one; `in_a_row` is its number.

    With `most` such turns and no message from anybody else, the operator is asked first (0: never).
    """

    in_a_row: int
    most: int


class BudgetList(Model):
    """The budgets of all live agents, the manager first; `default` holds for those without their own."""

    budgets: list[BudgetView]
    default: BudgetView


class QuestionAsked(Model):
    """The question that now waits for its answer; `message_id` is what took it to an agent."""

    question_id: int
    message_id: int | None = None


class PermissionRules(Model):
    """What the operator's rules allow and deny the agent that asks."""

    allow: list[str] = []
    deny: list[str] = []


class PermissionList(Model):
    """Requests that wait, oldest first, and the rules there are. `more` counts what found no room.

    `rules` are the operator's, `configured` those of the agents' configurations.
    """

    requests: list[PermissionView]
    rules: list[PermissionRuleView]
    configured: list[ConfiguredRules] = []
    more: int = 0


class ReminderSet(Model):
    """The reminder, and when it will arrive, in Unix milliseconds."""

    reminder_id: int
    due_at_ms: int


class ReminderView(Model):
    """One pending reminder of an agent, as it wrote it: up to 500 characters. Gone once `closed`."""

    id: int
    agent: str
    body: str
    truncated: bool = False
    due_at_ms: int
    set_at_ms: int
    closed: Literal["", "delivered", "cancelled", "dropped"] = ""


class LooseEndList(Model):
    """What an agent has open, oldest first: what it asked, what it is asked, and its reminders.

    `more` counts what found no room.
    """

    asked: list[QuestionView]
    to_answer: list[QuestionView]
    reminders: list[ReminderView]
    more: int = 0


class ReminderList(Model):
    """Pending reminders, those due first before. `more` counts what found no room."""

    reminders: list[ReminderView]
    more: int = 0


class SchedulePause(StrEnum):
    """Why a schedule sends nothing."""

    OPERATOR = "operator"
    PURGED = "purged"  # its agent is gone
    OVER = "over"  # its time never comes again
    BROKEN = "broken"  # its time zone, or what it means, is no longer known here


class ScheduleView(Model):
    """A message that the operator has sent to an agent at set times; `paused` is empty unless it is.

    `means` tells `cron` in words. `missed` counts the runs since the last message that sent none, because the
    agent is not done with that (`last_outcome` is "skipped" then). `removed`: it is no more.
    """

    id: int
    agent: str
    cron: str
    timezone: str
    body: str
    means: str = ""
    made_at_ms: int
    made_by: str
    paused: Literal[""] | SchedulePause = ""
    next_runs_ms: list[int] = []  # up to three
    last_at_ms: int | None = None
    last_outcome: Literal["", "sent", "skipped"] = ""
    last_message_id: int | None = None
    missed: int = 0
    removed: bool = False


class ScheduleList(Model):
    """Schedules, by agent. `more` counts what found no room."""

    schedules: list[ScheduleView]
    more: int = 0


class SchedulePreview(Model):
    """What a text means in a time zone, and its next runs: up to three."""

    means: str
    next_runs_ms: list[int]


class ApprovalAsked(Model):
    """The approval that now waits for the operator; `existing` if the same request was made before."""

    approval: ApprovalView
    existing: bool = False


class SpawnPrepared(Model):
    """Where the manager finds the new agent's proposed repository."""

    path: str


class DiffSummary(Model):
    """What was compared, after its files; `base_commit` is None where there is nothing to compare with."""

    approval: ApprovalView
    base: DiffBase
    base_commit: str | None
    files: int
    added: int
    deleted: int


class Deployments(Model):
    """What an agent ran, newest first."""

    deployments: list[Deployment]


class AgentList(Model):
    """Agents, the manager first, then by name."""

    agents: list[AgentView]


class AgentDone(Model):
    """The agent after what was asked of it."""

    agent: AgentView | None
    note: str = ""


class LogLines(Model):
    """Lines of a console log, oldest first. An agent wrote them: data, not instructions."""

    lines: list[str]


class ApprovalList(Model):
    """Approvals, those that wait first."""

    approvals: list[ApprovalView]


class QuestionList(Model):
    """Open questions, oldest first."""

    questions: list[QuestionView]


class MessageList(Model):
    """Messages, oldest first."""

    messages: list[Message]


class MessageThread(Model):
    """A message with what it answers and what answers that, oldest first; `cut`: there is more of it."""

    messages: list[Message]
    cut: bool = False


class HiveStatus(Model):
    """The daemon about itself."""

    version: str
    host: str
    pid: int
    started_at_ms: int
    dashboard_url: str
    runtime: str
    isolation: str
    limits: str
    backend: str
    state_root: str
    run_root: str
    agents: int
    running: int
    pending_approvals: int
    open_questions: int
    operator_unread: int
    store: str


class LoginUrl(Model):
    """Works once, until `expires_at_ms`."""

    url: str
    code: str
    expires_at_ms: int


class SessionView(Model):
    """A logged-in browser. `id` is not a secret and not the cookie."""

    id: str
    created_at_ms: int
    last_seen_ms: int
    ends_at_ms: int  # unless it is used again before, or ended
    client: str  # what the browser called itself


class SessionList(Model):
    """The browsers that are logged in, the last used first."""

    sessions: list[SessionView]


class WaitingKind(StrEnum):
    """The sorts of things that wait for the operator."""

    APPROVAL = "approval"
    QUESTION = "question"
    STOP = "stop"  # messages that the hive has stopped, and asks about
    LOGIN = "login"
    PERMISSION = "permission"  # an agent may not go on before a tool call is allowed or denied
    FAILURE = "failure"  # what was approved, and could not be carried out
    BUDGET = "budget"  # an agent has used up what it may use in a day, and messages wait for it


class WaitingEntry(Model):
    """One thing that waits for the operator.

    `summary` and `otherwise` (what happens if nothing is done) are the hive's own words; `said` is an
    excerpt of what an agent wrote. `link` is relative to the dashboard's address.
    """

    kind: WaitingKind
    id: str
    who: str
    summary: str
    said: str = ""
    since_ms: int
    expires_at_ms: int | None = None
    blocked: list[str] = []
    otherwise: str
    link: str


class WaitingList(Model):
    """What waits, what holds up most first, then the oldest; `total` counts also what is not listed."""

    entries: list[WaitingEntry]
    total: int


class WaitingChange(Model):
    """An entry that waits, is another than before, or (`settled`) waits no more."""

    settled: bool = False
    entry: WaitingEntry


class NotifyOutcome(Model):
    """What became of one notification; `target` is told without its secrets."""

    target: str
    ok: bool
    note: str = ""


class NotifyTested(Model):
    """What became of a test, by target."""

    outcomes: list[NotifyOutcome]


class MetricsText(Model):
    """What is measured, in the text format of Prometheus; docs/metrics.md lists it."""

    text: str


class LoggedOut(Model):
    """How many browser sessions were ended."""

    sessions: int


# --- requests ---------------------------------------------------------------

R_co = TypeVar("R_co", bound=Model, covariant=True)


class Request(Model, Generic[R_co]):
    """One operation. `result` is the type of its reply, `item` of each line it streams before."""

    result: ClassVar[type[Model]] = Empty
    item: ClassVar[type[Model] | None] = None
    op: str
    id: RequestId | None = None

    @field_validator("id", mode="before")
    @classmethod
    def _short_id(cls, value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, str) and len(value) > 128):
            raise ValueError("must be a number or a text of at most 128 characters")
        return value


def _check_body(body: str) -> str:
    # Surrogates cannot be stored as UTF-8; one bad character must not cost the message.
    size = len(body.encode("utf-8", "surrogatepass"))
    if size > BODY_MAX_BYTES or len(json.dumps(body, ensure_ascii=False)) > BATCH_MAX_BYTES * 3 // 4:
        raise BodyTooLarge(
            f"body has {size} bytes, the limit is {BODY_MAX_BYTES}; "
            "write it to a file under /shared and send its path",
            field="body",
        )
    return body.encode("utf-8", "replace").decode()


class Send(Request[Sent]):
    """Deliver `body` to an agent, `operator`, or `*` (every agent but the sender).

    `key` makes a retry safe: the same sender and key are stored once, and the second call
    answers with the first one's ids.
    """

    result: ClassVar[type[Model]] = Sent
    op: Literal["send"] = "send"
    to: Annotated[str, Field(min_length=1, max_length=64)]
    body: str
    in_reply_to: MessageId | None = None
    key: Annotated[str, Field(min_length=8, max_length=64)] | None = None

    _body = field_validator("body")(_check_body)


class Recv(Request[Received]):
    """Lease up to `max` messages to this connection, waiting up to `wait_seconds` for the first.

    The lease ends with `ack`, or with the connection: then the messages come again, marked
    `redelivered`. Longer waits than 180 s are cut to that. Without `wait_seconds`: an instant look.
    """

    result: ClassVar[type[Model]] = Received
    op: Literal["recv"] = "recv"
    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max: Annotated[int, Field(ge=1, le=RECV_MAX_MESSAGES)] = 1


class Ack(Request[Acked]):
    """These messages are done with: they never come again. Others' ids have no effect."""

    result: ClassVar[type[Model]] = Acked
    op: Literal["ack"] = "ack"
    ids: Annotated[list[MessageId], Field(max_length=1000)]


class Status(Request[Standing]):
    """Who am I, what is unread, who else is here."""

    result: ClassVar[type[Model]] = Standing
    op: Literal["status"] = "status"


QuestionText = Annotated[str, Field(min_length=1, max_length=TEXT_MAX_CHARACTERS)]
QuestionOptions = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=20)]
TimeToLive = Annotated[float, Field(ge=1, le=366 * 86400, allow_inf_nan=False)]


class AskOperator(Request[QuestionAsked]):
    """Put a question on the operator's dashboard; the answer arrives later as a message.

    With `ttl_seconds` it closes by itself after that time, and a message says so.
    """

    result: ClassVar[type[Model]] = QuestionAsked
    op: Literal["ask_operator"] = "ask_operator"
    question: QuestionText
    options: QuestionOptions = []
    multi: bool = False
    ttl_seconds: TimeToLive | None = None


class Ask(Request[QuestionAsked]):
    """Ask one agent, or `operator` (as `ask_operator`); the answer arrives later as a message.

    The agent gets the question as a message from whoever asks, with `asks` set, and answers with `answer`.
    It is held to all that a `send` to it is held to; so is the answer. When it closes without one (its
    `ttl_seconds` have run out, the operator cancels it, the agent is destroyed), `system` says so. `key` is
    as in `send`.
    """

    result: ClassVar[type[Model]] = QuestionAsked
    op: Literal["ask"] = "ask"
    to: Annotated[str, Field(min_length=1, max_length=64)]
    question: QuestionText
    options: QuestionOptions = []
    multi: bool = False
    ttl_seconds: TimeToLive | None = None
    in_reply_to: MessageId | None = None
    key: Annotated[str, Field(min_length=8, max_length=64)] | None = None


class AnswerAsk(Request[QuestionView]):
    """Answer a question that another agent asked me: it gets the answer as a message from me."""

    result: ClassVar[type[Model]] = QuestionView
    op: Literal["answer"] = "answer"
    question_id: MessageId
    answer: QuestionText


class LooseEnds(Request[LooseEndList]):
    """What I have open: questions that I asked, questions that wait for my answer, my reminders."""

    result: ClassVar[type[Model]] = LooseEndList
    op: Literal["loose_ends"] = "loose_ends"


class CancelLooseEnd(Request[Empty]):
    """Take back a question that I asked, or a reminder that I set."""

    op: Literal["cancel_loose_end"] = "cancel_loose_end"
    kind: Literal["question", "reminder"]
    loose_end_id: MessageId


class CancelQuestion(Request[Empty]):
    """Take a question back: an agent its own ones, the operator any."""

    op: Literal["cancel_question"] = "cancel_question"
    question_id: MessageId


Session = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]


class GetPermissionRules(Request[PermissionRules]):
    """The rules that the operator made for me at run time; `session` is my conversation's own mark."""

    result: ClassVar[type[Model]] = PermissionRules
    op: Literal["permission_rules"] = "permission_rules"
    session: Session


class AskPermission(Request[PermissionView]):
    """Ask the operator to allow a tool call; answers when it is decided, or undecided after `wait_seconds`.

    The same `key` (of message, call and directory) is the same request: asking again joins it, so it outlives
    a restart of either side. One that was allowed once is asked anew after `close_permission`.
    """

    result: ClassVar[type[Model]] = PermissionView
    op: Literal["ask_permission"] = "ask_permission"
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    session: Session
    message_id: MessageId
    tool: ToolName
    input: Annotated[str, Field(max_length=PERMISSION_INPUT_MAX_CHARACTERS)]
    truncated: bool = False
    cwd: Annotated[str, Field(max_length=TEXT_MAX_CHARACTERS)] = ""
    reason: Annotated[str, Field(max_length=TEXT_MAX_CHARACTERS)] = ""
    ttl_seconds: Annotated[float, Field(ge=1, le=31 * 86400, allow_inf_nan=False)] | None = None
    wait_seconds: Annotated[float, Field(ge=0, le=RECV_WAIT_MAX_SECONDS, allow_inf_nan=False)] = 0.0


class ClosePermission(Request[Empty]):
    """A decision was acted on; or nobody waits for it any more: then it is withdrawn.

    Either one request, or all that were asked for in the turn of a message, which has ended.
    """

    op: Literal["close_permission"] = "close_permission"
    permission_id: MessageId | None = None
    message_id: MessageId | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "ClosePermission":
        if (self.permission_id is None) == (self.message_id is None):
            raise ValueError("give either permission_id or message_id")
        return self


def _unix_seconds(value: object) -> object:
    """ISO 8601 with a time zone as Unix seconds; whatever else it is, the type decides."""
    if not isinstance(value, str) or value.replace(".", "", 1).isdecimal():
        return value
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise ValueError(f"is no time: write {MOMENT}") from None
    if moment.tzinfo is None:
        raise ValueError(f"has no time zone: write {MOMENT}")
    return moment.timestamp()


MOMENT = "a Unix time in seconds, or ISO 8601 with its time zone, such as 2026-11-23T09:00:00+01:00"


class Remind(Request[ReminderSet]):
    """Send `body` to my own inbox in `after_seconds`, or `at` a time.

    That is a Unix time in seconds, or ISO 8601 with its time zone: `2026-11-23T09:00:00+01:00`, or with `Z`.
    """

    result: ClassVar[type[Model]] = ReminderSet
    op: Literal["remind"] = "remind"
    body: str
    after_seconds: Annotated[float, Field(ge=0, le=366 * 86400, allow_inf_nan=False)] | None = None
    at: Annotated[float, Field(ge=0, le=2**40, allow_inf_nan=False)] | None = None

    _body = field_validator("body")(_check_body)
    _at = field_validator("at", mode="before")(_unix_seconds)

    @model_validator(mode="after")
    def _one_time(self) -> "Remind":
        if (self.after_seconds is None) == (self.at is None):
            raise ValueError("give either after_seconds or at")
        return self


class Reported(Model):
    """How often core wants to hear from a harness that `beats`."""

    again_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0


class RequestNextTurn(Request[NextTurnAsked]):
    """Another turn for me, without a message from anybody: `note` comes back as a message from myself.

    It is posted when the messages of the present turn are acked, behind what waits in the inbox then; when
    nothing is in hand, at once. One is pending at most: a later note takes the place of an earlier one.
    """

    result: ClassVar[type[Model]] = NextTurnAsked
    op: Literal["request_next_turn"] = "request_next_turn"
    note: Annotated[str, Field(min_length=1, max_length=TEXT_MAX_CHARACTERS)]


class Report(Request[Reported]):
    """The harness tells what it is doing, so that the dashboard need not ask.

    One that `beats` tells it again every `again_seconds`; when it does not, it counts as hanging.
    """

    result: ClassVar[type[Model]] = Reported
    op: Literal["report"] = "report"
    beats: bool = False
    badge: Badge
    backend: Annotated[str, Field(max_length=64)] = ""
    model: Annotated[str, Field(max_length=128)] = ""
    note: Annotated[str, Field(max_length=500)] = ""
    resumes_at_ms: int | None = None
    context_tokens: Tokens = 0
    window_tokens: Tokens = 0


class ReportTurns(Request[Empty]):
    """The harness tells what turns took, as they end, or later if core was away.

    A turn whose `key` was told before changes nothing. `ended_at_ms` counts if it lies in the last seven
    days; else the turn is one of now. More than 600 turns in ten minutes are refused.
    """

    op: Literal["report_turns"] = "report_turns"
    turns: Annotated[list[TurnUsage], Field(min_length=1, max_length=TURNS_PER_REPORT)]


Name = Annotated[str, Field(min_length=1, max_length=64)]
Note = Annotated[str, Field(max_length=TEXT_MAX_CHARACTERS)]


Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
PackName = Annotated[str, Field(pattern=PACK_NAME_PATTERN)]


class PrepareSpawn(Request[SpawnPrepared]):
    """Make the proposed repository of an agent that does not exist yet, so that it can begin configured.

    Asking again for the same name answers with the repository there is.
    """

    result: ClassVar[type[Model]] = SpawnPrepared
    op: Literal["prepare_spawn"] = "prepare_spawn"
    name: Name


class RequestSpawn(Request[ApprovalAsked]):
    """Ask the operator for a new agent (or one revived from its tombstone).

    With `commit` and `pack` (as in `request_apply_commit`) it begins with that configuration, which the
    operator approves together with it.
    """

    result: ClassVar[type[Model]] = ApprovalAsked
    op: Literal["request_spawn"] = "request_spawn"
    name: Name
    note: Note = ""
    commit_ref: Annotated[str, Field(max_length=256)] = ""
    commit: Sha | None = None
    pack: PackName | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> "RequestSpawn":
        if (self.commit is None) != (self.pack is None):
            raise ValueError("give both commit and pack, or neither")
        return self


class Kill(Request[AgentDone]):
    """Stop an agent's container; its inbox keeps filling."""

    result: ClassVar[type[Model]] = AgentDone
    op: Literal["kill"] = "kill"
    name: Name


class Start(Request[AgentDone]):
    """Start an agent's container."""

    result: ClassVar[type[Model]] = AgentDone
    op: Literal["start"] = "start"
    name: Name


class Restart(Request[AgentDone]):
    """Stop and start an agent's container."""

    result: ClassVar[type[Model]] = AgentDone
    op: Literal["restart"] = "restart"
    name: Name


class Update(Request[AgentDone]):
    """Rebuild an agent from what is already approved."""

    result: ClassVar[type[Model]] = AgentDone
    op: Literal["update"] = "update"
    name: Name


class RequestApplyCommit(Request[ApprovalAsked]):
    """Ask the operator to let an agent run this commit of its proposed repository.

    Core never opens that repository. The caller puts a pack with the commit and everything it needs
    into a file of its own socket directory: `pack` is the file's name, `commit` the whole sha,
    `commit_ref` only what people called it. Core copies the file at once; the caller may then delete it.
    """

    result: ClassVar[type[Model]] = ApprovalAsked
    op: Literal["request_apply_commit"] = "request_apply_commit"
    agent: Name
    commit_ref: Annotated[str, Field(max_length=256)] = ""
    commit: Sha
    pack: PackName
    note: Note = ""


class Agents(Request[AgentList]):
    """All agents of the hive, as the manager may see them."""

    result: ClassVar[type[Model]] = AgentList
    op: Literal["agents"] = "agents"


class LogLine(Model):
    """One new line of a console log."""

    line: str


class Logs(Request[LogLines]):
    """The last `lines` of an agent's console log; with `follow` (host surface only) then each new one."""

    result: ClassVar[type[Model]] = LogLines
    item: ClassVar[type[Model] | None] = LogLine
    op: Literal["logs"] = "logs"
    name: Name
    lines: Annotated[int, Field(ge=1, le=5000)] = 100
    follow: bool = False


class Spawn(Request[AgentDone]):
    """The operator creates an agent at once: request and approval in one."""

    result: ClassVar[type[Model]] = AgentDone
    op: Literal["spawn"] = "spawn"
    name: Name


class Destroy(Request[AgentDone]):
    """Remove an agent's container and keep its state as a tombstone, or with `purge` remove that too."""

    result: ClassVar[type[Model]] = AgentDone
    op: Literal["destroy"] = "destroy"
    name: Name
    purge: bool = False


class ListAgents(Request[AgentList]):
    """All agents of the hive; with `tombstones` also those destroyed with their state kept."""

    result: ClassVar[type[Model]] = AgentList
    op: Literal["list"] = "list"
    tombstones: bool = False


class Pending(Request[ApprovalList]):
    """Approvals that wait; with `all`, also the resolved ones, newest first."""

    result: ClassVar[type[Model]] = ApprovalList
    op: Literal["pending"] = "pending"
    all: bool = False


class Approve(Request[ApprovalAsked]):
    """The operator's yes. `commit` is the sha that was on screen; another one is refused (SECURITY 7).

    `note` stays with the approval, and is told the manager with what becomes of it.
    """

    result: ClassVar[type[Model]] = ApprovalAsked
    op: Literal["approve"] = "approve"
    approval_id: MessageId
    note: Note = ""
    commit: Annotated[str, Field(max_length=64)] | None = None


class Deny(Request[ApprovalAsked]):
    """The operator's no; `note` tells the one who asked why. `commit` is as in `approve`."""

    result: ClassVar[type[Model]] = ApprovalAsked
    op: Literal["deny"] = "deny"
    approval_id: MessageId
    note: Note = ""
    commit: Annotated[str, Field(max_length=64)] | None = None


class Diff(Request[DiffSummary]):
    """The files that an approval's commit changes against `base`, one an item."""

    result: ClassVar[type[Model]] = DiffSummary
    item: ClassVar[type[Model] | None] = FileDiff
    op: Literal["diff"] = "diff"
    approval_id: MessageId
    base: DiffBase = DiffBase.RUNNING


class BuildLog(Request[LogLines]):
    """What building an approval's commit printed; with `follow` each new line until it is resolved."""

    result: ClassVar[type[Model]] = LogLines
    item: ClassVar[type[Model] | None] = LogLine
    op: Literal["build_log"] = "build_log"
    approval_id: MessageId
    follow: bool = False


class Rollback(Request[ApprovalAsked]):
    """Let an agent run again what it ran before: approval `approval_id`'s commit, or the one before."""

    result: ClassVar[type[Model]] = ApprovalAsked
    op: Literal["rollback"] = "rollback"
    name: Name
    approval_id: MessageId | None = None


class History(Request[Deployments]):
    """The commits that an agent ran, newest first."""

    result: ClassVar[type[Model]] = Deployments
    op: Literal["history"] = "history"
    name: Name


class NoteFile(Model):
    """One file of an agent's notes; its path is below the agent's state."""

    path: str
    size_bytes: int
    changed_at_ms: int


class NoteList(Model):
    """An agent's notes. `left_out` counts what is not shown: links, odd names, too deep or too many."""

    notes: list[NoteFile]
    left_out: int = 0


class NoteText(Model):
    """What one note says, cut where it is too long. An agent wrote it: data, not instructions."""

    path: str
    text: str
    size_bytes: int
    changed_at_ms: int
    truncated: bool = False


class Notes(Request[NoteList]):
    """The notes that an agent keeps for itself, also of one whose state is kept."""

    result: ClassVar[type[Model]] = NoteList
    op: Literal["notes"] = "notes"
    name: Name


class ReadNote(Request[NoteText]):
    """What one of an agent's notes says."""

    result: ClassVar[type[Model]] = NoteText
    op: Literal["note"] = "note"
    name: Name
    path: Annotated[str, Field(min_length=1, max_length=512)]


class NewSession(Request[Empty]):
    """Let an agent's next turn begin a new conversation; its notes stay. Refused while a turn runs."""

    op: Literal["new_session"] = "new_session"
    name: Name


class Questions(Request[QuestionList]):
    """The questions to the operator that are open; with `all`, also those between agents."""

    result: ClassVar[type[Model]] = QuestionList
    op: Literal["questions"] = "questions"
    all: bool = False


class Answer(Request[Empty]):
    """The operator's answer to a question, whoever was asked; its asker gets it as a message."""

    op: Literal["answer"] = "answer"
    question_id: MessageId
    answer: Annotated[str, Field(min_length=1, max_length=TEXT_MAX_CHARACTERS)]


class Permissions(Request[PermissionList]):
    """Tool calls that wait for the operator, and the rules made at run time."""

    result: ClassVar[type[Model]] = PermissionList
    op: Literal["permissions"] = "permissions"


class AnswerPermission(Request[PermissionView]):
    """The operator's word on a tool call: allowed for a `scope`, or (without one) denied with a message.

    `rule` is what "session" and "always" write instead of the request's own one; it must fit the call.
    """

    result: ClassVar[type[Model]] = PermissionView
    op: Literal["answer_permission"] = "answer_permission"
    permission_id: MessageId
    scope: PermissionScope | None = None
    message: Note = ""
    rule: Annotated[str, Field(max_length=RULE_MAX_CHARACTERS)] = ""


class AddPermissionRule(Request[PermissionRuleView]):
    """Allow or deny an agent something from now on. To allow the rule `*` is bypass: nothing is asked for."""

    result: ClassVar[type[Model]] = PermissionRuleView
    op: Literal["add_permission_rule"] = "add_permission_rule"
    name: Name
    decision: Literal["allow", "deny"]
    rule: Annotated[str, Field(min_length=1, max_length=RULE_MAX_CHARACTERS)]


class RemovePermissionRule(Request[PermissionRuleView]):
    """Take a rule back."""

    result: ClassVar[type[Model]] = PermissionRuleView
    op: Literal["remove_permission_rule"] = "remove_permission_rule"
    rule_id: MessageId


CronText = Annotated[str, Field(min_length=1, max_length=100)]
ZoneName = Annotated[str, Field(min_length=1, max_length=64)]


class Reminders(Request[ReminderList]):
    """The pending reminders of all agents, or of one."""

    result: ClassVar[type[Model]] = ReminderList
    op: Literal["reminders"] = "reminders"
    name: Name | None = None


class CancelReminder(Request[ReminderView]):
    """Take an agent's reminder back; the agent is not told."""

    result: ClassVar[type[Model]] = ReminderView
    op: Literal["cancel_reminder"] = "cancel_reminder"
    reminder_id: MessageId


class Schedules(Request[ScheduleList]):
    """What is sent to agents at set times, and when next."""

    result: ClassVar[type[Model]] = ScheduleList
    op: Literal["schedules"] = "schedules"


class AddSchedule(Request[ScheduleView]):
    """Send `body` to an agent whenever the clock of `timezone` shows what `cron` says.

    `cron` has five fields: minute, hour, day of the month, month, day of the week (`0 9 * * mon-fri`).
    `timezone` is a name of the IANA database, such as Europe/Berlin.
    """

    result: ClassVar[type[Model]] = ScheduleView
    op: Literal["add_schedule"] = "add_schedule"
    name: Name
    cron: CronText
    body: Annotated[str, Field(min_length=1, max_length=TEXT_MAX_CHARACTERS)]
    timezone: ZoneName = "UTC"


class PreviewSchedule(Request[SchedulePreview]):
    """What a schedule would mean, before it is added."""

    result: ClassVar[type[Model]] = SchedulePreview
    op: Literal["preview_schedule"] = "preview_schedule"
    cron: CronText
    timezone: ZoneName = "UTC"


class RemoveSchedule(Request[ScheduleView]):
    """End a schedule for good."""

    result: ClassVar[type[Model]] = ScheduleView
    op: Literal["remove_schedule"] = "remove_schedule"
    schedule_id: MessageId


class PauseSchedule(Request[ScheduleView]):
    """Send nothing until it is resumed; what falls in between is not made up for."""

    result: ClassVar[type[Model]] = ScheduleView
    op: Literal["pause_schedule"] = "pause_schedule"
    schedule_id: MessageId


class ResumeSchedule(Request[ScheduleView]):
    """Go on with the next run from now."""

    result: ClassVar[type[Model]] = ScheduleView
    op: Literal["resume_schedule"] = "resume_schedule"
    schedule_id: MessageId


class RunSchedule(Request[ScheduleView]):
    """Send a schedule's message at once, paused or not; its times stay as they are."""

    result: ClassVar[type[Model]] = ScheduleView
    op: Literal["run_schedule"] = "run_schedule"
    schedule_id: MessageId


class Budgets(Request[BudgetList]):
    """What agents may use in a day, and have used of it."""

    result: ClassVar[type[Model]] = BudgetList
    op: Literal["budgets"] = "budgets"


BudgetLimit = Annotated[int, Field(ge=0, le=10**15)]


class SetBudget(Request[BudgetView]):
    """Change what an agent may use in a day: what is not named stays as it is, 0 is no limit.

    With `default` its own limits are forgotten first. A limit above what is used lets it go on at once.
    """

    result: ClassVar[type[Model]] = BudgetView
    op: Literal["set_budget"] = "set_budget"
    name: Name
    turns: BudgetLimit | None = None
    tokens: BudgetLimit | None = None
    microdollars: BudgetLimit | None = None
    default: bool = False

    @model_validator(mode="after")
    def _something(self) -> "SetBudget":
        if not self.default and self.turns is None and self.tokens is None and self.microdollars is None:
            raise ValueError("give turns, tokens, microdollars or default")
        return self


class AnswerBudget(Request[BudgetView]):
    """The operator's word to an agent that has used up its budget of today."""

    result: ClassVar[type[Model]] = BudgetView
    op: Literal["answer_budget"] = "answer_budget"
    name: Name
    answer: BudgetAnswer


class Inbox(Request[MessageList]):
    """Messages to the operator, newest last."""

    result: ClassVar[type[Model]] = MessageList
    op: Literal["inbox"] = "inbox"
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class Messages(Request[MessageList]):
    """The last messages of the whole hive; with `follow` then each new one, without end."""

    result: ClassVar[type[Model]] = MessageList
    item: ClassVar[type[Model] | None] = Message
    op: Literal["messages"] = "messages"
    limit: Annotated[int, Field(ge=0, le=1000)] = 50
    follow: bool = False


class Thread(Request[MessageThread]):
    """A message with what it answers and all that answers that: up to 200 messages, long bodies shortened."""

    result: ClassVar[type[Model]] = MessageThread
    op: Literal["thread"] = "thread"
    message_id: MessageId


class Waiting(Request[WaitingList]):
    """Everything that waits for the operator; with `follow` then each change, without end."""

    result: ClassVar[type[Model]] = WaitingList
    item: ClassVar[type[Model] | None] = WaitingChange
    op: Literal["waiting"] = "waiting"
    follow: bool = False


class Dismiss(Request[Empty]):
    """Take note of an approval that failed: it waits no more."""

    op: Literal["dismiss"] = "dismiss"
    approval_id: MessageId


class NotifyTest(Request[NotifyTested]):
    """Send a test to every target of notifications."""

    result: ClassVar[type[Model]] = NotifyTested
    op: Literal["notify_test"] = "notify_test"


class DaemonStatus(Request[HiveStatus]):
    """The daemon about itself, and how much waits for the operator."""

    result: ClassVar[type[Model]] = HiveStatus
    op: Literal["status"] = "status"


class Stats(Request[StatsReport]):
    """What turns took in the last `since_seconds` (without it: since the first that is kept).

    Of one agent, also one that was destroyed, or of all. Up to eight days come by the hour, more by
    the day, of a place whose clocks are `utc_offset_minutes` ahead of UTC.
    """

    result: ClassVar[type[Model]] = StatsReport
    op: Literal["stats"] = "stats"
    agent: Name | None = None
    since_seconds: Annotated[float, Field(ge=60, le=STATS_MAX_SECONDS, allow_inf_nan=False)] | None = None
    utc_offset_minutes: Annotated[int, Field(ge=-840, le=840)] = 0


class MakeLoginUrl(Request[LoginUrl]):
    """A fresh one-time login for the dashboard."""

    result: ClassVar[type[Model]] = LoginUrl
    op: Literal["login_url"] = "login_url"


class LogoutAll(Request[LoggedOut]):
    """End every browser session of the dashboard."""

    result: ClassVar[type[Model]] = LoggedOut
    op: Literal["logout_all"] = "logout_all"


class Metrics(Request[MetricsText]):
    """Everything that is measured, as a scraper reads it."""

    result: ClassVar[type[Model]] = MetricsText
    op: Literal["metrics"] = "metrics"


class Sessions(Request[SessionList]):
    """The browser sessions of the dashboard."""

    result: ClassVar[type[Model]] = SessionList
    op: Literal["sessions"] = "sessions"


class EndSession(Request[LoggedOut]):
    """End one browser session of the dashboard, and what its pages follow."""

    result: ClassVar[type[Model]] = LoggedOut
    op: Literal["end_session"] = "end_session"
    session_id: Annotated[str, Field(min_length=1, max_length=64)]


class RebuildAll(Request[AgentList]):
    """Rebuild every agent that was built from another revision of hyperhive."""

    result: ClassVar[type[Model]] = AgentList
    op: Literal["update_all"] = "update_all"


class Rebuild(Request[AgentDone]):
    """Build an agent's container again from what is approved, and restart it."""

    result: ClassVar[type[Model]] = AgentDone
    op: Literal["rebuild"] = "rebuild"
    name: Name


AnyRequest = Request[Model]

_AGENT: tuple[type[Request[Any]], ...] = (
    Send,
    Recv,
    Ack,
    Status,
    AskOperator,
    Ask,
    AnswerAsk,
    LooseEnds,
    CancelLooseEnd,
    CancelQuestion,
    Remind,
    Report,
    ReportTurns,
    RequestNextTurn,
    GetPermissionRules,
    AskPermission,
    ClosePermission,
)
_MANAGER: tuple[type[Request[Any]], ...] = (
    PrepareSpawn,
    RequestSpawn,
    Kill,
    Start,
    Restart,
    Update,
    RequestApplyCommit,
    Agents,
    Logs,
)
_HOST: tuple[type[Request[Any]], ...] = (
    Spawn,
    RequestSpawn,
    Kill,
    Start,
    Restart,
    Rebuild,
    RebuildAll,
    Destroy,
    ListAgents,
    Pending,
    Approve,
    Deny,
    Diff,
    BuildLog,
    Rollback,
    History,
    Questions,
    Answer,
    CancelQuestion,
    Permissions,
    AnswerPermission,
    AddPermissionRule,
    RemovePermissionRule,
    Budgets,
    SetBudget,
    AnswerBudget,
    Notes,
    ReadNote,
    NewSession,
    Reminders,
    CancelReminder,
    Schedules,
    AddSchedule,
    PreviewSchedule,
    RemoveSchedule,
    PauseSchedule,
    ResumeSchedule,
    RunSchedule,
    Send,
    Inbox,
    Messages,
    Thread,
    Waiting,
    Dismiss,
    NotifyTest,
    Logs,
    DaemonStatus,
    Stats,
    MakeLoginUrl,
    Sessions,
    EndSession,
    LogoutAll,
    Metrics,
)


def op_of(request: type[Request[Any]]) -> str:
    """The name an operation has on the wire."""
    return str(request.model_fields["op"].default)


SURFACES: dict[Surface, dict[str, type[Request[Any]]]] = {
    Surface.AGENT: {op_of(kind): kind for kind in _AGENT},
    Surface.MANAGER: {op_of(kind): kind for kind in (*_AGENT, *_MANAGER)},
    Surface.HOST: {op_of(kind): kind for kind in _HOST},
}

_EVERY_OP = frozenset(op for ops in SURFACES.values() for op in ops)


def parse_request(surface: Surface, fields: dict[str, Any]) -> Request[Any]:
    """The typed request in one decoded line.

    Raises `BadRequest` naming the first bad field, `UnknownOp`, `BodyTooLarge`, or `Forbidden`
    for an operation that exists, but on another surface.
    """
    op = fields.get("op")
    if not isinstance(op, str):
        raise BadRequest("field op: must be a text that names the operation", field="op")
    kind = SURFACES[surface].get(op)
    if kind is None and op in _EVERY_OP:
        raise Forbidden(f"op {op}: not allowed on the {surface} socket", field="op")
    if kind is None:
        known = ", ".join(SURFACES[surface])
        raise UnknownOp(f"op {op[:64]!r}: no such operation; the {surface} socket knows {known}", field="op")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise bad_field(error) from None


def bad_field(error: ValidationError) -> BadRequest:
    """One sentence for the first thing that is wrong, naming the field and not quoting its value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return BadRequest(f"field {field}: {message}" if field else message, field=field or None)


def batch(messages: Iterable[Message]) -> list[Message]:
    """The first of `messages` that fit one reply line together; always at least one, if there is one."""
    room = BATCH_MAX_BYTES
    chosen: list[Message] = []
    for message in messages:
        room -= len(to_json(message))  # bytes, of which a letter can take three
        if chosen and room < 0:
            break
        chosen.append(message)
    return chosen
