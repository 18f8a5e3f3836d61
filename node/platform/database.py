"""The one door to PostgreSQL: an engine, named transactions, bulk copy and notifications; knows no table."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeAlias

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from node.platform.locks import SessionLocks

#: What a caller catches when the database went away: the driver's, the pool's and the socket's ways of saying so.
#: InternalClientError is what asyncpg raises between the server's farewell and the end of the connection.
DATABASE_ERRORS = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

#: The server refused a value of a statement: nothing of the transaction was done, and none of it will be by itself.
REFUSED_VALUES = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, DataError, IntegrityError)

NOTIFY_CHANNEL = "hotline"
#: The lock that every process which listens shares, for as long as it does.
SERVING_LOCK = "serving"

#: A row of a result, read by column name.
Row: TypeAlias = Mapping[str, Any]


class Observer(Protocol):
    """Told how long each named transaction took (seconds)."""

    def __call__(self, name: str, seconds: float) -> None:
        """Record one committed transaction."""


def _ignore(name: str, seconds: float) -> None:
    """Observe nothing."""


def driver_url(url: str) -> str:
    """Return `url` in the form SQLAlchemy's asyncpg dialect takes; raises ValueError for another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise ValueError("only PostgreSQL is supported")
    # libpq and psql call it sslmode, the driver ssl; the values are the same.
    query = {("ssl" if name == "sslmode" else name): value for name, value in parsed.query.items()}
    return parsed.set(drivername="postgresql+asyncpg", query=query).render_as_string(hide_password=False)


#: Off for one transaction: what it writes outlives the end of a process, and not always that of the server.
NEED_NOT_LAST = "SET LOCAL synchronous_commit = off"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction: everything done through it is committed together or not at all."""

    sql: AsyncConnection
    driver: Any

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Run `query` with `$1…` parameters and return its rows."""
        rows: list[Row] = await self.driver.fetch(query, *args)
        return rows

    async def row(self, query: str, *args: object) -> Row | None:
        """Run `query` and return its first row, or None."""
        row: Row | None = await self.driver.fetchrow(query, *args)
        return row

    async def value(self, query: str, *args: object) -> Any:
        """Run `query` and return the first column of its first row, or None."""
        return await self.driver.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> int:
        """Run `query` and return how many rows it touched."""
        status: str = await self.driver.execute(query, *args)
        last = status.rsplit(" ", 1)[-1]
        return int(last) if last.isdigit() else 0

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Append `rows` to `table` with COPY."""
        await self.driver.copy_records_to_table(table, columns=columns, records=rows)

    async def need_not_last(self) -> None:
        """Let the commit not wait for the disk: of what nobody is told, and what is learnt again after a power failure.

        Whoever waits for the disk makes others wait, too: the log is written for one after the other.
        """
        await self.driver.execute(NEED_NOT_LAST)

    async def notify(self, topic: str) -> None:
        """Wake every process that listens, once this transaction is committed."""
        await self.driver.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, topic)


class Database:
    """An engine and its pool; every write happens in a *named* transaction.

    The name is a durable step of a flow (`receive.store`): it labels the metrics, it shows as `application_name` in
    `pg_stat_activity`, and the fault tests kill the process before or after the commit of a step by its name.
    """

    def __init__(self, url: str, *, pool_size: int = 10, observe: Observer = _ignore) -> None:
        """Open nothing yet; `url` is a `postgresql://` address."""
        self._engine: AsyncEngine = create_async_engine(
            driver_url(url),
            pool_size=pool_size,
            max_overflow=pool_size,
            connect_args={"timeout": 10, "command_timeout": 120},
        )
        # Locks (all on one) and the listener hold a connection for long: of the pool, they would starve it.
        self._held: AsyncEngine = create_async_engine(
            driver_url(url), poolclass=NullPool, connect_args={"timeout": 10, "command_timeout": 120}
        )
        self._locks = SessionLocks(self._held)
        self._observe = observe

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for migrations and the listener."""
        return self._engine

    @asynccontextmanager
    async def transaction(self, name: str) -> AsyncIterator[Transaction]:
        """Yield one transaction that commits when the block ends and rolls back when it raises."""
        started = perf_counter()
        connection = await self._begin(name)
        try:
            raw = await connection.get_raw_connection()
            yield Transaction(connection, raw.driver_connection)
            await self.before_commit(name)
            await connection.commit()
            await self.after_commit(name)
        finally:
            await _close(connection)
        self._observe(name, perf_counter() - started)

    @asynccontextmanager
    async def snapshot(self, name: str) -> AsyncIterator[Transaction]:
        """Yield a transaction that sees the database as it is now, however long it takes, and can change nothing."""
        async with self._engine.connect() as fresh:
            connection = await fresh.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            await connection.exec_driver_sql("SELECT set_config('application_name', $1, true)", (name,))
            raw = await connection.get_raw_connection()
            yield Transaction(connection, raw.driver_connection)

    async def _begin(self, name: str) -> AsyncConnection:
        """Return a connection with an open transaction.

        The dialect opens it with the first statement; after it, the driver's own calls (COPY, unnest) are inside. A
        pooled connection that died unnoticed shows here, before anything was done, so another one is taken.
        """
        try:
            return await self._begin_once(name)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # Its whole pool was just thrown away, so the next connection is a new one.
            return await self._begin_once(name)

    async def _begin_once(self, name: str) -> AsyncConnection:
        connection = await self._engine.connect()
        try:
            await connection.exec_driver_sql("SELECT set_config('application_name', $1, true)", (name,))
        except BaseException:
            await _close(connection)
            raise
        return connection

    async def before_commit(self, name: str) -> None:
        """The point where everything is written and nothing is durable; fault tests override it."""

    async def after_commit(self, name: str) -> None:
        """The point where everything is durable and nobody knows; fault tests override it."""

    async def close(self) -> None:
        """Close every connection."""
        await self._locks.close()
        await self._engine.dispose()
        await self._held.dispose()

    def session_lock(self, name: str) -> AbstractAsyncContextManager[Callable[[], bool] | None]:
        """Hold the cluster-wide lock `name` while the block runs, on the connection that all locks here share.

        Yields None at once when it is held already, else a function that tells whether the connection that carries
        the lock is still open. PostgreSQL frees the lock when the process dies.
        """
        return self._locks.hold(name)

    async def listen(self, wake: Callable[[str], None], *, stop: asyncio.Event, retry_s: float) -> None:
        """Call `wake(topic)` for each notification until `stop` is set; reconnects by itself.

        After each (re)connection `wake("*")` is called, since notifications sent meanwhile are gone.
        """
        while not stop.is_set():
            try:
                await self._listen_once(wake, stop)
            except DATABASE_ERRORS:
                await _wait(stop, retry_s)

    async def _listen_once(self, wake: Callable[[str], None], stop: asyncio.Event) -> None:
        async with self._held.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            lost = asyncio.Event()
            driver.add_termination_listener(lambda _: lost.set())

            def heard(_connection: object, _pid: int, _channel: str, topic: str) -> None:
                wake(topic)

            await driver.add_listener(NOTIFY_CHANNEL, heard)
            # Shared by every process that serves; what needs all of them gone takes it alone (`session_lock`).
            await driver.fetchval("SELECT pg_try_advisory_lock_shared(hashtextextended($1, 0))", SERVING_LOCK)
            wake("*")
            waits = {asyncio.create_task(stop.wait()), asyncio.create_task(lost.wait())}
            _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            if not driver.is_closed():
                await driver.remove_listener(NOTIFY_CHANNEL, heard)


async def _close(connection: AsyncConnection) -> None:
    """Give a connection back, what was not committed rolled back; also when the task is being cancelled."""
    await asyncio.shield(asyncio.ensure_future(connection.close()))


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `stop`, at most `seconds`."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
