"""Catching up after outages."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stream_differences",
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ours", sa.BigInteger(), nullable=False),
        sa.Column("theirs", sa.BigInteger(), nullable=False),
        sa.Column("proven", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("peer", "direction", "epoch", "kind", name=op.f("pk_stream_differences")),
        comment="Where a peer says otherwise than we do how far a stream between us has come",
    )
    op.create_table(
        "pull_cursors",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("receipted", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream"], ["inbound_streams.id"], name=op.f("fk_pull_cursors_stream")),
        sa.PrimaryKeyConstraint("stream", name=op.f("pk_pull_cursors")),
        comment="How far the sender of a stream that we fetch has our receipts",
    )
    op.create_table(
        "recoveries",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recoveries")),
        comment="Each recovery after a restore; while one has not ended the node does not serve",
    )
    op.create_table(
        "recovery_tail",
        sa.Column("stream", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("idx", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("record_id", sa.UUID(), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("record_enc", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "idx", name=op.f("pk_recovery_tail")),
        comment="Records written after a restore and never signed, until they stand in the new epoch",
    )
    op.add_column("outbound_streams", sa.Column("recovery", sa.UUID(), nullable=True))
    op.add_column("apply_cursors", sa.Column("told", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("peers", sa.Column("compared_at", sa.DateTime(timezone=True), nullable=True))
