"""Reads and writes who has an item: chains of custody, transfers under way, and the queue of new locations.

Decides nothing; what a state means is `domain.lifecycle`'s.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from node.hotline.store.intake import Received
from node.platform.database import Row, Transaction
from protocol.steps import Custody


@dataclass(frozen=True, slots=True)
class Asked:
    """One item leased for a new location; `country` and `ip_enc` are a person's word, None where nobody gave it."""

    id: UUID
    url_enc: bytes
    country: str | None
    ip_enc: bytes | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Who has the item (`holder`) and who had it before (`trail`); `given_at` is when the last transfer was made."""

    holder: str
    trail: tuple[Custody, ...]
    given_at: datetime


async def ask(tx: Transaction, item_id: UUID, country: str | None, ip_enc: bytes | None, now: datetime) -> None:
    """Put an item into the queue of new locations; a later wish takes the place of one still waiting."""
    await tx.execute(
        "INSERT INTO relocations (item_id, country, ip_enc, asked_at, due_at, attempts) "
        "VALUES ($1, $2, $3, $4, $4, 0) ON CONFLICT (item_id) DO UPDATE "
        "SET country = $2, ip_enc = $3, asked_at = $4, due_at = $4, attempts = 0",
        item_id,
        country,
        ip_enc,
        now,
    )
    await tx.notify("move")


async def lease(tx: Transaction, now: datetime, lease_s: float, limit: int) -> list[Asked]:
    """Lease up to `limit` due items; another worker takes them when the lease runs out."""
    rows = await tx.fetch(
        "WITH due AS (SELECT item_id FROM relocations WHERE due_at <= $1 ORDER BY due_at, item_id LIMIT $3 "
        "FOR UPDATE SKIP LOCKED), leased AS (UPDATE relocations r SET due_at = $2 FROM due "
        "WHERE r.item_id = due.item_id RETURNING r.item_id, r.country, r.ip_enc, r.attempts) "
        "SELECT i.id, i.url_enc, l.country, l.ip_enc, l.attempts FROM leased l JOIN items i ON i.id = l.item_id "
        "ORDER BY i.id",
        now,
        now + timedelta(seconds=lease_s),
        limit,
    )
    return [Asked(**dict(row)) for row in rows]


async def postpone(tx: Transaction, due: Sequence[tuple[UUID, datetime]]) -> None:
    """Put items back into the queue for a later try."""
    await tx.execute(
        "UPDATE relocations q SET due_at = r.due, attempts = q.attempts + 1 "
        "FROM unnest($1::uuid[], $2::timestamptz[]) AS r(id, due) WHERE q.item_id = r.id",
        [row[0] for row in due],
        [row[1] for row in due],
    )


async def recall(tx: Transaction, now: datetime, *, lease_s: float, base_s: float, cap_s: float) -> int:
    """Make due what is further ahead than a lease and than the longest step after its attempts; returns how many."""
    return await tx.execute(
        "UPDATE relocations SET due_at = $1::timestamptz WHERE due_at > $1::timestamptz + make_interval(secs => $2) "
        "AND due_at > $1::timestamptz + make_interval(secs => least($4::float8, $3::float8 * power(2, attempts)))",
        now,
        lease_s,
        base_s,
        cap_s,
    )


async def answered(tx: Transaction, ids: Sequence[UUID]) -> None:
    """Take items off the queue of new locations."""
    await tx.execute("DELETE FROM relocations WHERE item_id = ANY($1)", ids)


async def lock(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Lock these items in the order of their ids and return them whole."""
    rows = await tx.fetch("SELECT * FROM items WHERE id = ANY($1) ORDER BY id FOR UPDATE", sorted(ids))
    return {row["id"]: row for row in rows}


async def chains(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, Chain]:
    """Return the chains of these items, as far as they changed hands."""
    rows = await tx.fetch("SELECT item_id, holder, trail, given_at FROM custody WHERE item_id = ANY($1)", ids)
    return {row["item_id"]: _chain(row) for row in rows}


async def given(
    tx: Transaction,
    item_id: UUID,
    chain: Chain,
    now: datetime,
    *,
    place: tuple[int, int] | None = None,
) -> None:
    """Write who has the item; `place` is our stream and index of a transfer that is not receipted yet."""
    stream, idx = place or (None, None)
    await tx.execute(
        "INSERT INTO custody (item_id, holder, trail, given_at, out_stream, out_idx, receipted, updated_at) "
        "VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7, $8) ON CONFLICT (item_id) DO UPDATE "
        "SET holder = $2, trail = $3::text::jsonb, given_at = $4, out_stream = $5, out_idx = $6, receipted = $7, "
        "updated_at = $8",
        item_id,
        chain.holder,
        msgspec.json.encode(chain.trail).decode(),
        chain.given_at,
        stream,
        idx,
        place is None,
        now,
    )


async def receipted(tx: Transaction, stream: int, size: int, now: datetime) -> None:
    """Let the items go whose transfer in our stream `stream` a receipt for `size` records covers."""
    await tx.execute(
        "WITH gone AS (UPDATE custody SET receipted = true, updated_at = $3 "
        "WHERE out_stream = $1 AND out_idx < $2 AND NOT receipted RETURNING item_id) "
        "UPDATE items SET state = 'transferred', updated_at = $3 FROM gone "
        "WHERE items.id = gone.item_id AND items.state = 'leaving'",
        stream,
        size,
        now,
    )


async def handed_on(tx: Transaction, stream: int, indices: Sequence[int]) -> list[Row]:
    """Return the items (`idx`, `item_id`, `created_at`) whose last way out was at these places of our stream."""
    return await tx.fetch(
        # Through the item: the places of what was receipted long ago stand in no index.
        "SELECT o.idx, o.item_id, o.created_at FROM outbox o "
        "JOIN custody c ON c.item_id = o.item_id AND c.out_stream = o.stream AND c.out_idx = o.idx "
        "WHERE o.stream = $1 AND o.idx = ANY($2::bigint[]) ORDER BY o.idx",
        stream,
        indices,
    )


async def returned(tx: Transaction, stream: int, refusals: Sequence[tuple[int, str]], now: datetime) -> None:
    """Take back the items whose transfer (`idx`, code) in our stream the peer refused; the code is their reason."""
    await tx.execute(
        "WITH back AS (UPDATE custody c SET holder = trail->-1->>'node', trail = c.trail - (-1), out_stream = NULL, "
        "out_idx = NULL, receipted = true, updated_at = $4 "
        # As in `handed_on`.
        "FROM outbox o JOIN unnest($2::bigint[], $3::text[]) AS r(idx, code) ON r.idx = o.idx "
        "WHERE o.stream = $1 AND c.item_id = o.item_id AND c.out_stream = $1 AND c.out_idx = r.idx "
        "RETURNING c.item_id, c.holder, r.code) "
        "UPDATE items SET reason = back.code, assigned_node = back.holder, updated_at = $4, "
        "state = CASE WHEN qualification->>'classification' IN ('baseline', 'national') THEN 'kept' "
        "ELSE 'assigned' END "
        "FROM back WHERE items.id = back.item_id AND items.state IN ('leaving', 'transferred')",
        stream,
        [row[0] for row in refusals],
        [row[1] for row in refusals],
        now,
    )


@dataclass(frozen=True, slots=True)
class Rehosted:
    """What a new location says of an item in custody; `state` and `reason` where it stands now."""

    id: UUID
    state: str
    reason: str | None
    country: str | None
    registered_country: str | None
    assigned_country: str | None
    assigned_node: str
    confidence: int
    verdict: str
    reasons: tuple[str, ...]
    evidence_enc: bytes


async def rehost(tx: Transaction, one: Rehosted, now: datetime) -> None:
    """Write a new location, and where the item stands with it."""
    await tx.execute(
        "UPDATE items SET state = $2, reason = $3, hosting_country = $4, registered_country = $5, "
        "assigned_country = $6, assigned_node = $7, confidence = $8, verdict = $9, verdict_reasons = $10, "
        "evidence_enc = $11, located_at = $12, updated_at = $12 WHERE id = $1",
        one.id,
        one.state,
        one.reason,
        one.country,
        one.registered_country,
        one.assigned_country,
        one.assigned_node,
        one.confidence,
        one.verdict,
        list(one.reasons),
        one.evidence_enc,
        now,
    )


@dataclass(frozen=True, slots=True)
class Returned:
    """An item that had been here and is given to us again; `state` is where it stands now."""

    id: UUID
    state: str
    own: str
    received: Received


async def take_back(tx: Transaction, one: Returned, now: datetime) -> None:
    """Write what a transfer says of an item that is here already, and that it is ours."""
    came = one.received
    await tx.execute(
        "UPDATE items SET state = $2, reason = NULL, assigned_node = $3, received_stream = $4, received_idx = $5, "
        "hosting_country = $6, registered_country = $7, assigned_country = $8, confidence = $9, verdict = 'received', "
        "verdict_reasons = $10, evidence_enc = $11, peer_qualification = $12::text::jsonb, "
        "reporter = $14, report_hash = $15, located_at = $13, updated_at = $13 WHERE id = $1",
        one.id,
        one.state,
        one.own,
        came.stream,
        came.idx,
        came.hosting_country,
        came.registered_country,
        came.assigned_country,
        came.confidence,
        list(came.reasons),
        came.evidence_enc,
        came.qualification,
        now,
        came.reporter,
        came.report_hash,
    )


async def stand(tx: Transaction, item_id: UUID, state: str, reason: str | None, now: datetime) -> None:
    """Write an item's state and reason."""
    await tx.execute(
        "UPDATE items SET state = $2, reason = $3, updated_at = $4 WHERE id = $1", item_id, state, reason, now
    )


async def unmark(tx: Transaction, item_id: UUID, mark: str, now: datetime) -> None:
    """Take away what an item is marked with, if it still is."""
    await tx.execute(
        "UPDATE items SET reason = NULL, updated_at = $3 WHERE id = $1 AND reason = $2", item_id, mark, now
    )


async def settle(tx: Transaction, item_id: UUID, state: str, reason: str, country: str, now: datetime) -> None:
    """Write that an item stays, and where it counts as hosted by the desk's word."""
    await tx.execute(
        "UPDATE items SET state = $2, reason = $3, hosting_country = $4, updated_at = $5 WHERE id = $1",
        item_id,
        state,
        reason,
        country,
        now,
    )


async def come_back(tx: Transaction, item_id: UUID, state: str, reason: str, own: str, now: datetime) -> None:
    """Write that an item is ours again, or that of `own` as we are told."""
    await tx.execute(
        "UPDATE items SET state = $2, reason = $3, assigned_node = $4, updated_at = $5 WHERE id = $1",
        item_id,
        state,
        reason,
        own,
        now,
    )


async def handed_to(tx: Transaction, item_id: UUID, node: str, country: str, now: datetime) -> None:
    """Write whose the item is now, at a node that has not got it."""
    await tx.execute(
        "UPDATE items SET assigned_node = $2, assigned_country = $3, "
        "reason = CASE WHEN reason IN ('disputed', 'relay-failure') THEN NULL ELSE reason END, updated_at = $4 "
        "WHERE id = $1",
        item_id,
        node,
        country,
        now,
    )


@dataclass(frozen=True, slots=True)
class Stale:
    """A record of ours that its peer has not receipted; `since` is when the peer was last reached, or it was made."""

    item_id: UUID
    stream: int
    idx: int
    peer: str
    type: str
    leaf_hash: bytes
    sealed: bytes
    since: datetime
    attempts: int


async def stale(
    tx: Transaction,
    peer: str,
    before: datetime | None,
    among: Sequence[str] | None,
    after: UUID | None,
    limit: int,
) -> list[Stale]:
    """Return reports and transfers without a receipt that give an item to a peer, items `after` one in order of ids.

    Those made `before`, and those of items hosted in a country of `among`; None for all. Locks the streams' cursors,
    so that no receipt is stored meanwhile, and the items.
    """
    streams = await tx.fetch(
        "SELECT c.stream FROM delivery_cursors c JOIN outbound_streams s ON s.id = c.stream "
        "WHERE s.next_index > c.acked_size AND s.peer = $1 AND ($2::timestamptz IS NULL OR EXISTS "
        "(SELECT 1 FROM outbox o WHERE o.stream = c.stream AND o.idx = c.acked_size AND o.created_at < $2)) "
        "ORDER BY c.stream",
        peer,
        before,
    )
    if not streams:
        return []
    rows = await tx.fetch(
        "SELECT o.item_id, o.stream, o.idx, s.peer, o.type, o.leaf_hash, o.record_enc AS sealed, "
        "greatest(o.created_at, p.last_reached_at) AS since, coalesce(p.failures, 0) AS attempts "
        "FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
        "JOIN outbox o ON o.stream = s.id AND o.idx >= c.acked_size JOIN items i ON i.id = o.item_id "
        "LEFT JOIN custody k ON k.item_id = i.id LEFT JOIN peers p ON p.node_id = s.peer "
        "WHERE s.id = ANY($1) AND ($2::timestamptz IS NULL OR o.created_at < $2) AND i.assigned_node = s.peer "
        "AND ($3::text[] IS NULL OR i.hosting_country = ANY($3)) AND ($5::uuid IS NULL OR o.item_id > $5) "
        # What was receipted once has arrived, though that receipt may prove nothing any more.
        "AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.stream = o.stream AND r.size > o.idx) "
        "AND ((o.type = 'report' AND i.state = 'sent' AND i.received_stream IS NULL) "
        "OR (o.type = 'transfer' AND i.state = 'leaving' AND k.out_stream = o.stream AND k.out_idx = o.idx)) "
        "ORDER BY o.item_id LIMIT $4 FOR UPDATE OF i, c",
        [row["stream"] for row in streams],
        before,
        None if among is None else list(among),
        limit,
        after,
    )
    return [Stale(**dict(row)) for row in rows]


async def relay_failed(tx: Transaction, one: Stale, code: str, now: datetime) -> None:
    """Keep the negative evidence of a record that was not receipted."""
    await tx.execute(
        "INSERT INTO relay_failures (item_id, node, type, record_hash, code, since, attempts, failed_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        one.item_id,
        one.peer,
        one.type,
        one.leaf_hash,
        code,
        one.since,
        one.attempts,
        now,
    )


async def failed_at(tx: Transaction, item_id: UUID) -> frozenset[str]:
    """Return the nodes that did not receipt an item of ours in time."""
    rows = await tx.fetch("SELECT node FROM relay_failures WHERE item_id = $1", item_id)
    return frozenset(row["node"] for row in rows)


async def took_back(tx: Transaction, item_id: UUID, giver: str, taker: str, at: datetime) -> None:
    """Keep that a hotline says that what it had given to another is its own again, at `at` by its clock."""
    await tx.execute(
        "INSERT INTO taken_back (item_id, giver, taker, at) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT (item_id, giver, taker) DO UPDATE SET at = greatest(taken_back.at, $4)",
        item_id,
        giver,
        taker,
        at,
    )


async def taken_back(
    tx: Transaction, item_id: UUID, own: str, nodes: Collection[str]
) -> dict[tuple[str, str], datetime]:
    """Return, by giver and taker, when an item was last taken back, as we are told and as we did ourselves (`own`).

    Both of `nodes` alone: who had it once may have named any number of others.
    """
    rows = await tx.fetch(
        "SELECT giver, taker, at FROM taken_back WHERE item_id = $1 AND giver = ANY($2) AND taker = ANY($2)",
        item_id,
        list(nodes),
    )
    ours = await tx.fetch("SELECT node, failed_at FROM relay_failures WHERE item_id = $1", item_id)
    found = {(row["giver"], row["taker"]): row["at"] for row in rows}
    return found | {(own, row["node"]): row["failed_at"] for row in ours}


async def refusals(tx: Transaction, item_id: UUID, node: str, type_: str) -> tuple[int, datetime | None]:
    """Return how often a node refused a record of this type that gave it the item, and when it did last."""
    row = await tx.row(
        "SELECT count(*) AS refusals, max(r.refused_at) AS last FROM outbox o "
        "JOIN outbound_streams s ON s.id = o.stream JOIN outbox_refusals r ON r.stream = o.stream AND r.idx = o.idx "
        "WHERE o.item_id = $1 AND o.type = $3 AND s.peer = $2",
        item_id,
        node,
        type_,
    )
    return (0, None) if row is None else (row["refusals"], row["last"])


async def orphans(
    tx: Transaction, own: Sequence[str], among: Sequence[str] | None, after: UUID | None, limit: int
) -> list[Row]:
    """Lock up to `limit` open items of ours that are hosted in a country of nobody's here, in the order of ids.

    `among` are the countries that are asked about; None asks about all.
    """
    return await tx.fetch(
        "SELECT * FROM items WHERE state IN ('assigned', 'kept') AND hosting_country IS NOT NULL "
        "AND hosting_country <> ALL($1) AND ($2::uuid IS NULL OR id > $2) "
        "AND ($4::text[] IS NULL OR hosting_country = ANY($4)) ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED",
        list(own),
        after,
        limit,
        None if among is None else list(among),
    )


def _chain(row: Row) -> Chain:
    trail = msgspec.convert(row["trail"], tuple[Custody, ...])
    return Chain(row["holder"], trail, row["given_at"])
