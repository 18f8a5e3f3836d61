"""Orders to a process about to serve: at which side of which commit it is to die, or to wait."""

from dataclasses import dataclass
from enum import StrEnum


class Moment(StrEnum):
    """One side of a commit."""

    BEFORE = "before"
    """Everything is written and nothing is durable."""
    AFTER = "after"
    """Everything is durable and nobody knows."""


@dataclass(frozen=True, slots=True)
class Order:
    """The `nth` time (from 1) that this process comes to this side of a commit of `step` that changes anything."""

    moment: Moment
    step: str
    nth: int = 1


def both_sides(*steps: str) -> tuple[Order, ...]:
    """Return the orders to die before and after the next commit of each step."""
    return tuple(Order(moment, step) for step in steps for moment in Moment)
