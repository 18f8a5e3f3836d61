"""The node's serving process, which kills itself at a durable step on order, or waits there; for fault tests only.

Each durable step that passes becomes a line of the trace, so that a test knows which process did what.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import uvloop

from node.clock import SystemClock
from node.coordinator.cli.desk import decide
from node.coordinator.serve import serve as serve_coordinator
from node.errors import OperatorError
from node.hotline.assembly import assemble, open_store
from node.hotline.cli.importing import import_rows
from node.hotline.flows import locate
from node.hotline.flows.transfer import relocate
from node.hotline.recovery import recover
from node.hotline.serve import serve
from node.platform.database import Database, Transaction
from node.platform.telemetry import make_logger, route_library_logs
from node.settings import COORDINATOR, load_settings
from tests.faults.orders import Moment, Order

#: Whether the transaction that is about to commit, or just did, changed anything: an idle round is no durable step.
_changed: ContextVar[bool] = ContextVar("changed", default=False)


@dataclass(slots=True)
class Fate:
    """What this process is to do at which step; `go` ends a wait."""

    trace: Path
    kill: Order | None
    hold: Order | None
    passed: Counter[tuple[Moment, str]] = field(default_factory=Counter)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def reach(self, moment: Moment, step: str) -> None:
        """Come to one side of a commit: die, wait or go on, as ordered."""
        self.passed[moment, step] += 1
        here = Order(moment, step, self.passed[moment, step])
        if here == self.kill:
            self._note("killed", here.step)
            os.kill(os.getpid(), signal.SIGKILL)
        if here == self.hold:
            self._note("holds", here.step)
            await self.go.wait()
        if moment is Moment.AFTER:
            self._note("passed", here.step)

    def _note(self, what: str, step: str) -> None:
        with self.trace.open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()} {what} {step}\n")


class DyingDatabase(Database):
    """A database whose durable steps are the points of a fate."""

    def __init__(self, fate: Fate, url: str, **options: Any) -> None:
        """Take the fate of the process, and what Database takes."""
        super().__init__(url, **options)
        self._fate = fate

    @asynccontextmanager
    async def transaction(self, name: str) -> AsyncIterator[Transaction]:
        """Yield a transaction as ever, and find out whether it changed anything."""
        async with super().transaction(name) as tx:
            yield tx
            _changed.set(bool(await tx.value("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")))

    async def before_commit(self, name: str) -> None:
        """Everything is written and nothing is durable."""
        if _changed.get():
            await self._fate.reach(Moment.BEFORE, name)

    async def after_commit(self, name: str) -> None:
        """Everything is durable and nobody knows."""
        if _changed.get():
            await self._fate.reach(Moment.AFTER, name)


class ShiftedClock:
    """The machine's clock, so many seconds ahead."""

    def __init__(self, ahead_s: float) -> None:
        """Take the seconds; below zero the clock is behind."""
        self._ahead = timedelta(seconds=ahead_s)
        self._clock = SystemClock()

    def now(self) -> datetime:
        """Return the wrong time."""
        return self._clock.now() + self._ahead

    def monotonic(self) -> float:
        """Return seconds since some fixed moment, which no wrong date changes."""
        return self._clock.monotonic()


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a process runs: its settings file, its log and trace, what it is to die or wait at, its clock.

    With `importing` it imports that file instead of serving, with `deciding` it decides a dispute: its id, the
    custodian and the country.
    """

    settings: Path
    log: Path
    trace: Path
    kill: Order | None = None
    hold: Order | None = None
    clock_ahead_s: float = 0.0
    lease_s: float = locate.LEASE_S
    importing: Path | None = None
    deciding: tuple[UUID, str, str] | None = None


class _NoProgress:
    def update(self, rows: int, bytes_read: int) -> None:
        """Show nothing."""


async def _run(under: Conditions) -> None:
    fate = Fate(under.trace, under.kill, under.hold)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, fate.go.set)
    settings = load_settings(under.settings, {})
    log = make_logger(settings.log_level, settings.log_format)
    route_library_logs(log)
    clock, make = ShiftedClock(under.clock_ahead_s), partial(DyingDatabase, fate)
    if under.deciding is not None:
        await decide(settings, clock, *under.deciding, make=make)
        return
    if settings.role == COORDINATOR:
        await serve_coordinator(settings, clock=clock, log=log, make=make)
        return
    if under.importing is None:
        await serve(settings, clock=clock, log=log, make=make)
        return
    with under.importing.open("rb") as file:
        async with open_store(settings, clock=clock, make=make) as store:
            await import_rows(
                store,
                file,
                None,
                source="reports",
                submitter="import",
                rejects=under.importing.with_suffix(".rejects"),
                rows_per_commit=settings.import_rows_per_commit,
                progress=_NoProgress(),
            )


async def _recover(under: Conditions) -> None:
    fate = Fate(under.trace, under.kill, under.hold)
    settings = load_settings(under.settings, {})
    log, clock = make_logger(settings.log_level, settings.log_format), ShiftedClock(under.clock_ahead_s)
    async with assemble(settings, clock=clock, log=log, make=partial(DyingDatabase, fate)) as node:
        await recover(node, frozenset())


def run(under: Conditions) -> None:
    """Be the process until SIGTERM, or until fate strikes. Exit status 2 when the start makes no sense."""
    _be(under, _run)


def run_recovery(under: Conditions) -> None:
    """Be `hotline recover` as `run` is the node."""
    _be(under, _recover)


def _be(under: Conditions, work: Callable[[Conditions], Coroutine[None, None, None]]) -> None:
    with under.log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    # A lease outlives its dead worker by minutes; a test has seconds.
    vars(locate)["LEASE_S"] = vars(relocate)["LEASE_S"] = under.lease_s
    try:
        uvloop.run(work(under))
    except OperatorError as error:
        sys.stderr.write(f"{error.sentence}\n")
        sys.exit(2)
