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
        self._changed = asyncio.Event()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count one caller while the block runs."""
        self._callers += 1
        self._changed.set()
        try:
            yield
        finally:
            self._callers -= 1
            self._changed.set()

    async def turn(self, limit_s: float) -> None:
        """Return when nobody was being answered for a moment, at the latest after `limit_s` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                while not await self._quiet():
                    pass
        except TimeoutError:
            return

    async def _quiet(self) -> bool:
        self._changed.clear()
        if self._callers:
            await self._changed.wait()
            return False
        try:
            await asyncio.wait_for(self._changed.wait(), _QUIET_S)
        except TimeoutError:
            return True
        return False
