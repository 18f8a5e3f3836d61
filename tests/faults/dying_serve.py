"""`hotline serve` that kills itself at a durable step on order, or waits there; used by the fault tests only.

Run as `python -m tests.faults.dying_serve SETTINGS --trace FILE [--kill MOMENT:STEP:NTH] …`. Each durable step that
passes becomes a line of the trace, so that a test knows which process did what.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from node.clock import Clock, SystemClock
from node.errors import OperatorError
from node.hotline.flows import locate
from node.hotline.serve import serve
from node.platform.database import Database, Transaction
from node.platform.telemetry import make_logger, route_library_logs
from node.settings import load_settings
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


async def run(settings_file: Path, fate: Fate, clock: Clock) -> None:
    """Serve until SIGTERM, or until the fate strikes."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, fate.go.set)
    settings = load_settings(settings_file, {})
    log = make_logger(settings.log_level, settings.log_format)
    route_library_logs(log)
    await serve(settings, clock=clock, log=log, make=partial(DyingDatabase, fate))


def main() -> int:
    """Read the arguments and serve; the exit status is that of `hotline serve`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=Path)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--kill", type=Order.parse)
    parser.add_argument("--hold", type=Order.parse)
    parser.add_argument("--clock-ahead-s", type=float, default=0.0)
    parser.add_argument("--lease-s", type=float, default=locate.LEASE_S)
    arguments = parser.parse_args()
    # A lease outlives its dead worker by minutes; a test has seconds.
    vars(locate)["LEASE_S"] = arguments.lease_s
    fate = Fate(arguments.trace, arguments.kill, arguments.hold)
    try:
        uvloop.run(run(arguments.settings, fate, ShiftedClock(arguments.clock_ahead_s)))
    except OperatorError as error:
        sys.stderr.write(f"{error.sentence}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
