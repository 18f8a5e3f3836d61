"""The virtual loop: who passes its time at once gets the turns that sleeping would have given it; nothing stays."""

import asyncio
import gc
import random
import weakref
from collections.abc import Awaitable, Callable

import pytest

from tests.simulation import world
from tests.simulation.eventloop import Stuck, VirtualLoop
from tests.simulation.plan import draw

Wait = Callable[[VirtualLoop, float], Awaitable[None]]


async def _sleeping(loop: VirtualLoop, seconds: float) -> None:
    await loop.pause(seconds)


async def _passing(loop: VirtualLoop, seconds: float) -> None:
    if not loop.passes(seconds):
        await loop.pause(seconds)


def _turns(seed: int, wait: Wait) -> list[tuple[int, int, float]]:
    """Several tasks that wait, wake and end one another, by chance; returns who did what when."""
    loop, seen = VirtualLoop(), list[tuple[int, int, float]]()
    rng = random.Random(seed)
    # Few different times, so that some fall together.
    steps = [[rng.choice([0.0, 0.001, 0.002, 0.5, 1.0]) for _ in range(20)] for _ in range(4)]
    woken = [asyncio.Event() for _ in steps]

    async def work(who: int) -> None:
        for number, seconds in enumerate(steps[who]):
            try:
                async with asyncio.timeout(0.7 if number % 5 == 0 else None):
                    await wait(loop, seconds)
                    if number % 4 == 1:
                        await woken[who].wait()
                        woken[who].clear()
            except TimeoutError:
                seen.append((who, -number, loop.time()))
            woken[(who + 1) % len(woken)].set()
            seen.append((who, number, loop.time()))

    async def everybody() -> None:
        # Whoever still waits to be woken after so long is not.
        await asyncio.wait([asyncio.ensure_future(work(who)) for who in range(len(steps))], timeout=30.0)

    try:
        loop.run_until_complete(everybody())
    finally:
        loop.close()
    return seen


@pytest.mark.parametrize("seed", range(20))
def test_time_that_passes_at_once_changes_no_turn(seed: int) -> None:
    slept = _turns(seed, _sleeping)
    assert slept == _turns(seed, _passing)
    assert len(slept) > 20


def test_time_does_not_pass_at_once_over_what_happens_in_it() -> None:
    loop = VirtualLoop()
    try:
        assert loop.passes(1.0)
        later = loop.call_later(1.0, print)
        assert (loop.passes(0.5), loop.passes(0.5), loop.passes(2.0)) == (True, False, False)
        later.cancel()
        assert loop.passes(2.0)
        loop.call_soon(print)
        assert not loop.passes(0.1)
        assert loop.time() == 3.5
    finally:
        loop.close()


def test_a_loop_on_which_nothing_can_happen_is_stuck() -> None:
    loop = VirtualLoop()

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        loop.run_until_complete(wait())
    loop.close()


def test_a_history_keeps_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds: list[weakref.ref[object]] = []
    begin = VirtualLoop.__init__

    def noted(self: VirtualLoop) -> None:
        begin(self)
        worlds.append(weakref.ref(self))

    monkeypatch.setattr(VirtualLoop, "__init__", noted)
    world.run(draw(3))
    gc.collect()
    assert [one() for one in worlds] == [None]
