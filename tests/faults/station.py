"""One node as real processes that are started, killed and ended, and the test's own way to its database."""

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from node.hotline.flows.locate import LEASE_S
from node.hotline.store.apikeys import ApiKeys
from node.hotline.store.status import read_status
from node.hotline.store.vault import Vault, load_vault
from node.platform.apikeys import Role, new_api_key
from node.platform.database import Database
from node.platform.fieldcrypto import MasterKey
from node.setting_files import write_settings
from node.settings import Settings
from tests.faults.dying_serve import Conditions, run
from tests.faults.orders import Order
from tests.patience import stretched
from tests.world import TestNode, file_values

#: How long a test waits for anything; generous, since other tests share the machine.
LIMIT_S = 60.0
_STEP_S = 0.03


async def until(condition: Callable[[], Awaitable[object]], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Wait until `condition` holds; fails after `limit_s` seconds, saying what was waited for."""
    never = asyncio.Event()
    deadline = asyncio.get_running_loop().time() + stretched(limit_s)
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {limit_s} s: {what}"
        try:
            await asyncio.wait_for(never.wait(), _STEP_S)
        except TimeoutError:
            continue


#: Processes are forked from one that has imported the program already: a start takes a tenth of the time.
_NURSERY = multiprocessing.get_context("forkserver")
_NURSERY.set_forkserver_preload(["tests.faults.dying_serve"])


@dataclass(slots=True)
class Worker:
    """One process that serves the node."""

    process: "multiprocessing.process.BaseProcess"
    order: Order | None

    @property
    def pid(self) -> int:
        """The id of the process."""
        pid = self.process.pid
        assert pid is not None
        return pid

    async def kill(self) -> None:
        """End it as `kill -9` does; it is gone when this returns."""
        self.process.kill()
        await self.ended()

    def go(self) -> None:
        """End its wait at the step where it was ordered to hold."""
        os.kill(self.pid, signal.SIGUSR1)

    def terminate(self) -> None:
        """Ask it to end."""
        self.process.terminate()

    async def ended(self, limit_s: float = LIMIT_S) -> int:
        """Return its exit status, or minus the signal that ended it."""

        async def gone() -> bool:
            return self.process.exitcode is not None

        await until(gone, "the process ends", limit_s=limit_s)
        status = self.process.exitcode
        assert status is not None
        return status


@dataclass(slots=True)
class Station:
    """A node of the world: its files, its processes, and a database connection of the test's own."""

    node: TestNode
    settings: Settings
    folder: Path
    db: Database
    session: aiohttp.ClientSession
    key: str = ""
    workers: list[Worker] = field(default_factory=list)

    @classmethod
    async def prepare(cls, node: TestNode, session: aiohttp.ClientSession) -> "Station":
        """Make what a test needs to feed and watch the node; its field keys are there already."""
        made = cls.watch(node, session)
        db = made.db
        key = new_api_key()
        await ApiKeys(db).add(key, "feeder", frozenset({Role.ADMIN, Role.INTAKE}), datetime.now(UTC))
        made.key = key.text
        return made

    @classmethod
    def watch(cls, node: TestNode, session: aiohttp.ClientSession) -> "Station":
        """Make what a test needs to start, kill and look into a node that nobody feeds: the coordinator."""
        db = Database(node.settings.database_url, pool_size=2)
        return cls(node, node.settings, node.settings.data_dir, db, session)

    @property
    def id(self) -> str:
        """The node's id."""
        return self.node.id

    @property
    def api(self) -> str:
        """Where the API of the first worker is."""
        return f"http://{self.settings.listen_api}"

    @property
    def trace(self) -> Path:
        """The file that every durable step of every worker is noted in."""
        return self.folder / "trace"

    @property
    def log(self) -> Path:
        """The file that every worker logs to."""
        return self.folder / "log"

    async def start(
        self,
        *,
        kill: Order | None = None,
        hold: Order | None = None,
        clock_ahead_s: float = 0.0,
        lease_s: float = LEASE_S,
        settings: Mapping[str, object] | None = None,
        importing: Path | None = None,
        deciding: tuple[UUID, str, str] | None = None,
        target: Callable[[Conditions], None] = run,
    ) -> Worker:
        """Start a worker; `settings` are those in which it differs from the node's, `target` another build."""
        path = self.folder / f"worker{len(self.workers)}.toml"
        write_settings(path, {**file_values(self.settings), **(settings or {})})
        under = Conditions(
            path,
            self.log,
            self.trace,
            kill,
            hold,
            clock_ahead_s=clock_ahead_s,
            lease_s=lease_s,
            importing=importing,
            deciding=deciding,
        )
        process = _NURSERY.Process(target=target, args=(under,), name=f"{self.id} {kill or hold or ''}", daemon=True)
        # Not in a thread: a start looks after the other processes too, and two that look at once miss what one saw.
        process.start()
        worker = Worker(process, kill)
        self.workers.append(worker)
        return worker

    async def serving(self, limit_s: float = LIMIT_S) -> None:
        """Wait until the first worker's API answers."""

        async def ready() -> bool:
            try:
                async with self.session.get(f"{self.api}/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await until(ready, f"{self.id} serves", limit_s=limit_s)

    async def struck(self, worker: Worker) -> None:
        """Wait until the worker died where it was ordered to, and nowhere else."""
        try:
            status = await worker.ended()
        except AssertionError:
            raise AssertionError(f"{self.id} never came to {worker.order}\n{self.tail()}") from None
        assert status == -signal.SIGKILL, f"{self.id} ended with {status} under {worker.order}\n{self.tail()}"
        assert worker.order is not None
        assert (worker.pid, "killed", worker.order.step) in self.steps()

    async def holding(self, worker: Worker) -> None:
        """Wait until the worker holds where it was ordered to."""

        async def holds() -> bool:
            return any(pid == worker.pid and what == "holds" for pid, what, _ in self.steps())

        await until(holds, f"a worker of {self.id} holds\n{self.tail()}")

    async def end(self) -> None:
        """Kill what still runs, and collect it."""
        for worker in self.workers:
            await worker.kill()
            worker.process.close()
        await self.db.close()

    def steps(self) -> list[tuple[int, str, str]]:
        """Return (process id, `passed`, `killed` or `holds`, step) of every durable step so far."""
        if not self.trace.exists():
            return []
        lines = [line.split(" ") for line in self.trace.read_text().splitlines()]
        return [(int(pid), what, step) for pid, what, step in lines]

    def passed(self, worker: Worker) -> set[str]:
        """Return the durable steps that this worker committed."""
        return {step for pid, what, step in self.steps() if pid == worker.pid and what == "passed"}

    def lines(self) -> list[dict[str, Any]]:
        """Return the log so far; a line that is no JSON (a traceback of the interpreter) fails the test."""
        text = self.log.read_text() if self.log.exists() else ""
        assert all(line.startswith("{") for line in text.splitlines()), text
        return [json.loads(line) for line in text.splitlines()]

    def unforeseen(self) -> list[dict[str, Any]]:
        """Return the log lines that tell of an error nobody has foreseen."""
        return [
            line
            for line in self.lines()
            if line["action"] == "web.failed"
            or (line["action"] == "library.log" and not _orphan(line))
            or (line["action"].endswith(".failed") and "kind" in line)
        ]

    def tail(self) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text().splitlines()[-15:]) if self.log.exists() else ""

    async def status(self) -> dict[str, Any]:
        """Return what `hotline status` reads, straight from the database."""
        async with self.db.transaction("test.status") as tx:
            return await read_status(tx, datetime.now(UTC))

    async def told(self) -> dict[str, Any]:
        """Return what the running node's API says of its status."""
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.session.get(f"{self.api}/api/v1/status", headers=headers) as answer:
            assert answer.status == 200
            said: dict[str, Any] = await answer.json()
            return said

    async def contact(self, peer: str) -> Mapping[str, Any]:
        """Return the status of the contact with `peer`; empty before there was any."""
        for one in (await self.status())["peers"]:
            if one["peer"] == peer:
                found: Mapping[str, Any] = one
                return found
        return {}

    async def count(self, query: str) -> int:
        """Return the number that `query` gives."""
        async with self.db.transaction("test.count") as tx:
            return int(await tx.value(query) or 0)

    async def vault(self) -> Vault:
        """Return the node's field keys."""
        async with self.db.transaction("test.vault") as tx:
            return await load_vault(tx, MasterKey.load(self.settings))


def _orphan(line: Mapping[str, Any]) -> bool:
    """Tell whether a library told of a lost connection to nobody.

    That is asyncpg of one that no longer waited, or the pool
    of one that could not be closed in order because its server had gone.
    """
    if str(line.get("library", "")).startswith("sqlalchemy.pool"):
        return line.get("error") in {"BrokenPipeError", "ConnectionResetError", "ConnectionDoesNotExistError"}
    return (line.get("error"), line.get("at")) == ("ConnectionDoesNotExistError", "")
