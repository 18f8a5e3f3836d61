"""What goes wrong in a history: processes die, links fail, clocks err, storage is away, the directory changes hands.

Each event is the method of its name.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation import members
from tests.simulation.hostile import Hostile
from tests.simulation.network import Link
from tests.simulation.plan import ACTIVE_S, SELDOM, Event
from tests.simulation.sql.tables import ROW_ID, Blocked
from tests.simulation.station import Commit

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True)
class Faults:
    """Lets faults happen in a history."""

    world: "World"

    # A node.

    def crash(self, event: Event) -> None:
        """A process dies, and starts again `amount` seconds later."""
        self.world.station(event.node).crash(event.amount)

    def crash_at_commit(self, event: Event) -> None:
        """A process is to die before or after its `number`-th commit of a name from now on, or of `any` or `seldom`."""
        side, name = event.detail.split()
        planned = Commit(event.number, side == "after", event.amount)
        if name == "any":
            planned.writing = True
        elif name == "seldom":
            planned.names, planned.writing = SELDOM, True
        else:
            planned.names = {name}
        self.world.station(event.node).planned.append(planned)

    def database_away(self, event: Event) -> None:
        """A node's database does not answer."""
        station = self.world.station(event.node)
        station.database_down = True
        station.disk.crash()

        def back() -> None:
            station.database_down = False

        self.world.later(event.amount, back)

    def apply_held(self, event: Event) -> None:
        """Another worker has what is to be applied, and is slow."""
        station = self.world.station(event.node)
        session = station.disk.tables.begin()
        for row in station.disk.rows("apply_cursors"):
            with suppress(Blocked):
                session.lock("apply_cursors", row[ROW_ID])
        self.world.later(min(event.amount, ACTIVE_S - event.at_s), session.end)

    def clock(self, event: Event) -> None:
        """A node's clock is `number` seconds ahead."""
        clock = self.world.station(event.node).clock
        clock.ahead_s = float(event.number)
        self.world.later(event.amount, lambda: setattr(clock, "ahead_s", 0.0))

    # The network.

    def cut(self, event: Event) -> None:
        """Nothing comes through in one direction."""
        self._for(event.amount, next(self._between(event)), "cut", True, False)

    def cut_both(self, event: Event) -> None:
        """Nothing comes through in either direction."""
        for link in self._between(event):
            self._for(event.amount, link, "cut", True, False)

    def lossy(self, event: Event) -> None:
        """A share of the messages is lost."""
        for link in self._between(event):
            self._for(event.amount, link, "loss", event.number / 100, 0.0)

    def doubling(self, event: Event) -> None:
        """A share of the messages comes twice."""
        for link in self._between(event):
            self._for(event.amount, link, "double", event.number / 100, 0.0)

    def garbling(self, event: Event) -> None:
        """A share of the messages has a wrong bit."""
        for link in self._between(event):
            self._for(event.amount, link, "garble", event.number / 100, 0.0)

    def slow(self, event: Event) -> None:
        """Messages take up to `number` seconds."""
        for link in self._between(event):
            self._for(event.amount, link, "delay_s", (0.1, float(event.number)), Link().delay_s)

    def _between(self, event: Event) -> Iterator[Link]:
        """Both directions, changed until the event is over."""
        ends = members.node_id(event.node), members.node_id(event.other)
        for source, target in (ends, ends[::-1]):
            yield self.world.network.link(source, target)

    def _for(self, seconds: float, link: Link, name: str, value: object, after: object) -> None:
        setattr(link, name, value)
        self.world.later(seconds, lambda: setattr(link, name, after))

    # The directory.

    def directory(self, event: Event) -> None:  # noqa: ARG002 - the same for every node
        """Sign a newer version; it reaches each node some seconds later."""
        world = self.world
        world.version += 1
        world.expiry.sign()
        for station in world.stations.values():
            # What was signed since then is there too.
            world.later(world.rng.uniform(0.0, 8.0), partial(world.expiry.write, station))

    def old_directory(self, event: Event) -> None:
        """Somebody puts an older version in the place of a node's directory."""
        station = self.world.station(event.node)
        station.file.write(self.world.first)
        if event.number:
            # The node's own folder was set back too, as from a backup: its database remembers.
            station.trusted = dict(station.file.files)
            station.crash(1.0)

    def stolen_key(self, event: Event) -> None:
        """Somebody signs with the first keys of a node, which may be retired by now."""
        world = self.world
        if world.entries[event.node]["keys"][0]["state"] == "retired" and not world.healed:
            thief = Hostile(world, members.node_id(event.node), "honest")
            world.spawn(thief.steal(members.node_id(event.other)))
