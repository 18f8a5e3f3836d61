"""Disputes that this node opened and contradictions that it found, until the network's desk has them. Decides nothing.

Nothing here holds a URL: what is handed in has no member for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from node.platform.database import Row, Transaction
from protocol.desk import read_statement


class Case(StrEnum):
    """What is handed in at the desk, by the table that it is kept in."""

    DISPUTE = "disputes"
    CONTRADICTION = "equivocations"


@dataclass(frozen=True, slots=True)
class Dispute:
    """One dispute of ours that is not settled."""

    id: UUID
    item_id: UUID
    statement: bytes
    handed_in: bool


async def contest(
    tx: Transaction, dispute_id: UUID, item_id: UUID, code: str, other: str, statement: bytes, now: datetime
) -> None:
    """Open a dispute."""
    await tx.execute(
        "INSERT INTO disputes (id, item_id, code, other, statement, opened_at) VALUES ($1, $2, $3, $4, $5, $6)",
        dispute_id,
        item_id,
        code,
        other,
        statement,
        now,
    )
    await tx.notify("desk")


async def unsettled(tx: Transaction, after: UUID, limit: int, to: str, *, handed_in: bool) -> list[Dispute]:
    """Return disputes of ours without a ruling that the desk `to` has, or has not: those after this id, then the rest.

    Given the last id of before, each has its turn: none that waits or is refused for days keeps others out.
    """
    rows = await tx.fetch(
        "SELECT id, item_id, statement, $4::bool AS handed_in FROM disputes "
        "WHERE followed_at IS NULL AND (handed_in_to IS NOT DISTINCT FROM $3) = $4 ORDER BY id <= $1, id LIMIT $2",
        after,
        limit,
        to,
        handed_in,
    )
    return [Dispute(**dict(row)) for row in rows]


async def handed_in(tx: Transaction, case: Case, case_id: UUID, to: str, now: datetime) -> None:
    """Note which desk has a case of ours."""
    await tx.execute(
        f"UPDATE {case} SET handed_in_at = $3, handed_in_to = $2, refused = NULL WHERE id = $1",  # noqa: S608 - ours
        case_id,
        to,
        now,
    )


async def refused(tx: Transaction, case: Case, case_id: UUID, code: str) -> bool:
    """Note that the desk refuses a case for good; False when that is known."""
    done = await tx.execute(
        f"UPDATE {case} SET refused = $2 WHERE id = $1 AND refused IS DISTINCT FROM $2",  # noqa: S608 - ours
        case_id,
        code,
    )
    return done == 1


async def followed(tx: Transaction, dispute_id: UUID, ruling: bytes, now: datetime) -> bool:
    """Keep the ruling and close the dispute; False when that was done before."""
    done = await tx.execute(
        "UPDATE disputes SET ruling = $2, followed_at = $3, handed_in_at = coalesce(handed_in_at, $3) "
        "WHERE id = $1 AND followed_at IS NULL",
        dispute_id,
        ruling,
        now,
    )
    return done == 1


async def was_ruled(tx: Transaction, item_id: UUID, received: str) -> bool:
    """Tell whether a dispute of ours was settled since the record of this hash (hex) gave us the item."""
    rows = await tx.fetch(
        "SELECT statement FROM disputes WHERE item_id = $1 AND followed_at IS NOT NULL ORDER BY id", item_id
    )
    return any(read_statement(row["statement"]).received == received for row in rows)


async def open_equivocations(tx: Transaction, after: UUID, limit: int, to: str, before: datetime) -> list[Row]:
    """Return contradictions that the desk `to` has not been told of since `before`, in turn as disputes are."""
    return await tx.fetch(
        "SELECT id, held, offered, ending, seen_at FROM equivocations "
        "WHERE handed_in_to IS DISTINCT FROM $3 OR handed_in_at < $4 ORDER BY id <= $1, id LIMIT $2",
        after,
        limit,
        to,
        before,
    )


async def refusals(tx: Transaction) -> list[Row]:
    """Return how many disputes and contradictions the desk refuses for good, by kind and code."""
    return await tx.fetch(
        "SELECT kind, code, count(*) AS cases FROM ("
        "SELECT 'dispute' AS kind, refused AS code FROM disputes WHERE followed_at IS NULL AND refused IS NOT NULL "
        "UNION ALL SELECT 'equivocation', refused FROM equivocations WHERE refused IS NOT NULL"
        ") AS cases GROUP BY 1, 2 ORDER BY 1, 2"
    )


def refusal_sentence(row: Mapping[str, Any]) -> str:
    """Return such a count in words, for a person, without a full stop."""
    return f"the desk refuses what was handed in, {row['kind']} ({row['code']}): {row['cases']}"
