"""Histories in which the check of I11 once found what the protocol allows; they end with one custodian."""

import pytest

from tests.simulation.plan import draw
from tests.simulation.running import keeping
from tests.simulation.world import run

#: A restored node gives an item, which a suspended member has from it, to another hotline as well.
GIVEN_TWICE = 200434, (3, 4, 7)
#: An item is its reporter's again, whose receipt was lost, and the reporter withdraws it.
TAKEN_BACK = 202818, (1, 2, 3, 14)


@pytest.mark.parametrize(("seed", "kept"), [GIVEN_TWICE, TAKEN_BACK])
def test_the_check_allows_what_the_protocol_allows(seed: int, kept: tuple[int, ...]) -> None:
    outcome = run(keeping(draw(seed), kept))
    assert outcome.found is None, outcome.found
