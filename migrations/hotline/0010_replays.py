"""What our own records had done is done again after a restore, each once."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The queue of records to be done again."""
    op.create_table(
        "recovery_replays",
        sa.Column("stream", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("idx", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("stream", "idx", name=op.f("pk_recovery_replays")),
        comment="Records of ours taken back after a restore and not done again yet; code says why one cannot be",
    )
