"""Several processes on one database share the work: each does some of it, and nothing is done twice."""

from tests.faults.network import Network
from tests.faults.orders import Moment, Order
from tests.faults.relay import Relay
from tests.faults.station import until
from tests.ports import free_port

_RECORDS = 240
_CHUNK = 40
_LEASED = "SELECT count(*) FROM location_queue WHERE due_at > now() + interval '1 minute'"
_LOCATING = "SELECT count(*) FROM items WHERE state = 'locating'"


def _other_doors() -> dict[str, str]:
    return {"listen_peer": f"127.0.0.1:{free_port()}", "listen_api": f"127.0.0.1:{free_port()}"}


async def test_two_workers_of_the_sender(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    await nl.start()
    slow = await fr.start(hold=Order(Moment.BEFORE, "locate.store"))
    await feed.hand_in(_CHUNK)
    # The first worker has a lease of items and stops before it writes what it found.
    await fr.holding(slow)
    held = await fr.count(_LEASED)
    assert 0 < held <= _CHUNK
    quick = await fr.start(settings=_other_doors())
    await feed.hand_in(_RECORDS - _CHUNK)

    async def rest_is_through() -> bool:
        streams = (await fr.status())["streams_out"]
        return bool(streams) and streams[0]["receipted"] == _RECORDS - held

    await until(rest_is_through, "the second worker does the rest")
    assert await fr.count(_LOCATING) == held
    slow.go()
    await network.settle()
    await network.check()
    for worker in (slow, quick):
        assert "locate.store" in fr.passed(worker)


async def test_a_worker_dies_and_the_other_does_its_work(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    await nl.start()
    dying = await fr.start(kill=Order(Moment.BEFORE, "deliver.receipt"), lease_s=1.0)
    await feed.hand_in(_CHUNK)
    await fr.struck(dying)
    left = [await fr.start(lease_s=1.0), await fr.start(settings=_other_doors(), lease_s=1.0)]
    await feed.hand_in(_CHUNK)
    await network.settle()
    await left[1].kill()
    await feed.hand_in(_CHUNK)
    await network.settle()
    await network.check()


async def test_two_workers_of_the_receiver(relayed: tuple[Network, Relay]) -> None:
    network, relay = relayed
    fr, nl, feed = network.fr, network.nl, network.feed
    doors = _other_doors()
    relay.backends.append(int(doors["listen_peer"].rsplit(":", 1)[1]))
    workers = [await nl.start(), await nl.start(settings=doors)]
    await fr.start()
    # Each new connection reaches the other worker; batches that arrive together are put in order by the database.
    for _ in range(_RECORDS // _CHUNK):
        await feed.hand_in(_CHUNK)
        await network.settle()
        relay.drop()
    await feed.hand_in(_RECORDS)
    await network.settle()
    await network.check()
    for worker in workers:
        assert "receive.store" in nl.passed(worker)
