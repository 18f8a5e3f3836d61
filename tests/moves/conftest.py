"""Four hotlines with one signed directory; only what a test starts runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.world import World

COUNTRIES = ("FR", "NL", "DE", "US")


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """France, the Netherlands, Germany and the United States."""
    made = World(tmp_path, new_database)
    for country in COUNTRIES:
        made.add(country)
    made.sign_directory()
    return made
