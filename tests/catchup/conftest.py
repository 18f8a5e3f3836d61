"""Fixtures of the tests of whole nodes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.world import World


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """France and the Netherlands with one signed directory; only what a test starts runs."""
    made = World(tmp_path, new_database)
    made.add("FR")
    made.add("NL")
    made.sign_directory()
    return made


@pytest.fixture
def three(world: World) -> World:
    """Germany, too."""
    world.add("DE")
    world.sign_directory()
    return world
