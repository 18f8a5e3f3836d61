"""One simulated node: the real assembly, loops and doors over virtual storage, network and time; it may crash any time.

A `Station` is what survives a crash (its disk, keys, settings); a `Run` is one life of the process.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import asyncpg
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from geo.verdict import Verdict, VerdictKind
from node.clock import Clock
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
from node.platform.httpclient import PeerAnswerInvalid, PeerClient, PeerUnreachable
from node.platform.keyfiles import NodeKeys
from node.platform.sources import MIRROR_PATH, SourceFailed
from node.platform.telemetry import Logger, Metrics
from node.platform.tls import open_peer_tls
from node.platform.trust import Roots, Trusted, read_set, root_file
from node.platform.web import Limits, make_app
from node.settings import Settings
from protocol.profile import Request, Response
from tests.simulation.database import Disk, MemoryDatabase
from tests.simulation.sql.tables import Session

if TYPE_CHECKING:
    from tests.simulation.world import World

#: The node whose code runs now: a task belongs to the life in which it was begun.
RUNNING: "ContextVar[Run | None]" = ContextVar("running", default=None)


class _Uncounted:
    """Stands for every metric of a simulated node: nobody looks at them."""

    def labels(self, *_values: object, **_names: object) -> "_Uncounted":
        return self

    def ignore(self, *_value: object) -> None:
        """Count nothing."""

    inc = dec = set = observe = clear = ignore

    def time(self) -> AbstractContextManager[None]:
        return nullcontext()


METRICS = Metrics(**dict.fromkeys((one.name for one in fields(Metrics)), cast("Any", _Uncounted())))
_SLOW_STATEMENTS = 0.5
_TASKS_LOOK = 100
START = datetime(2026, 3, 1, tzinfo=UTC)


@cache
def _vault(key: bytes) -> Vault:
    """Return the field keys; made once, for each cipher asks to be told of forks for ever."""
    return Vault(FieldCipher({1: key}, 1), DigestKey(key))


class MemoryRepository:
    """The folder that the network's directory is put into: a source of every node."""

    name = "the repository"
    local = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Hold the first version."""
        self.files = dict(files)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Replace the content."""
        self.files = dict(files)

    async def fetch(self, file: str, bytes_max: int) -> bytes | None:
        """Return a file."""
        raw = self.files.get(file)
        return None if raw is None else raw[: bytes_max + 1]


class VirtualMirror:
    """Another node's mirror, over the virtual network."""

    local = False

    def __init__(self, _session: object, base_url: str, name: str) -> None:
        """Take what the real one takes."""
        self._base_url = base_url
        self.name = name

    async def fetch(self, file: str, bytes_max: int) -> bytes | None:
        """GET the file."""
        run = RUNNING.get()
        if run is None or run.dead:
            raise asyncio.CancelledError
        station = run.station
        if station.alone:
            raise SourceFailed(f"{self.name} did not answer (connect)")
        request = Request("GET", f"{self._base_url}{MIRROR_PATH}/{file}", {}, b"")
        try:
            answer = await station.world.network.exchange(station.id, request, station.settings.peer_timeout_s)
        except PeerUnreachable as error:
            raise SourceFailed(f"{self.name} did not answer ({error.kind})") from None
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK:
            raise SourceFailed(f"{self.name} answered {answer.status}")
        return answer.body[: bytes_max + 1]


def read_trusted(_folder: object, fingerprint: str) -> Trusted | None:
    """Read what the running node wrote before, from its disk."""
    files = running_station().trusted
    first = files.get(root_file(1))
    if first is None:
        return None
    return read_set(lambda wanted: files.get(wanted.file), Roots.pinned(1, first, fingerprint))


def write_trusted(_folder: object, trusted: Trusted) -> None:
    """Put what the running node trusts on its disk."""
    running_station().trusted = trusted.files()


def running_station() -> "Station":
    """Return the station whose node does what is being done."""
    run = RUNNING.get()
    if run is None:
        raise RuntimeError("no node is being assembled")
    return run.station


class VirtualClock(Clock):
    """The history's time, as this node's clock shows it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Show the right time."""
        self._loop = loop
        self.ahead_s = 0.0
        #: The second that was asked for last, for it is asked for often, and the time of day that it is.
        self._last = 0.0, START

    def now(self) -> datetime:
        """Return the time of day."""
        seconds = self._loop.time() + self.ahead_s
        if seconds != self._last[0]:
            self._last = seconds, START + timedelta(seconds=seconds)
        return self._last[1]

    def monotonic(self) -> float:
        """Return seconds since the history began."""
        return self._loop.time()


class Recorder:
    """A logger that writes into the history's trace; an unforeseen error is a finding."""

    def __init__(self, station: "Station") -> None:
        """Log for one node."""
        self._station = station

    def _say(self, level: str, event: str, **fields: Any) -> None:
        action = str(fields.get("action", ""))
        self._station.world.note(self._station.id, level, action or event, **_brief(fields))
        unforeseen = action == "web.failed" or event == "a loop met an unforeseen error"
        if unforeseen:
            self._station.world.violated("unforeseen", f"{self._station.id}: {event} {_brief(fields)}")

    def debug(self, event: str, **fields: Any) -> None:
        """Say nothing."""

    def info(self, event: str, **fields: Any) -> None:
        """Write a line."""
        self._say("info", event, **fields)

    warning = info
    error = info
    exception = info
    critical = info

    def bind(self, **_fields: Any) -> "Recorder":
        """Return the same."""
        return self


def _brief(fields: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items() if name not in {"action", "exc_info"}}


class VirtualLocator:
    """Knows where the simulated hosts stand: `…<country>.example`; stands for DNS and the country files."""

    def __init__(self, fail: "Station") -> None:
        """Answer for one node."""
        self._station = fail

    async def locate(self, hosts: Sequence[str]) -> list[Verdict]:
        """Return where each host is, or that it is not known yet."""
        await asyncio.sleep(self._station.rng.uniform(0.001, 0.2))
        return [self._verdict(host) for host in hosts]

    def _verdict(self, host: str) -> Verdict:
        if self._station.rng.random() < 0.05:
            return Verdict(VerdictKind.RETRY, None, None, 0, ("timeout",), {})
        country = host.split(".")[-2].split("-", maxsplit=1)[0].upper()
        return Verdict(VerdictKind.HOSTED, country, country, 95, (), {"dns": {"outcome": "answer"}})

    def refresh(self) -> None:
        """There are no files."""

    def databases(self, _now: datetime) -> list[Any]:
        """There are no files."""
        return []

    async def close(self) -> None:
        """Nothing is open."""


class _Wire:
    """Stands where the socket's protocol and writer stand; nothing is written to it."""

    def __init__(self) -> None:
        self.transport = self
        self.writer = self
        self.peername = self.sockname = ("192.0.2.1", 1)
        self.ssl_context = None
        self.output_size = 0
        self.max_line_size = self.max_field_size = 8190

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def is_closing(self) -> bool:
        return False


def incoming(app: web.Application, request: Request) -> web.Request:
    """Return the request as the server's parser hands it to the application."""
    loop = asyncio.get_running_loop()
    payload = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    payload.feed_data(request.body)
    payload.feed_eof()
    path = "/" + request.target_uri.split("/", 3)[3]
    headers = CIMultiDictProxy(CIMultiDict({**request.headers, "content-length": str(len(request.body))}))
    raw = tuple((name.encode(), value.encode()) for name, value in headers.items())
    message = RawRequestMessage(
        request.method, path, HttpVersion11, headers, raw, False, None, False, False, URL(path, encoded=True)
    )
    wire = cast("Any", _Wire())
    return web.Request(message, payload, wire, wire, cast("Any", None), loop, client_max_size=app._client_max_size)


class VirtualScheduler:
    """Runs what the node does on a schedule on virtual time."""

    def __init__(self, **_options: object) -> None:
        """Nothing is scheduled yet."""
        self._work: list[tuple[Any, tuple[Any, ...], float, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add_job(
        self,
        func: Any,
        trigger: Any,
        *,
        args: tuple[Any, ...] = (),
        seconds: float = 60.0,
        next_run_time: Any = None,
        **more: Any,
    ) -> None:
        """Run `func` every `seconds`; gauges are for operators and change nothing."""
        every = seconds + 60.0 * more.get("minutes", 0) + 3600.0 * more.get("hours", 0)
        if isinstance(trigger, str) and "gauges" not in args:
            self._work.append((func, args, every, 0.0 if next_run_time is not None else every))

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.ensure_future(self._repeat(*work)) for work in self._work]

    @staticmethod
    async def _repeat(func: Any, args: tuple[Any, ...], seconds: float, first_s: float) -> None:
        await asyncio.sleep(first_s)
        while True:
            await func(*args)
            await asyncio.sleep(seconds)

    def shutdown(self, *, wait: bool = True) -> None:  # noqa: ARG002 - as the real one
        """End."""
        for task in self._tasks:
            task.cancel()


class VirtualClient(PeerClient):
    """The real client, which signs and verifies, over the virtual network."""

    __slots__ = ("_run",)

    async def _exchange(self, request: Request, limit: int) -> Response:
        run = RUNNING.get()
        if run is None or run.dead:
            raise asyncio.CancelledError
        station = run.station
        if station.alone:
            raise PeerUnreachable("connect", "nothing gets out")
        answer = await station.world.network.exchange(station.id, request, station.settings.peer_timeout_s)
        if len(answer.body) > limit:
            raise PeerAnswerInvalid("too-large", f"the answer has more than {limit} bytes", status=answer.status)
        return answer


@dataclass(slots=True)
class Commit:
    """A planned death: at the n-th commit of a name (or of any), before or after it."""

    name: str | None
    number: int
    after: bool
    down_s: float


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
    commits: dict[str | None, int] = field(default_factory=dict)
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
            right = self.file.files == self.world.directory() and not self.clock.ahead_s
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
            with suppress(TransitionRefused):
                await self.node.store.asker().ask(chance.choice(ours), country, None)

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

    def before_commit(self, name: str) -> None:
        """Die here if that is planned."""
        commits = self.station.commits
        commits[None] = commits.get(None, 0) + 1
        commits[name] = commits.get(name, 0) + 1
        self._die(name, after=False)

    def after_commit(self, name: str, session: Session) -> None:
        """Let the invariants look, and die here if that is planned."""
        self.station.world.committed(self.station, name, session)
        self._die(name, after=True)

    def _die(self, name: str, *, after: bool) -> None:
        if not self.station.planned:
            return
        for plan in self.station.planned:
            if plan.after is after and plan.name in {None, name} and self.station.commits[plan.name] == plan.number:
                self.station.world.note(self.station.id, "info", "dies", at=name, after=str(after))
                self.station.crash(plan.down_s)
                raise asyncio.CancelledError
