"""Steps of peers wait while a recovery is not complete."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The records that wait, by where they stand."""
    op.create_table(
        "inbox_waiting",
        sa.Column("stream", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("idx", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("item_id", pg.UUID(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "idx", name=op.f("pk_inbox_waiting")),
        comment="Steps of items that may be lost here, judged when everybody was asked after a restore",
    )
    op.create_index(op.f("ix_inbox_waiting_item_id"), "inbox_waiting", ["item_id"])
