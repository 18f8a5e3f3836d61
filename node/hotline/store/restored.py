"""Writes back what a restored database had lost, and begins the epochs that follow. Decides nothing."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.lifecycle import UNSENT
from node.hotline.store import items, outbound
from node.hotline.store.evidence import Place
from node.hotline.store.outbound import Cursor, OutboxRow, StreamHead
from node.hotline.store.trees import OUTBOX, Tree
from node.platform.database import Transaction
from node.platform.telemetry import withhold
from protocol.bodies import Hosting


@dataclass(frozen=True, slots=True)
class TailRow:
    """A record written after the restore, set aside for the new epoch; sealed by the place it had."""

    idx: int
    record_id: UUID
    item_id: UUID | None
    type: str
    leaf_hash: bytes
    sealed: bytes
    stream: int


@dataclass(frozen=True, slots=True)
class SentItem:
    """An item and its case as a `report` record of ours tells them."""

    id: UUID
    case_id: UUID
    kind: str
    page_id: UUID | None
    url_enc: bytes
    normal_enc: bytes | None
    url_digest: bytes
    hashes: Sequence[Mapping[str, str]]
    channel: str
    received_at: datetime
    reported_at: datetime | None
    referrer_enc: bytes | None
    wire_reference_enc: bytes | None
    site_type: str | None
    commerciality: str | None
    payment_methods: tuple[str, ...]
    qualification: str | None
    hosting: Hosting
    evidence_enc: bytes
    node: str
    reason: str
    report_hash: bytes


def evidence_text(hosting: Hosting) -> str:
    """Return the evidence as its column holds it, before it is sealed."""
    return json.dumps(hosting.evidence, separators=(",", ":"), ensure_ascii=False)


async def unfinished(tx: Transaction) -> UUID | None:
    """Return the recovery that was begun and has not ended."""
    found: UUID | None = await tx.value("SELECT id FROM recoveries WHERE ended_at IS NULL ORDER BY started_at LIMIT 1")
    return found


async def begin(tx: Transaction, recovery: UUID, now: datetime) -> UUID:
    """Begin a recovery, or go on with the one that broke off."""
    found = await unfinished(tx)
    if found is not None:
        return found
    await tx.execute("INSERT INTO recoveries (id, started_at) VALUES ($1, $2)", recovery, now)
    await retry_left(tx)
    return recovery


async def end(tx: Transaction, recovery: UUID, asked: Collection[str], now: datetime) -> None:
    """The node may serve again; what peers that were not asked had proven, they prove again before they are sent to."""
    await tx.execute("UPDATE stream_differences SET proven = false WHERE NOT (peer = ANY($1))", list(asked))
    await tx.execute("UPDATE recoveries SET ended_at = $2 WHERE id = $1", recovery, now)


async def lock_epoch(tx: Transaction, peer: str, epoch: int) -> Cursor:
    """Lock one epoch of our stream to `peer`, begun where it is not known, and return its cursor."""
    await _create_epoch(tx, peer, epoch, None)
    await tx.fetch("SELECT 1 FROM outbound_streams WHERE peer = $1 AND epoch = $2 FOR UPDATE", peer, epoch)
    found = await outbound.cursor_of(tx, peer, epoch)
    if found is None:
        raise LookupError("an epoch that was just begun is there")
    return found


async def _create_epoch(tx: Transaction, peer: str, epoch: int, recovery: UUID | None) -> None:
    await tx.execute(
        "INSERT INTO outbound_streams (peer, epoch, next_index, recovery) VALUES ($1, $2, 0, $3) "
        "ON CONFLICT DO NOTHING",
        peer,
        epoch,
        recovery,
    )
    await tx.execute(
        "INSERT INTO delivery_cursors (stream, acked_size, acked_edge, outcome_size) "
        "SELECT id, 0, ''::bytea, 0 FROM outbound_streams WHERE peer = $1 AND epoch = $2 ON CONFLICT DO NOTHING",
        peer,
        epoch,
    )


async def append_at(tx: Transaction, stream: int, rows: Sequence[OutboxRow], now: datetime) -> None:
    """Write records where they stood in a locked stream, behind what is there."""
    if not rows:
        return
    await tx.copy(
        "outbox",
        ("stream", "idx", "record_id", "item_id", "type", "leaf_hash", "record_enc", "created_at"),
        [(stream, row.idx, row.record_id, row.item_id, row.type, row.leaf_hash, row.sealed, now) for row in rows],
    )
    await tx.execute(
        "UPDATE outbound_streams SET next_index = greatest(next_index, $2) WHERE id = $1", stream, rows[-1].idx + 1
    )
    await Tree(tx, OUTBOX, stream).grown(rows[0].idx, rows[-1].idx + 1)


async def cut_tail(tx: Transaction, stream: int, first: int) -> list[TailRow]:
    """Take the records from `first` on out of a stream and return them; nothing of them was ever signed."""
    await tx.execute(
        "UPDATE custody SET out_stream = NULL, out_idx = NULL WHERE out_stream = $1 AND out_idx >= $2 "
        "AND NOT receipted",
        stream,
        first,
    )
    rows = await tx.fetch(
        "DELETE FROM outbox WHERE stream = $1 AND idx >= $2 "
        "RETURNING idx, record_id, item_id, type, leaf_hash, record_enc",
        stream,
        first,
    )
    await tx.execute("UPDATE outbound_streams SET next_index = least(next_index, $2) WHERE id = $1", stream, first)
    await Tree(tx, OUTBOX, stream).cut(first)
    return [
        TailRow(row["idx"], row["record_id"], row["item_id"], row["type"], row["leaf_hash"], row["record_enc"], stream)
        for row in sorted(rows, key=lambda row: int(row["idx"]))
    ]


async def keep_tail(tx: Transaction, peer: str, rows: Sequence[TailRow]) -> None:
    """Keep records that were set aside until the new epoch begins."""
    await tx.copy(
        "recovery_tail",
        ("stream", "idx", "peer", "record_id", "item_id", "type", "leaf_hash", "record_enc"),
        [(row.stream, row.idx, peer, row.record_id, row.item_id, row.type, row.leaf_hash, row.sealed) for row in rows],
    )


async def take_tail(tx: Transaction, peer: str) -> list[TailRow]:
    """Return what was set aside for `peer`, in order, and forget that it was."""
    rows = await tx.fetch(
        "DELETE FROM recovery_tail WHERE peer = $1 "
        "RETURNING stream, idx, record_id, item_id, type, leaf_hash, record_enc",
        peer,
    )
    return [
        TailRow(
            row["idx"],
            row["record_id"],
            row["item_id"],
            row["type"],
            row["leaf_hash"],
            row["record_enc"],
            row["stream"],
        )
        for row in sorted(rows, key=lambda row: (int(row["stream"]), int(row["idx"])))
    ]


async def had_gone(tx: Transaction, peer: str, item_id: UUID) -> bool:
    """Tell whether a record that was taken back says that an item had gone to `peer`."""
    return bool(
        await tx.value(
            "SELECT EXISTS (SELECT 1 FROM recovery_replays r JOIN outbox o ON o.stream = r.stream AND o.idx = r.idx "
            "JOIN outbound_streams s ON s.id = r.stream WHERE s.peer = $1 AND o.item_id = $2 "
            "AND o.type IN ('report', 'transfer'))",
            peer,
            item_id,
        )
    )


async def receipted_report(tx: Transaction, peer: str, item_id: UUID, *, went_again: bool) -> Place | None:
    """Return our report of an item to `peer`, where that has receipted it and the item has gone nowhere else since.

    Wherever it is, where it had come back and gone to that peer again. None also for one that is to be done again.
    """
    row = await tx.row(
        "SELECT o.stream, o.idx, o.record_enc AS sealed FROM outbox o JOIN outbound_streams s ON s.id = o.stream "
        "JOIN delivery_cursors c ON c.stream = o.stream JOIN items i ON i.id = o.item_id "
        "WHERE s.peer = $1 AND o.item_id = $2 AND o.type = 'report' AND o.idx < c.acked_size "
        "AND i.received_stream IS NULL AND ($3 OR ((i.assigned_node IS NULL OR i.assigned_node = $1) "
        "AND i.state = ANY($4))) "
        "AND NOT EXISTS (SELECT 1 FROM recovery_replays r WHERE r.stream = o.stream AND r.idx = o.idx) "
        "ORDER BY o.stream DESC, o.idx DESC LIMIT 1",
        peer,
        item_id,
        went_again,
        sorted(UNSENT),
    )
    return None if row is None else Place(OUTBOX, row["stream"], row["idx"], row["sealed"])


async def forget_failure(tx: Transaction, peer: str, item_id: UUID) -> None:
    """Take back that `peer` had not receipted an item: it had."""
    await tx.execute("DELETE FROM relay_failures WHERE item_id = $1 AND node = $2", item_id, peer)


async def told(tx: Transaction, peer: str, epoch: int) -> int:
    """Return up to which index the records of `peer` had been answered before the restore."""
    found = await tx.value(
        "SELECT c.told FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream "
        "WHERE s.peer = $1 AND s.epoch = $2",
        peer,
        epoch,
    )
    return int(found or 0)


async def replace_transfer(tx: Transaction, item_id: UUID, stream: int, idx: int) -> None:
    """A transfer that was set aside stands in another place now."""
    await tx.execute(
        "UPDATE custody SET out_stream = $2, out_idx = $3 WHERE item_id = $1 AND NOT receipted", item_id, stream, idx
    )


async def newest_epochs(tx: Transaction) -> list[tuple[str, int, UUID | None]]:
    """Return (peer, epoch, the recovery that began it) of the newest epoch of each of our streams."""
    rows = await tx.fetch(
        "SELECT DISTINCT ON (peer) peer, epoch, recovery FROM outbound_streams ORDER BY peer, epoch DESC"
    )
    return [(row["peer"], row["epoch"], row["recovery"]) for row in rows]


async def begin_epoch(tx: Transaction, peer: str, epoch: int, recovery: UUID) -> StreamHead:
    """Begin a new epoch of our stream to `peer`."""
    await _create_epoch(tx, peer, epoch, recovery)
    return (await outbound.lock_streams(tx, [peer]))[peer]


async def mark_sent(tx: Transaction, item: SentItem, now: datetime) -> None:
    """Let a known item be where its report says that it went."""
    await tx.execute(
        "UPDATE items SET state = 'sent', reason = $12, duplicate_of = NULL, assigned_node = $2, "
        "assigned_country = $3, hosting_country = $4, registered_country = $5, confidence = $6, verdict = 'hosted', "
        "verdict_reasons = $7, evidence_enc = $8, qualification = coalesce($9::text::jsonb, qualification), "
        "report_hash = $10, updated_at = $11 WHERE id = $1",
        item.id,
        item.node,
        item.hosting.assigned_country,
        item.hosting.country,
        item.hosting.registered_country,
        item.hosting.confidence,
        list(item.hosting.reasons),
        item.evidence_enc,
        item.qualification,
        item.report_hash,
        now,
        item.reason,
    )
    await items.leave_queue(tx, [item.id])


async def write_sent(tx: Transaction, item: SentItem, now: datetime) -> None:
    """Write an item that the database does not know, as sent. Who had reported it, no record says."""
    await tx.execute(
        "INSERT INTO cases (id, submitter, channel, received_at, reported_at, referrer_enc, site_type, commerciality, "
        "payment_methods, created_at, wire_reference_enc) "
        "VALUES ($1, 'recovered', $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        item.case_id,
        item.channel,
        item.received_at,
        item.reported_at,
        item.referrer_enc,
        item.site_type,
        item.commerciality,
        list(item.payment_methods),
        now,
        item.wire_reference_enc,
    )
    await tx.execute(
        "INSERT INTO items (id, case_id, kind, page_id, url_enc, normal_enc, url_digest, hashes, state, reason, "
        "hosting_country, registered_country, assigned_country, assigned_node, confidence, verdict, verdict_reasons, "
        "evidence_enc, located_at, qualification, report_hash, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, "
        "$6, $7, $8::text::jsonb, 'sent', $19, $9, $10, $11, $12, $13, 'hosted', $14, $15, $16, $17::text::jsonb, $18, "
        "$16, $16)",
        item.id,
        item.case_id,
        item.kind,
        item.page_id,
        item.url_enc,
        item.normal_enc,
        item.url_digest,
        json.dumps(list(item.hashes)) if item.hashes else None,
        item.hosting.country,
        item.hosting.registered_country,
        item.hosting.assigned_country,
        item.node,
        item.hosting.confidence,
        list(item.hosting.reasons),
        item.evidence_enc,
        now,
        item.qualification,
        item.report_hash,
        item.reason,
    )
    await tx.execute(
        "INSERT INTO url_identities (url_digest, item_id, times_seen) VALUES ($1, $2, 1) "
        "ON CONFLICT (url_digest) DO UPDATE SET times_seen = url_identities.times_seen + 1",
        item.url_digest,
        item.id,
    )


async def note_told(
    tx: Transaction,
    peer: str,
    epoch: int,
    taken: Sequence[int],
    refused: Sequence[tuple[int, str, str | None, str]],
    now: datetime,
) -> None:
    """Remember which records of `peer` we had answered: those up to the last of `taken`, and each that was refused."""
    stream = await tx.value("SELECT id FROM inbound_streams WHERE peer = $1 AND epoch = $2", peer, epoch)
    told = max([*taken, *(row[0] for row in refused)], default=-1) + 1
    await tx.execute("UPDATE apply_cursors SET told = greatest(told, $2) WHERE stream = $1", stream, told)
    for idx, code, field, detail in refused:
        await tx.execute(
            "INSERT INTO inbox_refusals (stream, idx, code, field, detail, refused_at) VALUES ($1, $2, $3, $4, $5, $6) "
            "ON CONFLICT DO NOTHING",
            stream,
            idx,
            code,
            field,
            withhold(detail),
            now,
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """A record of ours that was taken back and is to be done again; `acked` is how far its stream is receipted."""

    stream: int
    idx: int
    peer: str
    sealed: bytes
    acked: int


async def put_replays(tx: Transaction, stream: int, rows: Sequence[tuple[int, datetime]]) -> None:
    """Queue records (`idx`, when each was made) of one stream to be done again."""
    await tx.copy("recovery_replays", ("stream", "idx", "said_at"), [(stream, idx, at) for idx, at in rows])


async def next_replay(tx: Transaction, stream: int | None = None) -> Replay | None:
    """Return what is to be done again next: of the heads of all streams, or of one, the one that was made first."""
    row = await tx.row(
        "SELECT r.stream, r.idx, s.peer, o.record_enc AS sealed, c.acked_size AS acked FROM outbound_streams s "
        "CROSS JOIN LATERAL (SELECT stream, idx, said_at FROM recovery_replays WHERE stream = s.id AND code IS NULL "
        "ORDER BY idx LIMIT 1) r JOIN outbox o ON o.stream = r.stream AND o.idx = r.idx "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE $1::bigint IS NULL OR s.id = $1 "
        "ORDER BY r.said_at, s.peer, s.epoch LIMIT 1",
        stream,
    )
    return None if row is None else Replay(**dict(row))


async def reported_in(tx: Transaction, item_ids: Collection[UUID], others_than: Collection[int]) -> int | None:
    """Return a stream in which a report of one of these items is still to be done again; none of `others_than`."""
    found: int | None = await tx.value(
        "SELECT r.stream FROM recovery_replays r JOIN outbox o ON o.stream = r.stream AND o.idx = r.idx "
        "WHERE r.code IS NULL AND o.type = 'report' AND o.item_id = ANY($1) AND r.stream <> ALL($2) "
        "ORDER BY r.said_at, r.stream LIMIT 1",
        list(item_ids),
        list(others_than),
    )
    return found


async def replay_from(tx: Transaction, peer: str, epoch: int) -> int | None:
    """Return the index of the first record of a stream of ours that is still to be done again, or None."""
    first: int | None = await tx.value(
        "SELECT min(r.idx) FROM recovery_replays r JOIN outbound_streams s ON s.id = r.stream "
        "WHERE s.peer = $1 AND s.epoch = $2 AND r.code IS NULL",
        peer,
        epoch,
    )
    return first


async def replayed(tx: Transaction, one: Replay, code: str | None) -> None:
    """Take a record off the queue, or let it stand there with the reason why it could not be done."""
    if code is None:
        await tx.execute("DELETE FROM recovery_replays WHERE stream = $1 AND idx = $2", one.stream, one.idx)
    else:
        await tx.execute(
            "UPDATE recovery_replays SET code = $3 WHERE stream = $1 AND idx = $2", one.stream, one.idx, code
        )


async def left_of(tx: Transaction, item_ids: Collection[UUID], code: str) -> list[Replay]:
    """Return records of ours about these items that could not be done again for this reason, as they were made."""
    rows = await tx.fetch(
        "SELECT r.stream, r.idx, s.peer, o.record_enc AS sealed, c.acked_size AS acked FROM recovery_replays r "
        "JOIN outbox o ON o.stream = r.stream AND o.idx = r.idx JOIN outbound_streams s ON s.id = r.stream "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE r.code = $2 AND o.item_id = ANY($1) "
        "ORDER BY r.said_at, r.stream, r.idx",
        list(item_ids),
        code,
    )
    return [Replay(**dict(row)) for row in rows]


async def retry_left(tx: Transaction) -> None:
    """Let every record that could not be done be tried again."""
    await tx.execute("UPDATE recovery_replays SET code = NULL WHERE code IS NOT NULL")


async def left(tx: Transaction) -> dict[str, int]:
    """Return how many records of ours could not be done again, by the reason."""
    rows = await tx.fetch("SELECT code, count(*) AS n FROM recovery_replays WHERE code IS NOT NULL GROUP BY code")
    return {row["code"]: row["n"] for row in rows}


async def original_of(tx: Transaction, item_id: UUID) -> UUID:
    """Return the item that counts for one that repeats it; itself where it repeats none."""
    found: UUID | None = await tx.value("SELECT duplicate_of FROM items WHERE id = $1", item_id)
    return found or item_id


async def said_of(tx: Transaction, peer: str, item_id: UUID, type_: str) -> list[tuple[int, int, bytes]]:
    """Return (stream, idx, sealed bytes) of our records of this type about an item in our streams to `peer`."""
    rows = await tx.fetch(
        "SELECT o.stream, o.idx, o.record_enc FROM outbox o JOIN outbound_streams s ON s.id = o.stream "
        "WHERE o.item_id = $2 AND s.peer = $1 AND o.type = $3",
        peer,
        item_id,
        type_,
    )
    return [(row["stream"], row["idx"], row["record_enc"]) for row in rows]


async def cursors(tx: Transaction) -> list[tuple[int, str, int, int]]:
    """Return (stream, peer, epoch, applied) of each peer's oldest stream that is not applied to its end."""
    rows = await tx.fetch(
        "SELECT DISTINCT ON (s.peer) s.id, s.peer, s.epoch, c.applied FROM inbound_streams s "
        "JOIN apply_cursors c ON c.stream = s.id WHERE s.size > c.applied ORDER BY s.peer, s.epoch"
    )
    return [(row["id"], row["peer"], row["epoch"], row["applied"]) for row in rows]
