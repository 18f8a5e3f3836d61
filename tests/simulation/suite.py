"""The histories that the suite runs: those of the first seeds, in two halves, so that two workers run them at once."""

import sys
from typing import Final

from tests.simulation.running import explained, first_finding

HISTORIES: Final = 1600
#: Each half in so many tests, that a finding shows soon and alone.
BLOCKS: Final = 10


def find_nothing(block: int, remainder: int) -> None:
    """Run a block of the histories whose seeds leave this remainder when halved; fails with what one finds."""
    each = HISTORIES // BLOCKS
    found, count, seconds = first_finding(range(block * each + remainder, (block + 1) * each, 2))
    sys.stdout.write(f"{count} histories, {count / seconds:.1f} a second\n")
    assert found is None, explained(found)
