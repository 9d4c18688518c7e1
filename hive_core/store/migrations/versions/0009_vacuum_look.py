"""What the last look for old messages found to be old."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vacuum_look",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("looked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("before_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("host", name="pk_vacuum_look"),
    )


def downgrade() -> None:
    op.drop_table("vacuum_look")
