"""What we know of our contact with each peer. Decides nothing."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from node.platform.database import Transaction

#: A contact younger than this is not written again: a stream at full speed would rewrite one row all the time.
_HEARD_RESOLUTION = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Contact:
    """The row of one peer; `key_problems` counts refusals of our keys in a row."""

    node_id: str
    last_heard_at: datetime | None
    last_reached_at: datetime | None
    failures: int
    retry_at: datetime | None
    last_problem: str | None
    clock_skew_s: int | None
    key_problems: int = 0


async def heard_from(tx: Transaction, peer: str, now: datetime) -> None:
    """Note an authenticated call of `peer`: it is back, so our back-off towards it ends (PROTOCOL section 6)."""
    changed = await tx.row(
        "INSERT INTO peers (node_id, last_heard_at, failures) VALUES ($1, $2, 0) "
        "ON CONFLICT (node_id) DO UPDATE SET last_heard_at = $2, retry_at = NULL "
        "WHERE peers.last_heard_at IS NULL OR peers.last_heard_at < $3 OR peers.retry_at IS NOT NULL "
        "RETURNING node_id",
        peer,
        now,
        now - _HEARD_RESOLUTION,
    )
    if changed is not None:
        await tx.notify("deliver")


async def greeted(tx: Transaction, peer: str, now: datetime) -> None:
    """Note that `peer` said hello, or answered ours: it is back, and what went wrong before counts no more."""
    await tx.execute(
        "INSERT INTO peers (node_id, last_heard_at, failures) VALUES ($1, $2, 0) ON CONFLICT (node_id) DO UPDATE "
        "SET last_heard_at = $2, failures = 0, key_problems = 0, retry_at = NULL",
        peer,
        now,
    )
    await tx.notify("deliver")


async def reached(tx: Transaction, peer: str, now: datetime) -> None:
    """Note that `peer` took what we sent: failures and back-off end."""
    await tx.execute(
        "INSERT INTO peers (node_id, last_reached_at, failures) VALUES ($1, $2, 0) ON CONFLICT (node_id) DO UPDATE "
        "SET last_reached_at = $2, failures = 0, key_problems = 0, retry_at = NULL, last_problem = NULL, "
        "clock_skew_s = NULL "
        "WHERE peers.last_reached_at IS NULL OR peers.last_reached_at < $3 OR peers.failures > 0 "
        "OR peers.last_problem IS NOT NULL",
        peer,
        now,
        now - _HEARD_RESOLUTION,
    )


async def failed(
    tx: Transaction,
    peer: str,
    problem: str,
    retry_at: datetime,
    clock_skew_s: int | None,
    *,
    of_keys: bool = False,
) -> None:
    """Note a failure and when to try again; `of_keys` when the peer refused our keys.

    A commit of this alone need not last: a peer that fails often must not keep the disk from the others, and one that
    is forgotten to have failed is only asked once more.
    """
    await tx.execute(
        "INSERT INTO peers (node_id, failures, retry_at, last_problem, clock_skew_s, key_problems) "
        "VALUES ($1, 1, $2, $3, $4, $5) "
        "ON CONFLICT (node_id) DO UPDATE SET failures = peers.failures + 1, retry_at = $2, last_problem = $3, "
        "clock_skew_s = $4, key_problems = CASE WHEN $5 > 0 THEN peers.key_problems + 1 ELSE 0 END",
        peer,
        retry_at,
        problem,
        clock_skew_s,
        int(of_keys),
    )


async def compared(tx: Transaction, peer: str, now: datetime) -> None:
    """Note that both sides compared what they hold."""
    await tx.execute(
        "INSERT INTO peers (node_id, failures, compared_at) VALUES ($1, 0, $2) "
        "ON CONFLICT (node_id) DO UPDATE SET compared_at = $2",
        peer,
        now,
    )


async def compared_since(tx: Transaction, since: datetime) -> set[str]:
    """Return the peers with which we compared after `since`."""
    rows = await tx.fetch("SELECT node_id FROM peers WHERE compared_at > $1", since)
    return {row["node_id"] for row in rows}


async def contact(tx: Transaction, peer: str) -> Contact:
    """Return what is known of `peer`; all empty for one never met."""
    rows = await contacts(tx, [peer])
    return rows[0] if rows else Contact(peer, None, None, 0, None, None, None)


async def contacts(tx: Transaction, only: list[str] | None = None) -> list[Contact]:
    """Return every peer met (or those of `only`), by name."""
    rows = await tx.fetch(
        "SELECT node_id, last_heard_at, last_reached_at, failures, retry_at, last_problem, clock_skew_s, "
        "key_problems FROM peers "
        "WHERE $1::text[] IS NULL OR node_id = ANY($1) ORDER BY node_id",
        only,
    )
    return [Contact(**dict(row)) for row in rows]
