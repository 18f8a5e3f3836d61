"""Disputes in a history: two hotlines push an item to and fro, the desk rules, and everybody keeps to it.

Only in a history with a desk. The rules are written from docs/protocol.md, section 6, "Disputes", and use none of the
code that decides.
"""

import random
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from node.hotline.domain.lifecycle import HELD, State, TransitionRefused
from protocol.codes import TransferReason
from protocol.custody import FOUND_ELSEWHERE
from protocol.desk import Ruling
from protocol.steps import TransferBody
from tests.simulation.custody import has_custody
from tests.simulation.desk import NetworkDesk
from tests.simulation.members import DESK
from tests.simulation.plan import Event
from tests.simulation.sql.tables import Row
from tests.simulation.station import Run, Station

if TYPE_CHECKING:
    from tests.simulation.checks import Stream
    from tests.simulation.world import World

#: How often a node asks the desk, in seconds, and the seconds between two pushes.
DESK_POLL_S = 3.0
_PAUSE_S = (0.4, 2.5)
#: The mark of an item that is at the desk, at who has heard of it.
_MARK = "disputed"
#: The reason of an item that stays, or goes, by the desk's word.
_RULED = "ruling"


@dataclass(frozen=True, slots=True)
class Given:
    """A transfer as it was written: when, where, why."""

    at_s: float
    stream: "Stream"
    idx: int
    reason: TransferReason


@dataclass(slots=True)
class Disputes:
    """Who disputes, and what is looked at; `given` are all transfers by item."""

    world: "World"
    rng: random.Random = field(init=False)
    desk: NetworkDesk | None = None
    given: dict[UUID, list[Given]] = field(default_factory=dict)
    followed: dict[bytes, float] = field(default_factory=dict)
    _addresses: Any = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        """Take chances of their own."""
        self.rng = random.Random(f"disputes {self.world.plan.seed}")

    def open(self) -> None:
        """Put the desk on the network."""
        self.desk = NetworkDesk(self.world, random.Random(f"ruling {self.world.plan.seed}"))
        self.world.network.hosts[f"https://{DESK}"] = DESK
        self.world.network.strangers[DESK] = self.desk
        self.world.spawn(self.desk.sits())

    def heal(self) -> None:
        """End what is wrong with the desk."""
        if self.desk is not None:
            self.desk.down = self.desk.forging = False

    # What happens.

    def ping_pong(self, event: Event) -> None:
        """Each of two hotlines says of an item that it is the other's, as often as it has it."""
        self._push(event, None, event.number)

    def _push(self, event: Event, item: UUID | None, left: int) -> None:
        if left == 0 or self.world.healed:
            return
        for station in self.world.stations.values():
            rows = [row for row in station.disk.rows("items") if item in {None, row["id"]}]
            held = [row for row in rows if row["state"] in HELD and row["received_stream"] is not None]
            if held and station.run is not None and (item is not None or station.country == event.node):
                item, left = held[0]["id"], left - 1
                other = event.node if station.country == event.other else event.other
                self.world.act_at(station, self._says(station.run, held[0], other, event.detail))
                break
        self.world.later(self.rng.uniform(*_PAUSE_S), lambda: self._push(event, item, left))

    async def _says(self, run: Run, row: Row, country: str, by: str) -> None:
        address = f"192.0.2.{next(self._addresses)}" if by == "address" else None
        if run.node is not None:
            with suppress(TransitionRefused, asyncpg.PostgresError):
                await run.node.store.asker().ask(row["id"], country, address)

    def desk_down(self, event: Event) -> None:
        """The desk cannot be reached."""
        self._for(event, "down")

    def desk_forges(self, event: Event) -> None:
        """Somebody else answers at the desk's door."""
        self._for(event, "forging")

    def _for(self, event: Event, name: str) -> None:
        setattr(self.desk, name, True)
        self.world.later(event.amount, lambda: setattr(self.desk, name, False))

    def desk_lossy(self, event: Event) -> None:
        """Calls to the desk are lost, or its answers; of every node."""
        for node in self.world.stations:
            for ends in ((node, DESK), (DESK, node)):
                link = self.world.network.link(*ends)
                link.loss = event.number / 100
                self.world.later(event.amount, lambda link=link: setattr(link, "loss", 0.0))  # type: ignore[misc] # bound early

    def desk_restored(self, event: Event) -> None:
        """The desk goes back to what it held when the event began."""
        desk = self.desk
        if desk is not None:
            backup = desk.disk.tables.copied()
            self.world.later(event.amount, lambda: desk.restore(backup))

    # After every commit.

    def dispute(self, station: Station, row: Row) -> None:
        """A dispute ends by the desk's word on it and by nothing else, and the item is at the desk no longer."""
        if row["followed_at"] is None:
            return
        ruling = self._signed(row["ruling"])
        if ruling is None or ruling.dispute != str(row["id"]):
            self._say(f"{station.id} follows a ruling that the desk never signed in this dispute")
            return
        (item,) = station.disk.find("items", id=row["item_id"])
        if item["reason"] == _RULED:
            # Else it was closed, or is over, before the desk had ruled.
            self.followed.setdefault(row["ruling"], self.world.loop.time())
        if item["state"] == State.DISPUTED and not station.disk.find("disputes", item_id=item["id"], followed_at=None):
            self._say(f"an item of {station.id} is at the desk, which has ruled on it")

    def transfer(self, stream: "Stream", idx: int, item: UUID, body: TransferBody) -> None:
        """Nothing moves on evidence of its chain, or on a ruling that is not of this item, this giver and receiver."""
        seen = [one.evidence for one in body.trail[:-1]]
        if body.reason in FOUND_ELSEWHERE and body.trail[-1].evidence in seen:
            self._say(f"{stream[0]} hands an item on to {stream[1]} by evidence that was seen before")
        if body.reason is TransferReason.RULING:
            ruling = self._signed((body.ruling or "").encode())
            if ruling is None or (UUID(ruling.item), ruling.custodian) != (item, stream[1]):
                self._say(f"{stream[0]} hands an item on to {stream[1]} by no ruling of the desk")
        self.given.setdefault(item, []).append(Given(self.world.loop.time(), stream, idx, body.reason))

    def _signed(self, raw: bytes | None) -> Ruling | None:
        """Return a ruling if the desk signed it."""
        known = {} if self.desk is None else self.desk.signed
        return next((rulings[raw] for rulings in known.values() if raw in rulings), None)

    # At the end.

    def waiting(self, station: Station) -> str | None:
        """Tell what a node still waits for of the desk."""
        if self.desk is not None and station.disk.find("disputes", followed_at=None):
            return f"a dispute of {station.id} is not settled"
        return None

    def at_the_end(self) -> None:
        """Who was told that an item is at the desk was told how that ended, and who ruled on has it."""
        for station in self.world.stations.values() if self.desk is not None else ():
            for row in station.disk.rows("items"):
                if row["state"] == State.DISPUTED or row["reason"] == _MARK:
                    self._say(f"an item of {station.id} is at the desk for ever: {row['state']} {row['reason']}")
        last: dict[str, tuple[float, Ruling]] = {}
        # What a storage that went back forgot is nobody's word any more.
        known = {row["ruling"] for station in self.world.stations.values() for row in station.disk.rows("disputes")}
        for raw, at_s in self.followed.items():
            ruling = self._signed(raw)
            if ruling is not None and raw in known:
                last[ruling.item] = max(last.get(ruling.item, (0.0, ruling)), (at_s, ruling), key=lambda one: one[0])
        for item, (at_s, ruling) in last.items():
            self._kept_to(UUID(item), at_s, ruling)

    def _kept_to(self, item: UUID, at_s: float, ruling: Ruling) -> None:
        """The item is where the last ruling has it, unless it was moved later, or its transfer was refused."""
        refused = {(refusal[:3], refusal[3]) for refusal in self.world.checks.refused}
        for one in self.given.get(item, ()):
            if one.at_s > at_s or (one.at_s == at_s and (one.stream, one.idx) in refused):
                return
        for station in self.world.stations.values():
            for row in station.disk.find("items", id=item):
                if has_custody(station.id, row) and row["withdrawn_at"] is None and station.id != ruling.custodian:
                    self._say(f"{station.id} has an item that is {ruling.custodian}'s by the desk's ruling")

    def _say(self, sentence: str) -> None:
        self.world.violated("ruling", sentence)
