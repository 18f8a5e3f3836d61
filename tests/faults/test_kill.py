"""`kill -9` at each durable step, on both sides of its commit, while records are under way."""

from collections.abc import Sequence

from tests.faults.network import Network, together
from tests.faults.orders import Moment, Order, both_sides
from tests.faults.station import Station, Worker, until
from tests.faults.steps import ALONE, RECEIVER, SENDER

_RECORDS = 1_000
_CHUNK = 25
#: What a worker has leased when it dies is free for others after this time.
_LEASE_S = 1.0


async def test_whatever_dies_when_a_thousand_records_arrive_once(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    struck: list[Order] = []
    orders = both_sides(*SENDER), both_sides(*RECEIVER)
    total = sum(len(one) for one in orders)

    async def feed_until_all_struck() -> None:
        """A step needs records to happen: more come after each death, and when nothing moves any more."""
        while len(struck) < total:
            before = len(struck)
            await feed.hand_in(_CHUNK)

            async def moved(before: int = before) -> bool:
                return len(struck) > before or await network.quiet()

            await until(moved, "records or processes move")

    await together(_die_in_turn(fr, orders[0], struck), _die_in_turn(nl, orders[1], struck), feed_until_all_struck())
    await network.settle()
    await _die_alone(network)
    await _die_with_batches_in_flight(network)
    await network.settle()
    assert feed.handed_in == _RECORDS
    await network.check()


async def _die_in_turn(station: Station, orders: Sequence[Order], struck: list[Order]) -> None:
    """Serve under one order after the other; then serve for good."""
    for order in orders:
        await station.struck(await station.start(kill=order, lease_s=_LEASE_S))
        struck.append(order)
    await station.start(lease_s=_LEASE_S)


async def _die_alone(network: Network) -> None:
    """Each side dies where it notes that the other is away, which it then really is; both are dead at the end."""
    fr, nl = network.fr, network.nl
    await nl.workers[-1].kill()
    await fr.workers[-1].kill()
    first, second = both_sides(*ALONE)
    dying = await fr.start(kill=first, lease_s=_LEASE_S)
    await network.feed.hand_in(_CHUNK)
    await fr.struck(dying)
    await fr.struck(await fr.start(kill=second, lease_s=_LEASE_S))
    # The Dutch node has something to say once it got these records, and nobody to say it to.
    dying = await nl.start(kill=first)
    await fr.struck(await fr.start(kill=Order(Moment.BEFORE, "receive.store")))
    await nl.struck(dying)
    await nl.struck(await nl.start(kill=second))


async def _die_with_batches_in_flight(network: Network) -> None:
    """All that is missing to a thousand comes at once; both die in the middle of its many batches, and come back."""
    fr, nl, feed = network.fr, network.nl, network.feed
    missing = _RECORDS - feed.handed_in
    assert missing >= 10 * _CHUNK
    orders = Order(Moment.BEFORE, "deliver.receipt", 2), Order(Moment.AFTER, "receive.store", 4)
    dying = await fr.start(kill=orders[0], lease_s=_LEASE_S), await nl.start(kill=orders[1])
    await feed.hand_in(missing)
    await together(_come_back(fr, dying[0]), _come_back(nl, dying[1]))


async def _come_back(station: Station, dying: Worker) -> None:
    await station.struck(dying)
    await station.start(lease_s=_LEASE_S)
