"""Receipts that prove nothing any more, and by which keys those at hand were judged."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Mark receipts on both sides; remember for each peer and direction what they were judged by."""
    for table in ("receipts", "inbound_batches"):
        op.add_column(table, sa.Column("worthless", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "judged_keys",
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("windows", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("peer", "direction", name=op.f("pk_judged_keys")),
        comment="By which keys' windows the receipts between a peer and us were last judged",
    )
