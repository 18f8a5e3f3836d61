"""Who has every item after a soak: each acknowledged report is at its reporter, and exactly one node has its item.

The written rule, for an item that a node reported:

1. It stands at that node, under the reference with which its report was acknowledged.
2. If its reporter took it back, it is `withdrawn` or `done` wherever it is.
3. Else exactly one node has it, by the nodes' own word: whoever says `sent`, `declined` or `transferred` has not got
   it, nor has whoever says `done` of an item that is assigned to another, nor whom its giver took it back from.
   So a duplicate, an item that waits for a person, and one that is kept for a country without a hotline (an orphan) are
   had by the node where they are, and an item at the desk by the node that asked the desk, which has the dispute.
4. If another than the reporter has it, that is whom the reporter holds for it; unless the word of that very node to
   that very reporter was refused, since keys had changed without notice and the proof in it counted no more, and it is
   written down at that node that it is told again later than a soak waits (these are counted).
5. What was cleared to leave and is hosted in another node's country has left, was moved back, or is a duplicate.

An item that was acknowledged and then lost by a restore from a backup was handed in again. The one before stands at its
reporter, since others had been told of it and gave it back, and then all of this holds for it; or it is nowhere.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from node.platform.database import Database
from tests.soak.intake import Feed
from tests.soak.node import SoakNode
from tests.soak.site import ORPHANED

_ELSEWHERE: Final = frozenset({"sent", "declined", "transferred"})
_ENDS: Final = frozenset({"done", "withdrawn"})
_LEFT: Final = frozenset({"sent", "done", "duplicate", "kept", "transferred", "disputed", "assigned", "withdrawn"})
_STANDINGS: Final = (
    "SELECT i.id::text AS id, i.state, i.assigned_node, i.withdrawn_at IS NOT NULL AS taken_back, "
    "coalesce(i.reporter, $1) = $1 AS own, i.hosting_country, c.reference "
    "FROM items i JOIN cases c ON c.id = i.case_id"
)
#: To whom a node tells again that it has which item, since the proof in its word was refused.
_TOLD_AGAIN: Final = (
    "SELECT o.item_id::text AS item, s.peer AS reporter FROM outbox_refusals r JOIN outbox o ON o.stream = r.stream "
    "AND o.idx = r.idx JOIN outbound_streams s ON s.id = r.stream WHERE r.again_at > now()"
)
_ASKED: Final = (
    "SELECT d.id::text FROM disputes d JOIN items i ON i.id = d.item_id "
    "WHERE i.state = 'disputed' AND d.followed_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an item stands at one node."""

    state: str
    assigned_node: str | None = None
    taken_back: bool = False
    own: bool = False
    hosting_country: str | None = None
    reference: str | None = None

    def has_it(self, node: str) -> bool:
        """Tell whether the node that says so has the item."""
        if self.state in _ELSEWHERE:
            return False
        return self.state not in _ENDS or self.assigned_node in {None, node}


@dataclass(frozen=True, slots=True)
class ToldAgain:
    """The word of `holder` to `reporter` that it has `item`, which was refused and is still to be told again."""

    item: str
    holder: str
    reporter: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a node acknowledged: the item of each reference, those before a restore, and which are to be abroad."""

    items: Mapping[str, str]
    replaced: Mapping[str, Sequence[str]] = field(default_factory=dict)
    abroad: frozenset[str] = frozenset()

    @classmethod
    def of(cls, feed: Feed) -> "Acknowledged":
        """Return what a feed was told."""
        return cls(feed.acknowledged, feed.replaced, frozenset(feed.abroad))


@dataclass(slots=True)
class Custody:
    """What was found: `where` counts the items by who has them, `wrong` names what the rule forbids."""

    where: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def account(
    at: Mapping[str, Mapping[str, Standing]],
    acknowledged: Mapping[str, Acknowledged],
    told_again: frozenset[ToldAgain] = frozenset(),
) -> Custody:
    """Hold the rule against how every item stands (by node and id), and what each node acknowledged."""
    found = Custody()
    for node, told in acknowledged.items():
        _acknowledged(node, told, at, found)
    for node, items in at.items():
        for item, one in items.items():
            if one.own:
                _custody(node, item, at, found, told_again)
    return found


def _acknowledged(node: str, told: Acknowledged, at: Mapping[str, Mapping[str, Standing]], found: Custody) -> None:
    own = at[node]
    for reference, item in told.items.items():
        one = own.get(item)
        if one is None or not one.own or one.reference != reference:
            found.wrong.append(f"{node} acknowledged reference {reference} with item {item}, which is not there")
        elif reference in told.abroad and one.state not in _LEFT:
            found.wrong.append(f"item {item} at {node} is {one.state}, and was to leave")
    kept = sum(one.reference is not None for one in own.values() if one.own)
    if kept != len(told.items):
        found.wrong.append(f"{node} has {kept} reports and acknowledged {len(told.items)}")
    for reference, items in told.replaced.items():
        for item in items:
            elsewhere = [other for other, held in at.items() if item in held and other != node]
            found.where["came back from others" if item in own else "handed in again"] += 1
            if item not in own and elsewhere:
                found.wrong.append(
                    f"{elsewhere} hold item {item} ({reference}), which {node} lost and has not got back"
                )


def _custody(
    node: str, item: str, at: Mapping[str, Mapping[str, Standing]], found: Custody, told_again: frozenset[ToldAgain]
) -> None:
    rows = {holder: held[item] for holder, held in at.items() if item in held}
    first = rows[node]
    states = {holder: row.state for holder, row in rows.items()}
    if first.taken_back:
        found.where["withdrawn"] += 1
        if not _ENDS.issuperset(states.values()):
            found.wrong.append(f"{node} took item {item} back, and it stands so: {states}")
        return
    having = [holder for holder, row in rows.items() if not row.taken_back and row.has_it(holder)]
    if len(having) != 1:
        found.wrong.append(f"item {item} of {node} has {len(having)} custodians: {states}")
        return
    (custodian,) = having
    found.where[_where(node, custodian, rows[custodian])] += 1
    if custodian == node or first.state == "duplicate" or first.assigned_node == custodian:
        return
    if ToldAgain(item, custodian, node) in told_again:
        found.where["is told again, after an old proof"] += 1
    else:
        found.wrong.append(f"{custodian} has item {item}, and its reporter {node} holds {first.assigned_node} for that")


def _where(reporter: str, custodian: str, row: Standing) -> str:
    if row.hosting_country == ORPHANED and row.state not in {"duplicate", "waiting"}:
        return "orphan"
    if row.state in {"kept", "assigned"}:
        return f"{row.state} {'at home' if custodian == reporter else 'abroad'}"
    return row.state


async def read(nodes: Sequence[SoakNode]) -> dict[str, dict[str, Standing]]:
    """Return how every item stands at every node."""
    found: dict[str, dict[str, Standing]] = {}
    for node in nodes:
        async with node.db.transaction("test.items") as tx:
            rows = [dict(row) for row in await tx.fetch(_STANDINGS, node.id)]
        found[node.id] = {row.pop("id"): Standing(**row) for row in rows}
    return found


async def told_again(nodes: Sequence[SoakNode]) -> frozenset[ToldAgain]:
    """Return what nodes are still to tell again; what is due was told while the soak waited (`SoakNode.waiting`)."""
    found: set[ToldAgain] = set()
    for node in nodes:
        async with node.db.transaction("test.again") as tx:
            rows = await tx.fetch(_TOLD_AGAIN)
        found |= {ToldAgain(row["item"], node.id, row["reporter"]) for row in rows}
    return frozenset(found)


async def unknown_to_the_desk(nodes: Sequence[SoakNode], coordinators_database: str) -> list[str]:
    """Return what is wrong where a node says that the desk has a dispute."""
    desk = Database(coordinators_database)
    try:
        async with desk.transaction("test.cases") as tx:
            known = {row["id"] for row in await tx.fetch("SELECT id::text FROM desk_cases WHERE kind = 'dispute'")}
    finally:
        await desk.close()
    wrong = []
    for node in nodes:
        async with node.db.transaction("test.disputes") as tx:
            asked = {row["id"] for row in await tx.fetch(_ASKED)}
        wrong += [f"dispute {one} of {node.id} is not at the desk" for one in asked - known]
    return wrong
