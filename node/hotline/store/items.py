"""Reads and moves items: the queue for location, verdicts, qualifications, routes, and what people ask to see."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from node.platform.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class ToLocate:
    """One item leased for location."""

    id: UUID
    url_enc: bytes
    attempts: int
    state: str
    qualified: bool


@dataclass(frozen=True, slots=True)
class Located:
    """A verdict about to be written."""

    id: UUID
    state: str
    reason: str | None
    hosting_country: str | None
    registered_country: str | None
    confidence: int
    verdict: str
    reasons: tuple[str, ...]
    evidence_enc: bytes


async def lease_for_location(tx: Transaction, now: datetime, lease_s: float, limit: int) -> list[ToLocate]:
    """Lease up to `limit` due items for `lease_s` seconds; another worker takes them when the lease runs out."""
    rows = await tx.fetch(
        "WITH due AS (SELECT item_id FROM location_queue WHERE due_at <= $1 ORDER BY due_at, item_id LIMIT $3 "
        "FOR UPDATE SKIP LOCKED), leased AS (UPDATE location_queue q SET due_at = $2 FROM due "
        "WHERE q.item_id = due.item_id RETURNING q.item_id, q.attempts) "
        "SELECT i.id, i.url_enc, l.attempts, i.state, i.qualification IS NOT NULL AS qualified "
        "FROM leased l JOIN items i ON i.id = l.item_id ORDER BY i.id",
        now,
        now + timedelta(seconds=lease_s),
        limit,
    )
    return [ToLocate(**dict(row)) for row in rows]


async def write_verdicts(tx: Transaction, rows: Sequence[Located], now: datetime) -> None:
    """Write verdicts, move the items to their new state and take them off the queue.

    An item that somebody else moved meanwhile (its state is no longer `locating`) keeps its state.
    """
    rows = sorted(rows, key=lambda row: row.id)
    await tx.execute(
        "UPDATE items SET state = r.state, reason = r.reason, hosting_country = r.country, "
        "registered_country = r.registered, confidence = r.confidence, verdict = r.verdict, "
        "verdict_reasons = string_to_array(r.reasons, ','), evidence_enc = r.evidence, located_at = $10, "
        "updated_at = $10 "
        "FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[], "
        "$8::text[], $9::bytea[]) AS r(id, state, reason, country, registered, confidence, verdict, reasons, evidence) "
        "WHERE items.id = r.id AND items.state = 'locating'",
        [row.id for row in rows],
        [row.state for row in rows],
        [row.reason for row in rows],
        [row.hosting_country for row in rows],
        [row.registered_country for row in rows],
        [row.confidence for row in rows],
        [row.verdict for row in rows],
        [",".join(row.reasons) for row in rows],
        [row.evidence_enc for row in rows],
        now,
    )
    await leave_queue(tx, [row.id for row in rows])


async def requeue(tx: Transaction, ids: Sequence[UUID], now: datetime) -> None:
    """Put items (back) into the queue for location, due now."""
    if ids:
        await tx.execute(
            "INSERT INTO location_queue (item_id, due_at, attempts) SELECT id, $2, 0 FROM unnest($1::uuid[]) AS id "
            "ON CONFLICT DO NOTHING",
            ids,
            now,
        )
        await tx.notify("locate")


async def leave_queue(tx: Transaction, ids: Sequence[UUID]) -> None:
    """Take items off the queue for location."""
    if ids:
        await tx.execute("DELETE FROM location_queue WHERE item_id = ANY($1)", ids)


async def locked_states(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Lock these items in the order of their ids and return their state, reason and qualification."""
    rows = await tx.fetch(
        "SELECT id, state, reason, qualification, received_stream IS NOT NULL AS received FROM items "
        "WHERE id = ANY($1) ORDER BY id FOR UPDATE",
        ids,
    )
    return {row["id"]: row for row in rows}


async def acted_on(tx: Transaction, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these items, locked before, have an action recorded."""
    rows = await tx.fetch("SELECT item_id FROM actions WHERE item_id = ANY($1)", ids)
    return {row["item_id"] for row in rows}


async def recall_queued(tx: Transaction, now: datetime, *, lease_s: float, base_s: float, cap_s: float) -> int:
    """Make due what is further ahead than a lease and than the longest step after its attempts; returns how many."""
    return await tx.execute(
        "UPDATE location_queue SET due_at = $1::timestamptz WHERE due_at > $1::timestamptz + make_interval(secs => $2) "
        "AND due_at > $1::timestamptz + make_interval(secs => least($4::float8, $3::float8 * power(2, attempts)))",
        now,
        lease_s,
        base_s,
        cap_s,
    )


async def postpone_location(tx: Transaction, due: Sequence[tuple[UUID, datetime]]) -> None:
    """Put items back into the queue for a later try."""
    await tx.execute(
        "UPDATE location_queue q SET due_at = r.due, attempts = q.attempts + 1 "
        "FROM unnest($1::uuid[], $2::timestamptz[]) AS r(id, due) WHERE q.item_id = r.id",
        [row[0] for row in due],
        [row[1] for row in due],
    )


_READY = (
    "SELECT i.id, i.case_id, i.kind, i.page_id, i.url_enc, i.hashes, i.hosting_country, i.registered_country, "
    "i.confidence, i.verdict_reasons, i.evidence_enc, i.qualification, c.channel, c.reference, c.wire_reference_enc, "
    "c.received_at, c.reported_at, c.referrer_enc, c.site_type, c.commerciality, c.payment_methods, "
    "ARRAY(SELECT f.node FROM relay_failures f WHERE f.item_id = i.id) AS failed "
    "FROM items i JOIN cases c ON c.id = i.case_id WHERE i.state = 'ready' ORDER BY i.id LIMIT $1 "
    "FOR UPDATE OF i SKIP LOCKED"
)


async def lock_ready(tx: Transaction, limit: int) -> list[Row]:
    """Lock up to `limit` items that may leave, with their cases; other workers get others."""
    return await tx.fetch(_READY, limit)


async def lock_undeliverable(tx: Transaction, after: UUID | None, limit: int) -> list[Row]:
    """Lock up to `limit` undeliverable items after `after`, in the order of their ids."""
    return await tx.fetch(
        "SELECT id, qualification FROM items WHERE state = 'undeliverable' AND ($1::uuid IS NULL OR id > $1) "
        "ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
        after,
        limit,
    )


async def lock_refused(tx: Transaction, reasons: Sequence[str], after: UUID | None, limit: int) -> list[Row]:
    """Lock up to `limit` refused items with one of these reasons after `after`, in the order of their ids."""
    return await tx.fetch(
        "SELECT id, case_id, state, reason, hosting_country, qualification FROM items "
        "WHERE state = 'refused' AND reason = ANY($1) AND ($2::uuid IS NULL OR id > $2) "
        "ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED",
        list(reasons),
        after,
        limit,
    )


@dataclass(frozen=True, slots=True)
class Move:
    """Where a routed item goes; `report_hash` is that of the record that tells it, where there is one."""

    id: UUID
    state: str
    reason: str | None
    assigned_country: str | None
    assigned_node: str | None
    report_hash: bytes | None = None


async def write_routes(tx: Transaction, rows: Sequence[Move], now: datetime) -> None:
    """Write the routes of items."""
    await tx.execute(
        "UPDATE items SET state = r.state, reason = r.reason, assigned_country = r.country, assigned_node = r.node, "
        "report_hash = coalesce(r.report, items.report_hash), updated_at = $7 "
        "FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[]) "
        "AS r(id, state, reason, country, node, report) WHERE items.id = r.id",
        [row.id for row in rows],
        [row.state for row in rows],
        [row.reason for row in rows],
        [row.assigned_country for row in rows],
        [row.assigned_node for row in rows],
        [row.report_hash for row in rows],
        now,
    )


async def write_qualifications(
    tx: Transaction, rows: Sequence[tuple[UUID, str, str, str | None]], now: datetime
) -> None:
    """Write (`id`, qualification JSON, state, reason); the queue for location forgets what is closed."""
    await tx.execute(
        "UPDATE items SET qualification = r.q::jsonb, state = r.state, reason = r.reason, updated_at = $5 "
        "FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS r(id, q, state, reason) WHERE items.id = r.id",
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
        now,
    )
    await tx.execute(
        "DELETE FROM location_queue WHERE item_id IN (SELECT id FROM items WHERE id = ANY($1) AND state = 'closed')",
        [row[0] for row in rows],
    )


async def item(tx: Transaction, item_id: UUID) -> Row | None:
    """Return one item with its case, or None."""
    return await tx.row(
        "SELECT i.*, c.channel, c.submitter, c.reference, c.wire_reference_enc, c.received_at, c.reported_at, "
        "c.referrer_enc, c.note_enc, c.site_type, c.commerciality, c.payment_methods, "
        "(SELECT times_seen FROM url_identities u WHERE u.url_digest = i.url_digest) AS times_seen "
        "FROM items i JOIN cases c ON c.id = i.case_id WHERE i.id = $1",
        item_id,
    )


async def page(tx: Transaction, state: str | None, after: UUID | None, limit: int) -> list[Row]:
    """Return up to `limit` items after `after` in id order, of one state or of all."""
    return await tx.fetch(
        "SELECT id, case_id, kind, state, reason, hosting_country, assigned_country, assigned_node, confidence, "
        "verdict, qualification, duplicate_of, created_at, updated_at FROM items "
        "WHERE ($1::text IS NULL OR state = $1) AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
        state,
        after,
        limit,
    )


async def find_by_digest(tx: Transaction, digest: bytes) -> UUID | None:
    """Return the first item known under this URL digest."""
    found: UUID | None = await tx.value("SELECT item_id FROM url_identities WHERE url_digest = $1", digest)
    return found


async def counts(tx: Transaction) -> list[Row]:
    """Return how many items are in each state, by reason, country and where they came from."""
    return await tx.fetch(
        "SELECT state, reason, verdict, hosting_country, assigned_node, received_stream IS NOT NULL AS received, "
        "count(*) AS items FROM items GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
    )


async def queue_depths(tx: Transaction, left: Collection[str] = ()) -> dict[str, int]:
    """Return how many items or records wait in each queue.

    `left` are the hotlines that have left the network: what was written to them does not wait, it is `given_up`.
    """
    row = await tx.row(
        "SELECT (SELECT count(*) FROM location_queue) AS locate, "
        "(SELECT count(*) FROM items WHERE state = 'ready') AS dispatch, "
        "(SELECT count(*) FROM items WHERE state = 'waiting') AS qualify, "
        "(SELECT count(*) FROM items WHERE state = 'origin-lookup') AS origin_lookup, "
        "(SELECT count(*) FROM items WHERE state = 'assigned') AS assigned, "
        "(SELECT count(*) FROM relocations) AS move, "
        "(SELECT count(*) FROM items WHERE state = 'leaving') AS leaving, "
        "(SELECT count(*) FROM items WHERE state = 'disputed') AS disputed, "
        # One that its hotline found not to be its own goes again by itself.
        "(SELECT count(*) FROM items WHERE state = 'refused' AND reason <> 'not-competent') AS refused, "
        "(SELECT count(*) FROM items WHERE state IN ('assigned', 'kept') AND hosting_country <> assigned_country) "
        "AS orphaned, "
        "(SELECT coalesce(sum(s.next_index - c.acked_size), 0)::bigint FROM outbound_streams s "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer <> ALL($1)) AS deliver, "
        "(SELECT coalesce(sum(s.next_index - c.acked_size), 0)::bigint FROM outbound_streams s "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = ANY($1)) AS given_up, "
        "(SELECT coalesce(sum(s.size - c.applied), 0)::bigint FROM inbound_streams s "
        "JOIN apply_cursors c ON c.stream = s.id) AS apply, "
        "(SELECT count(*) FROM inbox_waiting) AS unrecovered",
        list(left),
    )
    values: dict[str, Any] = dict(row or {})
    return {name: int(depth) for name, depth in values.items()}
