"""Items that we reported and that are with a hotline nothing is exchanged with any more. Decides nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from node.hotline.domain.absence import absence, in_words
from node.platform.database import Transaction
from protocol.directory import Directory


@dataclass(frozen=True, slots=True)
class OutOfReach:
    """How many items that we reported are with a hotline that is no member any more; `code` says why it is none.

    It receipted them, or told us that it has them.
    """

    node: str
    code: str
    items: int

    @property
    def sentence(self) -> str:
        """Say it for a person, without a full stop."""
        return f"{self.items} items of ours are with {self.node}, which {in_words(self.code)}, and nobody acts on them"


#: Of `$1`, reported by `$2`, us. What has no receipt is taken back by itself, waits, or stays ours.
_WITH: Final = (
    "i.state IN ('sent', 'transferred') AND i.assigned_node = ANY($1) "
    "AND (i.received_stream IS NULL OR i.reporter = $2) "
    "AND NOT EXISTS (SELECT 1 FROM outbox o JOIN outbound_streams s ON s.id = o.stream "
    "JOIN delivery_cursors c ON c.stream = o.stream WHERE o.item_id = i.id AND s.peer = i.assigned_node "
    "AND o.type IN ('report', 'transfer') AND o.idx >= c.acked_size "
    "AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.stream = o.stream AND r.size > o.idx))"
)


async def out_of_reach(tx: Transaction, own: str, directory: Directory) -> tuple[OutOfReach, ...]:
    """Return how many items each hotline has that is gone, by this directory."""
    # Whoever has an item of ours was written to: at least an outcome, where it told us so itself.
    peers = [row["peer"] for row in await tx.fetch("SELECT DISTINCT peer FROM outbound_streams ORDER BY 1")]
    gone = {peer: why for peer in peers if (why := absence(directory, peer)) is not None}
    if not gone:
        return ()
    rows = await tx.fetch(
        f"SELECT i.assigned_node AS node, count(*) AS items FROM items i WHERE {_WITH} "  # noqa: S608 - ours
        "GROUP BY 1 ORDER BY 1",
        list(gone),
        own,
    )
    return tuple(OutOfReach(row["node"], gone[row["node"]], row["items"]) for row in rows)


async def items_with(tx: Transaction, own: str, node: str, among: Collection[UUID] | None) -> Sequence[UUID]:
    """Return those of `among` (of all, where it is None) that such a hotline has, in the order of their ids."""
    rows = await tx.fetch(
        f"SELECT i.id FROM items i WHERE {_WITH} AND ($3::uuid[] IS NULL OR i.id = ANY($3)) "  # noqa: S608 - ours
        "ORDER BY i.id",
        [node],
        own,
        None if among is None else list(among),
    )
    return [row["id"] for row in rows]
