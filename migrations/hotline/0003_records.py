"""Records of every type: qualifications and actions over time, and which report an item belongs to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the histories; items sent or received before learn their report from the streams that hold it."""
    op.create_table(
        "assessments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("qualification", postgresql.JSONB(), nullable=False),
        sa.Column("record_hash", sa.LargeBinary(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assessments")),
        comment="Every qualification of an item since it came, by whom; append-only",
    )
    op.create_index(op.f("ix_assessments_item_id"), "assessments", ["item_id"])
    op.create_table(
        "actions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("record_hash", sa.LargeBinary(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_actions")),
        sa.UniqueConstraint("item_id", "node", "action", name=op.f("uq_actions_item_id_node_action")),
        comment="What was done about an item, each kind once by each hotline; append-only",
    )
    op.add_column("items", sa.Column("reporter", sa.Text(), nullable=True))
    op.add_column("items", sa.Column("report_hash", sa.LargeBinary(), nullable=True))
    op.add_column("items", sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("items", sa.Column("withdrawn_reason", sa.Text(), nullable=True))
    op.execute(
        "UPDATE items SET reporter = s.peer, report_hash = b.leaf_hash FROM inbox b "
        "JOIN inbound_streams s ON s.id = b.stream "
        "WHERE b.stream = items.received_stream AND b.idx = items.received_idx"
    )
    op.execute(
        "UPDATE items SET report_hash = o.leaf_hash FROM (SELECT DISTINCT ON (item_id) item_id, leaf_hash FROM outbox "
        "WHERE type = 'report' AND item_id IS NOT NULL ORDER BY item_id, created_at DESC) o "
        "WHERE o.item_id = items.id"
    )
