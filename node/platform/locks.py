"""Cluster-wide locks by name, all of one process on one connection to PostgreSQL; never waits for a lock.

A connection for each lock would let a few hundred peers with a backlog use up the server's `max_connections`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_KEY = "hashtextextended($1, 0)"


class SessionLocks:
    """Session-level advisory locks; PostgreSQL frees them when the process, or the connection, dies."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Open nothing yet; `engine` gives connections that nobody else uses meanwhile."""
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._names: set[str] = set()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Callable[[], bool] | None]:
        """Hold the lock `name` while the block runs.

        Yields None at once when it is held already, here or by another process, else a function that tells whether
        the connection that carries the lock is still open.
        """
        driver = await self._take(name)
        if driver is None:
            yield None
            return
        try:
            yield lambda: not driver.is_closed()
        finally:
            await asyncio.shield(asyncio.ensure_future(self._give_back(driver, name)))

    async def close(self) -> None:
        """Close the connection; its locks are free then."""
        async with self._turn:
            await self._drop()

    async def _take(self, name: str) -> Any:
        async with self._turn:
            driver = await self._open()
            if name in self._names:
                # The same session would get its own lock a second time.
                return None
            try:
                taken = await driver.fetchval(f"SELECT pg_try_advisory_lock({_KEY})", name)
            except BaseException:
                # Whether the server took it is not known: without the connection nothing is.
                driver.terminate()
                raise
            if not taken:
                return None
            self._names.add(name)
            return driver

    async def _give_back(self, driver: Any, name: str) -> None:
        async with self._turn:
            if driver is not self._driver:
                return
            self._names.discard(name)
            if not driver.is_closed():
                await driver.execute(f"SELECT pg_advisory_unlock({_KEY})", name)

    async def _open(self) -> Any:
        if self._driver is None or self._driver.is_closed():
            await self._drop()
            self._connection = await self._engine.connect()
            raw = await self._connection.get_raw_connection()
            self._driver = raw.driver_connection
            await self._connection.commit()
        return self._driver

    async def _drop(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        self._names = set()
        if connection is not None:
            # One that died closes with an error that says nothing new.
            with suppress(Exception):
                await connection.close()
