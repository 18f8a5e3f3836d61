"""A node loses its database in the middle: it goes on by itself when the database is back, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from node.hotline.assembly import ROLE
from node.hotline.store.tables import metadata
from node.platform import migrate
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres
from tests.faults.conftest import make_world, open_network
from tests.faults.network import Network, together
from tests.faults.station import until

_CHUNK = 25
#: What is leased when the connection breaks is taken again after this time.
_LEASE_S = 2.0
_CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'"


async def _feed_through(network: Network, cut: Callable[[int], object], cuts: int) -> None:
    """Hand reports in and cut, again and again, each time in the middle of what the reports set going."""
    for at in range(cuts):
        before = len(network.fr.steps()) + len(network.nl.steps())
        await network.feed.hand_in(_CHUNK)

        async def moves(before: int = before, more: int = 2 + at % 4) -> bool:
            return len(network.fr.steps()) + len(network.nl.steps()) >= before + more

        await until(moves, "records move")
        await asyncio.to_thread(cut, at)


async def test_connections_are_cut(network: Network, postgres: EmbeddedPostgres) -> None:
    workers = [await station.start(lease_s=_LEASE_S) for station in (network.fr, network.nl)]
    names = [station.settings.database_url.split("/")[3].split("?")[0] for station in (network.fr, network.nl)]

    def cut(at: int) -> None:
        for name in names[at % 2 :]:
            # The number is the last line: a connection that ends by itself meanwhile makes a warning before it.
            assert int(postgres._psql(_CUT.format(name)).splitlines()[-1]) > 0

    await together(network.fr.serving(), network.nl.serving())
    await _feed_through(network, cut, 12)
    await network.settle()
    await network.check()
    assert [worker.process.exitcode for worker in workers] == [None, None]


@pytest.fixture
async def on_fragile(tmp_path: Path, fragile: EmbeddedPostgres) -> AsyncIterator[Network]:
    """The two nodes on a server that may be restarted."""
    names = iter(("fr", "nl"))

    def new_database() -> str:
        name = next(names)
        fragile.create_database(name)
        return fragile.url(name)

    world = make_world(tmp_path, new_database)
    for node in world.nodes:
        db = Database(node.settings.database_url)
        await migrate.upgrade(db.engine, ROLE, metadata)
        await db.close()
    async with open_network(world) as made:
        yield made


async def test_the_database_server_crashes(on_fragile: Network, fragile: EmbeddedPostgres) -> None:
    network = on_fragile
    workers = [await station.start(lease_s=_LEASE_S) for station in (network.fr, network.nl)]

    def crash(_: int) -> None:
        log = str(fragile.pgdata / "server.log")
        fragile._programs.run(
            "pg_ctl", "restart", "-m", "immediate", "-w", "-s", "-l", log, "-D", str(fragile.pgdata), what="restart"
        )

    await together(network.fr.serving(), network.nl.serving())
    await _feed_through(network, crash, 4)
    await network.settle()
    await network.check()
    assert [worker.process.exitcode for worker in workers] == [None, None]
