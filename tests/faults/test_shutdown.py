"""SIGTERM in the middle: what is in flight is finished, the exit status is 0, and nothing is lost."""

import asyncio

from tests.faults.network import Network
from tests.faults.orders import Moment, Order
from tests.faults.station import until

_RECORDS = 100


async def test_the_sender_stores_the_receipts_of_what_is_in_flight(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    slow = await nl.start(hold=Order(Moment.BEFORE, "receive.store"))
    ending = await fr.start()
    await feed.hand_in(_RECORDS)
    await nl.holding(slow)
    ending.terminate()
    slow.go()
    assert await ending.ended(fr.settings.shutdown_s) == 0
    receipted = (await fr.status())["streams_out"][0]["receipted"]
    assert receipted == (await nl.status())["streams_in"][0]["held"] > 0
    await fr.start()
    await network.settle()
    await network.check()


async def test_the_receiver_answers_what_it_is_storing(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    ending = await nl.start(hold=Order(Moment.BEFORE, "receive.store"))
    await fr.start()
    await feed.hand_in(_RECORDS)
    await nl.holding(ending)
    ending.terminate()
    ending.go()
    assert await ending.ended(nl.settings.shutdown_s) == 0
    held = (await nl.status())["streams_in"][0]["held"]
    assert held > 0

    async def receipted() -> bool:
        return bool((await fr.status())["streams_out"][0]["receipted"] == held)

    # The Dutch node is gone: what the French node has, it has from the answers of the one that ended.
    await until(receipted, "the receipts are there")
    await nl.start()
    await network.settle()
    await network.check()


async def test_a_report_in_flight_is_answered(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    ending = await fr.start(hold=Order(Moment.BEFORE, "intake.store"))
    await fr.serving()
    handing_in = asyncio.create_task(feed.hand_in(10))
    await fr.holding(ending)
    ending.terminate()
    ending.go()
    assert await ending.ended(fr.settings.shutdown_s) == 0
    # Nobody listens any more, so this is the answer of the one that ended.
    await handing_in
    await fr.start()
    await nl.start()
    await network.settle()
    await network.check()
