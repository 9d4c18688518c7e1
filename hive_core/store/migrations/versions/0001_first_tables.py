"""The first tables: hosts, agents, messages, approvals, questions, reminders, audit, sessions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _agents()
    _messages()
    _queues()
    _audit()
    _sessions()


def downgrade() -> None:
    for table in ("session", "audit", "reminder", "question", "approval", "message", "agent", "host"):
        op.drop_table(table)


def _id() -> "sa.Column[Any]":
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def _text(name: str, *, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, sa.String(), nullable=nullable)


def _long_text(name: str, *, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, sa.Text(), nullable=nullable)


def _ms(name: str, *, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _flag(name: str) -> "sa.Column[Any]":
    return sa.Column(name, sa.Boolean(), nullable=False)


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _agents() -> None:
    op.create_table(
        "host",
        _text("name"),
        _ms("first_seen_at_ms"),
        sa.PrimaryKeyConstraint("name", name="pk_host"),
    )
    op.create_table(
        "agent",
        _text("name"),
        _text("host"),
        _text("role"),
        sa.Column("port", sa.Integer(), nullable=False),
        _flag("kept"),
        _text("wanted"),
        _ms("created_at_ms"),
        sa.ForeignKeyConstraint(["host"], ["host.name"], name="fk_agent_host"),
        sa.PrimaryKeyConstraint("name", name="pk_agent"),
    )


def _messages() -> None:
    op.create_table(
        "message",
        _id(),
        _text("host"),
        _text("sender"),
        _text("recipient"),
        _long_text("body"),
        _ms("sent_at_ms"),
        _ms("in_reply_to", nullable=True),
        _flag("broadcast"),
        _text("key", nullable=True),
        _text("lease", nullable=True),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        _ms("acked_at_ms", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_message"),
        sqlite_autoincrement=True,
    )
    deliverable = "acked_at_ms IS NULL AND lease IS NULL"
    _partial_index("ix_message_deliverable", "message", ["recipient", "id"], deliverable)
    _partial_index("ix_message_leased", "message", ["lease"], "lease IS NOT NULL")
    _partial_index("ix_message_acked", "message", ["acked_at_ms"], "acked_at_ms IS NOT NULL")
    _partial_index("ix_message_operator", "message", ["id"], "recipient = 'operator'")
    _partial_index(
        "uq_message_key", "message", ["sender", "key", "recipient"], "key IS NOT NULL", unique=True
    )


def _queues() -> None:
    op.create_table(
        "approval",
        _id(),
        _text("host"),
        _text("kind"),
        _text("agent"),
        _text("status"),
        _text("requested_by"),
        _ms("requested_at_ms"),
        _text("resolved_by", nullable=True),
        _ms("resolved_at_ms", nullable=True),
        _text("commit_sha", nullable=True),
        _long_text("note"),
        _long_text("outcome_note"),
        _long_text("step"),
        _flag("revives"),
        sa.PrimaryKeyConstraint("id", name="pk_approval"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_approval_status", "approval", ["status"])
    op.create_table(
        "question",
        _id(),
        _text("host"),
        _text("asker"),
        _long_text("question"),
        _long_text("options"),
        _flag("multi"),
        _ms("asked_at_ms"),
        _long_text("answer", nullable=True),
        _ms("answered_at_ms", nullable=True),
        _text("answered_by", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_question"),
        sqlite_autoincrement=True,
    )
    _partial_index("ix_question_open", "question", ["asker"], "answer IS NULL")
    op.create_table(
        "reminder",
        _id(),
        _text("host"),
        _text("agent"),
        _long_text("body"),
        _ms("due_at_ms"),
        _ms("set_at_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_reminder"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_reminder_due", "reminder", ["due_at_ms"])
    op.create_index("ix_reminder_agent", "reminder", ["agent"])


def _audit() -> None:
    op.create_table(
        "audit",
        _id(),
        _text("host"),
        _ms("at_ms"),
        _text("principal"),
        _text("action"),
        _text("subject"),
        _text("outcome"),
        _long_text("detail"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END"
        )


def _sessions() -> None:
    op.create_table(
        "session",
        _text("id"),
        _text("host"),
        _text("cookie_sha256"),
        _text("key_sha256"),
        _ms("created_at_ms"),
        _ms("last_seen_ms"),
        _text("client"),
        sa.PrimaryKeyConstraint("id", name="pk_session"),
        sa.UniqueConstraint("cookie_sha256", name="uq_session_cookie_sha256"),
    )
