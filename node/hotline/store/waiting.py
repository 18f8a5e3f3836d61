"""Steps of peers that wait while a recovery is not complete: what they speak of may be lost here. Decides nothing."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from node.hotline.store.inbound import ApplyHead
from node.hotline.store.vault import Vault
from node.platform.database import Row, Transaction
from protocol.bodies import ReportBody
from protocol.errors import ProtocolError
from protocol.merkle import TREE_SIZE_MAX
from protocol.record import parse_record
from protocol.steps import TransferBody

#: For so long after a recovery it is waited for who was left out; some never come back.
WAITS_MAX: Final = timedelta(days=30)
#: Refused records that are opened at once.
PAGE_MAX: Final = 500


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
    """Lock the apply cursor of a stream of which records wait no longer, or return None; its turn begins at them.

    What no receipt that counts covers waits for one, as in `inbound.lock_unapplied`, and keeps no other stream waiting.
    """
    row = await tx.row(
        f"{_HEAD} AND {_COVERED} > (SELECT min(w.idx) FROM inbox_waiting w WHERE w.stream = c.stream) "  # noqa: S608
        "AND NOT EXISTS (SELECT 1 FROM stream_differences d WHERE d.kind = 'not-asked' "
        "AND d.mended_at IS NULL AND d.seen_at > $1) ORDER BY s.peer, s.epoch LIMIT 1 FOR UPDATE OF c SKIP LOCKED",
        now - WAITS_MAX,
    )
    return None if row is None else replace(_head(row), end=row["covered"])


async def lock_stream(tx: Transaction, stream: int, first: int) -> ApplyHead | None:
    """Lock the apply cursor of a stream of which records from `first` on wait, or return None where none does."""
    row = await tx.row(f"{_HEAD} AND c.stream = $1 FOR UPDATE OF c", stream)
    rows = await read(tx, stream, 1, first=first)
    return None if row is None or not rows else replace(_head(row), applied=rows[0][0])


_COVERED = "(SELECT max(b.size) FROM inbound_batches b WHERE b.stream = c.stream AND NOT b.worthless)"
_HEAD = (
    f"SELECT c.stream, s.peer, s.epoch, c.told, {_COVERED} AS covered, "  # noqa: S608 - names of ours
    "(SELECT min(w.idx) FROM inbox_waiting w WHERE w.stream = c.stream) AS first "
    "FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream "
    "WHERE EXISTS (SELECT 1 FROM inbox_waiting w WHERE w.stream = c.stream)"
)


def _head(row: Row) -> ApplyHead:
    return ApplyHead(row["stream"], row["peer"], row["epoch"], row["first"], told=row["told"])


async def streams(tx: Transaction) -> list[int]:
    """Return the streams of which records wait, an earlier epoch of a peer before a later one."""
    rows = await tx.fetch(f"{_HEAD} ORDER BY s.peer, s.epoch")
    return [row["stream"] for row in rows]


async def read(tx: Transaction, stream: int, records_max: int, *, first: int = 0) -> list[tuple[int, bytes, bytes]]:
    """Return (`idx`, leaf hash, sealed bytes) of the records of a stream that wait, from `first` on."""
    rows = await tx.fetch(
        "SELECT b.idx, b.leaf_hash, b.record_enc FROM inbox_waiting w "
        "JOIN inbox b ON b.stream = w.stream AND b.idx = w.idx WHERE w.stream = $1 AND w.idx >= $2 "
        "ORDER BY b.idx LIMIT $3",
        stream,
        first,
        records_max,
    )
    return [(row["idx"], row["leaf_hash"], row["record_enc"]) for row in rows]


async def over(tx: Transaction, stream: int, indices: Sequence[int]) -> None:
    """Note that these records wait no longer."""
    await tx.execute("DELETE FROM inbox_waiting WHERE stream = $1 AND idx = ANY($2::bigint[])", stream, indices)


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A record of a peer that was refused, as it was read; its `item` is the one it names."""

    stream: int
    idx: int
    item: UUID
    gives: bool


async def judge_again(tx: Transaction, refused: Sequence[RefusedRecord]) -> None:
    """Let records that were refused, and whose sender does not know that, wait to be judged again."""
    for stream in sorted({one.stream for one in refused}):
        rows = [(one.idx, one.item) for one in refused if one.stream == stream]
        await tx.execute(
            "DELETE FROM inbox_refusals WHERE stream = $1 AND idx = ANY($2::bigint[])", stream, [idx for idx, _ in rows]
        )
        await put(tx, stream, rows)


async def refused_with(tx: Transaction, vault: Vault, peer: str, detail: str) -> AsyncIterator[list[RefusedRecord]]:
    """Yield the records of `peer` that were refused with this sentence and can be read, a page at a time."""
    for row in await tx.fetch("SELECT id FROM inbound_streams WHERE peer = $1 ORDER BY epoch", peer):
        async for page in _refused(tx, vault, row["id"], 0, TREE_SIZE_MAX, detail):
            yield page


async def refused_within(
    tx: Transaction, vault: Vault, peer: str, epoch: int, ranges: Sequence[tuple[int, int]]
) -> AsyncIterator[list[RefusedRecord]]:
    """Yield the records of one epoch of `peer` in these ranges that were refused and can be read, a page at a time."""
    stream = await tx.value("SELECT id FROM inbound_streams WHERE peer = $1 AND epoch = $2", peer, epoch)
    if stream is None:
        return
    for first, last in ranges:
        async for page in _refused(tx, vault, stream, first, last, None):
            yield page


async def _refused(
    tx: Transaction, vault: Vault, stream: int, first: int, last: int, detail: str | None
) -> AsyncIterator[list[RefusedRecord]]:
    """A peer may have sent any number of records that are refused: they are never all in memory."""
    full = True
    while full:
        rows = await tx.fetch(
            "SELECT b.stream, b.idx, b.record_enc FROM inbox_refusals r "
            "JOIN inbox b ON b.stream = r.stream AND b.idx = r.idx WHERE r.stream = $1 AND r.idx >= $2 "
            "AND r.idx <= $3 AND ($4::text IS NULL OR r.detail = $4) ORDER BY b.idx LIMIT $5",
            stream,
            first,
            last,
            detail,
            PAGE_MAX,
        )
        full = len(rows) == PAGE_MAX
        if rows:
            first = rows[-1]["idx"] + 1
            yield _readable(vault, rows)


def _readable(vault: Vault, rows: Sequence[Row]) -> list[RefusedRecord]:
    found = []
    for row in rows:
        try:
            record = parse_record(vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"]))
        except ProtocolError:
            continue
        gives = isinstance(record.body, ReportBody | TransferBody)
        found.append(RefusedRecord(row["stream"], row["idx"], UUID(record.envelope.item), gives))
    return found


async def indices(tx: Transaction, stream: int, first: int, end: int) -> frozenset[int]:
    """Return which records of a piece of a peer's stream wait."""
    rows = await tx.fetch(
        "SELECT idx FROM inbox_waiting WHERE stream = $1 AND idx >= $2 AND idx < $3", stream, first, end
    )
    return frozenset(row["idx"] for row in rows)
