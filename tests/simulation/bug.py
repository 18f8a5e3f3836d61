"""What a planted mistake is: its name, a sentence, and the block in which it is in the code."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """One mistake: its name, what it is, how it is planted, and the event without which it is never reached."""

    name: str
    sentence: str
    planted: Callable[[], AbstractContextManager[object]]
    needs: str = ""
