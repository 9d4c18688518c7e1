"""Questions between agents, and the messages that carry them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_OPEN = sa.text("closed = ''")
_REPLY = sa.text("in_reply_to IS NOT NULL")


def upgrade() -> None:
    op.add_column("question", sa.Column("answerer", sa.String(), nullable=False, server_default="operator"))
    op.add_column("question", sa.Column("message_id", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_question_answerer", "question", ["answerer"], sqlite_where=_OPEN, postgresql_where=_OPEN
    )
    op.add_column("message", sa.Column("asks", sa.BigInteger(), nullable=True))
    op.add_column("message", sa.Column("answers", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_message_in_reply_to", "message", ["in_reply_to"], sqlite_where=_REPLY, postgresql_where=_REPLY
    )


def downgrade() -> None:
    op.drop_index("ix_message_in_reply_to", "message")
    op.drop_column("message", "answers")
    op.drop_column("message", "asks")
    op.execute("DELETE FROM question WHERE answerer <> 'operator'")
    op.drop_index("ix_question_answerer", "question")
    op.drop_column("question", "message_id")
    op.drop_column("question", "answerer")
