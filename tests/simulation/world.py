"""Runs one history: builds the nodes, lets its events happen, heals everything, waits for quiet, checks at the end."""

import asyncio
import gc
import os
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
from aiohttp import web_app

from node.hotline import assembly, jobs
from node.hotline.flows.intake import Taken
from node.platform import keyring, membership, trust
from node.platform.keyfiles import StoredKey
from tests.simulation import members
from tests.simulation.analysts import Analysts
from tests.simulation.authority import Authority
from tests.simulation.checks import Checks
from tests.simulation.disputes import DESK_POLL_S, Disputes
from tests.simulation.eventloop import Stuck, VirtualLoop
from tests.simulation.expiry import REFRESH_S, STALE, Expiry
from tests.simulation.faults import Faults
from tests.simulation.hostile import Hostile
from tests.simulation.network import Network
from tests.simulation.plan import ACTIVE_S, Event, Plan
from tests.simulation.proven import remembered, replaced
from tests.simulation.quiet import Quiet
from tests.simulation.restores import Restores
from tests.simulation.services import (
    RUNNING,
    MemoryRepository,
    VirtualClient,
    VirtualMirror,
    VirtualScheduler,
    read_trusted,
    running_station,
    write_trusted,
)
from tests.simulation.sql.tables import Session
from tests.simulation.station import Station
from tests.simulation.thefts import Thefts

#: After everything is healed, all is delivered, applied and told within this time: a lease for location that a dead
#: worker held (120 s), a few longest waits (30 s), and as long as a clock was ahead that had to come back.
QUIET_WITHIN_S: Final = 300.0
#: How long a loop waits to be woken. Where nothing hinders the honest nodes, it is what bounds their waiting (I9).
POLL_S: Final = {True: 4.0, False: 25.0}
_LOOK_EVERY_S: Final = 2.0
_ENDS_MAX: Final = 5


class Violated(Exception):  # noqa: N818 - names the fact
    """An invariant does not hold; `invariant` says which."""

    def __init__(self, invariant: str, sentence: str) -> None:
        """Say what was seen."""
        super().__init__(f"{invariant}: {sentence}")
        self.invariant = invariant
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Truth:
    """What a node was told and answered for: a report that it took."""

    node: str
    item: UUID
    country: str
    qualified: bool
    at_s: float


@dataclass(slots=True)
class World:
    """One history while it happens."""

    plan: Plan
    loop: VirtualLoop
    rng: random.Random = field(init=False)
    stations: dict[str, Station] = field(default_factory=dict)
    network: Network = field(init=False)
    checks: Checks = field(init=False)
    analysts: Analysts = field(init=False)
    faults: Faults = field(init=False)
    disputes: Disputes = field(init=False)
    authority: Authority = field(init=False)
    restores: Restores = field(init=False)
    expiry: Expiry = field(init=False)
    thefts: Thefts = field(init=False)
    hostile: Hostile | None = None
    trace: list[str] = field(default_factory=list)
    found: Violated | None = None
    truths: dict[UUID, Truth] = field(default_factory=dict)
    offered: dict[str, bool] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The first version of the directory, as it was published.
    first: dict[str, bytes] = field(default_factory=dict)
    version: int = 1
    generation: int = 0
    rekeyed_in: int = 0
    healed: bool = False
    quiet_after_s: float = 0.0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Make the nodes; none has started."""
        self.rng = random.Random(f"world {self.plan.seed}")
        self.network = Network(self, random.Random(f"network {self.plan.seed}"))
        self.disputes = Disputes(self)
        self.checks = Checks(self)
        self.analysts = Analysts(self)
        self.faults = Faults(self)
        self.authority = Authority(self)
        self.restores = Restores(self)
        self.expiry = Expiry(self)
        self.thefts = Thefts(self)
        listed = {"delivery": "pull"}
        self.entries = {
            country: members.entry(country, **(listed if country == self.plan.fetching else {}))
            for country in self.plan.countries
        }
        self.first = self.directory()
        for country in self.plan.countries:
            node = members.node_id(country)
            self.network.hosts[f"https://{node}"] = node
            if country == self.plan.fetching:
                self.network.closed.add(node)
            if country == self.plan.hostile:
                self.hostile = Hostile(self, node, self.plan.hostile_mode)
                self.network.strangers[node] = self.hostile
                continue
            made = Station(
                world=self,
                id=node,
                country=country,
                settings=members.settings_of(country),
                keys=members.keys_of(node),
                file=MemoryRepository(self.first),
                rng=random.Random(f"{node} {self.plan.seed}"),
            )
            made.settings = replace(
                made.settings,
                poll_s=POLL_S[self.plan.quiet],
                batch_records_max=self.plan.batch_records_max,
                batches_in_flight_max=self.plan.batches_in_flight_max,
                unapplied_records_max=self.plan.unapplied_records_max,
                locate_batch_items_max=self.plan.locations_at_once,
                directory_refresh_s=REFRESH_S if self.expiry.on else made.settings.directory_refresh_s,
                desk_poll_s=DESK_POLL_S if self.plan.desk else made.settings.desk_poll_s,
            )
            self.stations[node] = made
        if self.plan.desk:
            self.disputes.open()

    # What the parts tell.

    def note(self, node: str, level: str, what: str, **fields: str) -> None:
        """Write a line of the trace."""
        said = " ".join(f"{name}={value}" for name, value in fields.items())
        self.trace.append(
            f"{self.loop.time():9.3f}  {node.split('.', maxsplit=1)[0]:3} {level[0]} {what} {said}".rstrip()
        )

    def violated(self, invariant: str, sentence: str) -> None:
        """Stop the history: it found something."""
        if self.found is None:
            self.found = Violated(invariant, sentence)
            self.note("--", "info", f"VIOLATED {invariant}: {sentence}")
            self._over.set()

    def committed(self, station: Station, name: str, session: Session) -> None:
        """A transaction is durable."""
        self.checks.committed(station, name, session)
        self.thefts.committed(station, session)

    def may_leave(self, url: str) -> bool:
        """Tell whether what was reported under this address was qualified."""
        return self.offered.get(url, False)

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something later, in nobody's life."""
        self.loop.call_later(seconds, what, context=Context())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something beside, in nobody's life."""
        task = self.loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.violated("simulator", f"{type(error).__name__}: {error}")

    def directory(self) -> dict[str, bytes]:
        """Return the newest version of the directory."""
        return self.expiry.directory()

    # The history.

    async def run(self) -> None:
        """Let everything happen."""
        for station in self.stations.values():
            self.spawn(station.start())
        for event in self.plan.events:
            self.later(event.at_s, lambda event=event: self.happen(event))  # type: ignore[misc] # bound early
        self.later(ACTIVE_S, self.heal)
        self.spawn(self._watch())
        self.spawn(self.expiry.renew())
        await self._over.wait()

    async def _watch(self) -> None:
        """Wait for quiet after the healing."""
        await asyncio.sleep(ACTIVE_S)
        quiet = Quiet(self)
        until = self.loop.time() + self.plan.quiet_within_s(QUIET_WITHIN_S)
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            waiting = quiet.waiting()
            if waiting is None:
                break
            if self.loop.time() > until:
                self.violated("liveness", f"{self.loop.time() - ACTIVE_S:.0f} s after everything was healed: {waiting}")
                return
        self.quiet_after_s = self.loop.time() - ACTIVE_S
        self.checks.at_the_end()
        self.thefts.at_the_end()
        self._over.set()

    def heal(self) -> None:
        """End every fault."""
        self.note("--", "info", "healed")
        self.healed = True
        self.network.links.clear()
        self.expiry.heal()
        for station in self.stations.values():
            station.planned.clear()
            station.clock.ahead_s = 0.0
            station.database_down = False
            station.file.write(self.directory())
            station._start_again()
        self.disputes.heal()

    def happen(self, event: Event) -> None:
        """Let one event happen."""
        self.note("--", "info", f"EVENT {event}")
        name = event.kind.replace("-", "_")
        known = [
            action
            for part in (self.faults, self.expiry, self.thefts, self.disputes, self.authority)
            if (action := getattr(part, name, None)) is not None
        ]
        (known or [getattr(self, "_" + name)])[0](event)

    def station(self, country: str) -> Station:
        """Return the honest node of a country."""
        return self.stations[members.node_id(country)]

    def _report(self, event: Event) -> None:
        for number in range(event.number):
            self.act_at(self.station(event.node), self._hand_in(event, number))

    def _move(self, event: Event) -> None:
        run = self.station(event.node).run
        if run is not None and run.node is not None and not run.station.alone:
            self.act_at(self.station(event.node), run.move(self.rng, event.other))

    def _analyst(self, event: Event) -> None:
        station = self.station(event.node)
        if station.alone:
            # People look after it: nobody decides anything on older storage.
            return
        if (work := self.analysts.happen(station, event)) is not None:
            self.act_at(station, work)

    def act_at(self, station: Station, work: Coroutine[Any, Any, None]) -> None:
        """Let somebody at a node do something, in the node's present life."""
        if station.run is None:
            work.close()
            return
        token = RUNNING.set(station.run)
        try:
            asyncio.ensure_future(work).add_done_callback(self._done)
        finally:
            RUNNING.reset(token)

    async def _hand_in(self, event: Event, number: int) -> None:
        station = self.station(event.node)
        run = station.run
        await asyncio.sleep(self.rng.uniform(0.0, 0.05))
        if run is None or run.node is None or run.dead:
            return
        host = f"{event.other.lower()}-{round(event.at_s * 1000)}-{number}.{event.other.lower()}.example"
        url = f"https://{host}/a"
        while url in self.offered:
            # Of an event in the same millisecond: no history reports a URL twice.
            url += "a"
        self.offered[url] = event.detail == "qualified"
        try:
            taken: Taken = await run.report(url, qualified=event.detail == "qualified")
        except asyncpg.PostgresError:
            return
        for item in taken.items:
            truth = Truth(station.id, item.id, event.other, event.detail == "qualified", self.loop.time())
            self.truths[item.id] = truth

    def _done(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, asyncpg.PostgresError):
            self.violated("simulator", f"{type(error).__name__}: {error}")

    def _listed(self, event: Event) -> None:
        self.authority.list_as(event)

    def _restore(self, event: Event) -> None:
        self.restores.happen(event)

    def _hostile(self, event: Event) -> None:
        if self.hostile is not None:
            self.spawn(self.hostile.attack(event.detail, members.node_id(event.other)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a history came to."""

    plan: Plan
    found: Violated | None
    trace: tuple[str, ...]
    virtual_s: float
    quiet_after_s: float
    messages: int
    records: int


def run(plan: Plan) -> Outcome:
    """Run one history; the same plan gives the same trace, byte for byte."""
    with simulated(plan):
        return _history(plan)


def _history(plan: Plan) -> Outcome:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    loop.set_task_factory(_owned)
    world = World(plan, loop)
    try:
        loop.run_until_complete(world.run())
    except Stuck as stuck:
        world.violated("liveness", str(stuck))
    finally:
        _finish(loop, world)
    return Outcome(
        plan,
        world.found,
        tuple(world.trace),
        loop.time(),
        world.quiet_after_s,
        world.network.messages,
        sum(len(station.disk.rows("outbox")) for station in world.stations.values()),
    )


def _owned(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task that belongs to the life in which it begins, and dies with it."""
    context = options.get("context")
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    if isinstance(loop, VirtualLoop):
        loop.own(task)
    owner = RUNNING.get() if context is None else context.get(RUNNING)
    if owner is not None:
        if owner.dead:
            task.cancel()
        owner.own(task)
    return task


def _finish(loop: VirtualLoop, world: World) -> None:
    """End whatever still runs, silently."""
    loop.set_exception_handler(lambda _loop, _context: None)
    for station in world.stations.values():
        if station.run is not None:
            station.run.kill()
    # A cancellation that meets a finished wait is lost; then the next one counts.
    for _ in range(_ENDS_MAX):
        tasks = loop.running()
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        with suppress(Stuck):
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    asyncio.set_event_loop(None)
    loop.close()


@contextmanager
def simulated(plan: Plan) -> Iterator[None]:
    """Put virtual things in the places of time, chance, keys on disk, scheduler and sockets while the block runs."""
    state = random.getstate()
    random.seed(f"draws {plan.seed}")
    chance = random.Random(f"bytes {plan.seed}")
    with ExitStack() as stack:
        instead = partial(replaced, stack)
        stack.enter_context(_uncollected())
        stack.enter_context(_unlisted())
        stack.enter_context(remembered(plan.seed))
        instead(os, "urandom", chance.randbytes)
        instead(secrets, "token_hex", lambda count: chance.randbytes(count).hex())
        instead(jobs, "AsyncIOScheduler", VirtualScheduler)
        instead(assembly, "PeerClient", VirtualClient)
        instead(assembly, "APPLY_RECORDS_MAX", plan.apply_records_max)
        instead(keyring, "load_keys", lambda _folder, _slots: _own_keys())
        instead(trust, "STALE_FOR", STALE)
        instead(membership, "read_folder", read_trusted)
        instead(membership, "write_folder", write_trusted)
        instead(assembly, "make_source", lambda _text, _session: running_station().file)
        instead(assembly, "HttpSource", VirtualMirror)
        try:
            yield
        finally:
            random.setstate(state)


@contextmanager
def _unlisted() -> Iterator[None]:
    """Let asyncio list no task: the loop does, and that list costs a hundredth of a history."""
    of_asyncio: Any = asyncio.tasks._all_tasks  # type: ignore[attr-defined] # not in its stubs
    of_asyncio.add = bool
    try:
        yield
    finally:
        del of_asyncio.add


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave cycles to be found when the history is over, among what it made; else what it leaves grows old."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # aiohttp keeps the last thousand ways through an application, and with them the world around each.
        web_app._cached_build_middleware.cache_clear()
        gc.collect(0)
        if enabled:
            gc.enable()


def _own_keys() -> tuple[StoredKey, ...]:
    return running_station().keys.stored
