"""A wake-up is never lost, whoever comes first."""

import asyncio

from node.platform.signals import Signals


async def test_a_wake_up_is_kept_for_who_waits_next() -> None:
    signals = Signals()
    signals.wake("apply")
    assert await signals.wait("apply", 60)
    assert not await signals.wait("apply", 0)


async def test_who_waits_is_woken() -> None:
    signals = Signals()
    waiting = asyncio.ensure_future(signals.wait("apply", 60))
    await asyncio.sleep(0)
    signals.wake("deliver")
    signals.wake("apply")
    assert await waiting
    assert not await signals.wait("apply", 0)


async def test_everybody_is_woken_also_who_had_not_come_to_wait_yet() -> None:
    """A process told to stop in its first moments would else wait out a loop's whole pause."""
    signals = Signals()
    assert not await signals.wait("early", 0)
    signals.wake("*")
    assert await signals.wait("early", 60)
    assert await signals.wait("late", 60)
