"""Every table of the national node, as SQLAlchemy metadata for migrations and queries; holds no query.

What a stolen dump would hold is decided here: a column that ends in `_enc` is sealed (node.platform.fieldcrypto) with
the row's identity as associated data; `url_digest` is keyed.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_time = sa.DateTime(timezone=True)
_hash = sa.LargeBinary()


field_keys = sa.Table(
    "field_keys",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("master_id", sa.Text, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    comment="Field and digest keys, each wrapped under the master key",
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("roles", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("expires_at", _time),
    sa.Column("revoked_at", _time),
    comment="Keys of machines that call the API",
)

cases = sa.Table(
    "cases",
    metadata,
    sa.Column("id", pg.UUID, primary_key=True),
    sa.Column("submitter", sa.Text, nullable=False),
    sa.Column("reference", sa.Text),
    sa.Column("content_digest", _hash),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("received_at", _time, nullable=False),
    sa.Column("reported_at", _time),
    sa.Column("referrer_enc", sa.LargeBinary),
    sa.Column("note_enc", sa.LargeBinary),
    sa.Column("reporter_enc", sa.LargeBinary),
    sa.Column("site_type", sa.Text),
    sa.Column("commerciality", sa.Text),
    sa.Column("payment_methods", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("created_at", _time, nullable=False),
    # As records have it: a peer's name of its report, or one that was corrected. `reference` makes a report idempotent.
    sa.Column("wire_reference_enc", sa.LargeBinary),
    sa.UniqueConstraint("submitter", "reference"),
    comment="One report: what came in together, from whom, when",
)

items = sa.Table(
    "items",
    metadata,
    sa.Column("id", pg.UUID, primary_key=True),
    sa.Column("case_id", pg.UUID, sa.ForeignKey("cases.id"), nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("page_id", pg.UUID),
    sa.Column("url_enc", sa.LargeBinary, nullable=False),
    sa.Column("normal_enc", sa.LargeBinary),
    sa.Column("url_digest", _hash, nullable=False),
    sa.Column("hashes", pg.JSONB),
    sa.Column("duplicate_of", pg.UUID),
    sa.Column("received_stream", sa.Integer),
    sa.Column("received_idx", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("hosting_country", sa.CHAR(2)),
    sa.Column("registered_country", sa.CHAR(2)),
    sa.Column("assigned_country", sa.CHAR(2)),
    sa.Column("assigned_node", sa.Text),
    sa.Column("confidence", sa.SmallInteger),
    sa.Column("verdict", sa.Text),
    sa.Column("verdict_reasons", pg.ARRAY(sa.Text)),
    sa.Column("evidence_enc", sa.LargeBinary),
    sa.Column("located_at", _time),
    sa.Column("qualification", pg.JSONB),
    sa.Column("peer_qualification", pg.JSONB),
    sa.Column("reporter", sa.Text),
    sa.Column("report_hash", _hash),
    sa.Column("withdrawn_at", _time),
    sa.Column("withdrawn_reason", sa.Text),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    sa.Index("ix_items_state", "state", "id", postgresql_where=sa.text("state NOT IN ('sent', 'duplicate', 'closed')")),
    sa.Index(
        "ix_items_assigned_node", "assigned_node", "id", postgresql_where=sa.text("state IN ('sent', 'transferred')")
    ),
    sa.Index("ix_items_duplicate_of", "duplicate_of", postgresql_where=sa.text("duplicate_of IS NOT NULL")),
    comment="One URL: the unit that is located, qualified and routed",
)

assessments = sa.Table(
    "assessments",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("item_id", pg.UUID, nullable=False, index=True),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("qualification", pg.JSONB, nullable=False),
    sa.Column("record_hash", _hash),
    sa.Column("recorded_at", _time, nullable=False),
    comment="Every qualification of an item since it came, by whom; append-only",
)

actions = sa.Table(
    "actions",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("item_id", pg.UUID, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("at", _time, nullable=False),
    sa.Column("by", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("record_hash", _hash),
    sa.Column("recorded_at", _time, nullable=False),
    sa.UniqueConstraint("item_id", "node", "action"),
    comment="What was done about an item, each kind once by each hotline; append-only",
)

url_identities = sa.Table(
    "url_identities",
    metadata,
    sa.Column("url_digest", _hash, primary_key=True),
    sa.Column("item_id", pg.UUID, nullable=False),
    sa.Column("times_seen", sa.Integer, nullable=False),
    comment="The first item of each URL, found by keyed digest",
)

location_queue = sa.Table(
    "location_queue",
    metadata,
    sa.Column("item_id", pg.UUID, primary_key=True),
    sa.Column("due_at", _time, nullable=False, index=True),
    sa.Column("attempts", sa.SmallInteger, nullable=False),
    comment="Items whose host is still to be located; due_at is also the lease of the worker that has it",
)

relocations = sa.Table(
    "relocations",
    metadata,
    sa.Column("item_id", pg.UUID, primary_key=True),
    sa.Column("country", sa.CHAR(2)),
    sa.Column("ip_enc", sa.LargeBinary),
    sa.Column("asked_at", _time, nullable=False),
    sa.Column("due_at", _time, nullable=False, index=True),
    sa.Column("attempts", sa.SmallInteger, nullable=False),
    comment="Items whose location is looked at anew; country and ip are a person's word; due_at is also the lease",
)

custody = sa.Table(
    "custody",
    metadata,
    sa.Column("item_id", pg.UUID, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("trail", pg.JSONB, nullable=False),
    sa.Column("given_at", _time, nullable=False),
    sa.Column("out_stream", sa.Integer),
    sa.Column("out_idx", sa.BigInteger),
    sa.Column("receipted", sa.Boolean, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    sa.Index("ix_custody_out_stream", "out_stream", "out_idx", postgresql_where=sa.text("NOT receipted")),
    comment="Who has an item that changed hands, who had it before, and where our transfer of it stands",
)

relay_failures = sa.Table(
    "relay_failures",
    metadata,
    sa.Column("item_id", pg.UUID, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("record_hash", _hash, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("since", _time, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failed_at", _time, nullable=False),
    comment="Records that a peer never receipted and what was done instead: the negative evidence",
)

taken_back = sa.Table(
    "taken_back",
    metadata,
    sa.Column("item_id", pg.UUID, primary_key=True),
    sa.Column("giver", sa.Text, primary_key=True),
    sa.Column("taker", sa.Text, primary_key=True),
    sa.Column("at", _time, nullable=False),
    comment="Transfers of our items that their givers took back, by what they told us",
)

disputes = sa.Table(
    "disputes",
    metadata,
    sa.Column("id", pg.UUID, primary_key=True),
    sa.Column("item_id", pg.UUID, nullable=False, index=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("other", sa.Text, nullable=False),
    sa.Column("statement", sa.LargeBinary, nullable=False),
    sa.Column("opened_at", _time, nullable=False),
    sa.Column("handed_in_at", _time),
    sa.Column("ruling", sa.LargeBinary),
    sa.Column("followed_at", _time),
    # The desk that has it, by its id and keys, and the code with which one refuses it for good.
    sa.Column("handed_in_to", sa.Text),
    sa.Column("refused", sa.Text),
    sa.Index("ix_disputes_open", "opened_at", postgresql_where=sa.text("followed_at IS NULL")),
    comment="Items of ours that the desk is asked about, what it was told (no URL), and its signed ruling",
)

outbound_streams = sa.Table(
    "outbound_streams",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("peer", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("next_index", sa.BigInteger, nullable=False),
    sa.Column("recovery", pg.UUID),
    sa.UniqueConstraint("peer", "epoch"),
    comment="What we say to a peer: the locked row that gives out indices",
)

delivery_cursors = sa.Table(
    "delivery_cursors",
    metadata,
    sa.Column("stream", sa.Integer, sa.ForeignKey("outbound_streams.id"), primary_key=True),
    sa.Column("acked_size", sa.BigInteger, nullable=False),
    sa.Column("acked_edge", sa.LargeBinary, nullable=False),
    sa.Column("outcome_size", sa.BigInteger, nullable=False),
    comment="How far a peer has receipted our stream, with the edge of the log at that size",
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True),
    sa.Column("record_id", pg.UUID, nullable=False),
    sa.Column("item_id", pg.UUID),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("leaf_hash", _hash, nullable=False),
    sa.Column("record_enc", sa.LargeBinary, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    sa.Index("ix_outbox_item_id", "item_id", postgresql_where=sa.text("item_id IS NOT NULL")),
    comment="Records to a peer, append-only, in stream order",
)

subtrees = sa.Table(
    "subtrees",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("stream", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", _hash, nullable=False),
    comment="Roots of the complete parts of streams, 256 nodes each; those of level 1 of records",
)

outbox_refusals = sa.Table(
    "outbox_refusals",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("refused_at", _time, nullable=False),
    # When a status that may have been refused for its proof alone is looked at; null of all others, and once it was.
    sa.Column("again_at", _time),
    sa.Index("ix_outbox_refusals_again_at", "again_at", postgresql_where=sa.text("again_at IS NOT NULL")),
    comment="Single records a peer's outcome refused",
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True),
    sa.Column("note", sa.LargeBinary, nullable=False),
    sa.Column("received_at", _time, nullable=False),
    # By keys that a newer directory says did not count when it was signed.
    sa.Column("worthless", sa.Boolean, nullable=False, server_default=sa.false()),
    comment="Receipts of our stream, byte for byte as verified",
)

inbound_streams = sa.Table(
    "inbound_streams",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("peer", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("edge", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("peer", "epoch"),
    comment="What a peer says to us: how far we hold it, with the edge of the log",
)

apply_cursors = sa.Table(
    "apply_cursors",
    metadata,
    sa.Column("stream", sa.Integer, sa.ForeignKey("inbound_streams.id"), primary_key=True),
    sa.Column("applied", sa.BigInteger, nullable=False),
    sa.Column("told", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("mark", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("started", sa.BigInteger, nullable=False, server_default="0"),
    comment="How far the records of a peer have been applied",
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True),
    sa.Column("leaf_hash", _hash, nullable=False),
    sa.Column("record_enc", sa.LargeBinary, nullable=False),
    comment="Records of a peer, append-only, in stream order, as received",
)

inbox_refusals = sa.Table(
    "inbox_refusals",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("field", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("refused_at", _time, nullable=False),
    comment="Single records of a peer we refused, as our outcome said",
)

inbox_waiting = sa.Table(
    "inbox_waiting",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True),
    sa.Column("item_id", pg.UUID, nullable=False, index=True),
    comment="Steps of items that may be lost here, judged when everybody was asked after a restore",
)

inbound_batches = sa.Table(
    "inbound_batches",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("edge_before", sa.LargeBinary, nullable=False),
    sa.Column("receipt", sa.LargeBinary, nullable=False),
    sa.Column("received_at", _time, nullable=False),
    # As in receipts; the row stays for its edge.
    sa.Column("worthless", sa.Boolean, nullable=False, server_default=sa.false()),
    comment="Each batch stored, with the receipt we gave for it",
)

judged_keys = sa.Table(
    "judged_keys",
    metadata,
    sa.Column("peer", sa.Text, primary_key=True),
    sa.Column("direction", sa.Text, primary_key=True),
    sa.Column("windows", sa.Text, nullable=False),
    comment="By which keys' windows the receipts between a peer and us were last judged",
)

equivocations = sa.Table(
    "equivocations",
    metadata,
    sa.Column("id", pg.UUID, primary_key=True),
    sa.Column("peer", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("held", sa.LargeBinary, nullable=False),
    sa.Column("offered", sa.LargeBinary, nullable=False),
    sa.Column("seen_at", _time, nullable=False),
    sa.Column("handed_in_at", _time),
    # The tlog-proof of the record that begins the later of two epochs.
    sa.Column("ending", sa.LargeBinary),
    sa.Column("handed_in_to", sa.Text),
    sa.Column("refused", sa.Text),
    # One proof is enough, and signing it again makes other bytes.
    sa.UniqueConstraint("origin", "size"),
    comment="Two signed checkpoints of one stream that cannot both be true: the proof",
)

stream_differences = sa.Table(
    "stream_differences",
    metadata,
    sa.Column("peer", sa.Text, primary_key=True),
    sa.Column("direction", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("ours", sa.BigInteger, nullable=False),
    sa.Column("theirs", sa.BigInteger, nullable=False),
    sa.Column("proven", sa.Boolean, nullable=False),
    sa.Column("seen_at", _time, nullable=False),
    sa.Column("mended_at", _time),
    comment="Where a peer says otherwise than we do how far a stream between us has come",
)

pull_cursors = sa.Table(
    "pull_cursors",
    metadata,
    sa.Column("stream", sa.Integer, sa.ForeignKey("inbound_streams.id"), primary_key=True),
    sa.Column("receipted", sa.BigInteger, nullable=False),
    comment="How far the sender of a stream that we fetch has our receipts",
)

recoveries = sa.Table(
    "recoveries",
    metadata,
    sa.Column("id", pg.UUID, primary_key=True),
    sa.Column("started_at", _time, nullable=False),
    sa.Column("ended_at", _time),
    comment="Each recovery after a restore; while one has not ended the node does not serve",
)

recovery_tail = sa.Table(
    "recovery_tail",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True),
    sa.Column("peer", sa.Text, nullable=False),
    sa.Column("record_id", pg.UUID, nullable=False),
    sa.Column("item_id", pg.UUID),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("leaf_hash", _hash, nullable=False),
    sa.Column("record_enc", sa.LargeBinary, nullable=False),
    comment="Records written after a restore and never signed, until they stand in the new epoch",
)

recovery_replays = sa.Table(
    "recovery_replays",
    metadata,
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True),
    sa.Column("said_at", _time, nullable=False),
    sa.Column("code", sa.Text),
    comment="Records of ours taken back after a restore and not done again yet; code says why one cannot be",
)

nonces = sa.Table(
    "nonces",
    metadata,
    sa.Column("keyid", sa.Text, primary_key=True),
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("seen_at", _time, nullable=False, index=True),
    comment="Nonces of peer requests, remembered for the replay window",
)

peer_budgets = sa.Table(
    "peer_budgets",
    metadata,
    sa.Column("peer", sa.Text, primary_key=True),
    sa.Column("records_full_at", _time, nullable=False),
    sa.Column("bytes_full_at", _time, nullable=False),
    comment="When a peer's budget of new records, and of bytes, is full again",
)

peers = sa.Table(
    "peers",
    metadata,
    sa.Column("node_id", sa.Text, primary_key=True),
    sa.Column("last_heard_at", _time),
    sa.Column("last_reached_at", _time),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("retry_at", _time),
    sa.Column("last_problem", sa.Text),
    sa.Column("clock_skew_s", sa.Integer),
    sa.Column("compared_at", _time),
    sa.Column("key_problems", sa.Integer, nullable=False, server_default="0"),
    # Contradictions seen when so many were kept that one more proves nothing new.
    sa.Column("equivocations_left_out", sa.BigInteger, nullable=False, server_default="0"),
    comment="What we know of our contact with each peer",
)

directory_versions = sa.Table(
    "directory_versions",
    metadata,
    sa.Column("keys", sa.LargeBinary, primary_key=True, server_default=sa.text("''::bytea")),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("root_version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("snapshot_version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("timestamp_version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("first_seen_at", _time, nullable=False),
    comment="Membership directories this node has trusted, by who signs them; what is lower is refused",
)
