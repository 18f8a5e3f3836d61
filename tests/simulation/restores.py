"""A node's storage goes back to what was committed earlier, as from a backup, and its operator runs `hotline recover`.

What the node then writes is held to what it had told the others, and what it had told nobody is gone with its storage.
"""

import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from node.errors import OperatorError
from node.hotline.assembly import Node
from node.hotline.domain.comparison import Direction, Kind
from node.hotline.recovery import OpenDoor, Visits, recover
from node.hotline.serve import recovery_app
from tests.simulation.plan import Event
from tests.simulation.sql.tables import Row, Tables

if TYPE_CHECKING:
    from tests.simulation.station import Run, Station
    from tests.simulation.world import World

#: How often an operator looks whether a node was told that it stands on older storage, and tries to recover again.
_LOOK_EVERY_S: Final = 3.0
#: How long a recovery waits for who only fetches; such a node comes by every few seconds.
_WAIT_S: Final = 30.0
#: How long a node that was set back serves alone: longer than a start waits for the answers of peers.
_ALONE_S: Final = 9.0
#: How long a node that was set back is left to itself: its peers can be reached long before.
_UNATTENDED_S: Final = 60.0
#: Whom the operator may believe, as the command says it.
_BELIEVE: Final = re.compile(r"--believe (\S+)")
#: What only this node's own signature proves.
_SET_BACK: Final = frozenset({Kind.SET_BACK, Kind.OTHER_ROOT})


@dataclass(slots=True)
class Restores:
    """The operators; `ever` are the nodes that were set back, `due` those that are recovered before they serve."""

    world: "World"
    ever: set[str] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    #: Nodes on older storage that are left to find out by themselves.
    unattended: set[str] = field(default_factory=set)
    #: Receipts that left a node which has forgotten them, and that its peer had not stored by then.
    forgotten: set[bytes] = field(default_factory=set)

    def happen(self, event: Event) -> None:
        """Make a backup now, and put it back when the event's time is over."""
        station = self.world.station(event.node)
        backup, folder = station.disk.tables.copied(), dict(station.trusted)
        self.world.later(event.amount, lambda: self._put_back(station, backup, folder, event))

    def _put_back(self, station: "Station", backup: Tables, folder: dict[str, bytes], event: Event) -> None:
        world = self.world
        world.note("--", "info", f"{station.id} is set back by {event.amount:.2f} s")
        station.crash(float(event.number))
        station.disk.restore(backup)
        if event.detail == "folder":
            station.trusted = folder
        if station.id not in self.ever:
            world.later(_LOOK_EVERY_S, lambda: self._look(station))
        self.ever.add(station.id)
        if event.detail == "alone":
            station.alone = True
            world.later(event.number + _ALONE_S, lambda: self._noticed(station))
        elif event.detail == "unattended":
            self.unattended.add(station.id)
            world.later(event.number + _UNATTENDED_S, lambda: self._noticed(station))
        else:
            self.due.add(station.id)
        world.checks.set_back(station)

    def _noticed(self, station: "Station") -> None:
        """Somebody sees that the node was not recovered: what it wrote meanwhile nobody was told."""
        if station.alone or station.id in self.unattended:
            station.alone = False
            self.due.add(station.id)
            station.crash(1.0)

    def is_set_back(self, station: "Station") -> bool:
        """Tell whether a node stands on older storage, and is recovered or to be recovered."""
        return station.alone or station.id in self.due | self.unattended or self.told(station)

    def _look(self, station: "Station") -> None:
        """Stop a node that was told so, and recover it again."""
        if station.id not in self.due and self.told(station):
            self.due.add(station.id)
            station.crash(1.0)
        self.world.later(_LOOK_EVERY_S, lambda: self._look(station))

    def told(self, station: "Station") -> bool:
        """Tell whether a peer proved to a node that it told more than its storage holds, or who was left out says so.

        Such a one cannot always prove it: who only fetches is not asked for what it keeps.
        """
        standing = [row for row in station.disk.rows("stream_differences") if row["mended_at"] is None]
        left_out = {row["peer"] for row in standing if row["kind"] == Kind.NOT_ASKED} & self.world.stations.keys()
        return any(is_set_back(row) or (row["peer"] in left_out and row["kind"] in _SET_BACK) for row in standing)

    def is_unaware(self, station: "Station") -> bool:
        """Tell whether a node serves on older storage and nobody has noticed."""
        return station.id in self.unattended and station.run is not None and station.run.node is not None

    async def recover(self, run: "Run", node: Node) -> None:
        """Run `hotline recover`, again and again until it succeeds."""
        station, world = run.station, self.world
        believed: set[str] = set()
        while station.id in self.due:
            try:
                done = await recover(node, self._without(), _door(run, node), wait_s=_WAIT_S, believed=believed)
            except OperatorError as error:
                world.note(station.id, "info", f"recover: {error.sentence}")
                # A thief here comes only once a peer has heard: what that had taken before nobody else had written.
                believed |= set(_BELIEVE.findall(error.sentence))
            except (asyncpg.PostgresError, OSError) as error:
                world.note(station.id, "info", f"recover: {type(error).__name__}")
            else:
                world.note(station.id, "info", f"recovered: {done}")
                self.due.discard(station.id)
                self.unattended.discard(station.id)
                return
            await world.loop.pause(_LOOK_EVERY_S)

    def _without(self) -> Collection[str]:
        """Nobody waits for who never says what it holds."""
        return () if self.world.hostile is None else (self.world.hostile.id,)

    def is_lost(self, node: str, item: UUID) -> bool:
        """Tell whether a report was lost with a node's storage, for nobody else had heard of it."""
        if node not in self.ever:
            return False
        return not any(item in log.items for (sender, _, _), log in self.world.checks.logs.items() if sender == node)


def is_set_back(row: Row) -> bool:
    """Tell whether a difference is the proof that the node itself stands on older storage."""
    return bool(
        row["proven"] and row["mended_at"] is None and row["direction"] == Direction.OUT and row["kind"] in _SET_BACK
    )


def _door(run: "Run", node: Node) -> OpenDoor:
    @asynccontextmanager
    async def opened(visits: Visits) -> AsyncIterator[None]:
        run.app, _ = recovery_app(node, visits)
        run.app.freeze()
        try:
            yield
        finally:
            run.app = None

    return opened
