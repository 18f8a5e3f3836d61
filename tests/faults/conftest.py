"""Fixtures of the fault tests: a French node that sends and a Dutch one that receives, as real processes."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from node.platform.embedded import EmbeddedPostgres
from tests.faults.network import Network
from tests.faults.relay import Relay
from tests.ports import free_port
from tests.world import World

#: Waits are short, and everything comes in many small transactions, so that every step happens often.
_SETTINGS: dict[str, object] = {
    "poll_s": 0.05,
    "backoff_base_s": 0.05,
    "backoff_cap_s": 0.5,
    "batch_records_max": 40,
    "locate_batch_items_max": 40,
    "database_pool_size": 5,
    "peer_timeout_s": 10.0,
}


def make_world(folder: Path, new_database: Callable[[], str], countries: Sequence[str] = ("FR", "NL")) -> World:
    """Make the files and databases of the nodes, two unless told otherwise."""
    made = World(folder, new_database)
    for country in countries:
        port = free_port()
        made.add(
            country,
            **_SETTINGS,
            base_url=f"http://127.0.0.1:{port}",
            listen_peer=f"127.0.0.1:{port}",
            listen_api=f"127.0.0.1:{free_port()}",
        )
    return made


@asynccontextmanager
async def open_network(world: World) -> AsyncIterator[Network]:
    """Yield the two nodes, not started; what still runs at the end is killed."""
    world.sign_directory()
    await world.create_field_keys()
    async with aiohttp.ClientSession() as session:
        made = await Network.prepare(world, session)
        try:
            yield made
        finally:
            await made.end()
    made.check_exempt_steps()


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """The files and databases of the two nodes."""
    return make_world(tmp_path, new_database)


@pytest.fixture
async def network(world: World) -> AsyncIterator[Network]:
    """The two nodes, not started."""
    async with open_network(world) as made:
        yield made


@pytest.fixture
async def relayed(world: World) -> AsyncIterator[tuple[Network, Relay]]:
    """The two nodes, not started; the Dutch one is reached through a relay."""
    nl = world.nodes[1]
    relay = Relay(free_port(), [int(nl.settings.listen_peer.rsplit(":", 1)[1])])
    nl.settings = replace(nl.settings, base_url=f"http://127.0.0.1:{relay.port}")
    nl.entry["base_url"] = nl.settings.base_url
    await relay.start()
    try:
        async with open_network(world) as made:
            yield made, relay
    finally:
        await relay.close()


@pytest.fixture
def fragile(short_tmp: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this test's own, durable as in operation."""
    server = EmbeddedPostgres.start(short_tmp / "db", {"max_connections": "60"})
    try:
        yield server
    finally:
        server.stop()
