"""I11 of docs/protocol.md, section 10, after every commit and at the end: an item has one custodian, or is on its way.

Who has an item is taken from each node's own word. What the protocol allows on the way is in `Custody.committed`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from node.hotline.domain.comparison import Kind
from node.hotline.domain.lifecycle import State
from protocol.codes import WithdrawalReason
from tests.simulation.sql.tables import Row, Session
from tests.simulation.station import Station

if TYPE_CHECKING:
    from tests.simulation.checks import Stream
    from tests.simulation.world import World

#: What nothing follows.
ENDS: Final = frozenset({State.DONE, State.WITHDRAWN})
#: Records that give an item to their receiver.
GIVING: Final = frozenset({"report", "transfer"})


@dataclass(slots=True)
class Custody:
    """Looks at the items that a commit touched: `stood` is how each stood, `applied` how far each stream was read."""

    world: "World"
    stood: dict[tuple[str, UUID], str] = field(default_factory=dict)
    applied: dict[tuple[str, int], int] = field(default_factory=dict)

    def _say(self, invariant: str, sentence: str) -> None:
        self.world.violated(invariant, sentence)

    def set_back(self, station: Station) -> None:
        """A node's storage went back: so does what is known of it."""
        for known in (self.stood, self.applied):
            for key in [key for key in known if key[0] == station.id]:
                del known[key]  # type: ignore[arg-type] # keys of either begin with the node
        for row in station.disk.rows("items"):
            self.stood[station.id, row["id"]] = row["state"]
        for row in station.disk.rows("apply_cursors"):
            self.applied[station.id, row["stream"]] = row["applied"]

    # After every commit.

    def committed(self, station: Station, session: Session) -> None:
        """Hold the items that one transaction touched to section 7, "Custody", and section 6, "Without a receipt".

        Two nodes never both have an item by their own words. These are no such word:

        - `leaving`: it is the giver's from the transfer until its receipt is stored, while the receiver takes it;
        - that of a node to which its giver wrote that it has the item again, until that is read;
        - that of a node on older storage, until it is recovered, and until the other who has the item is asked too,
          where the recovery left that one out;
        - that of a node to which such a one gave an item that it had given to the other before.

        Nobody has an item only while a record that gives it is not applied, or its refusal is not heard; or an offender
        closed it that got it meanwhile. A giver lets go in the transaction that stores the receipt, not before and not
        after.
        """
        for row in session.writes.get("items", {}).values():
            if row is not None:
                self._lets_go(station, row)
        for row in session.writes.get("delivery_cursors", {}).values():
            if row is not None:
                self._still_leaving(station, row)
        for item in self._touched(station, session):
            self._look(item)

    def _touched(self, station: Station, session: Session) -> Iterable[UUID]:
        found = {row["id"]: None for row in session.writes.get("items", {}).values() if row is not None}
        for row in session.writes.get("apply_cursors", {}).values():
            if row is not None:
                found |= dict.fromkeys(self._given(station, row))
        return found

    def _given(self, station: Station, cursor: Row) -> Iterable[UUID]:
        """Return the items of records applied since the last look that give one."""
        key = station.id, cursor["stream"]
        first, self.applied[key] = self.applied.get(key, 0), cursor["applied"]
        log = self.world.checks.logs.get(self.world.checks.stream(station, "inbound_streams", cursor["stream"]))
        if log is None:
            return []
        places = range(first, min(cursor["applied"], len(log.types)))
        return [item for idx in places if log.types[idx] in GIVING and (item := log.items[idx]) is not None]

    def _lets_go(self, station: Station, row: Row) -> None:
        """A giver has the item until the receipt of its transfer is stored."""
        key = station.id, row["id"]
        before, self.stood[key] = self.stood.get(key), row["state"]
        if (
            row["state"] != State.TRANSFERRED
            or before in {None, State.TRANSFERRED}
            or self.world.restores.is_set_back(station)
        ):
            return
        for chain in station.disk.find("custody", item_id=row["id"]):
            if chain["out_stream"] is None:
                # It went back to who gave it.
                continue
            (cursor,) = station.disk.find("delivery_cursors", stream=chain["out_stream"])
            if cursor["acked_size"] <= chain["out_idx"]:
                self._say("I11", f"{station.id} let an item go before it had the receipt of its transfer")

    def _still_leaving(self, station: Station, cursor: Row) -> None:
        """What a stored receipt gave away is not held any more."""
        for chain in station.disk.find("custody", out_stream=cursor["stream"]):
            if chain["out_idx"] < cursor["acked_size"] and not self.world.restores.is_set_back(station):
                (row,) = station.disk.find("items", id=chain["item_id"])
                if row["state"] == State.LEAVING:
                    self._say("I11", f"{station.id} still has an item though it stored the receipt of its transfer")

    def _look(self, item: UUID) -> None:
        rows, claims = self._claims(item)
        if len(claims) == 1:
            return
        reporter = next((row["reporter"] for row in rows.values() if row["reporter"]), None) or next(iter(rows), None)
        first = rows.get(reporter or "")
        if first is None or first["withdrawn_at"] is not None:
            # It was reported by who is no node here, or its report was lost with the storage, or is taken back.
            return
        held = [node for node in claims if self._counts(node, item, rows, claims)]
        if len(held) > 1:
            states = {node: row["state"] for node, row in rows.items()}
            self._say("I11", f"an item of {reporter} has {len(held)} custodians at once: {states}")
        elif not claims and item not in self.world.checks.steps.lied_about and not self._is_on_its_way(item):
            states = {node: row["state"] for node, row in rows.items()}
            self._say("I11", f"nobody has an item of {reporter}, and it is not on its way: {states}")

    def _counts(self, node: str, item: UUID, rows: dict[str, Row], claims: list[str]) -> bool:
        """Tell whether a node's claim is to hold against another's."""
        station, row = self.world.stations[node], rows[node]
        if row["state"] == State.LEAVING or row["withdrawn_at"] is not None or self.world.restores.is_set_back(station):
            return False
        if self._is_given_twice(node, rows, claims):
            return False
        return _left_out(station).isdisjoint(claims) and not self._is_taken_back_from(station, item)

    def _claims(self, item: UUID) -> tuple[dict[str, Row], list[str]]:
        """Return an item as each node holds it, and the nodes that have it by their own words."""
        rows = {one.id: found[0] for one in self.world.stations.values() if (found := one.disk.find("items", id=item))}
        return rows, [node for node, row in rows.items() if has_custody(node, row)]

    def is_given_twice(self, station: Station, item: UUID | None) -> bool:
        """Tell whether a node and another have an item from who cannot know yet that it gave it twice."""
        if item is None:
            return False
        rows, claims = self._claims(item)
        return station.id in claims and any(self._is_given_twice(node, rows, claims) for node in claims)

    def _is_given_twice(self, node: str, rows: dict[str, Row], claims: list[str]) -> bool:
        """Tell whether who gave an item to a node cannot know yet that it had given it to another one before."""
        giver = self.world.stations.get(self._giver(node, rows[node]) or "")
        if giver is None:
            return False
        others = {one for one in claims if one != node and self._giver(one, rows[one]) == giver.id}
        return bool(others) and (self.world.restores.is_set_back(giver) or not _left_out(giver).isdisjoint(others))

    def _giver(self, node: str, row: Row) -> str | None:
        """Return who gave an item to a node; None for its own."""
        found = self.world.stations[node].disk.find("inbound_streams", id=row["received_stream"])
        return found[0]["peer"] if found else None

    def _is_taken_back_from(self, station: Station, item: UUID) -> bool:
        """Tell whether a withdrawal of an item that a giver wrote is still to be read at a node."""
        for stream, log in self.world.checks.logs.items():
            if stream[1] == station.id:
                unread = range(self._applied(station, stream), len(log.types))
                if any(log.types[idx] == "withdrawal" and log.items[idx] == item for idx in unread):
                    return True
        return False

    def _is_on_its_way(self, item: UUID) -> bool:
        """Tell whether a record that gives an item is not applied, or its giver has not heard that it is refused."""
        checks = self.world.checks
        for stream, log in checks.logs.items():
            for idx, (kind, about) in enumerate(zip(log.types, log.items, strict=True)):
                if about != item or kind not in GIVING:
                    continue
                receiver = self.world.stations.get(stream[1])
                if receiver is None or self._applied(receiver, stream) <= idx or self._waits(receiver, stream, idx):
                    return True
                place = checks.told.places.get(stream, {}).get(idx)
                if place is None or self._applied(self.world.stations[stream[0]], place[0]) <= place[1]:
                    return True
        return False

    @staticmethod
    def _waits(receiver: Station, stream: "Stream", idx: int) -> bool:
        """Tell whether a record is judged again when what the receiver lost is back."""
        rows = receiver.disk.find("inbound_streams", peer=stream[0], epoch=stream[2])
        return any(receiver.disk.find("inbox_waiting", stream=row["id"], idx=idx) for row in rows)

    @staticmethod
    def _applied(station: Station, stream: "Stream") -> int:
        for row in station.disk.find("inbound_streams", peer=stream[0], epoch=stream[2]):
            return sum(one["applied"] for one in station.disk.find("apply_cursors", stream=row["id"]))
        return 0

    # At the end.

    def at_the_end(self) -> None:
        """Every report that was taken is somewhere, and one node has it."""
        for truth in self.world.truths.values():
            self._custody(truth.item, truth.node, truth.country, qualified=truth.qualified)

    def _custody(self, item: UUID, node: str, country: str, *, qualified: bool) -> None:
        """I1 and I11: a report that was taken is somewhere, and one node has it."""
        found = [(one.id, one.disk.find("items", id=item)) for one in self.world.stations.values()]
        rows = {holder: held[0] for holder, held in found if held}
        holders = {holder: row["state"] for holder, row in rows.items()}
        if not holders and self.world.restores.is_lost(node, item):
            return
        if node not in holders:
            self._say("I1", f"{node} took a report and does not have it")
            return
        over = rows[node]["withdrawn_at"] is not None
        held = {holder: row for holder, row in rows.items() if not _is_taken_back(row, over=over)}
        custodians = [holder for holder, row in held.items() if has_custody(holder, row)]
        left = self.world.authority.left
        assigned = rows[node]["assigned_node"]
        if left & {*held, assigned}:
            # It is not told any more what is written to it, and what it says, a refusal too, nobody hears.
            nobody = not custodians and assigned not in left
            if node not in left and (nobody or len(set(custodians) - left) > 1):
                self._say("I11", f"an item of {node} has {len(custodians)} custodians: {holders}")
            return
        owner = next((one.id for one in self.world.stations.values() if one.country == country), None)
        if item in self.world.checks.steps.lied_about:
            return
        if self.world.hostile is not None and (owner is None or self.world.hostile.was_given(item)):
            # Whoever has it does not say.
            return
        if over:
            self.world.checks.steps.withdrawn(node, holders)
        elif len(custodians) != 1:
            self._say("I11", f"an item of {node} has {len(custodians)} custodians: {holders}")
        self.world.checks.steps.both_sides(item, node, held)
        authority = self.world.authority
        if owner is not None and (owner in authority.left or authority.is_taken_back(owner, item)):
            # It was taken back, and never goes there by itself again.
            return
        moved = any(item in one.moved for one in self.world.stations.values())
        if owner in authority.ever and (moved or State.DONE in holders.values()):
            # Who had the mandate ended it meanwhile, or found it elsewhere.
            return
        if item in self.world.analysts.assessed or State.WITHDRAWN in holders.values():
            # Whether it may leave was said anew, perhaps after it left, or it never does any more.
            return
        if qualified and owner is not None and owner not in holders and State.REFUSED not in holders.values():
            self._say("I1", f"a qualified item of {node} hosted in {country} did not arrive: {holders}")
        if not qualified and node != owner and owner in holders:
            self._say("I10", f"an item of {node} that is not qualified left for {owner}")


def has_custody(node: str, row: Row) -> bool:
    """Tell whether a node has an item, by its own word."""
    if row["state"] in {State.SENT, State.DECLINED, State.TRANSFERRED}:
        return False
    return row["state"] not in ENDS or row["assigned_node"] in {None, node}


def _is_taken_back(row: Row, *, over: bool) -> bool:
    """Tell whether an item is a node's no more by its giver's word; `over` is whether its reporter took it back."""
    return row["withdrawn_at"] is not None and (not over or row["reason"] == WithdrawalReason.REROUTED)


def _left_out(station: Station) -> set[str]:
    """Return whom a node's recovery left out and it has not asked since."""
    return {one["peer"] for one in station.disk.find("stream_differences", kind=Kind.NOT_ASKED, mended_at=None)}
