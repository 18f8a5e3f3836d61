"""The first tables of the national node."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        comment="Keys of machines that call the API",
    )
    op.create_table(
        "cases",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("content_digest", sa.LargeBinary(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("referrer_enc", sa.LargeBinary(), nullable=True),
        sa.Column("note_enc", sa.LargeBinary(), nullable=True),
        sa.Column("reporter_enc", sa.LargeBinary(), nullable=True),
        sa.Column("site_type", sa.Text(), nullable=True),
        sa.Column("commerciality", sa.Text(), nullable=True),
        sa.Column("payment_methods", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cases")),
        sa.UniqueConstraint("submitter", "reference", name=op.f("uq_cases_submitter_reference")),
        comment="One report: what came in together, from whom, when",
    )
    op.create_table(
        "directory_versions",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_directory_versions")),
        comment="Membership directories this node has trusted; a lower version is refused",
    )
    op.create_table(
        "equivocations",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.LargeBinary(), nullable=False),
        sa.Column("offered", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_equivocations")),
        sa.UniqueConstraint("origin", "size", name=op.f("uq_equivocations_origin_size")),
        comment="Two signed checkpoints of one stream that cannot both be true: the proof",
    )
    op.create_table(
        "field_keys",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("master_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_field_keys")),
        comment="Field and digest keys, each wrapped under the master key",
    )
    op.create_table(
        "inbound_batches",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("edge_before", sa.LargeBinary(), nullable=False),
        sa.Column("receipt", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stream", "size", name=op.f("pk_inbound_batches")),
        comment="Each batch stored, with the receipt we gave for it",
    )
    op.create_table(
        "inbound_streams",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("edge", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_streams")),
        sa.UniqueConstraint("peer", "epoch", name=op.f("uq_inbound_streams_peer_epoch")),
        comment="What a peer says to us: how far we hold it, with the edge of the log",
    )
    op.create_table(
        "inbox",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("record_enc", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "idx", name=op.f("pk_inbox")),
        comment="Records of a peer, append-only, in stream order, as received",
    )
    op.create_table(
        "inbox_refusals",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stream", "idx", name=op.f("pk_inbox_refusals")),
        comment="Single records of a peer we refused, as our outcome said",
    )
    op.create_table(
        "location_queue",
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_location_queue")),
        comment="Items whose host is still to be located; due_at is also the lease of the worker that has it",
    )
    op.create_index(op.f("ix_location_queue_due_at"), "location_queue", ["due_at"], unique=False)
    op.create_table(
        "nonces",
        sa.Column("keyid", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("keyid", "nonce", name=op.f("pk_nonces")),
        comment="Nonces of peer requests, remembered for the replay window",
    )
    op.create_index(op.f("ix_nonces_seen_at"), "nonces", ["seen_at"], unique=False)
    op.create_table(
        "outbound_streams",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("next_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbound_streams")),
        sa.UniqueConstraint("peer", "epoch", name=op.f("uq_outbound_streams_peer_epoch")),
        comment="What we say to a peer: the locked row that gives out indices",
    )
    op.create_table(
        "outbox",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("record_id", sa.UUID(), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("record_enc", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stream", "idx", name=op.f("pk_outbox")),
        comment="Records to a peer, append-only, in stream order",
    )
    op.create_index(
        "ix_outbox_item_id", "outbox", ["item_id"], unique=False, postgresql_where=sa.text("item_id IS NOT NULL")
    )
    op.create_table(
        "outbox_refusals",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stream", "idx", name=op.f("pk_outbox_refusals")),
        comment="Single records a peer's outcome refused",
    )
    op.create_table(
        "peers",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("last_heard_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_reached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_problem", sa.Text(), nullable=True),
        sa.Column("clock_skew_s", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_peers")),
        comment="What we know of our contact with each peer",
    )
    op.create_table(
        "receipts",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stream", "size", name=op.f("pk_receipts")),
        comment="Receipts of our stream, byte for byte as verified",
    )
    op.create_table(
        "url_identities",
        sa.Column("url_digest", sa.LargeBinary(), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=False),
        sa.Column("times_seen", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("url_digest", name=op.f("pk_url_identities")),
        comment="The first item of each URL, found by keyed digest",
    )
    op.create_table(
        "apply_cursors",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream"], ["inbound_streams.id"], name=op.f("fk_apply_cursors_stream")),
        sa.PrimaryKeyConstraint("stream", name=op.f("pk_apply_cursors")),
        comment="How far the records of a peer have been applied",
    )
    op.create_table(
        "delivery_cursors",
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("acked_size", sa.BigInteger(), nullable=False),
        sa.Column("acked_edge", sa.LargeBinary(), nullable=False),
        sa.Column("outcome_size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream"], ["outbound_streams.id"], name=op.f("fk_delivery_cursors_stream")),
        sa.PrimaryKeyConstraint("stream", name=op.f("pk_delivery_cursors")),
        comment="How far a peer has receipted our stream, with the edge of the log at that size",
    )
    op.create_table(
        "items",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("case_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("page_id", sa.UUID(), nullable=True),
        sa.Column("url_enc", sa.LargeBinary(), nullable=False),
        sa.Column("normal_enc", sa.LargeBinary(), nullable=True),
        sa.Column("url_digest", sa.LargeBinary(), nullable=False),
        sa.Column("hashes", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("duplicate_of", sa.UUID(), nullable=True),
        sa.Column("received_stream", sa.Integer(), nullable=True),
        sa.Column("received_idx", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("hosting_country", sa.CHAR(length=2), nullable=True),
        sa.Column("registered_country", sa.CHAR(length=2), nullable=True),
        sa.Column("assigned_country", sa.CHAR(length=2), nullable=True),
        sa.Column("assigned_node", sa.Text(), nullable=True),
        sa.Column("confidence", sa.SmallInteger(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("verdict_reasons", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("evidence_enc", sa.LargeBinary(), nullable=True),
        sa.Column("located_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("qualification", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("peer_qualification", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_items_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_items")),
        comment="One URL: the unit that is located, qualified and routed",
    )
    op.create_index(op.f("ix_items_case_id"), "items", ["case_id"], unique=False)
    op.create_index(
        "ix_items_duplicate_of",
        "items",
        ["duplicate_of"],
        unique=False,
        postgresql_where=sa.text("duplicate_of IS NOT NULL"),
    )
    op.create_index(
        "ix_items_state",
        "items",
        ["state", "id"],
        unique=False,
        postgresql_where=sa.text("state NOT IN ('sent', 'duplicate', 'closed')"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_items_state", table_name="items", postgresql_where=sa.text("state NOT IN ('sent', 'duplicate', 'closed')")
    )
    op.drop_index("ix_items_duplicate_of", table_name="items", postgresql_where=sa.text("duplicate_of IS NOT NULL"))
    op.drop_index(op.f("ix_items_case_id"), table_name="items")
    op.drop_table("items")
    op.drop_table("delivery_cursors")
    op.drop_table("apply_cursors")
    op.drop_table("url_identities")
    op.drop_table("receipts")
    op.drop_table("peers")
    op.drop_table("outbox_refusals")
    op.drop_index("ix_outbox_item_id", table_name="outbox", postgresql_where=sa.text("item_id IS NOT NULL"))
    op.drop_table("outbox")
    op.drop_table("outbound_streams")
    op.drop_index(op.f("ix_nonces_seen_at"), table_name="nonces")
    op.drop_table("nonces")
    op.drop_index(op.f("ix_location_queue_due_at"), table_name="location_queue")
    op.drop_table("location_queue")
    op.drop_table("inbox_refusals")
    op.drop_table("inbox")
    op.drop_table("inbound_streams")
    op.drop_table("inbound_batches")
    op.drop_table("field_keys")
    op.drop_table("equivocations")
    op.drop_table("directory_versions")
    op.drop_table("cases")
    op.drop_table("api_keys")
