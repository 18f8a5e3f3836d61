"""Fixtures of the peer tests: one running node a module, to which each test adds peers of its own."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from node.hotline.serve import running
from node.platform.embedded import EmbeddedPostgres
from node.platform.telemetry import make_logger
from tests.conftest import _clone
from tests.peers.network import Hub, Network, ShiftedClock
from tests.world import TestNode, World


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres) -> Callable[[], str]:
    """As `new_database`, for fixtures that last a module."""

    def make() -> str:
        name = f"t_{uuid4().hex[:12]}"
        asyncio.run(_clone(postgres.url(), name))
        return postgres.url(name)

    return make


@asynccontextmanager
async def run_hub(network: Network, node: TestNode, clock: ShiftedClock) -> AsyncIterator[Hub]:
    """Run a node of the network and yield it with what a test needs."""
    await network.world.create_field_keys([node])
    lines = io.StringIO()
    # Without kept-alive connections the client never sends a request twice on its own.
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(connector=connector, skip_auto_headers=("User-Agent",)) as session:
        log = make_logger("info", "json", lines)
        async with running(node.settings, clock=clock, log=log) as (running_node, _, _):
            yield Hub(network, running_node, clock, session, lines)


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A network whose node NL is there to receive; what it has to say itself it tries once, and then rarely."""
    world = World(tmp_path_factory.mktemp("receiving"), database)
    tested = world.add("NL", backoff_base_s=900, backoff_cap_s=900, batch_records_max=50, body_bytes_max=1_200_000)
    world.sign_directory()
    return Network(world, tested)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(receiving: Network) -> AsyncIterator[Hub]:
    """The receiving node, running; a batch that comes ahead of its turn waits 30 ms instead of three seconds."""
    async with run_hub(receiving, receiving.tested, ShiftedClock(haste=100)) as made:
        yield made
