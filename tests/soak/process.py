"""One process of the soak that serves: a node or the coordinator. Started, killed, stopped, ended, watched."""

import asyncio
import json
import multiprocessing
import multiprocessing.process
import os
import signal
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final

import psutil

from node.settings import Settings, load_settings
from tests.faults.station import until
from tests.soak.member import Member, run, set_clock

#: Processes are forked from one that has imported the program already: a start takes a tenth of the time.
_NURSERY: Final = multiprocessing.get_context("forkserver")
_NURSERY.set_forkserver_preload(["tests.soak.member", "tests.soak.hostile", "tests.soak.commands"])


def open_nursery() -> None:
    """Let the nursery import the program, which takes seconds, while whoever calls this does something else."""
    forkserver.ensure_running()


def start_process(target: Any, argument: object, name: str) -> "multiprocessing.process.BaseProcess":
    """Start a process from the nursery."""
    process = _NURSERY.Process(target=target, args=(argument,), name=name, daemon=True)
    process.start()
    return process


async def pause(stop: asyncio.Event | None, seconds: float) -> None:
    """Wait for so many seconds, or until told to stop."""
    try:
        await asyncio.wait_for((stop or asyncio.Event()).wait(), seconds)
    except TimeoutError:
        return


@dataclass(slots=True, kw_only=True)
class SoakProcess:
    """The files of who serves, the process, and what was seen of it."""

    file: Path
    settings: Settings
    process: "multiprocessing.process.BaseProcess | None" = None
    expected_end: bool = False
    deaths: list[str] = field(default_factory=list)
    rss_max: int = 0
    #: Where in the log the process that runs began.
    log_began: int = 0

    def __post_init__(self) -> None:
        """Set its clock right."""
        set_clock(self.clock, 0.0)

    @property
    def id(self) -> str:
        """The id of the node or the coordinator."""
        return self.settings.node_id

    @property
    def log(self) -> Path:
        """The file that its processes log to."""
        return self.settings.data_dir / "log"

    @property
    def clock(self) -> Path:
        """The file that its clock is set by."""
        return self.settings.data_dir / "clock"

    def read_settings(self) -> None:
        """Read the settings file again, after somebody has changed it."""
        self.settings = load_settings(self.file, {})

    def start(self) -> None:
        """Start its process."""
        self.expected_end = False
        self.log_began = self.log.stat().st_size if self.log.exists() else 0
        self.process = start_process(run, Member(self.file, self.log, self.clock), self.id)

    async def serving(self, limit_s: float) -> None:
        """Wait until it says that it serves: its doors answer before, and without its database it would not start."""

        async def started() -> bool:
            self.look()
            return b"serve.start" in self._said()

        await until(started, f"{self.id} serves", limit_s=limit_s)

    def _said(self) -> bytes:
        if not self.log.exists():
            return b""
        with self.log.open("rb") as file:
            file.seek(self.log_began)
            return file.read()

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        assert self.process is not None
        assert self.process.pid is not None
        assert self.process.exitcode is None, f"{self.id} ended by itself\n{self.tail()}"
        os.kill(self.process.pid, number)

    async def end(self, number: signal.Signals, limit_s: float) -> int:
        """End its process with a signal and return its exit status, or minus the signal that ended it."""
        process = self.process
        assert process is not None
        self.expected_end = True
        if process.exitcode is None:
            self.send(number)

        async def gone() -> bool:
            return process.exitcode is not None

        await until(gone, f"{self.id} ends", limit_s=limit_s)
        status = process.exitcode
        assert status is not None
        process.close()
        self.process = None
        return status

    def kill(self) -> None:
        """Kill its process, if there is one."""
        if self.process is not None:
            self.expected_end = True
            self.process.kill()
            self.process.join(30)

    def look(self) -> None:
        """See whether its process died by itself, and how much memory it takes."""
        if self.process is None or self.expected_end:
            return
        if self.process.exitcode is not None:
            self.deaths.append(f"{self.id} ended with {self.process.exitcode}\n{self.tail()}")
            self.expected_end = True
            return
        try:
            self.rss_max = max(self.rss_max, psutil.Process(self.process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return

    def unforeseen(self) -> list[dict[str, Any]]:
        """Return the log lines that tell of an error nobody has foreseen; a line that is no JSON is one."""
        found: list[dict[str, Any]] = []
        with self.log.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.startswith("{"):
                    found.append({"text": line})
                    continue
                said = json.loads(line)
                loop = said["action"].endswith(".failed") and "kind" in said and said["level"] == "error"
                if said["action"] == "web.failed" or loop:
                    found.append(said)
        return found

    def tail(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-12:]) if self.log.exists() else ""
