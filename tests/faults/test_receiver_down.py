"""The receiver is down while everything comes in; once it is up, all of it is delivered from the table."""

from tests.faults.feed import Feed
from tests.faults.network import Network
from tests.faults.station import Station, until

_RECORDS = 400


async def _piled_up(station: Station, peer: str) -> None:
    """Wait until every record is written and the peer was missed more than once."""

    async def piled_up() -> bool:
        streams = (await station.status())["streams_out"]
        contact = await station.contact(peer)
        return bool(streams) and streams[0]["written"] == _RECORDS and contact.get("failures", 0) > 0

    await until(piled_up, "records pile up")


async def test_catch_up_after_a_short_back_off(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    await fr.start()
    await feed.hand_in(_RECORDS)
    await _piled_up(fr, nl.id)
    contact = await fr.contact(nl.id)
    assert contact["last_problem"] == "unreachable-connect"
    assert (await fr.status())["streams_out"][0]["receipted"] == 0
    await nl.start()
    await network.settle()
    await network.check()
    assert (await fr.contact(nl.id))["failures"] == 0


async def test_the_receivers_first_call_ends_the_back_off(network: Network) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    # Long enough that only a call can end it: what remains of chance is one in hundreds.
    await fr.start(settings={"backoff_base_s": 900.0, "backoff_cap_s": 900.0})
    await feed.hand_in(_RECORDS)
    await _piled_up(fr, nl.id)
    await nl.start()
    # The Dutch hotline has something of its own to say; its call tells that it is back.
    await Feed(nl, country="FR").hand_in(1)

    async def delivered() -> bool:
        return await nl.count("SELECT count(*) FROM items WHERE received_stream IS NOT NULL") == _RECORDS

    await until(delivered, "the French node delivers")
    assert (await fr.contact(nl.id))["failures"] == 0
