"""Moves, disputes and orphans."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "relocations",
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("country", sa.CHAR(length=2), nullable=True),
        sa.Column("ip_enc", sa.LargeBinary(), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_relocations")),
        comment="Items whose location is looked at anew; country and ip are a person's word; due_at is also the lease",
    )
    op.create_index(op.f("ix_relocations_due_at"), "relocations", ["due_at"])
    op.create_table(
        "custody",
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("trail", postgresql.JSONB(), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("out_stream", sa.Integer(), nullable=True),
        sa.Column("out_idx", sa.BigInteger(), nullable=True),
        sa.Column("receipted", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_custody")),
        comment="Who has an item that changed hands, who had it before, and where our transfer of it stands",
    )
    op.create_index(
        "ix_custody_out_stream",
        "custody",
        ["out_stream", "out_idx"],
        postgresql_where=sa.text("NOT receipted"),
    )
    op.create_table(
        "disputes",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("other", sa.Text(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("handed_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ruling", sa.LargeBinary(), nullable=True),
        sa.Column("followed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disputes")),
        comment="Items of ours that the desk is asked about, what it was told (no URL), and its signed ruling",
    )
    op.create_index(op.f("ix_disputes_item_id"), "disputes", ["item_id"])
    op.create_index("ix_disputes_open", "disputes", ["opened_at"], postgresql_where=sa.text("followed_at IS NULL"))
    op.create_table(
        "desk_cases",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("from_node", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ruling", sa.LargeBinary(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_desk_cases")),
        sa.UniqueConstraint("digest", name=op.f("uq_desk_cases_digest")),
        comment="The desk's own: disputes and contradictions handed in by members, byte for byte, and the rulings",
    )
    op.add_column("equivocations", sa.Column("handed_in_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "relay_failures",
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("record_hash", sa.LargeBinary(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "node", name=op.f("pk_relay_failures")),
        comment="Records that a peer never receipted and what was done instead: the negative evidence",
    )
