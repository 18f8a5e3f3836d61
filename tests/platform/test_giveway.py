"""Background work steps aside for callers, but not for ever."""

import asyncio

from node.platform.giveway import GiveWay
from tests.patience import stretched


async def test_work_has_its_turn_at_once_when_nobody_calls() -> None:
    async with asyncio.timeout(stretched(1)):
        await GiveWay().turn(60)


async def test_work_waits_until_the_caller_is_answered() -> None:
    give_way = GiveWay()
    with give_way.answering():
        turn = asyncio.create_task(give_way.turn(60))
        await asyncio.wait({turn}, timeout=0.05)
        assert not turn.done()
    async with asyncio.timeout(stretched(5)):
        await turn


async def test_work_waits_no_longer_than_its_limit() -> None:
    give_way = GiveWay()
    with give_way.answering():
        async with asyncio.timeout(stretched(5)):
            await give_way.turn(0.02)
