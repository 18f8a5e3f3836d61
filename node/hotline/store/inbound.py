"""What peers say to us: inbound streams, their records, batches, receipts and nonces. Decides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.platform.database import Transaction
from protocol.merkle import Edge


@dataclass(frozen=True, slots=True)
class InboundHead:
    """A locked inbound stream: how far we hold it, and how far its records are applied."""

    id: int
    edge: Edge
    applied: int


@dataclass(frozen=True, slots=True)
class Held:
    """One stored batch: its end, the edge before it and the receipt given."""

    first: int
    size: int
    edge_before: Edge
    receipt: bytes


async def lock_stream(tx: Transaction, peer: str, epoch: int) -> InboundHead | None:
    """Lock the stream from `peer` until the transaction ends, or return None when it is not known."""
    row = await tx.row(
        "SELECT s.id, s.size, s.edge, c.applied FROM inbound_streams s JOIN apply_cursors c ON c.stream = s.id "
        "WHERE s.peer = $1 AND s.epoch = $2 FOR UPDATE OF s",
        peer,
        epoch,
    )
    return None if row is None else InboundHead(row["id"], Edge.from_bytes(row["size"], row["edge"]), row["applied"])


async def create_stream(tx: Transaction, peer: str, epoch: int) -> None:
    """Begin to hold a stream; harmless when another process just did."""
    await tx.execute(
        "INSERT INTO inbound_streams (peer, epoch, size, edge) VALUES ($1, $2, 0, ''::bytea) ON CONFLICT DO NOTHING",
        peer,
        epoch,
    )
    await tx.execute(
        "INSERT INTO apply_cursors (stream, applied) SELECT id, 0 FROM inbound_streams WHERE peer = $1 AND epoch = $2 "
        "ON CONFLICT DO NOTHING",
        peer,
        epoch,
    )


async def held_size(tx: Transaction, peer: str, epoch: int) -> int:
    """Return how far we hold the stream; 0 when it is not known."""
    size = await tx.value("SELECT size FROM inbound_streams WHERE peer = $1 AND epoch = $2", peer, epoch)
    return int(size or 0)


async def leaf_hashes(tx: Transaction, stream: int, first: int, end: int) -> list[bytes]:
    """Return the leaf hashes held for indices `first` to `end` (exclusive)."""
    rows = await tx.fetch(
        "SELECT leaf_hash FROM inbox WHERE stream = $1 AND idx >= $2 AND idx < $3 ORDER BY idx", stream, first, end
    )
    return [row["leaf_hash"] for row in rows]


async def batch_covering(tx: Transaction, stream: int, size: int) -> Held:
    """Return the stored batch within which the log reached `size` (>= 1); its receipt covers that size."""
    row = await tx.row(
        "SELECT first, size, edge_before, receipt FROM inbound_batches WHERE stream = $1 AND size >= $2 "
        "ORDER BY size LIMIT 1",
        stream,
        size,
    )
    if row is None:
        raise LookupError("no stored batch covers an index below the stream's size")
    return Held(row["first"], row["size"], Edge.from_bytes(row["first"], row["edge_before"]), row["receipt"])


async def store_batch(
    tx: Transaction,
    head: InboundHead,
    edge: Edge,
    rows: Sequence[tuple[int, bytes, bytes]],
    receipt: bytes,
    now: datetime,
) -> None:
    """Append records (`idx`, leaf hash, sealed bytes), the new edge and the receipt in one go."""
    await tx.copy(
        "inbox",
        ("stream", "idx", "leaf_hash", "record_enc"),
        [(head.id, idx, leaf, sealed) for idx, leaf, sealed in rows],
    )
    await tx.execute(
        "INSERT INTO inbound_batches (stream, size, first, edge_before, receipt, received_at) "
        "VALUES ($1, $2, $3, $4, $5, $6)",
        head.id,
        edge.size,
        head.edge.size,
        head.edge.to_bytes(),
        receipt,
        now,
    )
    await tx.execute(
        "UPDATE inbound_streams SET size = $2, edge = $3 WHERE id = $1", head.id, edge.size, edge.to_bytes()
    )


async def remember_nonce(tx: Transaction, keyid: str, nonce: str, now: datetime) -> bool:
    """Remember a request's nonce; False when it was seen already."""
    fresh = await tx.execute(
        "INSERT INTO nonces (keyid, nonce, seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", keyid, nonce, now
    )
    return fresh == 1


async def forget_nonces(tx: Transaction, before: datetime) -> int:
    """Forget the nonces seen before `before`; returns how many."""
    return await tx.execute("DELETE FROM nonces WHERE seen_at < $1", before)


async def keep_equivocation(
    tx: Transaction, proof_id: UUID, peer: str, origin: str, size: int, held: bytes, offered: bytes, now: datetime
) -> None:
    """Keep two signed checkpoints that contradict each other, once for each size."""
    await tx.execute(
        "INSERT INTO equivocations (id, peer, origin, size, held, offered, seen_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        proof_id,
        peer,
        origin,
        size,
        held,
        offered,
        now,
    )


@dataclass(frozen=True, slots=True)
class ApplyHead:
    """A locked apply cursor: the records from `applied` on are to be applied."""

    stream: int
    peer: str
    epoch: int
    applied: int


async def lock_unapplied(tx: Transaction) -> ApplyHead | None:
    """Lock one stream that holds records not applied yet and that no other worker has; None when there is none."""
    row = await tx.row(
        "SELECT c.stream, s.peer, s.epoch, c.applied FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream "
        "WHERE s.size > c.applied ORDER BY c.stream LIMIT 1 FOR UPDATE OF c SKIP LOCKED"
    )
    return None if row is None else ApplyHead(row["stream"], row["peer"], row["epoch"], row["applied"])


async def read(tx: Transaction, stream: int, first: int, records_max: int) -> list[tuple[int, bytes, bytes]]:
    """Return (`idx`, leaf hash, sealed bytes) of the records from `first` on."""
    rows = await tx.fetch(
        "SELECT idx, leaf_hash, record_enc FROM inbox WHERE stream = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        stream,
        first,
        records_max,
    )
    return [(row["idx"], row["leaf_hash"], row["record_enc"]) for row in rows]


async def finish_apply(
    tx: Transaction,
    head: ApplyHead,
    applied: int,
    refusals: Sequence[tuple[int, str, str | None, str]],
    now: datetime,
) -> None:
    """Move the apply cursor and note refusals (`idx`, code, field, detail)."""
    await tx.execute("UPDATE apply_cursors SET applied = $2 WHERE stream = $1", head.stream, applied)
    if refusals:
        await tx.copy(
            "inbox_refusals",
            ("stream", "idx", "code", "field", "detail", "refused_at"),
            [(head.stream, *refusal, now) for refusal in refusals],
        )


async def newest_receipt(tx: Transaction, peer: str) -> bytes | None:
    """Return the receipt of the newest batch held of `peer`, or None."""
    note: bytes | None = await tx.value(
        "SELECT b.receipt FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream WHERE s.peer = $1 "
        "ORDER BY s.epoch DESC, b.size DESC LIMIT 1",
        peer,
    )
    return note


async def receipt_for(tx: Transaction, peer: str, epoch: int, idx: int) -> bytes | None:
    """Return the receipt first given that covers index `idx` of a peer's stream, or None."""
    note: bytes | None = await tx.value(
        "SELECT b.receipt FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream "
        "WHERE s.peer = $1 AND s.epoch = $2 AND b.size > $3 ORDER BY b.size LIMIT 1",
        peer,
        epoch,
        idx,
    )
    return note
