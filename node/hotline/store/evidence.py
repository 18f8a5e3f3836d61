"""Finds what proves a record: where it stands in a stream and the receipt that covers it. Proves nothing itself."""

from dataclasses import dataclass
from uuid import UUID

from node.hotline.store import inbound, outbound
from node.hotline.store.trees import INBOX, OUTBOX
from node.platform.database import Transaction


@dataclass(frozen=True, slots=True)
class Place:
    """A record's place: in one of our streams (OUTBOX) or one of a peer's (INBOX), still sealed."""

    table: str
    stream: int
    idx: int
    sealed: bytes


async def place_of_item(tx: Transaction, item_id: UUID) -> Place | None:
    """Return where the `report` record of an item stands, or None when it was neither sent nor received."""
    row = await tx.row(
        "SELECT stream, idx, record_enc FROM outbox WHERE item_id = $1 AND type = 'report' "
        "ORDER BY created_at DESC LIMIT 1",
        item_id,
    )
    if row is not None:
        return Place(OUTBOX, row["stream"], row["idx"], row["record_enc"])
    row = await tx.row(
        "SELECT b.stream, b.idx, b.record_enc FROM items i "
        "JOIN inbox b ON b.stream = i.received_stream AND b.idx = i.received_idx WHERE i.id = $1",
        item_id,
    )
    return None if row is None else Place(INBOX, row["stream"], row["idx"], row["record_enc"])


async def receipt_covering(tx: Transaction, place: Place) -> tuple[int, bytes] | None:
    """Return (size, receipt) of the first receipt that covers the record and proves something, or None."""
    if place.table == OUTBOX:
        return await outbound.receipt_covering(tx, place.stream, place.idx)
    held = await inbound.receipt_covering(tx, place.stream, place.idx)
    return None if held is None else (held.size, held.receipt)
