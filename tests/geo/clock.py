"""The clock that tests of geo pass in."""

from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds that pass only when a test says so; 2026-11-22T16:00:00Z to begin with."""

    now: float = 1_795_363_200.0

    def __call__(self) -> float:
        return self.now
