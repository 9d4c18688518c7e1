"""What turns took, as harnesses tell it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_AMOUNTS = ("input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens")


def upgrade() -> None:
    op.create_table(
        "turn",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _AMOUNTS),
        sa.Column("cost_microdollars", sa.BigInteger(), nullable=False),
        sa.Column("tool_calls", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_turn"),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_turn_key", "turn", ["agent", "key"], unique=True)
    op.create_index("ix_turn_agent_ended", "turn", ["agent", "ended_at_ms"])
    op.create_index("ix_turn_ended", "turn", ["ended_at_ms"])
    op.create_table(
        "tool_hour",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        sa.Column("tool", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "hour_ms", "tool", name="pk_tool_hour"),
    )
    op.create_index("ix_tool_hour_hour_ms", "tool_hour", ["hour_ms"])


def downgrade() -> None:
    op.drop_table("tool_hour")
    op.drop_table("turn")
