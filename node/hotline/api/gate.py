"""Keeps batches of one stream in order when several arrive at once. Only saves rewinds: the lock on the row decides."""

from collections.abc import Awaitable, Callable

from node.platform.signals import Signals

#: A batch that came ahead of its predecessor waits this long for it, then the sender is told of the gap.
WAIT_S = 3.0
_STEP_S = 0.25


async def wait_for_turn(
    peer: str,
    first_index: int,
    *,
    ahead_max: int,
    held: Callable[[], Awaitable[int]],
    signals: Signals,
    monotonic: Callable[[], float],
) -> None:
    """Return when the stream is held up to `first_index`, or after WAIT_S; at once when it is `ahead_max` behind."""
    deadline = monotonic() + WAIT_S
    while (size := await held()) < first_index <= size + ahead_max:
        left = deadline - monotonic()
        if left <= 0:
            return
        # Another process may be storing the predecessor; its notification wakes us, and a short step is the fallback.
        await signals.wait(f"received:{peer}", min(_STEP_S, left))
