"""The tables (SPEC sections 5, 6 and 15). Every one names the host, though there is one so far.

Ids are AUTOINCREMENT: they rise in commit order and are never used twice. Times are Unix
milliseconds. Changing anything here needs a migration; a test compares the two.
"""

from typing import Any, ClassVar, Final

from sqlalchemy import BigInteger, Index, Integer, MetaData, Table, Text, text
from sqlmodel import Field, SQLModel

HEAD_REVISION: Final = "0010"  # the newest migration; a database that says so needs none

_Id = BigInteger().with_variant(Integer(), "sqlite")  # AUTOINCREMENT wants exactly INTEGER
_AUTOINCREMENT: Final[dict[str, Any]] = {"sqlite_autoincrement": True}


def _id() -> Any:
    return Field(default=None, primary_key=True, sa_type=_Id)


def _big(**extra: Any) -> Any:
    return Field(sa_type=BigInteger, **extra)


class HiveTable(SQLModel):
    """What the tables of the broker's database have in common: their metadata."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
        }
    )


class Host(HiveTable, table=True):
    """A host of the hive."""

    __tablename__ = "host"
    name: str = Field(primary_key=True)
    first_seen_at_ms: int = _big()


class Agent(HiveTable, table=True):
    """An agent that exists (`kept` false) or whose state was kept when it was destroyed (a tombstone)."""

    __tablename__ = "agent"
    name: str = Field(primary_key=True)
    host: str = Field(foreign_key="host.name")
    role: str
    port: int
    kept: bool = False
    wanted: str = "running"
    created_at_ms: int = _big()


class MessageRow(HiveTable, table=True):
    """One message to one recipient; a broadcast is a row for each.

    `lease` names the connection that has it now, `deliveries` how often it was handed out before
    or now, `acked_at_ms` is when it was done with.
    """

    __tablename__ = "message"
    __table_args__ = (
        Index(
            "ix_message_deliverable",
            "recipient",
            "id",
            sqlite_where=text("acked_at_ms IS NULL AND lease IS NULL"),
            postgresql_where=text("acked_at_ms IS NULL AND lease IS NULL"),
        ),
        Index(
            "ix_message_leased",
            "lease",
            sqlite_where=text("lease IS NOT NULL"),
            postgresql_where=text("lease IS NOT NULL"),
        ),
        Index(
            "ix_message_acked",
            "acked_at_ms",
            sqlite_where=text("acked_at_ms IS NOT NULL"),
            postgresql_where=text("acked_at_ms IS NOT NULL"),
        ),
        Index(
            "uq_message_key",
            "sender",
            "key",
            "recipient",
            unique=True,
            sqlite_where=text("key IS NOT NULL"),
            postgresql_where=text("key IS NOT NULL"),
        ),
        Index(
            "ix_message_operator",
            "id",
            sqlite_where=text("recipient = 'operator'"),
            postgresql_where=text("recipient = 'operator'"),
        ),
        Index(
            "ix_message_in_reply_to",
            "in_reply_to",
            sqlite_where=text("in_reply_to IS NOT NULL"),
            postgresql_where=text("in_reply_to IS NOT NULL"),
        ),
        _AUTOINCREMENT,
    )
    id: int | None = _id()
    host: str
    sender: str
    recipient: str
    body: str = Field(sa_type=Text)
    sent_at_ms: int = _big()
    in_reply_to: int | None = _big(default=None)  # may name a message vacuumed since
    broadcast: bool = False
    key: str | None = None
    lease: str | None = None
    deliveries: int = 0
    acked_at_ms: int | None = _big(default=None)
    asks: int | None = _big(default=None)  # the question that it carries
    answers: int | None = _big(default=None)  # the question that it answers, or tells the end of


class Approval(HiveTable, table=True):
    """One request that the operator decides. Never deleted."""

    __tablename__ = "approval"
    __table_args__ = (Index("ix_approval_status", "status"), _AUTOINCREMENT)
    id: int | None = _id()
    host: str
    kind: str
    agent: str
    status: str
    requested_by: str
    requested_at_ms: int = _big()
    resolved_by: str | None = None
    resolved_at_ms: int | None = _big(default=None)
    commit_sha: str | None = None
    note: str = Field(default="", sa_type=Text)
    operator_note: str = Field(default="", sa_type=Text)  # said with the yes
    outcome_note: str = Field(default="", sa_type=Text)
    step: str = Field(default="", sa_type=Text)
    revives: bool = False
    rollback: bool = False
    commit_ref: str = ""
    message: str = Field(default="", sa_type=Text)  # of the commit
    author: str = ""
    authored_at_ms: int | None = _big(default=None)
    flags: str = Field(default="[]", sa_type=Text)  # a JSON list of RiskFlag
    base_running: str | None = None
    base_approved: str | None = None
    base_proposed: str | None = None
    replaces: str | None = None  # what ran when the switch began: where to go back to if it fails


class Question(HiveTable, table=True):
    """One question to the operator or to an agent; open while `closed` is empty. Never deleted.

    `message_id` is the message that took it to the agent.
    """

    __tablename__ = "question"
    __table_args__ = (
        Index(
            "ix_question_open",
            "asker",
            sqlite_where=text("closed = ''"),
            postgresql_where=text("closed = ''"),
        ),
        Index(
            "ix_question_answerer",
            "answerer",
            sqlite_where=text("closed = ''"),
            postgresql_where=text("closed = ''"),
        ),
        _AUTOINCREMENT,
    )
    id: int | None = _id()
    host: str
    asker: str
    question: str = Field(sa_type=Text)
    options: str = Field(sa_type=Text)  # a JSON list of texts
    multi: bool = False
    asked_at_ms: int = _big()
    answer: str | None = Field(default=None, sa_type=Text)
    answered_at_ms: int | None = _big(default=None)
    answered_by: str | None = None
    expires_at_ms: int | None = _big(default=None)
    closed: str = ""  # answered, cancelled, expired, gone
    answerer: str = "operator"  # or an agent
    message_id: int | None = _big(default=None)


class Loop(HiveTable, table=True):
    """What holds for two agents that kept answering each other; `one` is the first of the two by name."""

    __tablename__ = "loop"
    one: str = Field(primary_key=True)
    other: str = Field(primary_key=True)
    host: str
    state: str  # paused, apart, silenced
    since_ms: int = _big()
    until_ms: int | None = _big(default=None)
    question_id: int | None = _big(default=None)  # while the operator is asked


class Turn(HiveTable, table=True):
    """What one turn took, as its harness says: untrusted, checked for its form. See `hive_core.usage`."""

    __tablename__ = "turn"
    __table_args__ = (
        Index("uq_turn_key", "agent", "key", unique=True),
        Index("ix_turn_agent_ended", "agent", "ended_at_ms"),
        Index("ix_turn_ended", "ended_at_ms"),
        _AUTOINCREMENT,
    )
    id: int | None = _id()
    host: str
    agent: str
    key: str
    ended_at_ms: int = _big()
    duration_ms: int = _big()
    message_id: int | None = _big(default=None)
    outcome: str
    model: str
    input_tokens: int = _big()
    cache_read_tokens: int = _big()
    cache_creation_tokens: int = _big()
    output_tokens: int = _big()
    cost_microdollars: int = _big()
    tool_calls: int = _big()


class ToolHour(HiveTable, table=True):
    """How often an agent called a tool in an hour of UTC, as its harness says."""

    __tablename__ = "tool_hour"
    __table_args__ = (Index("ix_tool_hour_hour_ms", "hour_ms"),)
    agent: str = Field(primary_key=True)
    hour_ms: int = _big(primary_key=True)
    tool: str = Field(primary_key=True)
    host: str
    calls: int = _big()


class Permission(HiveTable, table=True):
    """One request of an agent to use a tool; open while `closed` is empty. The oldest closed ones go."""

    __tablename__ = "permission"
    __table_args__ = (
        Index("ix_permission_agent_key", "agent", "key"),
        Index("ix_permission_agent_asked", "agent", "asked_at_ms"),
        Index(
            "ix_permission_open",
            "agent",
            sqlite_where=text("closed = ''"),
            postgresql_where=text("closed = ''"),
        ),
        _AUTOINCREMENT,
    )
    id: int | None = _id()
    host: str
    agent: str
    key: str
    session: str
    message_id: int = _big()
    tool: str
    input: str = Field(sa_type=Text)  # JSON
    truncated: bool = False
    cwd: str = Field(default="", sa_type=Text)
    reason: str = Field(default="", sa_type=Text)
    rule: str = Field(default="", sa_type=Text)
    asked_at_ms: int = _big()
    expires_at_ms: int | None = _big(default=None)
    closed: str = ""  # allowed, denied, expired, withdrawn
    scope: str | None = None
    message: str = Field(default="", sa_type=Text)
    answered_at_ms: int | None = _big(default=None)
    answered_by: str | None = None
    used: bool = False  # the decision was acted on; the same call is asked for anew


class PermissionRule(HiveTable, table=True):
    """What the operator allows or denies an agent, besides its configuration."""

    __tablename__ = "permission_rule"
    __table_args__ = (Index("ix_permission_rule_agent", "agent"), _AUTOINCREMENT)
    id: int | None = _id()
    host: str
    agent: str
    decision: str  # allow, deny
    rule: str = Field(sa_type=Text)
    session: str = ""  # of the conversation that it ends with; empty: it lasts
    made_at_ms: int = _big()
    made_by: str


class Reminder(HiveTable, table=True):
    """A message to come, to the inbox of the agent that set it. Deleted as it is delivered."""

    __tablename__ = "reminder"
    __table_args__ = (
        Index("ix_reminder_due", "due_at_ms"),
        Index("ix_reminder_agent", "agent"),
        _AUTOINCREMENT,
    )
    id: int | None = _id()
    host: str
    agent: str
    body: str = Field(sa_type=Text)
    due_at_ms: int = _big()
    set_at_ms: int = _big()


class Schedule(HiveTable, table=True):
    """Messages that the operator has sent to an agent again and again: cron's words in a time zone."""

    __tablename__ = "schedule"
    __table_args__ = (
        Index("ix_schedule_next", "next_at_ms"),
        Index("ix_schedule_agent", "agent"),
        _AUTOINCREMENT,
    )
    id: int | None = _id()
    host: str
    agent: str
    cron: str
    timezone: str  # of the IANA database
    body: str = Field(sa_type=Text)
    made_at_ms: int = _big()
    made_by: str
    paused: str = ""  # why: operator, purged, over; empty: it is not
    next_at_ms: int | None = _big(default=None)  # none while it is paused
    last_at_ms: int | None = _big(default=None)  # when a run was last dealt with
    last_outcome: str = ""  # sent, skipped
    last_message_id: int | None = _big(default=None)  # may name a message vacuumed since
    missed: int = 0  # runs since the last message that sent none


class Budget(HiveTable, table=True):
    """What one agent may use in a day, and what it used of the day that began at `day_ms`.

    A limit that is null is the default of the settings, 0 is none. See `hive_core.budget_rows`.
    """

    __tablename__ = "budget"
    agent: str = Field(primary_key=True)
    host: str
    turns: int | None = _big(default=None)
    tokens: int | None = _big(default=None)
    microdollars: int | None = _big(default=None)
    day_ms: int = _big(default=0)
    used_turns: int = _big(default=0)
    last_at_ms: int = _big(default=0)
    added_turns: int = _big(default=0)
    added_tokens: int = _big(default=0)
    added_microdollars: int = _big(default=0)
    one_more: int = 0
    warned: bool = False
    left: bool = False


class NextTurn(HiveTable, table=True):
    """The turn that an agent asked for itself, while `note` is not null, and how many it had in a row."""

    __tablename__ = "next_turn"
    agent: str = Field(primary_key=True)
    host: str
    note: str | None = Field(default=None, sa_type=Text)
    in_a_row: int = 0  # without a message from anybody else
    question_id: int | None = _big(default=None)  # while the operator is asked whether it may go on


class VacuumLook(HiveTable, table=True):
    """When old messages were looked for last, and when they had been acked. See `hive_core.retention`."""

    __tablename__ = "vacuum_look"
    host: str = Field(primary_key=True)
    looked_at_ms: int = _big()
    before_ms: int = _big()


class Audit(HiveTable, table=True):
    """Who did what, when, and how it ended. Triggers refuse to change or delete a row."""

    __tablename__ = "audit"
    __table_args__ = (_AUTOINCREMENT,)
    id: int | None = _id()
    host: str
    at_ms: int = _big()
    principal: str
    action: str
    subject: str
    outcome: str
    detail: str = Field(default="", sa_type=Text)


class Session(HiveTable, table=True):
    """A logged-in browser. The cookie and the key are stored as SHA-256 only (SECURITY 5)."""

    __tablename__ = "session"
    id: str = Field(primary_key=True)  # shown to the operator; not a secret
    host: str
    cookie_sha256: str = Field(unique=True)
    key_sha256: str
    created_at_ms: int = _big()
    last_seen_ms: int = _big()
    client: str = ""


metadata: Final = HiveTable.metadata
host: Final[Table] = metadata.tables["host"]
agent: Final[Table] = metadata.tables["agent"]
message: Final[Table] = metadata.tables["message"]
approval: Final[Table] = metadata.tables["approval"]
question: Final[Table] = metadata.tables["question"]
loop: Final[Table] = metadata.tables["loop"]
turn: Final[Table] = metadata.tables["turn"]
tool_hour: Final[Table] = metadata.tables["tool_hour"]
permission: Final[Table] = metadata.tables["permission"]
permission_rule: Final[Table] = metadata.tables["permission_rule"]
reminder: Final[Table] = metadata.tables["reminder"]
schedule: Final[Table] = metadata.tables["schedule"]
budget: Final[Table] = metadata.tables["budget"]
next_turn: Final[Table] = metadata.tables["next_turn"]
vacuum_look: Final[Table] = metadata.tables["vacuum_look"]
audit: Final[Table] = metadata.tables["audit"]
session: Final[Table] = metadata.tables["session"]
