"""What the operator says with the yes to an approval."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("approval", sa.Column("operator_note", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("approval", "operator_note")
