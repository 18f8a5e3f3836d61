"""Fixtures: one running node, and a test member in its directory that listens."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from node.clock import SystemClock
from node.conformance.checks import Check, Result, Run
from node.conformance.member import Member, create_member
from node.conformance.running import Options, open_run, results
from node.conformance.table import CHECKS
from node.platform.membership import read_directory
from node.platform.repository import fingerprint
from node.settings import settings_from
from tests.peers.conftest import database, run_hub
from tests.peers.network import Hub, Network, ShiftedClock
from tests.ports import free_port
from tests.world import TestNode, World

__all__ = ["database"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A running node, and the test member that its directory lists."""

    hub: Hub
    folder: Path
    port: int | None

    @property
    def base_url(self) -> str:
        return self.hub.network.tested.settings.base_url

    @asynccontextmanager
    async def opened(self, address: str | None = None) -> AsyncIterator[Run]:
        """Begin a run against the node, or what stands at another address in front of it."""
        world = self.hub.network.world
        directory = read_directory(world.repository, fingerprint(world.root)).directory
        node, listen = directory.nodes[self.hub.id], None if self.port is None else ("127.0.0.1", self.port)
        options = Options(address or self.base_url, node, listen, 20.0, None)
        async with open_run(options, Member.load(self.folder), directory, SystemClock()) as run:
            yield run

    async def results(
        self, address: str | None = None, checks: tuple[Check, ...] = CHECKS, *, destructive: bool = False
    ) -> list[Result]:
        """Make checks."""
        async with self.opened(address) as run:
            return [one async for one in results(run, checks, destructive=destructive)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A node NL that is there to be checked, whose bodies are small so that one too large is soon sent."""
    world = World(tmp_path_factory.mktemp("conformance"), database)
    tested = world.add("NL", body_bytes_max=1_200_000, batch_records_max=50, poll_s=0.05)
    world.sign_directory()
    return Network(world, tested)


def add_member(network: Network, name: str, *, port: int | None) -> Path:
    """List one more test member; returns its folder."""
    world = network.world
    folder = world.folder / name
    url = None if port is None else f"http://127.0.0.1:{port}"
    raw = create_member(folder, node_id=f"{name}.test", base_url=url, contact="desk", now=datetime.now(UTC))
    values = {"node_id": f"{name}.test", "countries": ["AQ"], "base_url": "http://127.0.0.1:9"}
    settings = settings_from({**values, "data_dir": str(folder), "embedded_database": True}, folder)
    world.nodes.append(TestNode(settings, Member.load(folder).keys, json.loads(raw)))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tested(network: Network) -> AsyncIterator[Subject]:
    """The node, running, and a test member; a batch ahead of its turn waits 0.3 s instead of three."""
    port = free_port()
    folder = add_member(network, "conformance", port=port)
    add_member(network, "fetching", port=None)
    network.world.nodes.insert(0, network.world.nodes.pop())
    network.world.sign_directory()
    async with run_hub(network, network.tested, ShiftedClock(haste=10)) as hub:
        yield Subject(hub, folder, port)
