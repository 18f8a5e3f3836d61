"""One node of the soak as a real process: started, killed, stopped, ended, watched; and the way to its tables."""

import asyncio
import json
import multiprocessing
import multiprocessing.process
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from node.hotline.store.apikeys import ApiKeys
from node.platform.apikeys import Role, new_api_key
from node.platform.database import DATABASE_ERRORS, Database
from node.setting_files import write_settings
from tests.faults.station import until
from tests.soak.member import Member, run, set_clock
from tests.world import TestNode, file_values

#: Processes are forked from one that has imported the program already: a start takes a tenth of the time.
_NURSERY: Final = multiprocessing.get_context("forkserver")
_NURSERY.set_forkserver_preload(["tests.soak.member", "tests.soak.hostile"])

#: What waits: items on their way, records to the other nodes without a receipt, records that came and are not applied.
_WAITING: Final = (
    "SELECT (SELECT count(*) FROM location_queue) AS queued, "
    "(SELECT count(*) FROM items WHERE state IN ('locating', 'ready', 'leaving')) AS items, "
    "(SELECT count(*) FROM relocations) AS to_move, "
    "(SELECT coalesce(sum(s.next_index - c.acked_size), 0)::int FROM outbound_streams s "
    "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = ANY($1)) AS to_send, "
    "(SELECT coalesce(sum(s.size - c.applied), 0)::int FROM inbound_streams s "
    "JOIN apply_cursors c ON c.stream = s.id) AS to_apply"
)


def start_process(target: Any, argument: object, name: str) -> "multiprocessing.process.BaseProcess":
    """Start a process from the nursery."""
    process = _NURSERY.Process(target=target, args=(argument,), name=name, daemon=True)
    process.start()
    return process


@dataclass(slots=True)
class SoakNode:
    """A node's files, its process, and what was seen of it."""

    node: TestNode
    file: Path
    db: Database
    key: str
    process: "multiprocessing.process.BaseProcess | None" = None
    expected_end: bool = False
    deaths: list[str] = field(default_factory=list)
    rss_max: int = 0
    #: Where in the log the process that runs began.
    log_began: int = 0

    @classmethod
    async def prepare(cls, node: TestNode) -> "SoakNode":
        """Write the node's settings file and make an API key for the soak."""
        path = node.settings.data_dir / "hotline.toml"
        write_settings(path, file_values(node.settings))
        db = Database(node.settings.database_url, pool_size=2)
        key = new_api_key()
        await ApiKeys(db).add(key, "soak", frozenset({Role.ADMIN, Role.INTAKE}), datetime.now(UTC))
        made = cls(node, path, db, key.text)
        set_clock(made.clock, 0.0)
        return made

    @property
    def id(self) -> str:
        """The node's id."""
        return self.node.id

    @property
    def country(self) -> str:
        """The country it is competent for."""
        return self.node.settings.countries[0]

    @property
    def api(self) -> str:
        """Where its API is."""
        return f"http://{self.node.settings.listen_api}"

    @property
    def log(self) -> Path:
        """The file that its processes log to."""
        return self.node.settings.data_dir / "log"

    @property
    def clock(self) -> Path:
        """The file that its clock is set by."""
        return self.node.settings.data_dir / "clock"

    @property
    def headers(self) -> Mapping[str, str]:
        """What opens its API."""
        return {"Authorization": f"Bearer {self.key}"}

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

    async def waiting(self, others: list[str]) -> dict[str, int]:
        """Return what still waits at it that concerns the `others`, by where it waits."""
        self.look()
        try:
            async with asyncio.timeout(10), self.db.transaction("test.over") as tx:
                row = await tx.row(_WAITING, others)
        except (*DATABASE_ERRORS, TimeoutError):
            return {"database": 1}
        return {name: count for name, count in dict(row or {}).items() if count}

    def unforeseen(self) -> list[dict[str, Any]]:
        """Return the log lines that tell of an error nobody has foreseen; a line that is no JSON is one."""
        found: list[dict[str, Any]] = []
        with self.log.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.startswith("{"):
                    found.append({"text": line})
                    continue
                said = json.loads(line)
                if said["action"] == "web.failed" or (said["action"].endswith(".failed") and "kind" in said):
                    found.append(said)
        return found

    def tail(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-12:]) if self.log.exists() else ""
