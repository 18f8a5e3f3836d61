"""Wakes loops by topic, inside the process and (through the database's notifications) between processes."""

import asyncio
from collections import defaultdict


class Signals:
    """Topics that loops wait on; a wake-up that comes while nobody waits is kept for the next wait.

    A wake-up only saves time: every loop also looks again after its own time limit, so a lost one delays and never
    loses.
    """

    def __init__(self) -> None:
        """Start with no topic."""
        self._events: defaultdict[str, asyncio.Event] = defaultdict(self._topic)
        self._everybody_woken = False

    def wake(self, topic: str) -> None:
        """Wake who waits for `topic`; `*` wakes everybody, also who waits for the first time later."""
        if topic == "*":
            self._everybody_woken = True
            for event in self._events.values():
                event.set()
            return
        self._events[topic].set()

    async def wait(self, topic: str, limit_s: float) -> bool:
        """Wait for `topic`, at most `limit_s` seconds; tell whether it was woken."""
        event = self._events[topic]
        try:
            # No `wait_for`: that makes a task for each wait, and loops wait often.
            async with asyncio.timeout(limit_s):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            event.clear()
        return True

    def _topic(self) -> asyncio.Event:
        event = asyncio.Event()
        if self._everybody_woken:
            event.set()
        return event
