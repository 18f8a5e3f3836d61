"""Fixtures of the peer tests: one running node a module, to which each test adds peers of its own."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from node.hotline.serve import running
from node.platform.embedded import EmbeddedPostgres
from node.platform.telemetry import make_logger
from tests.conftest import _clone
from tests.peers.inbox import Inbox
from tests.peers.network import Hub, Network, ShiftedClock
from tests.peers.simulator import PeerSimulator
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
    tested = world.add(
        "NL",
        backoff_base_s=900,
        backoff_cap_s=900,
        batch_records_max=50,
        body_bytes_max=1_200_000,
        unapplied_records_max=1000,
    )
    world.sign_directory()
    return Network(world, tested)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(receiving: Network) -> AsyncIterator[Hub]:
    """The receiving node, running; a batch that comes ahead of its turn waits 30 ms instead of three seconds."""
    async with run_hub(receiving, receiving.tested, ShiftedClock(haste=100)) as made:
        yield made


def sending_network(folder: Path, database: Callable[[], str], **settings: object) -> Network:
    """A network whose node FR is there to send, and tries again at once."""
    world = World(folder, database)
    values = {"backoff_base_s": 0.05, "backoff_cap_s": 0.3, "peer_timeout_s": 3.0, "poll_s": 0.05, **settings}
    tested = world.add("FR", **values)
    world.sign_directory()
    return Network(world, tested)


@pytest.fixture(scope="module")
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A sender of eight records in a batch and one batch in flight, so that the order of events is sure."""
    folder = tmp_path_factory.mktemp("one")
    return sending_network(folder, database, batch_records_max=8, batches_in_flight_max=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sender(one_at_a_time: Network) -> AsyncIterator[Hub]:
    async with run_hub(one_at_a_time, one_at_a_time.tested, ShiftedClock()) as made:
        yield made


@pytest.fixture(scope="module")
def three_in_flight(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A sender with three batches in flight."""
    return sending_network(tmp_path_factory.mktemp("three"), database, batches_in_flight_max=3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fast_sender(three_in_flight: Network) -> AsyncIterator[Hub]:
    async with run_hub(three_in_flight, three_in_flight.tested, ShiftedClock()) as made:
        yield made


class OpenInbox(Protocol):
    """Lists one more peer, in a free country unless one is given, and opens its inbox."""

    async def __call__(
        self, hub: Hub, country: str | None = None, *, listen: bool = True
    ) -> tuple[PeerSimulator, Inbox]:
        """Return the peer and its inbox, which listens unless told not to."""


@pytest_asyncio.fixture(loop_scope="module")
async def open_inbox() -> AsyncIterator[OpenInbox]:
    """Return a function that lists a peer and opens its inbox; what it opened is closed at the end."""
    opened: list[Inbox] = []

    async def add(hub: Hub, country: str | None = None, *, listen: bool = True) -> tuple[PeerSimulator, Inbox]:
        peer = await hub.peer(country)
        inbox = Inbox(peer.node, hub.network.tested, peer.now)
        opened.append(inbox)
        if listen:
            await inbox.listen()
        return peer, inbox

    yield add
    for inbox in opened:
        await inbox.close()
