"""Live events of a turn, and helper events to the manager (SPEC sections 6 and 8)."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from hive_shared.wire import Model


class EventKind(StrEnum):
    """What a live event tells."""

    TURN_START = "turn_start"  # data: {from, body, unread, message_id, redelivered}
    STREAM = "stream"  # data: one stream-json object, as the backend printed it
    NOTE = "note"  # data: {text}
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
    """A fact from core to the manager, sent as JSON in a message from `system`. Each drives a turn."""

    event: Literal[
        "approval_resolved",
        "spawned",
        "rebuilt",
        "killed",
        "destroyed",
        "operator_answered",
        "question_expired",
        "question_cancelled",
        "container_crashed",
        "needs_update",
        "needs_login",
    ]
    agent: str | None = None
    id: int | None = None
    kind: str | None = None
    commit: str | None = None
    status: str | None = None
    ok: bool | None = None
    note: str | None = None
    question: str | None = None
    answer: str | None = None

    def as_body(self) -> str:
        """The message body: the event's own fields, nothing that is not set."""
        return self.model_dump_json(exclude_none=True)
