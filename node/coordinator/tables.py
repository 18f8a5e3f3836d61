"""Every table of the coordinator, as SQLAlchemy metadata for migrations; holds no query."""

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

metadata_files = sa.Table(
    "metadata_files",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("replaced_at", sa.DateTime(timezone=True)),
    comment="The directory's metadata as it is served; what was replaced stays for a day",
)

nonces = sa.Table(
    "nonces",
    metadata,
    sa.Column("keyid", sa.Text, primary_key=True),
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, index=True),
    comment="Nonces of members' requests, remembered for the replay window",
)

desk_cases = sa.Table(
    "desk_cases",
    metadata,
    sa.Column("id", pg.UUID, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("from_node", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("ruling", sa.LargeBinary),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    # Which two checkpoints a contradiction is of: found or signed again, it has other bytes.
    sa.Column("contradiction", sa.LargeBinary, unique=True),
    comment="Disputes and contradictions that members handed in, byte for byte and without a URL, and the rulings",
)

listed_nodes = sa.Table(
    "listed_nodes",
    metadata,
    sa.Column("node_id", sa.Text, primary_key=True),
    comment="Nodes that a directory published here ever listed: those that left stay part of disputes",
)
