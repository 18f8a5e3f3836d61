"""Which keys the receipts at hand were last judged by, and which receipts prove nothing any more. Decides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from node.hotline.domain.comparison import Direction
from node.hotline.domain.windows import NONE
from node.hotline.store import outbound
from node.platform.database import Transaction
from protocol.merkle import Edge


@dataclass(frozen=True, slots=True, repr=False)
class Receipt:
    """A receipt at hand: of our stream (OUT) or given for a peer's (IN), as it is stored."""

    stream: int
    size: int
    note: bytes


async def lock(tx: Transaction, peer: str, direction: Direction) -> str:
    """Return the windows that the receipts of one direction were judged by, locked until the transaction ends."""
    query = "SELECT windows FROM judged_keys WHERE peer = $1 AND direction = $2 FOR UPDATE"
    row = await tx.row(query, peer, direction.value)
    if row is None:
        await tx.execute(
            "INSERT INTO judged_keys (peer, direction, windows) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            peer,
            direction.value,
            NONE,
        )
        row = await tx.row(query, peer, direction.value)
    if row is None:
        raise LookupError("a row that was just made is there")
    return str(row["windows"])


async def keep(tx: Transaction, peer: str, direction: Direction, windows: str) -> None:
    """Remember by what the receipts of one direction are judged now; the row is locked."""
    await tx.execute(
        "UPDATE judged_keys SET windows = $3 WHERE peer = $1 AND direction = $2", peer, direction.value, windows
    )


async def peers(tx: Transaction) -> list[str]:
    """Return every peer with which there is a stream."""
    written = await tx.fetch("SELECT DISTINCT peer FROM outbound_streams")
    held = await tx.fetch("SELECT DISTINCT peer FROM inbound_streams")
    return sorted({row["peer"] for row in (*written, *held)})


_READ = {
    Direction.OUT: (
        "SELECT r.stream, r.size, r.note FROM receipts r JOIN outbound_streams s ON s.id = r.stream "
        "WHERE s.peer = $1 AND r.received_at >= $2 AND NOT r.worthless "
        "AND (r.stream > $3 OR (r.stream = $3 AND r.size > $4)) ORDER BY r.stream, r.size LIMIT $5"
    ),
    Direction.IN: (
        "SELECT b.stream, b.size, b.receipt AS note FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream "
        "WHERE s.peer = $1 AND b.received_at >= $2 AND NOT b.worthless "
        "AND (b.stream > $3 OR (b.stream = $3 AND b.size > $4)) ORDER BY b.stream, b.size LIMIT $5"
    ),
}


async def read(
    tx: Transaction, peer: str, direction: Direction, since: datetime, after: tuple[int, int], receipts_max: int
) -> list[Receipt]:
    """Return receipts that count and came since then, in the order of (stream, size), from behind `after` on."""
    rows = await tx.fetch(_READ[direction], peer, since, *after, receipts_max)
    return [Receipt(row["stream"], row["size"], row["note"]) for row in rows]


async def mark(tx: Transaction, direction: Direction, worthless: Sequence[Receipt]) -> None:
    """Mark receipts as proving nothing; their rows stay."""
    query = {
        Direction.OUT: "UPDATE receipts SET worthless = true WHERE stream = $1 AND size = ANY($2)",
        Direction.IN: "UPDATE inbound_batches SET worthless = true WHERE stream = $1 AND size = ANY($2)",
    }[direction]
    for stream in sorted({one.stream for one in worthless}):
        await tx.execute(query, stream, [one.size for one in worthless if one.stream == stream])


async def uncovered(tx: Transaction) -> list[int]:
    """Return our streams whose cursor stands behind a receipt that proves nothing any more, and none that counts."""
    rows = await tx.fetch(
        "SELECT DISTINCT c.stream FROM delivery_cursors c JOIN receipts r ON r.stream = c.stream "
        "WHERE r.worthless AND r.size <= c.acked_size AND NOT EXISTS ("
        "SELECT 1 FROM receipts o WHERE o.stream = c.stream AND NOT o.worthless AND o.size >= r.size)"
    )
    return sorted(row["stream"] for row in rows)


async def send_again(tx: Transaction, stream: int) -> None:
    """Let our stream be delivered from the end of the last receipt that counts; never moves a cursor forward."""
    size = await tx.value("SELECT max(size) FROM receipts WHERE stream = $1 AND NOT worthless", stream)
    edge = await outbound.edge_near(tx, stream, Edge.EMPTY, int(size or 0))
    await outbound.set_cursor_back(tx, stream, edge)
    await tx.notify("deliver")


async def fetch_again(tx: Transaction, stream: int) -> None:
    """Let a stream that we fetch be fetched from there, and the receipts from there on be brought."""
    size = await tx.value("SELECT max(size) FROM inbound_batches WHERE stream = $1 AND NOT worthless", stream)
    await tx.execute(
        "UPDATE pull_cursors SET receipted = $2 WHERE stream = $1 AND receipted > $2", stream, int(size or 0)
    )
    await tx.notify("pull")
