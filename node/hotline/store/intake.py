"""Writes what comes in: cases, items, their URL identities and the queue for location. Decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from node.platform.database import Row, Transaction


class CaseRow(msgspec.Struct, frozen=True):
    """One report about to be written, its texts sealed."""

    id: UUID
    submitter: str
    reference: str | None
    content_digest: bytes
    channel: str
    received_at: datetime
    reported_at: datetime | None
    referrer_enc: bytes | None
    note_enc: bytes | None
    reporter_enc: bytes | None
    site_type: str | None
    commerciality: str | None
    payment_methods: tuple[str, ...]
    wire_reference_enc: bytes | None = None


class ItemRow(msgspec.Struct, frozen=True):
    """One content item about to be written; JSON members are already encoded."""

    id: UUID
    case_id: UUID
    kind: str
    page_id: UUID | None
    url_enc: bytes
    normal_enc: bytes | None
    url_digest: bytes
    hashes: str | None
    duplicate_of: UUID | None
    state: str
    reason: str | None
    qualification: str | None
    received: "Received | None" = None


@dataclass(frozen=True, slots=True)
class Received:
    """Where an item came from when a peer sent it, with what the peer said of its hosting.

    `reporter` is the hotline that reported it first, `report_hash` the record hash of that report.
    """

    stream: int
    idx: int
    reporter: str
    report_hash: bytes
    hosting_country: str | None
    registered_country: str | None
    assigned_country: str
    confidence: int
    reasons: tuple[str, ...]
    evidence_enc: bytes
    qualification: str | None


async def insert_cases(tx: Transaction, rows: Sequence[CaseRow], now: datetime) -> set[UUID]:
    """Insert the cases whose (submitter, reference) is new; return the ids of those.

    Rows go in in the order of their references, so that two batches with the same ones cannot deadlock.
    """
    rows = sorted(rows, key=lambda row: (row.submitter, row.reference or ""))
    fresh = await tx.fetch(
        "INSERT INTO cases (id, submitter, reference, content_digest, channel, received_at, reported_at, referrer_enc, "
        "note_enc, reporter_enc, site_type, commerciality, payment_methods, created_at) "
        "SELECT id, submitter, reference, digest, channel, received_at, reported_at, referrer, note, reporter, site, "
        "commerciality, string_to_array(payments, ','), $14 "
        "FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::timestamptz[], "
        "$7::timestamptz[], $8::bytea[], $9::bytea[], $10::bytea[], $11::text[], $12::text[], $13::text[]) "
        "AS r(id, submitter, reference, digest, channel, received_at, reported_at, referrer, note, reporter, site, "
        "commerciality, payments) ON CONFLICT (submitter, reference) DO NOTHING RETURNING id",
        [row.id for row in rows],
        [row.submitter for row in rows],
        [row.reference for row in rows],
        [row.content_digest for row in rows],
        [row.channel for row in rows],
        [row.received_at for row in rows],
        [row.reported_at for row in rows],
        [row.referrer_enc for row in rows],
        [row.note_enc for row in rows],
        [row.reporter_enc for row in rows],
        [row.site_type for row in rows],
        [row.commerciality for row in rows],
        [",".join(row.payment_methods) for row in rows],
        now,
    )
    return {row["id"] for row in fresh}


async def cases_by_reference(
    tx: Transaction, submitter: str, references: Sequence[str]
) -> dict[str, tuple[UUID, bytes]]:
    """Return (case id, content digest) of the submitter's earlier reports under these references."""
    rows = await tx.fetch(
        "SELECT reference, id, content_digest FROM cases WHERE submitter = $1 AND reference = ANY($2)",
        submitter,
        references,
    )
    return {row["reference"]: (row["id"], row["content_digest"]) for row in rows}


async def items_of_cases(tx: Transaction, case_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """Return (id, state, duplicate_of) of the items of each case, the page first."""
    found: dict[UUID, list[Row]] = {}
    rows = await tx.fetch(
        "SELECT id, case_id, state, duplicate_of FROM items WHERE case_id = ANY($1) "
        "ORDER BY case_id, page_id NULLS FIRST, id",
        case_ids,
    )
    for row in rows:
        found.setdefault(row["case_id"], []).append(row)
    return found


async def claim_identities(tx: Transaction, first_items: Mapping[bytes, tuple[UUID, int]]) -> dict[bytes, UUID]:
    """Return the item that counts for each URL digest: the one given when the URL is new or what was known ended.

    `first_items` maps a digest to (item to become the first, how often it is seen in this batch).
    Digests go in in their order, so that two batches with the same URLs cannot deadlock.
    """
    digests = sorted(first_items)
    rows = await tx.fetch(
        "INSERT INTO url_identities (url_digest, item_id, times_seen) "
        "SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::int[]) "
        "ON CONFLICT (url_digest) DO UPDATE SET times_seen = url_identities.times_seen + excluded.times_seen "
        "RETURNING url_digest, item_id",
        digests,
        [first_items[digest][0] for digest in digests],
        [first_items[digest][1] for digest in digests],
    )
    known = {row["url_digest"]: row["item_id"] for row in rows}
    again = [digest for digest in digests if known[digest] != first_items[digest][0]]
    if again:
        # What ended is not taken up again: a report that comes later is the first of its own.
        taken_over = await tx.fetch(
            "UPDATE url_identities u SET item_id = r.id FROM unnest($1::bytea[], $2::uuid[]) AS r(digest, id), items i "
            "WHERE u.url_digest = r.digest AND i.id = u.item_id AND i.state IN ('done', 'withdrawn') "
            "RETURNING u.url_digest, u.item_id",
            again,
            [first_items[digest][0] for digest in again],
        )
        known |= {row["url_digest"]: row["item_id"] for row in taken_over}
    return known


_ITEM_COLUMNS = (
    "id",
    "case_id",
    "kind",
    "page_id",
    "url_enc",
    "normal_enc",
    "url_digest",
    "hashes",
    "duplicate_of",
    "received_stream",
    "received_idx",
    "state",
    "reason",
    "hosting_country",
    "registered_country",
    "assigned_country",
    "confidence",
    "verdict",
    "verdict_reasons",
    "evidence_enc",
    "located_at",
    "qualification",
    "peer_qualification",
    "reporter",
    "report_hash",
    "created_at",
    "updated_at",
)


def _item_values(row: ItemRow, now: datetime) -> tuple[object, ...]:
    head = (
        row.id,
        row.case_id,
        row.kind,
        row.page_id,
        row.url_enc,
        row.normal_enc,
        row.url_digest,
        row.hashes,
        row.duplicate_of,
    )
    came = row.received
    if came is None:
        return (*head, None, None, row.state, row.reason, *(None,) * 8, row.qualification, *(None,) * 3, now, now)
    located = (
        came.hosting_country,
        came.registered_country,
        came.assigned_country,
        came.confidence,
        "received",
        came.reasons,
        came.evidence_enc,
        now,
    )
    return (
        *head,
        came.stream,
        came.idx,
        row.state,
        row.reason,
        *located,
        row.qualification,
        came.qualification,
        came.reporter,
        came.report_hash,
        now,
        now,
    )


async def copy_items(tx: Transaction, rows: Sequence[ItemRow], now: datetime) -> None:
    """Append items, and put those in state `locating` into the queue for location."""
    await tx.copy("items", _ITEM_COLUMNS, [_item_values(row, now) for row in rows])
    queued = [(row.id, now, 0) for row in rows if row.state == "locating"]
    if queued:
        await tx.copy("location_queue", ("item_id", "due_at", "attempts"), queued)
        await tx.notify("locate")


async def known_items(tx: Transaction, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these item ids exist already."""
    rows = await tx.fetch("SELECT id FROM items WHERE id = ANY($1)", ids)
    return {row["id"] for row in rows}


async def submitters(tx: Transaction, case_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return who submitted each of these cases, as far as they exist."""
    rows = await tx.fetch("SELECT id, submitter FROM cases WHERE id = ANY($1)", case_ids)
    return {row["id"]: row["submitter"] for row in rows}


async def copy_cases(tx: Transaction, rows: Sequence[CaseRow], now: datetime) -> None:
    """Insert cases received from a peer; one that exists already (another item of the same case) stays as it is."""
    await tx.execute(
        "INSERT INTO cases (id, submitter, channel, received_at, reported_at, referrer_enc, site_type, commerciality, "
        "payment_methods, wire_reference_enc, created_at) "
        "SELECT id, submitter, channel, received_at, reported_at, referrer, site, commerciality, "
        "string_to_array(payments, ','), reference, $11 "
        "FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::bytea[], "
        "$7::text[], $8::text[], $9::text[], $10::bytea[]) AS r(id, submitter, channel, received_at, reported_at, "
        "referrer, site, commerciality, payments, reference) ON CONFLICT DO NOTHING",
        [row.id for row in rows],
        [row.submitter for row in rows],
        [row.channel for row in rows],
        [row.received_at for row in rows],
        [row.reported_at for row in rows],
        [row.referrer_enc for row in rows],
        [row.site_type for row in rows],
        [row.commerciality for row in rows],
        [",".join(row.payment_methods) for row in rows],
        [row.wire_reference_enc for row in rows],
        now,
    )
