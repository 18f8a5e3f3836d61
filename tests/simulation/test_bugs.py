"""The simulator finds the planted mistakes, each by the history that BUGS.md names, and nothing without them."""

import pytest

from tests.simulation.bug import Bug
from tests.simulation.bugs import BUGS
from tests.simulation.casebook import HISTORIES_MAX, Case, cases, with_bug
from tests.simulation.plan import draw
from tests.simulation.running import keeping
from tests.simulation.world import run

CASES = {case.name: case for case in cases()}
STALE = "; `python -m tests.simulation.casebook` writes BUGS.md anew"


def test_every_planted_mistake_has_its_history() -> None:
    assert [bug.name for bug in BUGS] == list(CASES)
    assert all(case.seed < HISTORIES_MAX for case in CASES.values())


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_mistake_is_found(bug: Bug) -> None:
    case: Case = CASES[bug.name]
    plan = draw(case.seed)
    for history in (plan, keeping(plan, case.kept)):
        found = with_bug(bug, history).found
        assert found is not None, f"{bug.name} is not found by seed {case.seed}{STALE}"
        assert found.invariant == case.broken, f"{bug.name} breaks {found}, not {case.broken}{STALE}"
        assert run(history).found is None
