"""Fixtures that every test may use: one PostgreSQL for the session, a migrated database for each test."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import sqlalchemy as sa

from node.coordinator import publisher, tables
from node.hotline.assembly import ROLE
from node.hotline.store.tables import metadata
from node.platform import migrate
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres

#: Tests of durability kill processes, never the server; so its own syncing may be off.
#: There are hundreds of databases, none older than minutes: to look after each of them costs more than it is worth.
_POSTGRES = {
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "max_connections": "200",
    "autovacuum": "off",
}

_MEMORY = Path("/dev/shm")  # noqa: S108 -- below it a folder of our own is made
_ROOM_BYTES = 12 * 2**30

#: Whose files run first, the longest before: the workers take a file each, and then end at about the same time.
_LONG = ("simulation", "soak", "demo", "faults", "coordinator", "conformance", "catchup", "cli", "moves", "versions")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for the workers; within a file the order stays."""
    here = Path(__file__).parent

    def turn(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return _LONG.index(folder) if folder in _LONG else len(_LONG)

    items.sort(key=turn)


def _in_memory() -> Path | None:
    """Return where files are kept in memory, if there is enough: to clear the server off a disk takes a minute.

    A session makes some 300 databases in all its workers together, of 12 MB each.
    """
    if (
        not _MEMORY.is_dir()
        or shutil.disk_usage(_MEMORY).free < _ROOM_BYTES
        or psutil.virtual_memory().available < _ROOM_BYTES
    ):
        return None
    return _MEMORY


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A private PostgreSQL server with a migrated template database.

    Not below pytest's own folder: another session may close that to the account that the server runs as.
    """
    folder = Path(tempfile.mkdtemp(prefix="hxpg", dir=_in_memory()))
    server = EmbeddedPostgres.start(folder / "db", _POSTGRES)
    try:
        server.create_database("template_hotline")
        asyncio.run(_migrate(server.url("template_hotline"), ROLE, metadata))
        server.create_database("template_coordinator")
        asyncio.run(_migrate(server.url("template_coordinator"), publisher.ROLE, tables.metadata))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _migrate(url: str, role: str, wanted: sa.MetaData) -> None:
    db = Database(url)
    await migrate.upgrade(db.engine, role, wanted)
    await db.close()


@pytest.fixture
def new_database(postgres: EmbeddedPostgres) -> Callable[[], str]:
    """Return a function that clones the migrated template and returns the clone's address."""
    return lambda: _new(postgres, "template_hotline")


@pytest.fixture
def coordinator_database(postgres: EmbeddedPostgres) -> str:
    """Return the address of a coordinator's database with nothing in it."""
    return _new(postgres, "template_coordinator")


def _new(postgres: EmbeddedPostgres, template: str) -> str:
    name = f"t_{uuid4().hex[:12]}"
    asyncio.run(_clone(postgres.url(), name, template))
    return postgres.url(name)


async def _clone(url: str, name: str, template: str = "template_hotline") -> None:
    db = Database(url)
    async with db.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    await db.close()


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A short temporary folder: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hx", dir=os.environ.get("TMPDIR")) as folder:
        yield Path(folder)
