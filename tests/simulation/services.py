"""What a simulated node finds around it: its directory's folder, time, log, scheduler, locator and way to its peers.

Each stands where a real one stands; whose it is follows from the life of a node in which it is used.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from geo.verdict import Verdict, VerdictKind
from node.clock import Clock
from node.platform.httpclient import PeerAnswerInvalid, PeerClient, PeerUnreachable
from node.platform.sources import MIRROR_PATH, SourceFailed
from node.platform.telemetry import Metrics
from node.platform.trust import Roots, Trusted, read_set, root_file
from protocol.profile import Request, Response

if TYPE_CHECKING:
    from tests.simulation.station import Run, Station

#: When every history begins.
START: Final = datetime(2026, 3, 1, tzinfo=UTC)
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
        expiry = station.world.expiry
        if station.alone or station.id in expiry.alone:
            raise SourceFailed(f"{self.name} did not answer (connect)")
        request = Request("GET", f"{self._base_url}{MIRROR_PATH}/{file}", {}, b"")
        expiry.asking.add(station.id)
        try:
            answer = await station.world.network.exchange(station.id, request, station.settings.peer_timeout_s)
        except PeerUnreachable as error:
            raise SourceFailed(f"{self.name} did not answer ({error.kind})") from None
        finally:
            expiry.asking.discard(station.id)
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
    station = running_station()
    station.world.expiry.taken(station, trusted)
    station.trusted = trusted.files()


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
