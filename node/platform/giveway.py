"""Lets background work step aside while callers are being answered; bounded, so that it never starves."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

#: Callers in a row leave short pauses; work begins when nobody came for so long.
_QUIET_S = 0.01


class GiveWay:
    """A door counts its callers in and out; a loop asks for its turn."""

    def __init__(self) -> None:
        """Nobody is being answered yet."""
        self._callers = 0
        self._last_s = 0.0

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count one caller while the block runs."""
        self._callers += 1
        try:
            yield
        finally:
            self._callers -= 1
            self._last_s = asyncio.get_running_loop().time()

    async def turn(self, limit_s: float) -> None:
        """Return when nobody was being answered for a moment, at the latest after `limit_s` seconds.

        It looks now and then: to be told of every caller would cost each of them more than the look costs us.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + limit_s
        while clock() < deadline and (  # noqa: ASYNC110 - an event for each caller is the cost avoided
            self._callers or clock() - self._last_s < _QUIET_S
        ):
            await asyncio.sleep(_QUIET_S)
