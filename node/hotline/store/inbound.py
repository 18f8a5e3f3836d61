"""What peers say to us: inbound streams, their records, batches and receipts. Decides nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.budgets import Budget
from node.hotline.domain.turns import mark_after, start_of
from node.hotline.store.trees import INBOX, Tree
from node.platform.database import Row, Transaction
from protocol.merkle import Edge

#: Contradictions that are kept of one peer, of all its epochs: each proves it, and the peer makes as many as it likes.
EQUIVOCATIONS_MAX = 16


@dataclass(frozen=True, slots=True)
class InboundHead:
    """A locked inbound stream: how far we hold it, how far it is applied, and whether a recovery left its peer out."""

    id: int
    edge: Edge
    applied: int
    left_out: bool


@dataclass(frozen=True, slots=True)
class Held:
    """One stored batch: its end, the edge before it and the receipt given."""

    first: int
    size: int
    edge_before: Edge
    receipt: bytes


_LEFT_OUT = (
    "EXISTS (SELECT 1 FROM stream_differences d WHERE d.peer = s.peer AND d.kind = 'not-asked' AND d.mended_at IS NULL)"
)


async def lock_stream(tx: Transaction, peer: str, epoch: int) -> InboundHead | None:
    """Lock the stream from `peer` until the transaction ends, or return None when it is not known."""
    row = await tx.row(
        "SELECT s.id, s.size, s.edge, c.applied, EXISTS (SELECT 1 FROM stream_differences d WHERE d.peer = s.peer "
        "AND d.kind = 'not-asked' AND d.mended_at IS NULL) AS left_out FROM inbound_streams s "
        "JOIN apply_cursors c ON c.stream = s.id WHERE s.peer = $1 AND s.epoch = $2 FOR UPDATE OF s",
        peer,
        epoch,
    )
    if row is None:
        return None
    return InboundHead(row["id"], Edge.from_bytes(row["size"], row["edge"]), row["applied"], row["left_out"])


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


async def covered_size(tx: Transaction, peer: str, epoch: int) -> int:
    """Return how far the stream is covered by a receipt that counts; 0 when it is not known."""
    size = await tx.value(
        "SELECT max(b.size) FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream "
        "WHERE s.peer = $1 AND s.epoch = $2 AND NOT b.worthless",
        peer,
        epoch,
    )
    return int(size or 0)


async def stream_of(tx: Transaction, peer: str, epoch: int) -> int | None:
    """Return the row of a stream that holds records, or None."""
    stream: int | None = await tx.value(
        "SELECT id FROM inbound_streams WHERE peer = $1 AND epoch = $2 AND size > 0", peer, epoch
    )
    return stream


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
    return _held(row)


async def receipt_covering(tx: Transaction, stream: int, idx: int) -> Held | None:
    """Return the first stored batch whose receipt covers index `idx` and proves something; None where none does."""
    row = await tx.row(
        "SELECT first, size, edge_before, receipt FROM inbound_batches "
        "WHERE stream = $1 AND size > $2 AND NOT worthless ORDER BY size LIMIT 1",
        stream,
        idx,
    )
    return None if row is None else _held(row)


def _held(row: Row) -> Held:
    return Held(row["first"], row["size"], Edge.from_bytes(row["first"], row["edge_before"]), row["receipt"])


async def give_anew(tx: Transaction, stream: int, size: int, receipt: bytes, now: datetime) -> None:
    """Store another receipt for what is held up to `size` (>= 1), in the place of those that prove nothing any more.

    A batch that goes on behind it is parted there.
    """
    batch = await batch_covering(tx, stream, size)
    if batch.size == size:
        await tx.execute(
            "UPDATE inbound_batches SET receipt = $3, received_at = $4, worthless = false "
            "WHERE stream = $1 AND size = $2",
            stream,
            size,
            receipt,
            now,
        )
        return
    edge = await edge_at(tx, stream, size)
    await tx.execute(
        "UPDATE inbound_batches SET first = $3, edge_before = $4 WHERE stream = $1 AND size = $2",
        stream,
        batch.size,
        size,
        edge.to_bytes(),
    )
    await tx.execute(
        "INSERT INTO inbound_batches (stream, size, first, edge_before, receipt, received_at) "
        "VALUES ($1, $2, $3, $4, $5, $6)",
        stream,
        size,
        batch.first,
        batch.edge_before.to_bytes(),
        receipt,
        now,
    )


async def edge_at(tx: Transaction, stream: int, size: int) -> Edge:
    """Return the edge of the held log when it had `size` leaves; LookupError when it never had."""
    if not size:
        return Edge.EMPTY
    batch = await batch_covering(tx, stream, size)
    return batch.edge_before.extend(await leaf_hashes(tx, stream, batch.first, size))


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
    await Tree(tx, INBOX, head.id).grown(head.edge.size, edge.size)


async def budget(tx: Transaction, peer: str) -> Budget:
    """Return what a peer's budget is; a full one for a peer that never sent anything."""
    row = await tx.row("SELECT records_full_at, bytes_full_at FROM peer_budgets WHERE peer = $1", peer)
    return Budget() if row is None else Budget(row["records_full_at"], row["bytes_full_at"])


async def keep_budget(tx: Transaction, peer: str, left: Budget) -> None:
    """Remember what is left of a peer's budget."""
    await tx.execute(
        "INSERT INTO peer_budgets (peer, records_full_at, bytes_full_at) VALUES ($1, $2, $3) "
        "ON CONFLICT (peer) DO UPDATE SET records_full_at = $2, bytes_full_at = $3",
        peer,
        left.records_full_at,
        left.bytes_full_at,
    )


async def keep_equivocation(
    tx: Transaction,
    proof_id: UUID,
    peer: str,
    origin: str,
    size: int,
    held: bytes,
    offered: bytes,
    ending: bytes | None,
    now: datetime,
) -> None:
    """Keep two signed checkpoints that contradict each other, once for each size; behind the first few, count them.

    `ending` is the proof of the record that begins the later one's epoch, where they are of two.
    """
    # Of two at once the second waits for the first, or both would be the last for which there is room.
    await tx.execute(
        "INSERT INTO peers (node_id, failures) VALUES ($1, 0) "
        "ON CONFLICT (node_id) DO UPDATE SET failures = peers.failures",
        peer,
    )
    known = await tx.fetch("SELECT origin, size FROM equivocations WHERE peer = $1", peer)
    if (origin, size) in {(row["origin"], row["size"]) for row in known}:
        return
    if len(known) >= EQUIVOCATIONS_MAX:
        await tx.execute(
            "UPDATE peers SET equivocations_left_out = equivocations_left_out + 1 WHERE node_id = $1", peer
        )
        return
    await tx.execute(
        "INSERT INTO equivocations (id, peer, origin, size, held, offered, ending, seen_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        proof_id,
        peer,
        origin,
        size,
        held,
        offered,
        ending,
        now,
    )


@dataclass(frozen=True, slots=True)
class ApplyHead:
    """A locked apply cursor: the records from `applied` on are to be applied.

    What became of those before `told` was said before a restore. `start` is where this turn begins on the line of
    virtual time (node.hotline.domain.turns), `end` where it ends at the latest, None for the end of the stream.
    `undone` is False where no record of ours waits to be done again since a recovery.
    """

    stream: int
    peer: str
    epoch: int
    applied: int
    start: int = 0
    told: int = 0
    end: int | None = None
    undone: bool = True


@dataclass(frozen=True, slots=True)
class Until:
    """How far the stream from `peer` is to be applied: earlier epochs to their ends, this one up to `size`."""

    peer: str
    epoch: int
    size: int


async def lock_unapplied(tx: Transaction, resting: Collection[int] = ()) -> ApplyHead | None:
    """Lock the stream whose turn it is: one that holds records not applied yet and that no other worker has.

    None of those that are `resting`.

    What has no receipt that counts waits for one: what is said of it may have to be proven. Whom a recovery left out
    waits, too: what we had answered it is not known.

    None when there is none. Whatever the order of the rows, no peer waits for more than a turn of each other one.
    """
    row = await tx.row(
        "SELECT c.stream, s.peer, s.epoch, c.applied, c.told, m.mark, p.passed, "
        "(SELECT max(b.size) FROM inbound_batches b WHERE b.stream = s.id AND NOT b.worthless) AS covered, "
        "EXISTS (SELECT 1 FROM recovery_replays) AS undone FROM apply_cursors c "
        "JOIN inbound_streams s ON s.id = c.stream CROSS JOIN (SELECT max(started) AS passed FROM apply_cursors) p "
        # The epochs of a peer have one mark between them: to begin another one gains no turn.
        "JOIN (SELECT o.peer, max(k.mark) AS mark FROM inbound_streams o JOIN apply_cursors k ON k.stream = o.id "
        "GROUP BY o.peer) m ON m.peer = s.peer "
        "WHERE s.size > c.applied AND (SELECT max(b.size) FROM inbound_batches b WHERE b.stream = s.id "
        "AND NOT b.worthless) > c.applied AND NOT EXISTS (SELECT 1 FROM inbound_streams e JOIN apply_cursors d "
        "ON d.stream = e.id WHERE e.peer = s.peer AND e.epoch < s.epoch AND e.size > d.applied) "
        "AND NOT EXISTS (SELECT 1 FROM stream_differences f WHERE f.peer = s.peer AND f.kind = 'not-asked' "
        "AND f.mended_at IS NULL) AND NOT c.stream = ANY($1) "
        "ORDER BY greatest(m.mark, p.passed), m.mark, c.stream LIMIT 1 FOR UPDATE OF c SKIP LOCKED",
        list(resting),
    )
    if row is None:
        return None
    start = start_of(row["mark"], row["passed"])
    # Only as far as a receipt that counts goes.
    place = row["stream"], row["peer"], row["epoch"], row["applied"]
    return ApplyHead(*place, start, row["told"], row["covered"], row["undone"])


_END = "least(s.size, CASE WHEN s.epoch = $2 THEN $3::bigint END)"
_BEFORE_END = (
    "FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream "
    f"WHERE s.peer = $1 AND s.epoch <= $2 AND c.applied < {_END}"
)


async def lock_until(tx: Transaction, until: Until) -> ApplyHead | None:
    """Lock the oldest stream of a peer that is not applied as far as `until` says; None when all are."""
    row = await tx.row(
        f'SELECT c.stream, s.peer, s.epoch, c.applied, c.told, c.mark, {_END} AS "end" {_BEFORE_END} '
        "ORDER BY s.epoch LIMIT 1 FOR UPDATE OF c",
        until.peer,
        until.epoch,
        until.size,
    )
    if row is None:
        return None
    return ApplyHead(row["stream"], row["peer"], row["epoch"], row["applied"], row["mark"], row["told"], row["end"])


async def is_applied(tx: Transaction, until: Until) -> bool:
    """Tell whether a peer's streams are applied as far as `until` says, or as far as they are held."""
    open_: bool = await tx.value(
        f"SELECT EXISTS (SELECT 1 {_BEFORE_END})",
        until.peer,
        until.epoch,
        until.size,
    )
    return not open_


async def refusals_said(tx: Transaction, stream: int, first: int, end: int) -> dict[int, tuple[str, str | None, str]]:
    """Return the refusals (code, field, detail) that our outcomes said already, by index."""
    rows = await tx.fetch(
        "SELECT idx, code, field, detail FROM inbox_refusals WHERE stream = $1 AND idx >= $2 AND idx < $3",
        stream,
        first,
        end,
    )
    return {row["idx"]: (row["code"], row["field"], row["detail"]) for row in rows}


async def read(tx: Transaction, stream: int, first: int, records_max: int) -> list[tuple[int, bytes, bytes]]:
    """Return (`idx`, leaf hash, sealed bytes) of the records from `first` on."""
    rows = await tx.fetch(
        "SELECT idx, leaf_hash, record_enc FROM inbox WHERE stream = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        stream,
        first,
        records_max,
    )
    return [(row["idx"], row["leaf_hash"], row["record_enc"]) for row in rows]


async def finish_apply(tx: Transaction, head: ApplyHead, applied: int, *, share: int = 1) -> None:
    """Move the apply cursor, and its mark by a peer's `share`."""
    await tx.execute(
        "UPDATE apply_cursors SET applied = $2, started = $3, mark = $4 WHERE stream = $1",
        head.stream,
        applied,
        head.start,
        mark_after(head.start, applied - head.applied, share),
    )


async def note_refusals(
    tx: Transaction, stream: int, refusals: Sequence[tuple[int, str, str | None, str]], now: datetime
) -> None:
    """Note refusals (`idx`, code, field, detail) of a peer's records."""
    if refusals:
        await tx.copy(
            "inbox_refusals",
            ("stream", "idx", "code", "field", "detail", "refused_at"),
            [(stream, *refusal, now) for refusal in refusals],
        )


async def newest_receipt(tx: Transaction, peer: str, epoch: int | None = None) -> bytes | None:
    """Return the newest receipt given to `peer` that proves something, of one epoch or of the newest, or None."""
    note: bytes | None = await tx.value(
        "SELECT b.receipt FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream WHERE s.peer = $1 "
        "AND ($2::int IS NULL OR s.epoch = $2) AND NOT b.worthless ORDER BY s.epoch DESC, b.size DESC LIMIT 1",
        peer,
        epoch,
    )
    return note


async def receipt_for(tx: Transaction, peer: str, epoch: int, idx: int) -> bytes | None:
    """Return the first receipt given that covers index `idx` of a peer's stream and proves something, or None."""
    note: bytes | None = await tx.value(
        "SELECT b.receipt FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream "
        "WHERE s.peer = $1 AND s.epoch = $2 AND b.size > $3 AND NOT b.worthless ORDER BY b.size LIMIT 1",
        peer,
        epoch,
        idx,
    )
    return note
