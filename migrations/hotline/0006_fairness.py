"""Fairness between peers: whose records are applied next, and what each may still send."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Marks of the apply cursors on one line of virtual time, and a budget for each peer."""
    op.add_column("apply_cursors", sa.Column("mark", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("apply_cursors", sa.Column("started", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "peer_budgets",
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("records_full_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bytes_full_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("peer", name=op.f("pk_peer_budgets")),
        comment="When a peer's budget of new records, and of bytes, is full again",
    )
