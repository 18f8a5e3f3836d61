"""The desk's cases in the database: what members handed in, byte for byte, and the rulings. Decides nothing."""

import hashlib
from datetime import datetime
from uuid import UUID

from node.platform.database import Row, Transaction

DISPUTE = "dispute"
EQUIVOCATION = "equivocation"


async def take(
    tx: Transaction,
    case_id: UUID,
    kind: str,
    from_node: str,
    body: bytes,
    now: datetime,
    contradiction: bytes | None = None,
) -> bool:
    """Keep what a member handed in; False when another body stands under this id. A repeat changes nothing.

    `contradiction` says which one it is, whatever its bytes: of each there is one case.
    """
    digest = hashlib.sha256(from_node.encode() + b"\x00" + body).digest()
    await tx.execute(
        "INSERT INTO desk_cases (id, kind, from_node, digest, body, received_at, contradiction) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        case_id,
        kind,
        from_node,
        digest,
        body,
        now,
        contradiction,
    )
    return bool(await tx.value("SELECT count(*) FROM desk_cases WHERE digest = $1", digest))


async def case(tx: Transaction, case_id: UUID) -> Row | None:
    """Return one case of the desk, or None."""
    return await tx.row("SELECT * FROM desk_cases WHERE id = $1", case_id)


async def lock_case(tx: Transaction, case_id: UUID) -> Row | None:
    """Lock one case of the desk and return it, or None."""
    return await tx.row("SELECT * FROM desk_cases WHERE id = $1 FOR UPDATE", case_id)


async def cases(tx: Transaction, *, undecided: bool, limit: int) -> list[Row]:
    """Return the desk's cases, the oldest first."""
    return await tx.fetch(
        "SELECT * FROM desk_cases WHERE NOT $1 OR decided_at IS NULL ORDER BY received_at, id LIMIT $2",
        undecided,
        limit,
    )


async def decide(tx: Transaction, case_id: UUID, ruling: bytes | None, now: datetime) -> None:
    """Keep the desk's ruling for ever; a contradiction is closed without one."""
    await tx.execute("UPDATE desk_cases SET ruling = $2, decided_at = $3 WHERE id = $1", case_id, ruling, now)


async def count_open(tx: Transaction) -> dict[str, int]:
    """Return how many cases of each kind wait for a person."""
    rows = await tx.fetch("SELECT kind, count(*) AS cases FROM desk_cases WHERE decided_at IS NULL GROUP BY kind")
    return {row["kind"]: row["cases"] for row in rows}


async def open_of(tx: Transaction, from_node: str, kind: str) -> int:
    """Return how many cases of a kind that a member handed in wait for a person."""
    count: int = await tx.value(
        "SELECT count(*) FROM desk_cases WHERE from_node = $1 AND kind = $2 AND decided_at IS NULL", from_node, kind
    )
    return count
