"""The receiver commits and its answer never arrives: the repeat gets the stored receipt, and nothing is doubled."""

from tests.faults.network import Network
from tests.faults.orders import Moment, Order
from tests.faults.relay import Relay
from tests.faults.station import Station, until

_BATCHES = "SELECT count(*) FROM inbound_batches"
#: A nonce is remembered with every request that was answered.
_ANSWERED = "SELECT count(*) FROM nonces"


async def _written(station: Station, count: int) -> None:
    async def written() -> bool:
        return any(stream["written"] >= count for stream in (await station.status())["streams_out"])

    await until(written, f"{count} records are in the outbox")


async def test_a_repeat_is_answered_with_the_stored_receipt(relayed: tuple[Network, Relay]) -> None:
    network, relay = relayed
    await network.fr.start()
    await network.nl.start()
    # Nothing of the answer, a part of its head, a part of its body.
    relay.cuts.extend([0, 100, 700])
    await network.feed.hand_in(30)
    await network.settle()
    assert not relay.cuts
    assert await network.nl.count(_ANSWERED) > await network.nl.count(_BATCHES)
    await network.check()


async def test_a_repeat_in_another_cut_is_answered_with_the_receipts_first_given(
    relayed: tuple[Network, Relay],
) -> None:
    network, relay = relayed
    fr, nl, feed = network.fr, network.nl, network.feed
    await fr.start()
    await nl.start()
    # Greeted and met, so that the answer that is cut off is that to a batch.
    await feed.hand_in(1)
    await network.settle()
    relay.cuts.append(0)
    await feed.hand_in(5)

    async def lost() -> bool:
        return not relay.cuts

    await until(lost, "an answer is lost")
    relay.open = False
    relay.drop()
    held = (await nl.status())["streams_in"][0]["held"]
    await feed.hand_in(60)
    await _written(fr, 66)
    assert (await nl.status())["streams_in"][0]["held"] == held
    relay.open = True
    await network.settle()
    await network.check()


async def test_the_receiver_dies_between_commit_and_answer(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    await fr.start()
    dying = await nl.start(kill=Order(Moment.AFTER, "receive.store"))
    await feed.hand_in(50)
    await nl.struck(dying)
    assert await nl.count(_BATCHES) == 1
    assert await fr.count("SELECT count(*) FROM receipts") == 0
    await nl.start()
    await network.settle()
    await network.check()
