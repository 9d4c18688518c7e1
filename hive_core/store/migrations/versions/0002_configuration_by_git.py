"""Approvals carry a commit and what it is compared with; questions end in more ways than one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OPEN_BEFORE, _OPEN_NOW = sa.text("answer IS NULL"), sa.text("closed = ''")


def upgrade() -> None:
    for column in _approval_columns():
        op.add_column("approval", column)
    op.add_column("question", sa.Column("expires_at_ms", sa.BigInteger(), nullable=True))
    op.add_column("question", sa.Column("closed", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE question SET closed = 'answered' WHERE answer IS NOT NULL")
    _open_questions(_OPEN_NOW)


def downgrade() -> None:
    op.execute("DELETE FROM question WHERE closed IN ('cancelled', 'expired')")
    _open_questions(_OPEN_BEFORE)
    for name in ("closed", "expires_at_ms"):
        op.drop_column("question", name)
    for column in reversed(_approval_columns()):
        op.drop_column("approval", column.name)


def _approval_columns() -> "list[sa.Column[object]]":
    return [
        sa.Column("rollback", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("commit_ref", sa.String(), nullable=False, server_default=""),
        sa.Column("message", sa.Text(), nullable=False, server_default=""),
        sa.Column("author", sa.String(), nullable=False, server_default=""),
        sa.Column("authored_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("flags", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("base_running", sa.String(), nullable=True),
        sa.Column("base_approved", sa.String(), nullable=True),
        sa.Column("base_proposed", sa.String(), nullable=True),
        sa.Column("replaces", sa.String(), nullable=True),
    ]


def _open_questions(condition: "sa.TextClause") -> None:
    op.drop_index("ix_question_open", "question")
    op.create_index(
        "ix_question_open", "question", ["asker"], sqlite_where=condition, postgresql_where=condition
    )
