"""Requests of agents to use tools, and the rules that the operator makes of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OPEN = sa.text("closed = ''")


def upgrade() -> None:
    op.create_table(
        "permission",
        sa.Column("id", _ID, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("tool", sa.String(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("cwd", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("asked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("closed", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("answered_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("answered_by", sa.String(), nullable=True),
        sa.Column("used", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_permission"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_permission_agent_key", "permission", ["agent", "key"])
    op.create_index("ix_permission_agent_asked", "permission", ["agent", "asked_at_ms"])
    op.create_index("ix_permission_open", "permission", ["agent"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_table(
        "permission_rule",
        sa.Column("id", _ID, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("decision", sa.String(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("made_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_permission_rule"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_permission_rule_agent", "permission_rule", ["agent"])


def downgrade() -> None:
    op.drop_table("permission_rule")
    op.drop_table("permission")
