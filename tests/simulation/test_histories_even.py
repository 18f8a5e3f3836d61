"""Histories of whole nodes on virtual time, the half with even seeds: whatever happens, the invariants hold."""

import os
import subprocess
import sys

import pytest

from tests.simulation.plan import draw
from tests.simulation.suite import BLOCKS, find_nothing
from tests.simulation.world import QUIET_WITHIN_S, run


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_history_breaks_an_invariant(block: int) -> None:
    find_nothing(block, 0)


def test_a_seed_is_one_history_whatever_the_process() -> None:
    program = (
        "import hashlib; from tests.simulation.plan import draw; from tests.simulation.world import run; "
        "print(hashlib.sha256(chr(10).join(run(draw(11)).trace).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_history_ends_soon_after_everything_is_healed() -> None:
    outcome = run(draw(4))
    assert outcome.found is None
    assert outcome.quiet_after_s <= QUIET_WITHIN_S
