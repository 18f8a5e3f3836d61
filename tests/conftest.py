"""Fixtures that every test may use: one PostgreSQL for the session, a migrated database for each test."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from node.hotline.assembly import ROLE
from node.hotline.store.tables import metadata
from node.platform import migrate
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres

#: Tests of durability kill processes, never the server; so its own syncing may be off.
_POSTGRES = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off", "max_connections": "200"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A private PostgreSQL server with a migrated template database.

    Not below pytest's own folder: another session may close that to the account that the server runs as.
    """
    folder = Path(tempfile.mkdtemp(prefix="hxpg"))
    server = EmbeddedPostgres.start(folder / "db", _POSTGRES)
    try:
        server.create_database("template_hotline")
        asyncio.run(_migrate(server.url("template_hotline")))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _migrate(url: str) -> None:
    db = Database(url)
    await migrate.upgrade(db.engine, ROLE, metadata)
    await db.close()


@pytest.fixture
def new_database(postgres: EmbeddedPostgres) -> Callable[[], str]:
    """Return a function that clones the migrated template and returns the clone's address."""

    def make() -> str:
        name = f"t_{uuid4().hex[:12]}"
        asyncio.run(_clone(postgres.url(), name))
        return postgres.url(name)

    return make


async def _clone(url: str, name: str) -> None:
    db = Database(url)
    async with db.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template_hotline"))
    await db.close()


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A short temporary folder: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hx", dir=os.environ.get("TMPDIR")) as folder:
        yield Path(folder)
