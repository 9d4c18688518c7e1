"""What agents may use in a day, and the turns that they ask for themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budget",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("turns", sa.BigInteger(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=True),
        sa.Column("microdollars", sa.BigInteger(), nullable=True),
        sa.Column("day_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_turns", sa.BigInteger(), nullable=False),
        sa.Column("last_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("added_turns", sa.BigInteger(), nullable=False),
        sa.Column("added_tokens", sa.BigInteger(), nullable=False),
        sa.Column("added_microdollars", sa.BigInteger(), nullable=False),
        sa.Column("one_more", sa.Integer(), nullable=False),
        sa.Column("warned", sa.Boolean(), nullable=False),
        sa.Column("left", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("agent", name="pk_budget"),
    )
    op.create_table(
        "next_turn",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("in_a_row", sa.Integer(), nullable=False),
        sa.Column("question_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("agent", name="pk_next_turn"),
    )


def downgrade() -> None:
    op.drop_table("next_turn")
    op.drop_table("budget")
