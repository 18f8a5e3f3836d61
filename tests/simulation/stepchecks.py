"""The rules of the steps of analysts, held after every commit, and at the end on both sides of each item.

They are written from docs/protocol.md, section 3, and use none of the code that decides.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from node.hotline.domain.lifecycle import State
from protocol.codes import FINAL_ACTIONS
from tests.simulation.analysts import OFFENDER
from tests.simulation.custody import ENDS, GIVING, has_custody
from tests.simulation.sql.tables import Row
from tests.simulation.station import Station

if TYPE_CHECKING:
    from tests.simulation.world import World

_OPEN: Final = {State.SENT, State.TRANSFERRED}
#: What the first reporter holds an item for, by where it stands at the hotline that has it.
_AS_TOLD: Final = {
    State.ASSIGNED: _OPEN,
    State.KEPT: _OPEN,
    State.DISPUTED: _OPEN,
    # For whom never gives a receipt.
    State.LEAVING: _OPEN,
    State.CLOSED: {State.DECLINED, State.TRANSFERRED},
    # Taken back after the end, before that was heard of.
    State.DONE: {State.DONE, State.WITHDRAWN},
    State.WITHDRAWN: {State.WITHDRAWN},
}
STEPS: Final = frozenset({"assessment", "action", "correction", "withdrawal", "status-final"})


@dataclass(slots=True)
class StepChecks:
    """Remembers how each item stood at each node."""

    world: "World"
    stood: dict[tuple[str, UUID], tuple[str, bool]] = field(default_factory=dict)
    lied_about: set[UUID] = field(default_factory=set)
    #: By stream, how far its receiver had applied it since when.
    read: dict[tuple[str, str, int], list[tuple[float, int]]] = field(default_factory=dict)

    def _say(self, rule: str, sentence: str) -> None:
        self.world.violated(rule, sentence)

    def set_back(self, station: Station) -> None:
        """A node's storage went back: its items stand as they stood."""
        self.stood = {key: stood for key, stood in self.stood.items() if key[0] != station.id}
        for row in station.disk.rows("items"):
            self._stands(station, row)
        for row in station.disk.rows("apply_cursors"):
            self.applied(station, row)

    # After every commit.

    def applied(self, station: Station, row: Row) -> None:
        """Remember how far a node has read what a peer says."""
        stream = self.world.checks.stream(station, "inbound_streams", row["stream"])
        self.read.setdefault(stream, []).append((self.world.loop.time(), row["applied"]))

    def item(self, station: Station, row: Row) -> None:
        """An end is an end, and a baseline qualification is final."""
        key = station.id, row["id"]
        state, was_baseline = self.stood.get(key, (row["state"], False))
        if state in ENDS and row["state"] != state:
            self._say("end", f"an item of {station.id} that was {state} is {row['state']}")
        found = self._stands(station, row)
        if was_baseline and "baseline" not in found:
            self._say("baseline", f"{station.id} overruled a baseline qualification: {sorted(map(str, found))}")

    def _stands(self, station: Station, row: Row) -> set[str | None]:
        found = {_found(row["qualification"]), _found(row["peer_qualification"])} - {None}
        self.stood[station.id, row["id"]] = row["state"], "baseline" in found
        return found

    def action(self, station: Station, row: Row) -> None:
        """Each action once, nothing after a final one, and an offence changes nothing."""
        (item,) = station.disk.find("items", id=row["item_id"])
        if row["by"] == OFFENDER and item["assigned_node"] == row["node"]:
            # The item had gone to it meanwhile: what it said of it counts, though it knows better.
            self.lied_about.add(row["item_id"])
        elif row["by"] == OFFENDER and item["state"] != State.WITHDRAWN:
            self._say("offence", f"{station.id} holds the action {row['action']} of an offender")
        all_of = station.disk.find("actions", item_id=row["item_id"], node=row["node"])
        before = [one["action"] for one in all_of if one["id"] < row["id"]]
        if row["action"] in before:
            self._say("once", f"{station.id} holds {row['action']} by {row['node']} twice")
        if FINAL_ACTIONS & set(before):
            self._say("end", f"{station.id} holds {row['action']} by {row['node']} after {before}")

    def refused(
        self, station: Station, stream: tuple[str, str, int], row: Row, kind: str, item: UUID | None
    ) -> str | None:
        """Return what is wrong with the refusal of an honest node's record, or None."""
        (kept,) = station.disk.find("inbox", stream=row["stream"], idx=row["idx"])
        code, offence = row["code"], self.world.analysts.offences.get(kept["leaf_hash"])
        if offence is not None:
            return None if code in {"not-competent", "handling-violation"} else f"an offence was refused with {code}"
        if code in {"id-conflict", "not-competent"} and self.world.authority.crossed(item):
            # What such a one had written before, and what waited for it, come when the item is elsewhere.
            return None
        if kind in GIVING and code == "not-competent" and station.id in self.world.authority.left:
            # It crossed the news that this one has no country any more.
            return None
        if kind == "transfer" and code == "id-conflict":
            # It was on its way home when its reporter took it back, or goes to who had it from the same giver before.
            if self.world.checks.custody.is_given_twice(station, item):
                return None
            stands = station.disk.find("items", id=item)
            over = bool(stands) and stands[0]["state"] == State.WITHDRAWN
            return None if over or item in self.lied_about else "the item had left"
        if kind in STEPS and code in {"not-competent", "handling-violation"}:
            return None if self._crossed(stream, row["idx"], item, code) else "its writer had read all of the item"
        return "it was good"

    def _crossed(self, stream: tuple[str, str, int], idx: int, item: UUID | None, code: str) -> bool:
        """Tell whether a step's writer had not read yet what it is told of the item, or could not be told yet.

        Of a transfer the reporter hears from its receiver, which has to read it first. And whoever did not believe
        who has an item is told so again, later.
        """
        logs, writer = self.world.checks.logs, stream[0]
        if idx >= len(logs[stream].written_s):
            # It was lost with its writer's storage.
            return True
        for iss, aud, epoch, place, _ in self.world.checks.refused - {(*stream, idx, code)}:
            log = logs.get((iss, aud, epoch))
            if aud != stream[1] or log is None or place >= len(log.items):
                continue
            if (log.items[place], log.types[place]) == (item, "status"):
                return True
        written_s = logs[stream].written_s[idx]
        return any(
            about == item and (said[1] == writer or kind == "transfer")
            for said, log in logs.items()
            if said[0] != writer
            for kind, about in list(zip(log.types, log.items, strict=True))[self._read_until(said, written_s) :]
        )

    def _read_until(self, stream: tuple[str, str, int], at_s: float) -> int:
        """Return how much of a stream its receiver had applied before a moment."""
        return next((size for since_s, size in reversed(self.read.get(stream, ())) if since_s < at_s), 0)

    # At the end.

    def at_the_end(self) -> None:
        """Compare each offence with what became of it."""
        for leaf, offence in self.world.analysts.offences.items():
            receiver = self.world.stations[offence.peer]
            stands = receiver.disk.find("items", id=offence.item)
            had_it = offence.item in self.lied_about or (bool(stands) and stands[0]["assigned_node"] == offence.node)
            if had_it or (stands and stands[0]["state"] == State.WITHDRAWN):
                # What was on its way when the report was taken back is noted; and whoever gets an item may act, though
                # it has given it back since.
                continue
            places = receiver.disk.find("inbox", leaf_hash=leaf)
            for place in places:
                (cursor,) = receiver.disk.find("apply_cursors", stream=place["stream"])
                if place["idx"] >= cursor["applied"]:
                    # Of one that has left nothing more may be read.
                    continue
                if not receiver.disk.find("inbox_refusals", stream=place["stream"], idx=place["idx"]):
                    self._say("offence", f"{receiver.id} took a step of {offence.node} that the rules refuse")

    def withdrawn(self, reporter: str, holders: dict[str, str]) -> None:
        """A withdrawal reaches every holder."""
        if not ENDS.issuperset(holders.values()):
            self._say("withdrawn", f"an item that {reporter} took back stands so: {holders}")

    def both_sides(self, item: UUID, reporter: str, rows: dict[str, Row]) -> None:
        """The first reporter holds an item for what it is where it is, and heard of each step."""
        custodian = next((node for node, row in rows.items() if has_custody(node, row)), None)
        first = rows[reporter]
        if custodian is None or custodian == reporter or first["state"] == State.DUPLICATE:
            return
        if first["state"] == State.REFUSED:
            return
        last = rows[custodian]
        if first["state"] == last["state"] == State.WITHDRAWN:
            # Nobody has it to act on; its reporter may have taken it back on storage in which it had not left.
            return
        if first["assigned_node"] != custodian:
            self._say("told", f"{reporter} holds {first['assigned_node']} for the custodian, which is {custodian}")
        if first["state"] not in _AS_TOLD[State(last["state"])]:
            self._say("told", f"an item is {last['state']} at {custodian} and {first['state']} at {reporter}")
        if first["state"] == State.WITHDRAWN:
            return
        found, heard = _found(last["qualification"]), _found(first["peer_qualification"])
        if found is not None and found != heard:
            self._say("told", f"{custodian} found an item {found}, {reporter} heard {heard}")
        for node in rows.keys() - {reporter}:
            done, known = self._actions(node, item, node), self._actions(reporter, item, node)
            if done != known:
                self._say("told", f"{node} did {done}, {reporter} heard of {known}")
        if self._site(reporter, first) != self._site(custodian, last):
            self._say("told", f"{custodian} does not know what {reporter} corrected")

    def _actions(self, holder: str, item: UUID, actor: str) -> list[str]:
        found = self.world.stations[holder].disk.find("actions", item_id=item, node=actor)
        return sorted(f"{row['action']} {row['at']}" for row in found if row["by"] != OFFENDER)

    def _site(self, node: str, row: Row) -> Any:
        return self.world.stations[node].disk.find("cases", id=row["case_id"])[0]["site_type"]


def _found(column: Any) -> str | None:
    return None if column is None else str(column["classification"])
