"""Live events of a turn, and helper events from core (SPEC sections 6 and 8)."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import ConfigDict, Field

from hive_shared.wire import ApprovalKind, ApprovalStatus, Model


class EventKind(StrEnum):
    """What a live event tells."""

    TURN_START = "turn_start"  # data: {from, body, unread, message_id, redelivered}
    STREAM = "stream"  # data: one stream-json object, as the backend printed it
    NOTE = "note"  # data: {text}, and {fresh: true} where a new conversation begins
    TURN_END = "turn_end"  # data: {ok, outcome, note, stats}
    STATE = "state"  # data: what GET /api/state answers; not stored


class LiveEvent(Model):
    """One event of an agent's live page. `seq` rises by one and survives restarts of the harness."""

    seq: int
    at_ms: int
    kind: EventKind
    data: dict[str, Any]


class TurnStats(Model):
    """What one turn took. Tokens are summed over its inferences; context is the last prompt's size."""

    message_id: int | None = None
    started_at_ms: int = 0
    duration_ms: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    context_tokens: int = 0
    cost_usd: float = 0.0
    model: str = ""
    outcome: str = ""
    tools: dict[str, int] = Field(default_factory=dict)


class HelperEvent(Model):
    """A fact from core, sent as JSON in a message from `system`. Each drives a turn (SPEC section 6).

    One class an event, with exactly its fields; `prompts/manager.md` documents every one of them. Those
    about questions go to whoever asked, `ask_closed` to whoever was asked, all others to the manager.
    """

    model_config = ConfigDict(extra="forbid")
    event: str

    def as_body(self) -> str:
        """The message body: the event's own fields, nothing that is not set."""
        return self.model_dump_json(exclude_none=True)


class ApprovalResolved(HelperEvent):
    """The operator denied a request, or approved it and it now runs, or could not be made to."""

    event: Literal["approval_resolved"] = "approval_resolved"
    id: int
    agent: str
    kind: ApprovalKind
    commit: str | None = None
    status: ApprovalStatus
    note: str | None = None  # the operator's reason, or why it failed with the last lines of the build log
    operator_note: str | None = None  # what the operator said when approving


class Spawned(HelperEvent):
    """A new agent runs, or could not be made to."""

    event: Literal["spawned"] = "spawned"
    agent: str
    ok: bool
    note: str | None = None


class Rebuilt(HelperEvent):
    """An agent's container was rebuilt from what is approved, or could not be."""

    event: Literal["rebuilt"] = "rebuilt"
    agent: str
    ok: bool
    note: str | None = None


class Killed(HelperEvent):
    """The operator stopped an agent."""

    event: Literal["killed"] = "killed"
    agent: str


class Destroyed(HelperEvent):
    """The operator removed an agent."""

    event: Literal["destroyed"] = "destroyed"
    agent: str


class OperatorAnswered(HelperEvent):
    """The operator answered a question, also one that was put to another agent (`asked`)."""

    event: Literal["operator_answered"] = "operator_answered"
    id: int
    question: str
    asked: str | None = None
    answer: str


class QuestionExpired(HelperEvent):
    """A question's time ran out before the operator, or the agent that was asked, answered it.

    `no_answer` says so in words that are nobody's answer.
    """

    event: Literal["question_expired"] = "question_expired"
    id: int
    question: str
    asked: str | None = None
    no_answer: str


class QuestionCancelled(HelperEvent):
    """The operator closed a question without an answer."""

    event: Literal["question_cancelled"] = "question_cancelled"
    id: int
    question: str
    asked: str | None = None
    no_answer: str


class QuestionGone(HelperEvent):
    """The agent that was asked was destroyed before it answered."""

    event: Literal["question_gone"] = "question_gone"
    id: int
    question: str
    asked: str
    no_answer: str


class AskClosed(HelperEvent):
    """A question that another agent (`asker`) had put to this one waits no longer for its answer.

    It asks for nothing. The question's text is not in it: that is the asker's, and this is the hive's word.
    """

    event: Literal["ask_closed"] = "ask_closed"
    id: int
    asker: str
    note: str


class ContainerCrashed(HelperEvent):
    """An agent's container ended by itself; it is started again."""

    event: Literal["container_crashed"] = "container_crashed"
    agent: str
    note: str | None = None


class HarnessSilent(HelperEvent):
    """An agent's harness runs and does not answer: stopped, or blocked. What it works on comes again."""

    event: Literal["harness_silent"] = "harness_silent"
    agent: str
    note: str | None = None


class NeedsUpdate(HelperEvent):
    """An agent was built from another revision of hyperhive than the one that runs now."""

    event: Literal["needs_update"] = "needs_update"
    agent: str


class NeedsLogin(HelperEvent):
    """An agent's credentials are missing or no longer good."""

    event: Literal["needs_login"] = "needs_login"
    agent: str


class LoopPaused(HelperEvent):
    """Two agents kept answering each other: messages between them are refused until the operator decides."""

    event: Literal["loop_paused"] = "loop_paused"
    agents: list[str]
    note: str | None = None


class LoopEnded(HelperEvent):
    """Messages between two agents pass again, or one of the two was stopped by the operator."""

    event: Literal["loop_ended"] = "loop_ended"
    agents: list[str]
    note: str | None = None


class MessageSetAside(HelperEvent):
    """An agent ended again and again while it worked on a message: that is not delivered for now."""

    event: Literal["message_set_aside"] = "message_set_aside"
    agent: str
    message_id: int
    note: str | None = None


HELPER_EVENTS: tuple[type[HelperEvent], ...] = (
    ApprovalResolved,
    Spawned,
    Rebuilt,
    Killed,
    Destroyed,
    OperatorAnswered,
    QuestionExpired,
    QuestionCancelled,
    QuestionGone,
    AskClosed,
    ContainerCrashed,
    HarnessSilent,
    NeedsUpdate,
    NeedsLogin,
    LoopPaused,
    LoopEnded,
    MessageSetAside,
)
