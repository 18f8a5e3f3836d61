"""Reads and writes what peers refused to believe and may be told again. Decides nothing, and opens no record."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.store.evidence import Place
from node.hotline.store.trees import INBOX
from node.platform.database import Transaction


@dataclass(frozen=True, slots=True)
class Unheard:
    """A status of ours that its peer refused, and that is to be looked at."""

    stream: int
    idx: int
    item_id: UUID
    peer: str


@dataclass(frozen=True, slots=True)
class Said:
    """A record of ours about an item, still sealed; `code` and `refused_at` are those of its refusal, if any."""

    stream: int
    idx: int
    sealed: bytes
    code: str | None
    refused_at: datetime | None


async def due(tx: Transaction, now: datetime, limit: int) -> list[Unheard]:
    """Lock up to `limit` refused statuses whose time has come, those that wait for the longest first."""
    rows = await tx.fetch(
        "SELECT r.stream, r.idx, o.item_id, s.peer FROM outbox_refusals r "
        "JOIN outbox o ON o.stream = r.stream AND o.idx = r.idx JOIN outbound_streams s ON s.id = r.stream "
        "WHERE r.again_at <= $1 AND o.item_id IS NOT NULL "
        "ORDER BY r.again_at, r.stream, r.idx LIMIT $2 FOR UPDATE OF r SKIP LOCKED",
        now,
        limit,
    )
    return [Unheard(**dict(row)) for row in rows]


async def look_at(tx: Transaction, one: Unheard, at: datetime | None) -> None:
    """Write when it is looked at once more; None for never."""
    await tx.execute("UPDATE outbox_refusals SET again_at = $3 WHERE stream = $1 AND idx = $2", one.stream, one.idx, at)


async def said(tx: Transaction, item_id: UUID, peer: str, types: Collection[str]) -> list[Said]:
    """Return our records of these types to a peer about an item, in the order in which they were written."""
    rows = await tx.fetch(
        "SELECT o.stream, o.idx, o.record_enc AS sealed, r.code, r.refused_at FROM outbox o "
        "JOIN outbound_streams s ON s.id = o.stream "
        "LEFT JOIN outbox_refusals r ON r.stream = o.stream AND r.idx = o.idx "
        "WHERE o.item_id = $1 AND s.peer = $2 AND o.type = ANY($3) ORDER BY s.epoch, o.idx",
        item_id,
        peer,
        list(types),
    )
    return [Said(**dict(row)) for row in rows]


async def came_by(tx: Transaction, item_id: UUID) -> tuple[Place, bytes] | None:
    """Return the place of the record with which an item came to us last, and its leaf hash; None of an own report."""
    row = await tx.row(
        "SELECT b.stream, b.idx, b.leaf_hash, b.record_enc FROM items i "
        "JOIN inbox b ON b.stream = i.received_stream AND b.idx = i.received_idx WHERE i.id = $1",
        item_id,
    )
    return None if row is None else (Place(INBOX, row["stream"], row["idx"], row["record_enc"]), row["leaf_hash"])
