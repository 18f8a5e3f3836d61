"""What records say of items: the items as the rules see them, the histories, who is to hear. Decides nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.assessment import Assessment
from node.hotline.domain.lifecycle import State
from node.hotline.domain.steps import Done, KnownItem
from node.hotline.store.qualification import from_column, to_column
from node.platform.database import Row, Transaction
from protocol.codes import Action, ActionReason


@dataclass(frozen=True, slots=True)
class Listener:
    """One hotline to be told of an item: the ids are those of the report that it knows."""

    node: str
    item_id: UUID
    case_id: UUID
    report_hash: bytes


@dataclass(frozen=True, slots=True)
class AssessmentRow:
    """One qualification for the history; `record_hash` is that of the record that said it, if any did."""

    item_id: UUID
    node: str
    assessment: Assessment
    record_hash: bytes | None


@dataclass(frozen=True, slots=True)
class ActionRow:
    """One action for the history; `record_hash` as in AssessmentRow."""

    item_id: UUID
    done: Done
    record_hash: bytes | None


async def lock_known(tx: Transaction, ids: Iterable[UUID], here: str) -> dict[UUID, KnownItem]:
    """Lock these items in the order of their ids and return each as the rules see it; unknown ones are left out."""
    wanted = sorted(set(ids))
    rows = await tx.fetch(
        "SELECT i.id, i.case_id, i.state, i.reason, i.assigned_node, i.reporter, i.report_hash, i.qualification, "
        "i.peer_qualification, i.withdrawn_at IS NOT NULL AS withdrawn, s.peer AS came_from, "
        "(SELECT array_agg(station->>'node') FROM jsonb_array_elements(c.trail - 0) AS station) AS former, "
        "(SELECT bool_or(o.idx >= d.outcome_size OR r.code IS NOT NULL) FROM outbox o "
        "JOIN delivery_cursors d ON d.stream = o.stream "
        "LEFT JOIN outbox_refusals r ON r.stream = o.stream AND r.idx = o.idx "
        "WHERE o.item_id = i.id AND o.type = 'assessment') AS unheard "
        "FROM items i LEFT JOIN inbound_streams s ON s.id = i.received_stream LEFT JOIN custody c ON c.item_id = i.id "
        "WHERE i.id = ANY($1) ORDER BY i.id FOR UPDATE OF i",
        wanted,
    )
    done: dict[UUID, list[Done]] = {}
    for row in await tx.fetch(
        "SELECT item_id, node, action, at, by, reason FROM actions WHERE item_id = ANY($1) ORDER BY id",
        wanted,
    ):
        done.setdefault(row["item_id"], []).append(_done(row))
    return {row["id"]: _known(row, done.get(row["id"], ()), here) for row in rows}


def _known(row: Row, done: Sequence[Done], here: str) -> KnownItem:
    return KnownItem(
        here=here,
        id=row["id"],
        case_id=row["case_id"],
        state=State(row["state"]),
        reason=row["reason"],
        assigned_node=row["assigned_node"],
        reporter=row["reporter"],
        came_from=row["came_from"],
        report_hash=row["report_hash"],
        own=from_column(row["qualification"]),
        peers=from_column(row["peer_qualification"]),
        actions=tuple(done),
        former=frozenset(row["former"] or ()),
        is_withdrawn=row["withdrawn"],
        is_heard=not row["unheard"],
    )


def _done(row: Row) -> Done:
    return Done(
        node=row["node"],
        action=Action(row["action"]),
        at=row["at"],
        by=row["by"],
        reason=None if row["reason"] is None else ActionReason(row["reason"]),
    )


async def write_known(tx: Transaction, changed: Sequence[KnownItem], now: datetime) -> None:
    """Write the state, its reason and both qualifications of items that are locked."""
    await tx.execute(
        "UPDATE items SET state = r.state, reason = r.reason, qualification = r.own::jsonb, "
        "peer_qualification = r.peers::jsonb, updated_at = $6 "
        "FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) AS r(id, state, reason, own, peers) "
        "WHERE items.id = r.id",
        [one.id for one in changed],
        [one.state for one in changed],
        [one.reason for one in changed],
        [to_column(one.own) for one in changed],
        [to_column(one.peers) for one in changed],
        now,
    )


async def append_assessments(tx: Transaction, rows: Sequence[AssessmentRow], now: datetime) -> None:
    """Append qualifications to the history."""
    await tx.copy(
        "assessments",
        ("item_id", "node", "qualification", "record_hash", "recorded_at"),
        [(row.item_id, row.node, to_column(row.assessment), row.record_hash, now) for row in rows],
    )


async def append_actions(tx: Transaction, rows: Sequence[ActionRow], now: datetime) -> None:
    """Append actions to the history."""
    await tx.copy(
        "actions",
        ("item_id", "node", "action", "at", "by", "reason", "record_hash", "recorded_at"),
        [
            (
                row.item_id,
                row.done.node,
                row.done.action.value,
                row.done.at,
                row.done.by,
                None if row.done.reason is None else row.done.reason.value,
                row.record_hash,
                now,
            )
            for row in rows
        ],
    )


def listeners(item: KnownItem) -> list[Listener]:
    """Return whom this node tells what becomes of an item: who reported it first, and who it was received from."""
    if item.report_hash is None or item.came_from is None:
        return []
    nodes = sorted(item.origins - {item.here})
    return [Listener(node, item.id, item.case_id, item.report_hash) for node in nodes]


async def listeners_of_duplicates(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, list[Listener]]:
    """Return, by the item that counts, whose reports of the same URL are linked to it: they hear of each step too."""
    rows = await tx.fetch(
        "SELECT d.id, d.case_id, d.duplicate_of, d.report_hash, d.reporter, s.peer FROM items d "
        "JOIN inbound_streams s ON s.id = d.received_stream WHERE d.duplicate_of = ANY($1) AND d.state = 'duplicate' "
        "AND d.report_hash IS NOT NULL ORDER BY d.id",
        ids,
    )
    found: dict[UUID, list[Listener]] = {}
    for row in rows:
        for node in sorted({row["peer"], row["reporter"] or row["peer"]}):
            listener = Listener(node, row["id"], row["case_id"], row["report_hash"])
            found.setdefault(row["duplicate_of"], []).append(listener)
    return found


def holder(item: KnownItem) -> Listener | None:
    """Return the hotline that has an item of ours, or that we passed on; None while it is here."""
    if item.is_here or item.report_hash is None or item.state is State.REFUSED:
        return None
    return Listener(item.custodian, item.id, item.case_id, item.report_hash)


def holders(item: KnownItem) -> list[Listener]:
    """Return every hotline that holds an item of ours, as far as this node knows: who has it, and who had it."""
    now = holder(item)
    if now is None or item.report_hash is None:
        return []
    before = sorted(item.former - {item.here, now.node} - item.origins)
    return [now, *(Listener(node, item.id, item.case_id, item.report_hash) for node in before)]


async def assessments_of(tx: Transaction, item_id: UUID) -> list[Row]:
    """Return the history of an item's qualifications, the oldest first."""
    return await tx.fetch(
        "SELECT node, qualification, record_hash, recorded_at FROM assessments WHERE item_id = $1 ORDER BY id",
        item_id,
    )


async def found_by(tx: Transaction, item_id: UUID, node: str) -> Assessment | None:
    """Return how a hotline qualified an item last, as far as it said so."""
    found = await tx.value(
        "SELECT qualification FROM assessments WHERE item_id = $1 AND node = $2 ORDER BY id DESC LIMIT 1", item_id, node
    )
    return from_column(found)


async def actions_of(tx: Transaction, item_id: UUID) -> list[Row]:
    """Return what was done about an item, the oldest first."""
    return await tx.fetch(
        "SELECT node, action, at, by, reason, record_hash, recorded_at FROM actions WHERE item_id = $1 ORDER BY id",
        item_id,
    )
