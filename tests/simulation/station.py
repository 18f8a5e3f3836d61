"""One simulated node: the real assembly, loops and doors over virtual storage, network and time; it may crash any time.

A `Station` is what survives a crash (its disk, keys, settings); a `Run` is one life of the process.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Collection
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import aiohttp
import asyncpg
from aiohttp import web

from node.errors import OperatorError
from node.hotline import assembly
from node.hotline.assembly import Node, Store
from node.hotline.domain.intake import check_report
from node.hotline.domain.lifecycle import HELD, TransitionRefused
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Submission, Taken
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.hotline.serve import admission, peer_door, peer_routes
from node.hotline.store.vault import Vault
from node.platform.fieldcrypto import DigestKey, FieldCipher
from node.platform.keyfiles import NodeKeys
from node.platform.telemetry import Logger
from node.platform.tls import open_peer_tls
from node.platform.web import Limits, make_app
from node.settings import Settings
from protocol.profile import Request, Response
from tests.simulation.database import Disk, MemoryDatabase
from tests.simulation.incoming import incoming
from tests.simulation.services import METRICS, RUNNING, MemoryRepository, Recorder, VirtualClock, VirtualLocator
from tests.simulation.sql.tables import Session

if TYPE_CHECKING:
    from tests.simulation.world import World


_SLOW_STATEMENTS = 0.5
_TASKS_LOOK = 100


@cache
def _vault(key: bytes) -> Vault:
    """Return the field keys; made once, for each cipher asks to be told of forks for ever."""
    return Vault(FieldCipher({1: key}, 1), DigestKey(key))


@dataclass(slots=True)
class Commit:
    """A planned death: before or after a commit, the `left`-th of those that count.

    Those of the `names` count, or of any name; where `writing`, only those that write something.
    """

    left: int
    after: bool
    down_s: float
    names: Collection[str] | None = None
    writing: bool = False

    def meets(self, name: str, session: Session) -> bool:
        """Tell whether a commit counts."""
        return (self.names is None or name in self.names) and (not self.writing or bool(session.writes))


@dataclass(eq=False, slots=True)
class Station:
    """What of a node survives a crash."""

    world: "World"
    id: str
    country: str
    settings: Settings
    keys: NodeKeys
    file: MemoryRepository
    rng: random.Random
    disk: Disk = field(default_factory=Disk)
    vault: Vault = field(init=False)
    clock: VirtualClock = field(init=False)
    run: "Run | None" = None
    database_down: bool = False
    #: Nobody reaches it and it reaches nobody.
    alone: bool = False
    trusted: dict[str, bytes] = field(default_factory=dict)
    planned: list[Commit] = field(default_factory=list)
    #: Items of which a person here said that they are hosted elsewhere by now.
    moved: set[UUID] = field(default_factory=set)
    starts: int = 0

    def __post_init__(self) -> None:
        """Make what does not change."""
        key = (self.id.encode() * 32)[:32]
        self.vault = _vault(key)
        # What one history drew in advance is none of the next one's chance.
        self.vault.cipher._nonces.clear()
        self.clock = VirtualClock(self.world.loop)

    async def start(self) -> None:
        """Start the node, until it stands or dies."""
        self.starts += 1
        offered = self.world.expiry.offers(self)
        run = Run(self)
        self.run = run
        token = RUNNING.set(run)
        try:
            starting = asyncio.ensure_future(run.start())
        finally:
            RUNNING.reset(token)
        try:
            await starting
        except asyncio.CancelledError:
            if not run.dead:
                raise
        except OperatorError as error:
            # With an older directory put in its place, or by a wrong clock, it rightly refuses.
            right = offered and self.world.expiry.offers(self)
            if self.world.restores.told(self):
                self.world.restores.due.add(self.id)
            elif "went away" not in error.sentence and right:
                self.world.violated("unforeseen", f"{self.id} does not start: {error.sentence}")
            # Whoever watches over the process starts it again.
            self.crash(1.0)
        else:
            if run.node is None and not run.dead:
                self.crash(0.0)

    def crash(self, down_s: float) -> None:
        """Kill the node at once; it starts again after `down_s`."""
        run, self.run = self.run, None
        if run is None:
            return
        self.world.note(self.id, "info", "crash", down_s=f"{down_s:.1f}")
        self.disk.crash()
        run.kill()
        self.world.later(down_s, self._start_again)

    def _start_again(self) -> None:
        if self.run is None:
            self.world.note(self.id, "info", "restart")
            self.world.spawn(self.start())


class Run:
    """One life of a node's process; also the fate of its storage."""

    def __init__(self, station: Station) -> None:
        """Nothing runs yet."""
        self.station = station
        self.dead = False
        self._chance = station.rng.random
        self._loop = station.world.loop
        self._tasks: list[asyncio.Task[Any]] = []
        self._look_at = _TASKS_LOOK
        #: `assembled` is the node of any command, `node` the one that serves.
        self.assembled: Node | None = None
        self.node: Node | None = None
        self.app: web.Application | None = None

    async def start(self) -> None:
        """Assemble the node from its disk and start its loops; or recover it, where it was set back, and end."""
        node = self.assembled = await self._assemble()
        restores = self.station.world.restores
        if self.station.id in restores.due:
            await restores.recover(self, node)
            return
        self.node = node
        admitted = admission(node)
        door = peer_door(node, admitted)
        app = make_app(
            peer_routes(node, door, admitted),
            log=node.log,
            metrics=METRICS,
            limits=Limits(body_bytes_max=self.station.settings.body_bytes_max),
            finish=door.finish,
        )
        app.freeze()
        self.app = None if self.station.alone else app
        rounds = Rounds(node)
        if self.station.id in restores.ever:
            # As a process does it. For the others both at once is the harder case.
            await rounds.begin()
            Jobs(node, rounds).start()
            return
        Jobs(node, rounds).start()
        await rounds.begin()

    async def _assemble(self) -> Node:
        station = self.station
        db = MemoryDatabase(station.disk, self)
        store = Store(station.settings, station.clock, db, station.vault)
        log = cast("Logger", Recorder(station))
        membership = await assembly._membership(
            station.settings, store, station.clock, cast("aiohttp.ClientSession", None)
        )
        given: dict[str, Any] = {
            "settings": station.settings,
            "clock": station.clock,
            "log": log,
            "metrics": METRICS,
            "store": store,
            "membership": membership,
            "locator": VirtualLocator(station),
            "session": cast("aiohttp.ClientSession", None),
            "pool": cast("Executor", None),
            "tls": open_peer_tls(station.settings),
        }
        wanted = inspect.signature(assembly._node).parameters
        build: Any = assembly._node
        node: Node = build(**{name: given.get(name) for name in wanted})
        return node

    def kill(self) -> None:
        """End every task; whatever one still tries, nothing comes of it."""
        self.dead = True
        for task in list(self._tasks):
            task.cancel()

    def own(self, task: asyncio.Task[Any]) -> None:
        """Let a task die with this life; those that are done are forgotten now and then."""
        self._tasks.append(task)
        if len(self._tasks) >= self._look_at:
            self._tasks = [one for one in self._tasks if not one.done()]
            self._look_at = len(self._tasks) + _TASKS_LOOK

    def tasks_running(self, more_than: int) -> int | None:
        """Return how many tasks run, if they are more than so many."""
        if len(self._tasks) <= more_than:
            return None
        count = sum(not one.done() for one in self._tasks)
        return count if count > more_than else None

    async def answer(self, request: Request) -> Response:
        """Let the real door answer a request."""
        if self.app is None:
            return Response(503, {}, b"")
        asked = incoming(self.app, request)
        said = await self.app._handle(asked)
        body = said.body if isinstance(said, web.Response) and isinstance(said.body, bytes) else b""
        return Response(said.status, {name.lower(): value for name, value in said.headers.items()}, body)

    # What somebody at the node does.

    async def report(self, url: str, *, qualified: bool) -> Taken:
        """Hand one report in, as a caller of the API would."""
        if self.node is None:
            raise asyncio.CancelledError
        fields: dict[str, object] = {"url": url}
        if qualified:
            fields["qualification"] = {"classification": "national"}
        checked = check_report(convert_report(fields), self.station.clock.now())
        (taken,) = await self.node.store.intake().take_in([Submission("desk", checked.reference, checked)])
        if not isinstance(taken, Taken):
            raise TypeError("a new report has no conflict")
        return taken

    async def move(self, chance: random.Random, country: str) -> None:
        """Say of one item in custody here that it is hosted in another country now."""
        if self.node is None:
            raise asyncio.CancelledError
        ours = [row["id"] for row in self.station.disk.rows("items") if row["state"] in HELD and row["received_stream"]]
        if ours:
            item = chance.choice(ours)
            with suppress(TransitionRefused):
                await self.node.store.asker().ask(item, country, None)
                self.station.moved.add(item)

    # The fate of its storage.

    def statement(self) -> Awaitable[None] | None:
        """Let a statement's time pass."""
        if self.dead:
            raise asyncio.CancelledError
        # Half of them take no time at all: others get no turn between them.
        takes = self._chance()
        if takes < _SLOW_STATEMENTS and not self._loop.passes(takes * 0.005):
            return self._slow_statement(takes * 0.005)
        if self.station.database_down:
            raise asyncpg.ConnectionDoesNotExistError("the database is away")
        return None

    async def _slow_statement(self, seconds: float) -> None:
        await self._loop.pause(seconds)
        if self.dead:
            raise asyncio.CancelledError
        if self.station.database_down:
            raise asyncpg.ConnectionDoesNotExistError("the database is away")

    def before_commit(self, name: str, session: Session) -> None:
        """Die here if that is planned."""
        for plan in self.station.planned:
            plan.left -= plan.meets(name, session)
        self._die(name, session, after=False)

    def after_commit(self, name: str, session: Session) -> None:
        """Let the invariants look, and die here if that is planned."""
        self.station.world.committed(self.station, name, session)
        self._die(name, session, after=True)

    def _die(self, name: str, session: Session, *, after: bool) -> None:
        for plan in self.station.planned:
            if plan.after is after and plan.left == 0 and plan.meets(name, session):
                self.station.world.note(self.station.id, "info", "dies", at=name, after=str(after))
                self.station.crash(plan.down_s)
                raise asyncio.CancelledError
