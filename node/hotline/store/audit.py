"""Reads streams piece by piece for an audit: heads, records still sealed, receipts, what records became. Only reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from node.hotline.domain.fates import Became, Written
from node.hotline.domain.ledger import Batch, HeldHead, SentHead
from node.platform.database import Transaction


@dataclass(frozen=True, slots=True)
class Outbound:
    """One of our streams."""

    id: int
    peer: str
    epoch: int
    head: SentHead


@dataclass(frozen=True, slots=True)
class Inbound:
    """One of a peer's streams."""

    id: int
    peer: str
    epoch: int
    head: HeldHead


async def outbound(tx: Transaction) -> list[Outbound]:
    """Return our streams with their cursors."""
    rows = await tx.fetch(
        "SELECT s.id, s.peer, s.epoch, s.next_index, c.acked_size, c.acked_edge, c.outcome_size "
        "FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id ORDER BY s.peer, s.epoch"
    )
    return [
        Outbound(
            row["id"],
            row["peer"],
            row["epoch"],
            SentHead(row["next_index"], row["acked_size"], row["acked_edge"], row["outcome_size"]),
        )
        for row in rows
    ]


async def inbound(tx: Transaction) -> list[Inbound]:
    """Return the peers' streams with our cursors."""
    rows = await tx.fetch(
        "SELECT s.id, s.peer, s.epoch, s.size, s.edge, c.applied FROM inbound_streams s "
        "JOIN apply_cursors c ON c.stream = s.id ORDER BY s.peer, s.epoch"
    )
    return [
        Inbound(row["id"], row["peer"], row["epoch"], HeldHead(row["size"], row["edge"], row["applied"]))
        for row in rows
    ]


@dataclass(frozen=True, slots=True, repr=False)
class Stored:
    """A record of either table, still sealed."""

    idx: int
    leaf: bytes
    sealed: bytes


async def sent_records(tx: Transaction, stream: int, first: int, end: int) -> tuple[list[Stored], dict[int, Written]]:
    """Return the records of a piece of one of our streams, and what stands beside them."""
    rows = await tx.fetch(
        "SELECT idx, leaf_hash, record_enc, record_id, item_id FROM outbox "
        "WHERE stream = $1 AND idx >= $2 AND idx < $3 ORDER BY idx",
        stream,
        first,
        end,
    )
    records = [Stored(row["idx"], row["leaf_hash"], row["record_enc"]) for row in rows]
    return records, {row["idx"]: Written(row["record_id"], row["item_id"]) for row in rows}


async def held_records(tx: Transaction, stream: int, first: int, end: int) -> list[Stored]:
    """Return the records of a piece of a peer's stream."""
    rows = await tx.fetch(
        "SELECT idx, leaf_hash, record_enc FROM inbox WHERE stream = $1 AND idx >= $2 AND idx < $3 ORDER BY idx",
        stream,
        first,
        end,
    )
    return [Stored(row["idx"], row["leaf_hash"], row["record_enc"]) for row in rows]


async def stray_records(tx: Transaction, table: str, stream: int, size: int) -> list[int]:
    """Return the first indices of records that stand outside of their stream."""
    query = {
        "outbox": "SELECT idx FROM outbox WHERE stream = $1 AND (idx < 0 OR idx >= $2) ORDER BY idx LIMIT 100",
        "inbox": "SELECT idx FROM inbox WHERE stream = $1 AND (idx < 0 OR idx >= $2) ORDER BY idx LIMIT 100",
    }[table]
    return [row["idx"] for row in await tx.fetch(query, stream, size)]


async def receipts(tx: Transaction, stream: int, above: int, to: int) -> dict[int, bytes]:
    """Return the receipts of one of our streams that count, for sizes above `above` and not above `to`."""
    rows = await tx.fetch(
        "SELECT size, note FROM receipts WHERE stream = $1 AND size > $2 AND size <= $3 AND NOT worthless",
        stream,
        above,
        to,
    )
    return {row["size"]: row["note"] for row in rows}


async def receipt_sizes(tx: Transaction, stream: int) -> list[int]:
    """Return the sizes that we have receipts for which count."""
    rows = await tx.fetch("SELECT size FROM receipts WHERE stream = $1 AND NOT worthless ORDER BY size", stream)
    return [row["size"] for row in rows]


async def receipts_of(tx: Transaction, stream: int, sizes: Sequence[int]) -> dict[int, bytes]:
    """Return our receipts for exactly these sizes."""
    rows = await tx.fetch("SELECT size, note FROM receipts WHERE stream = $1 AND size = ANY($2)", stream, sizes)
    return {row["size"]: row["note"] for row in rows}


async def batches(tx: Transaction, stream: int, above: int, to: int) -> list[Batch]:
    """Return the batches of a peer's stream that end above `above` and not above `to`."""
    rows = await tx.fetch(
        "SELECT first, size, edge_before, receipt, worthless FROM inbound_batches "
        "WHERE stream = $1 AND size > $2 AND size <= $3 ORDER BY size",
        stream,
        above,
        to,
    )
    return [Batch(row["first"], row["size"], row["edge_before"], row["receipt"], row["worthless"]) for row in rows]


async def refused_by_peer(tx: Transaction, stream: int) -> dict[int, str]:
    """Return the codes of the refusals that we noted of one of our streams, by index."""
    rows = await tx.fetch("SELECT idx, code FROM outbox_refusals WHERE stream = $1", stream)
    return {row["idx"]: row["code"] for row in rows}


async def refused_by_us(tx: Transaction, stream: int, first: int, end: int) -> dict[int, str]:
    """Return the codes of our refusals in a piece of a peer's stream, by index."""
    rows = await tx.fetch(
        "SELECT idx, code FROM inbox_refusals WHERE stream = $1 AND idx >= $2 AND idx < $3", stream, first, end
    )
    return {row["idx"]: row["code"] for row in rows}


async def became(
    tx: Transaction, stream: int, piece: range, named: Mapping[int, UUID], refused: Mapping[int, str]
) -> dict[int, Became]:
    """Return what the records of a piece became, by index: `named` are the items they name, `refused` our refusals.

    An item that came again since, as one that moved away and back does, says so of its newest record only.
    """
    rows = await tx.fetch(
        "SELECT id, received_stream, received_idx FROM items WHERE id = ANY($1) AND received_stream IS NOT NULL",
        list(named.values()),
    )
    made: dict[int, list[UUID]] = {}
    for row in rows:
        if row["received_stream"] == stream and row["received_idx"] in piece:
            made.setdefault(row["received_idx"], []).append(row["id"])
    here = {row["id"] for row in rows}
    moved = {idx for idx, item in named.items() if item in here and item not in made.get(idx, ())}
    return {
        idx: Became(tuple(made.get(idx, ())), refused.get(idx), moved=idx in moved)
        for idx in made.keys() | refused.keys() | moved
    }


async def items_known(tx: Transaction, items: Sequence[UUID]) -> frozenset[UUID]:
    """Return which of these items there are."""
    return frozenset(row["id"] for row in await tx.fetch("SELECT id FROM items WHERE id = ANY($1)", items))


async def stray_items(tx: Transaction, stream: int) -> list[UUID]:
    """Return the first items that name a record of this stream which is not there, or not theirs alone."""
    rows = await tx.fetch(
        "SELECT i.id FROM items i WHERE i.received_stream = $1 AND (NOT EXISTS ("
        "SELECT 1 FROM inbox b WHERE b.stream = i.received_stream AND b.idx = i.received_idx) "
        "OR i.received_idx IN (SELECT received_idx FROM items WHERE received_stream = $1 "
        "GROUP BY received_idx HAVING count(*) > 1)) ORDER BY i.id LIMIT 100",
        stream,
    )
    return [row["id"] for row in rows]


async def unsent_items(tx: Transaction) -> list[UUID]:
    """Return the first items that are marked as sent or refused by a peer and of which no record was written."""
    rows = await tx.fetch(
        "SELECT i.id FROM items i WHERE i.state IN ('sent', 'refused') AND NOT EXISTS "
        "(SELECT 1 FROM outbox o WHERE o.item_id = i.id) ORDER BY i.id LIMIT 100"
    )
    return [row["id"] for row in rows]
