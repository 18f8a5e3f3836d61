"""What we say to peers: outbound streams, their records, cursors and receipts. Decides nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.store import custody
from node.hotline.store.trees import OUTBOX, PART, Tree
from node.platform.database import Row, Transaction
from node.platform.telemetry import withhold
from protocol.merkle import Edge

FIRST_EPOCH = 1


@dataclass(frozen=True, slots=True)
class StreamHead:
    """A locked outbound stream: `next_index` is the index of the next record."""

    id: int
    peer: str
    epoch: int
    next_index: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One record about to be appended."""

    idx: int
    record_id: UUID
    item_id: UUID | None
    type: str
    leaf_hash: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream has been receipted; `edge` is the log's edge at that size."""

    stream: int
    epoch: int
    edge: Edge
    next_index: int


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record of the outbox, still sealed."""

    idx: int
    leaf_hash: bytes
    sealed: bytes


async def lock_streams(tx: Transaction, peers: Sequence[str]) -> dict[str, StreamHead]:
    """Lock the streams to `peers` until the transaction ends and return them, creating what is missing.

    Always in the order of the peers' names, so that two transactions cannot wait for each other.
    """
    wanted = sorted(set(peers))
    heads = await _select_heads(tx, wanted)
    missing = [peer for peer in wanted if peer not in heads]
    if missing:
        await tx.execute(
            "INSERT INTO outbound_streams (peer, epoch, next_index) SELECT peer, $2, 0 FROM unnest($1::text[]) AS peer "
            "ON CONFLICT DO NOTHING",
            missing,
            FIRST_EPOCH,
        )
        await tx.execute(
            "INSERT INTO delivery_cursors (stream, acked_size, acked_edge, outcome_size) "
            "SELECT id, 0, ''::bytea, 0 FROM outbound_streams WHERE peer = ANY($1) ON CONFLICT DO NOTHING",
            missing,
        )
        heads = await _select_heads(tx, wanted)
    return heads


async def _select_heads(tx: Transaction, peers: Sequence[str]) -> dict[str, StreamHead]:
    rows = await tx.fetch(
        "SELECT id, peer, epoch, next_index FROM outbound_streams WHERE peer = ANY($1) ORDER BY peer, epoch FOR UPDATE",
        peers,
    )
    return {row["peer"]: StreamHead(row["id"], row["peer"], row["epoch"], row["next_index"]) for row in rows}


async def append(tx: Transaction, head: StreamHead, rows: Sequence[OutboxRow], now: datetime) -> None:
    """Append `rows` to a locked stream; their indices continue `head.next_index` without a gap."""
    await tx.copy(
        "outbox",
        ("stream", "idx", "record_id", "item_id", "type", "leaf_hash", "record_enc", "created_at"),
        [(head.id, row.idx, row.record_id, row.item_id, row.type, row.leaf_hash, row.sealed, now) for row in rows],
    )
    await tx.execute("UPDATE outbound_streams SET next_index = next_index + $2 WHERE id = $1", head.id, len(rows))
    await Tree(tx, OUTBOX, head.id).grown(head.next_index, head.next_index + len(rows))


async def cursor(tx: Transaction, peer: str) -> Cursor | None:
    """Return the cursor to deliver to `peer` by: of the oldest epoch not receipted to its end, else of the newest.

    None without a stream. A later epoch is taken only after the one it names, so they go out in order.
    """
    row = await tx.row(
        f"{_CURSOR} WHERE s.peer = $1 ORDER BY s.next_index > c.acked_size DESC, "
        "CASE WHEN s.next_index > c.acked_size THEN s.epoch ELSE -s.epoch END LIMIT 1",
        peer,
    )
    return None if row is None else _cursor(row)


async def cursor_of(tx: Transaction, peer: str, epoch: int) -> Cursor | None:
    """Return how far one epoch of our stream to `peer` has been receipted, or None when it was not begun."""
    row = await tx.row(f"{_CURSOR} WHERE s.peer = $1 AND s.epoch = $2", peer, epoch)
    return None if row is None else _cursor(row)


async def newest_epoch(tx: Transaction, peer: str) -> int | None:
    """Return the epoch of our stream to `peer` that is written at present, or None without a stream."""
    epoch: int | None = await tx.value("SELECT max(epoch) FROM outbound_streams WHERE peer = $1", peer)
    return epoch


_CURSOR = (
    "SELECT s.id, s.epoch, s.next_index, c.acked_size, c.acked_edge FROM outbound_streams s "
    "JOIN delivery_cursors c ON c.stream = s.id"
)


def _cursor(row: Row) -> Cursor:
    return Cursor(row["id"], row["epoch"], Edge.from_bytes(row["acked_size"], row["acked_edge"]), row["next_index"])


async def edge_at(tx: Transaction, cursor: Cursor, size: int) -> Edge:
    """Return the edge of our own log when it had `size` leaves, at most as many as are written."""
    return await edge_near(tx, cursor.stream, cursor.edge, size)


async def edge_near(tx: Transaction, stream: int, known: Edge, size: int) -> Edge:
    """Return the edge of our own log when it had `size` leaves, at best a little behind a `known` one.

    Raises LookupError when it never had so many.
    """
    if not known.size <= size < known.size + PART:
        return await Tree(tx, OUTBOX, stream).edge(size)
    edge = known.extend(await leaf_hashes(tx, stream, size, first=known.size))
    if edge.size != size:
        raise LookupError("the stream was not written so far")
    return edge


async def set_cursor_back(tx: Transaction, stream: int, edge: Edge) -> None:
    """Let delivery go on from an earlier place; never moves a cursor forward."""
    await tx.execute(
        "UPDATE delivery_cursors SET acked_size = $2, acked_edge = $3 WHERE stream = $1 AND acked_size > $2",
        stream,
        edge.size,
        edge.to_bytes(),
    )


async def peers_with_backlog(tx: Transaction) -> list[str]:
    """Return the peers for whom records wait."""
    rows = await tx.fetch(
        "SELECT DISTINCT s.peer FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
        "WHERE s.next_index > c.acked_size ORDER BY s.peer"
    )
    return [row["peer"] for row in rows]


async def given_up(tx: Transaction, left: Collection[str]) -> list[Row]:
    """Return, by `peer` of `left`, how many `records` were written to a hotline that has left and did not receipt."""
    return await tx.fetch(
        "SELECT s.peer, sum(s.next_index - c.acked_size)::bigint AS records FROM outbound_streams s "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = ANY($1) AND s.next_index > c.acked_size "
        "GROUP BY s.peer ORDER BY s.peer",
        list(left),
    )


async def read(tx: Transaction, stream: int, first: int, records_max: int, bytes_max: int) -> list[StoredRecord]:
    """Return the records from `first` on: at most `records_max` and about `bytes_max` bytes, at least one."""
    rows = await tx.fetch(
        "SELECT idx, leaf_hash, record_enc FROM outbox WHERE stream = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        stream,
        first,
        records_max,
    )
    taken: list[StoredRecord] = []
    total = 0
    for row in rows:
        total += len(row["record_enc"])
        if taken and total > bytes_max:
            break
        taken.append(StoredRecord(row["idx"], row["leaf_hash"], row["record_enc"]))
    return taken


async def leaf_hashes(tx: Transaction, stream: int, size: int, *, first: int = 0) -> list[bytes]:
    """Return the leaf hashes of an outbound stream from `first` up to `size` (exclusive)."""
    rows = await tx.fetch(
        "SELECT leaf_hash FROM outbox WHERE stream = $1 AND idx >= $3 AND idx < $2 ORDER BY idx", stream, size, first
    )
    return [row["leaf_hash"] for row in rows]


async def store_receipt(tx: Transaction, stream: int, size: int, note: bytes, acked: Edge, now: datetime) -> None:
    """Keep a verified receipt for `size` and move the cursor to `acked`, which it covers; a repeat changes nothing.

    It takes the place of one for this size that proves nothing any more.
    """
    await tx.execute(
        "INSERT INTO receipts (stream, size, note, received_at) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT (stream, size) DO UPDATE SET note = $3, received_at = $4, worthless = false "
        "WHERE receipts.worthless",
        stream,
        size,
        note,
        now,
    )
    # Items before the cursor, as whoever notes an outcome locks them.
    await custody.receipted(tx, stream, acked.size, now)
    await tx.execute(
        "UPDATE delivery_cursors SET acked_size = $2, acked_edge = $3 WHERE stream = $1 AND acked_size < $2",
        stream,
        acked.size,
        acked.to_bytes(),
    )


async def receipt_covering(tx: Transaction, stream: int, idx: int) -> tuple[int, bytes] | None:
    """Return (size, note) of the first receipt that covers `idx` and proves something, or None."""
    row = await tx.row(
        "SELECT size, note FROM receipts WHERE stream = $1 AND size > $2 AND NOT worthless ORDER BY size LIMIT 1",
        stream,
        idx,
    )
    return None if row is None else (row["size"], row["note"])


async def receipt_at(tx: Transaction, peer: str, epoch: int, size: int) -> bytes | None:
    """Return the receipt kept for exactly this size, or None where there is none that proves something."""
    note: bytes | None = await tx.value(
        "SELECT r.note FROM receipts r JOIN outbound_streams s ON s.id = r.stream "
        "WHERE s.peer = $1 AND s.epoch = $2 AND r.size = $3 AND NOT r.worthless",
        peer,
        epoch,
        size,
    )
    return note


async def refuse(tx: Transaction, stream: int, refusals: Sequence[tuple[int, str, str]], now: datetime) -> None:
    """Note single records (`idx`, code, detail) that the peer's outcome refused, and mark the items of reports.

    A step that is refused changed nothing there, and so nothing here. A status may have been refused for its proof
    alone: it is due to be looked at (`unheard`).
    The detail is the peer's own sentence and stands here in clear: one that quotes a URL is withheld.
    """
    await tx.execute(
        "INSERT INTO outbox_refusals (stream, idx, code, detail, refused_at, again_at) "
        "SELECT $1, r.idx, r.code, r.detail, $5::timestamptz, "
        "CASE WHEN o.type = 'status' AND r.code = 'handling-violation' THEN $5::timestamptz END "
        "FROM unnest($2::bigint[], $3::text[], $4::text[]) AS r(idx, code, detail) "
        "LEFT JOIN outbox o ON o.stream = $1 AND o.idx = r.idx ON CONFLICT DO NOTHING",
        stream,
        [row[0] for row in refusals],
        [row[1] for row in refusals],
        [withhold(row[2]) for row in refusals],
        now,
    )
    await tx.execute(
        "UPDATE items SET state = 'refused', reason = r.code, updated_at = $4 "
        "FROM outbox o JOIN unnest($2::bigint[], $3::text[]) AS r(idx, code) ON r.idx = o.idx "
        # A report that was taken back meanwhile is not the one that the item stands in.
        "WHERE o.stream = $1 AND o.type = 'report' AND items.id = o.item_id AND items.state = 'sent' "
        "AND items.report_hash = o.leaf_hash",
        stream,
        [row[0] for row in refusals],
        [row[1] for row in refusals],
        now,
    )
    await custody.returned(tx, stream, [(row[0], row[1]) for row in refusals], now)


async def unread(tx: Transaction, stream: int, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Return which of these records gave an item away, of those that nothing had been told of before."""
    if not ranges:
        return []
    told = await tx.value("SELECT outcome_size FROM delivery_cursors WHERE stream = $1", stream) or 0
    found: list[int] = []
    for first, last in ranges:
        rows = await tx.fetch(
            "SELECT idx FROM outbox WHERE stream = $1 AND idx >= $2 AND idx <= $3 AND type = ANY($4) ORDER BY idx",
            stream,
            max(first, told),
            last,
            ["report", "transfer"],
        )
        found += [row["idx"] for row in rows]
    return found


async def note_outcome(tx: Transaction, stream: int, size: int) -> None:
    """Remember that the peer told the outcome of everything before `size`."""
    await tx.execute(
        "UPDATE delivery_cursors SET outcome_size = greatest(outcome_size, $2) WHERE stream = $1", stream, size
    )


async def stream_of(tx: Transaction, peer: str, epoch: int) -> StreamHead | None:
    """Return our stream to `peer` of that epoch, unlocked."""
    row = await tx.row(
        "SELECT id, peer, epoch, next_index FROM outbound_streams WHERE peer = $1 AND epoch = $2", peer, epoch
    )
    return None if row is None else StreamHead(row["id"], row["peer"], row["epoch"], row["next_index"])


async def corrections(tx: Transaction, item_id: UUID) -> list[Row]:
    """Return what we wrote to correct our report of an item (`stream`, `idx`, `record_enc`), the oldest first."""
    return await tx.fetch(
        "SELECT stream, idx, record_enc FROM outbox WHERE item_id = $1 AND type = 'correction' "
        "ORDER BY created_at, stream, idx",
        item_id,
    )


async def has_report(tx: Transaction, item_id: UUID, leaf_hash: bytes) -> bool:
    """Tell whether this very report of the item stands in a stream of ours."""
    found: bool = await tx.value(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE item_id = $1 AND type = 'report' AND leaf_hash = $2)",
        item_id,
        leaf_hash,
    )
    return found
