"""Roots of parts of the streams' trees: what is asked of a long stream does not read all of it."""

from collections.abc import Sequence
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_PART = 256
#: Parts that are read at once.
_AT_ONCE = 64


def upgrade() -> None:
    """Keep the roots of what is written already; some seconds for each million records."""
    op.create_table(
        "subtrees",
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("stream", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log", "stream", "level", "number", name=op.f("pk_subtrees")),
        comment="Roots of the complete parts of streams, 256 nodes each; those of level 1 of records",
    )
    for log, streams in (("outbox", "outbound_streams"), ("inbox", "inbound_streams")):
        size = "next_index" if log == "outbox" else "size"
        for stream, records in op.get_bind().execute(sa.text(f"SELECT id, {size} FROM {streams}")).all():  # noqa: S608 -- names of ours
            _keep(log, stream, records)


def _keep(log: str, stream: int, records: int) -> None:
    kept = sa.text(
        "INSERT INTO subtrees (log, stream, level, number, root) VALUES (:log, :stream, :level, :number, :root)"
    )
    level, nodes = 1, _of_records(log, stream, records // _PART)
    while nodes:
        rows = [
            {"log": log, "stream": stream, "level": level, "number": number, "root": root}
            for number, root in enumerate(nodes)
        ]
        op.get_bind().execute(kept, rows)
        nodes = [_root(nodes[at : at + _PART]) for at in range(0, len(nodes) - _PART + 1, _PART)]
        level += 1


def _of_records(log: str, stream: int, parts: int) -> list[bytes]:
    roots: list[bytes] = []
    query = sa.text(f"SELECT leaf_hash FROM {log} WHERE stream = :stream AND idx >= :first AND idx < :end ORDER BY idx")  # noqa: S608 -- names of ours
    for part in range(0, parts, _AT_ONCE):
        bounds = {"stream": stream, "first": part * _PART, "end": min(parts, part + _AT_ONCE) * _PART}
        leaves = [row[0] for row in op.get_bind().execute(query, bounds)]
        if len(leaves) != bounds["end"] - bounds["first"]:
            # A stream with a hole: `hotline audit-network` tells of it, and nothing is proven from it.
            return roots
        roots += [_root(leaves[at : at + _PART]) for at in range(0, len(leaves), _PART)]
    return roots


def _root(nodes: Sequence[bytes]) -> bytes:
    """Return the root over PART nodes (RFC 6962, section 2.1)."""
    row = list(nodes)
    while len(row) > 1:
        row = [sha256(b"\x01" + row[at] + row[at + 1]).digest() for at in range(0, len(row), 2)]
    return row[0]
