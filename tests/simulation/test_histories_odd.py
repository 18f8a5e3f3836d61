"""Histories of whole nodes on virtual time, the half with odd seeds: whatever happens, the invariants hold."""

import pytest

from tests.simulation.suite import BLOCKS, find_nothing


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_history_breaks_an_invariant(block: int) -> None:
    find_nothing(block, 1)
