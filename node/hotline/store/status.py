"""Reads what an operator asks of a node: queues, streams, peers. Counts and ids, never content."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from node.hotline.store import contacts, items
from node.hotline.store.heads import difference_sentences
from node.hotline.store.standing import read_standing
from node.platform.database import Transaction
from protocol.directory import Directory


async def read_status(
    tx: Transaction, now: datetime, own: str = "", directory: Directory | None = None
) -> dict[str, Any]:
    """Return queues, items by state and country, streams both ways and contact with each peer, ready for JSON.

    `directory` is the one in use at the node `own`: what was written to hotlines that have left waits for nothing.
    """
    standing = await read_standing(tx, own, directory)
    return {
        "queues": await items.queue_depths(tx, () if directory is None else directory.left()),
        "items": [dict(row) for row in await items.counts(tx)],
        "streams_out": [dict(row) for row in await tx.fetch(_STREAMS_OUT)],
        "streams_in": [dict(row) for row in await tx.fetch(_STREAMS_IN)],
        "peers": [_contact(contact, now) for contact in await contacts.contacts(tx)],
        "relay_failures": [dict(row) for row in standing.relay_failures],
        "out_of_reach": [asdict(one) for one in standing.out_of_reach],
        "disputes": [dict(row) for row in await tx.fetch(_DISPUTES)],
        "desk_refusals": [dict(row) for row in standing.desk_refusals],
        "differences": difference_sentences(standing.differences),
        "equivocations": sum(row["proofs"] for row in standing.equivocations),
    }


_DISPUTES = (
    "SELECT code, count(*) AS open, count(*) FILTER (WHERE handed_in_at IS NULL) AS not_handed_in "
    "FROM disputes WHERE followed_at IS NULL GROUP BY 1 ORDER BY 1"
)
_STREAMS_OUT = (
    "SELECT s.peer, s.epoch, s.next_index AS written, c.acked_size AS receipted, c.outcome_size AS told, "
    "(SELECT count(*) FROM outbox_refusals r WHERE r.stream = s.id) AS refused "
    "FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id ORDER BY s.peer, s.epoch"
)
_STREAMS_IN = (
    "SELECT s.peer, s.epoch, s.size AS held, c.applied, "
    "(SELECT count(*) FROM inbox_refusals r WHERE r.stream = s.id) AS refused "
    "FROM inbound_streams s JOIN apply_cursors c ON c.stream = s.id ORDER BY s.peer, s.epoch"
)


def _contact(contact: contacts.Contact, now: datetime) -> dict[str, Any]:
    def age_s(moment: datetime | None) -> int | None:
        return None if moment is None else round((now - moment).total_seconds())

    return {
        "peer": contact.node_id,
        "last_heard_s": age_s(contact.last_heard_at),
        "last_reached_s": age_s(contact.last_reached_at),
        "failures": contact.failures,
        "retry_in_s": None if contact.retry_at is None else max(0, -(age_s(contact.retry_at) or 0)),
        "last_problem": contact.last_problem,
        "clock_skew_s": contact.clock_skew_s,
    }
