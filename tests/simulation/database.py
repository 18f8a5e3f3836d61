"""The node's database on virtual time: the same named transactions; statements take time, commits may be the last.

What is committed stays in `Disk` when the node crashes; everything else is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import asyncpg

from node.coordinator.tables import metadata as coordinator
from node.hotline.store.tables import metadata
from node.platform.database import NEED_NOT_LAST, Database, Transaction
from tests.simulation.sql.conditions import row_condition
from tests.simulation.sql.forms import Form
from tests.simulation.sql.queries import Result
from tests.simulation.sql.statements import Compiler
from tests.simulation.sql.tables import Blocked, Row, Session, Tables

#: A disk is a hotline's or the coordinator's; what both have is the same.
_TABLES = {**coordinator.tables, **metadata.tables}
FORMS = {name: Form.of(table, row_condition) for name, table in _TABLES.items()}
COMPILER = Compiler(FORMS)


class Fate(Protocol):
    """What becomes of the node's storage, and how long it takes; drawn by the history."""

    def statement(self) -> Awaitable[None] | None:
        """Let the time of one statement pass: what has to be waited for; raises when database or node is gone."""

    def before_commit(self, name: str, session: Session) -> None:
        """The moment before a commit; raises when the node dies there."""

    def after_commit(self, name: str, session: Session) -> None:
        """The moment after a commit, before its caller knows; raises when the node dies there."""


@dataclass(slots=True)
class Disk:
    """What survives a crash: the tables, and who holds a cluster-wide lock."""

    tables: Tables = field(default_factory=lambda: Tables(FORMS.values()))
    locks: dict[str, object] = field(default_factory=dict)
    listeners: dict[object, Callable[[str], None]] = field(default_factory=dict)

    def rows(self, table: str) -> list[Row]:
        """Return the committed rows of a table."""
        return self.tables.committed(table)

    def find(self, table: str, **equal: object) -> list[Row]:
        """Return the committed rows of a table that have these values."""
        return self.tables.found(table, equal)

    def crash(self) -> None:
        """Roll back what is open and forget who was connected."""
        for session in list(self.tables.open):
            session.end()
        self.locks.clear()
        self.listeners.clear()

    def restore(self, backup: Tables) -> None:
        """Put yesterday's tables in the place of today's; no number of a row is given a second time."""
        self.crash()
        backup.follow(self.tables)
        self.tables = backup


class Driver:
    """Stands where asyncpg's connection stands in a transaction."""

    def __init__(self, session: Session, fate: Fate, compiler: Compiler = COMPILER) -> None:
        """Run the statements of one transaction."""
        self._session = session
        self._fate = fate
        self._compiler = compiler

    async def fetch(self, query: str, *args: object) -> list[dict[str, Any]]:
        """Return rows by column name; each has a value for every name."""
        result = await self._run(query, args)
        names = result.names
        return [dict(zip(names, row, strict=False)) for row in result.rows]

    async def fetchrow(self, query: str, *args: object) -> dict[str, Any] | None:
        """Return the first row, or None."""
        result = await self._run(query, args)
        return dict(zip(result.names, result.rows[0], strict=False)) if result.rows else None

    async def fetchval(self, query: str, *args: object) -> object:
        """Return the first column of the first row, or None."""
        result = await self._run(query, args)
        return result.rows[0][0] if result.rows else None

    async def execute(self, query: str, *args: object) -> str:
        """Return what was done, in PostgreSQL's words."""
        if query == NEED_NOT_LAST:
            return "SET"
        return (await self._run(query, args)).status

    async def copy_records_to_table(
        self, table: str, *, columns: Sequence[str], records: Iterable[Sequence[object]]
    ) -> str:
        """Append rows."""
        rows = [dict(zip(columns, record, strict=True)) for record in records]
        return (await self._run(table, (), rows)).status

    async def _run(self, query: str, args: Sequence[object], copied: Sequence[Row] | None = None) -> Result:
        """Run a statement, or copy rows into the table that `query` names."""
        session = self._session
        while True:
            passing = self._fate.statement()
            if passing is not None:
                await passing
            if session.failed or session not in session.tables.open:
                raise asyncpg.InFailedSQLTransactionError("the transaction is over")
            try:
                if copied is None:
                    return self._compiler.run(session, query, args)
                session.copy(query, copied)
                return Result((), [], f"COPY {len(copied)}")
            except Blocked as blocked:
                holder = blocked.holder
            except asyncpg.PostgresError:
                session.failed = True
                raise
            await self._wait_for(holder)

    async def _wait_for(self, holder: Session) -> None:
        session = self._session
        seen: Session | None = holder
        while seen is not None:
            if seen is session:
                session.failed = True
                raise asyncpg.DeadlockDetectedError("two transactions wait for each other")
            seen = seen.waits_for
        if holder.over is None:
            holder.over = asyncio.Event()
        session.waits_for = holder
        try:
            await holder.over.wait()
        finally:
            session.waits_for = None


class _Open:
    """One transaction while its block runs."""

    __slots__ = ("_compiler", "_disk", "_fate", "_name", "_session")

    def __init__(self, disk: Disk, fate: Fate, name: str, compiler: Compiler) -> None:
        self._disk = disk
        self._fate = fate
        self._name = name
        self._compiler = compiler

    async def __aenter__(self) -> Transaction:
        passing = self._fate.statement()
        if passing is not None:
            await passing
        self._session = self._disk.tables.begin()
        sql: Any = None
        return Transaction(sql, Driver(self._session, self._fate, self._compiler))

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        session, fate = self._session, self._fate
        try:
            if error is None:
                passing = fate.statement()
                if passing is not None:
                    await passing
                if session.failed:
                    raise asyncpg.InFailedSQLTransactionError("the transaction is over")
                fate.before_commit(self._name, session)
                if session not in self._disk.tables.open:
                    raise asyncpg.ConnectionDoesNotExistError("the connection is gone")
                written = session.writes
                session.commit()
                session.writes = written
                fate.after_commit(self._name, session)
                if session.notified:
                    topics = dict.fromkeys(session.notified)
                    for wake in list(self._disk.listeners.values()):
                        for topic in topics:
                            wake(topic)
        finally:
            session.end()


class MemoryDatabase(Database):
    """The database of one run of a node; a crash ends it and leaves the disk."""

    def __init__(self, disk: Disk, fate: Fate, compiler: Compiler = COMPILER) -> None:
        """Connect to the disk; nothing of the engine is made."""
        self._disk = disk
        self._fate = fate
        self._compiler = compiler

    def transaction(self, name: str) -> AbstractAsyncContextManager[Transaction]:  # type: ignore[override] # not from a generator
        """Yield one transaction that commits when the block ends and rolls back when it raises."""
        return _Open(self._disk, self._fate, name, self._compiler)

    @asynccontextmanager
    async def session_lock(self, name: str) -> AsyncIterator[Callable[[], bool] | None]:
        """Hold the cluster-wide lock `name` while the block runs; None when somebody else does."""
        passing = self._fate.statement()
        if passing is not None:
            await passing
        locks = self._disk.locks
        if name in locks:
            yield None
            return
        mine = locks[name] = object()
        try:
            yield lambda: locks.get(name) is mine
        finally:
            if locks.get(name) is mine:
                del locks[name]

    async def listen(self, wake: Callable[[str], None], *, stop: asyncio.Event, retry_s: float) -> None:  # noqa: ARG002 - the real one connects again
        """Call `wake` for each notification until `stop` is set."""
        key = object()
        self._disk.listeners[key] = wake
        wake("*")
        try:
            await stop.wait()
        finally:
            self._disk.listeners.pop(key, None)

    async def close(self) -> None:
        """Nothing is open."""
