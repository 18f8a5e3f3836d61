"""Fixtures of the API tests: one hotline's node that runs, and its door."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.api.door import Door, open_door
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
