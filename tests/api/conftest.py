"""Fixtures of the API tests: one hotline's node that runs, and its door."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from node.platform.embedded import EmbeddedPostgres
from tests.api.door import Door, open_door
from tests.conftest import _clone
from tests.world import World


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """France and the Netherlands; only what a test starts runs."""
    made = World(tmp_path, new_database)
    made.add("FR")
    made.add("NL")
    made.sign_directory()
    return made


@pytest.fixture
async def door(world: World) -> AsyncIterator[Door]:
    """The French node's API door; its peer is not there."""
    await world.create_field_keys(world.nodes[:1])
    async with open_door(world.nodes[0]) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres) -> World:
    """A world for the tests of one module; the module adds its nodes."""
    name = f"m_{uuid4().hex[:12]}"
    asyncio.run(_clone(postgres.url(), name))
    return World(tmp_path_factory.mktemp("shared"), lambda: postgres.url(name))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_door(shared_world: World) -> AsyncIterator[Door]:
    """The door of one node for all tests of a module, which leave it as it was or do not mind each other."""
    if not shared_world.nodes:
        shared_world.add("FR")
        shared_world.sign_directory()
    await shared_world.create_field_keys()
    async with open_door(shared_world.nodes[0]) as opened:
        yield opened
