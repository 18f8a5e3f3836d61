"""Steps of peers that wait while a recovery is not complete: what they speak of may be lost here. Decides nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from node.hotline.store.inbound import ApplyHead
from node.platform.database import Transaction

#: For so long after a recovery it is waited for who was left out; some never come back.
WAITS_MAX: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a member is left out that may know more than we do, and the items of which a peer's steps wait."""

    left_out: bool = False
    items: frozenset[UUID] = frozenset()


async def standing(tx: Transaction, peer: str, items: Collection[UUID], now: datetime) -> Standing:
    """Return what makes steps of `peer` about these items wait."""
    row = await tx.row(
        "SELECT EXISTS (SELECT 1 FROM stream_differences d WHERE d.kind = 'not-asked' AND d.mended_at IS NULL "
        "AND d.seen_at > $1) AS left_out, EXISTS (SELECT 1 FROM inbox_waiting) AS some",
        now - WAITS_MAX,
    )
    if row is None or not row["some"]:
        return Standing(bool(row and row["left_out"]))
    rows = await tx.fetch(
        "SELECT w.item_id FROM inbox_waiting w JOIN inbound_streams s ON s.id = w.stream "
        "WHERE s.peer = $1 AND w.item_id = ANY($2)",
        peer,
        list(items),
    )
    return Standing(row["left_out"], frozenset(one["item_id"] for one in rows))


async def put(tx: Transaction, stream: int, rows: Sequence[tuple[int, UUID]]) -> None:
    """Let records (`idx`, item) of a peer's stream wait."""
    await tx.copy("inbox_waiting", ("stream", "idx", "item_id"), [(stream, idx, item) for idx, item in rows])


async def lock_due(tx: Transaction, now: datetime) -> ApplyHead | None:
    """Lock the apply cursor of a stream of which records wait no longer, or return None; its turn begins at them."""
    row = await tx.row(
        "SELECT c.stream, s.peer, s.epoch, c.told, (SELECT min(w.idx) FROM inbox_waiting w WHERE w.stream = c.stream) "
        "AS first FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream "
        "WHERE EXISTS (SELECT 1 FROM inbox_waiting w WHERE w.stream = c.stream) "
        "AND NOT EXISTS (SELECT 1 FROM stream_differences d WHERE d.kind = 'not-asked' AND d.mended_at IS NULL "
        "AND d.seen_at > $1) ORDER BY s.peer, s.epoch LIMIT 1 FOR UPDATE OF c SKIP LOCKED",
        now - WAITS_MAX,
    )
    if row is None:
        return None
    return ApplyHead(row["stream"], row["peer"], row["epoch"], row["first"], told=row["told"])


async def read(tx: Transaction, stream: int, records_max: int) -> list[tuple[int, bytes, bytes]]:
    """Return (`idx`, leaf hash, sealed bytes) of the records of a stream that wait, the oldest first."""
    rows = await tx.fetch(
        "SELECT b.idx, b.leaf_hash, b.record_enc FROM inbox_waiting w "
        "JOIN inbox b ON b.stream = w.stream AND b.idx = w.idx WHERE w.stream = $1 ORDER BY b.idx LIMIT $2",
        stream,
        records_max,
    )
    return [(row["idx"], row["leaf_hash"], row["record_enc"]) for row in rows]


async def over(tx: Transaction, stream: int, indices: Sequence[int]) -> None:
    """Note that these records wait no longer."""
    await tx.execute("DELETE FROM inbox_waiting WHERE stream = $1 AND idx = ANY($2::bigint[])", stream, indices)


async def indices(tx: Transaction, stream: int, first: int, end: int) -> frozenset[int]:
    """Return which records of a piece of a peer's stream wait."""
    rows = await tx.fetch(
        "SELECT idx FROM inbox_waiting WHERE stream = $1 AND idx >= $2 AND idx < $3", stream, first, end
    )
    return frozenset(row["idx"] for row in rows)
