"""`kill -9` at the steps off the main road: an assessment, a new directory, a peer's question, a second story."""

import aiohttp
import pytest

from tests.faults.feed import Feed
from tests.faults.network import Network
from tests.faults.orders import both_sides
from tests.faults.station import Station, until
from tests.peers.simulator import Answer, Batch, PeerSimulator
from tests.ports import free_port

_ITEMS = 4


async def _in_state(station: Station, state: str, count: int) -> None:
    async def reached() -> bool:
        return await station.count(f"SELECT count(*) FROM items WHERE state = '{state}'") == count  # noqa: S608 - ours

    await until(reached, f"{count} items are {state}")


async def test_an_assessment_is_stored_or_can_be_set_again(network: Network) -> None:
    fr, nl = network.fr, network.nl
    network.feed = feed = Feed(fr, qualified=False)
    await nl.start()
    orders = both_sides("assess.store")
    dying = await fr.start(kill=orders[0])
    await feed.hand_in(_ITEMS)
    await _in_state(fr, "waiting", _ITEMS)
    first, *others = feed.acknowledged.values()
    assert not await _assess(fr, first)
    await fr.struck(dying)
    assert await fr.count("SELECT count(*) FROM items WHERE state = 'waiting'") == _ITEMS
    dying = await fr.start(kill=orders[1])
    await fr.serving()
    assert not await _assess(fr, first)
    await fr.struck(dying)
    assert await fr.count("SELECT count(*) FROM items WHERE state = 'ready'") == 1
    await fr.start()
    await fr.serving()
    assert [await _assess(fr, item) for item in others] == [True] * len(others)
    await network.settle()
    await network.check()


async def _assess(station: Station, item: str) -> bool:
    """Set a qualification; False when the node died meanwhile."""
    url = f"{station.api}/api/v1/items/{item}/assessment"
    headers = {"Authorization": f"Bearer {station.key}"}
    try:
        async with station.session.patch(url, json={"classification": "national"}, headers=headers) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def test_items_are_routed_again_once_when_the_directory_changes(network: Network) -> None:
    fr, nl, world = network.fr, network.nl, network.world
    network.feed = feed = Feed(fr, country="DE")
    worker = await fr.start()
    await feed.hand_in(_ITEMS)
    await _in_state(fr, "undeliverable", _ITEMS)
    await worker.kill()
    world.mandated.append(nl.id)
    world.sign_directory()
    await nl.start()
    for order in both_sides("reroute.store"):
        await fr.struck(await fr.start(kill=order))
    await fr.start()
    await network.settle()
    await network.check()


async def test_a_peers_question_is_noted_once(network: Network) -> None:
    fr = network.fr
    peer = PeerSimulator(network.nl.node, fr.node, fr.session)
    path = f"/peer/v1/streams/{peer.id}"
    for noted, order in enumerate(both_sides("peer.heard")):
        dying = await fr.start(kill=order)
        await fr.serving()
        with pytest.raises(aiohttp.ClientError):
            await peer.get(path)
        await fr.struck(dying)
        assert await fr.count("SELECT count(*) FROM nonces") == noted
    await fr.start()
    await fr.serving()
    assert (await peer.get(path)).status == 404
    assert (await fr.contact(peer.id))["last_heard_s"] is not None


async def test_a_hello_that_broke_off_is_said_again(network: Network) -> None:
    """Who starts says hello first; both sides may die over it, and the records come through all the same."""
    fr, nl = network.fr, network.nl
    await nl.start()
    await nl.serving()
    for order in both_sides("hello.store"):
        await fr.struck(await fr.start(kill=order))
    await fr.start()
    await network.feed.hand_in(_ITEMS)
    await network.settle()
    await nl.workers[-1].kill()
    for order in both_sides("hello.store"):
        await nl.struck(await nl.start(kill=order))
    await nl.start()
    await network.feed.hand_in(_ITEMS)
    await network.settle()
    await network.check()


async def test_records_and_receipts_come_through_when_a_node_that_fetches_dies(network: Network) -> None:
    """The Dutch node is behind a firewall; either side dies over a batch that was fetched, or over its receipt."""
    fr, nl, world = network.fr, network.nl, network.world
    world.nodes[1].entry["delivery"] = "pull"
    world.nodes[1].entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    await fr.start()
    await fr.serving()
    for order in both_sides("pull.begin", "receive.store", "pull.brought"):
        dying = await nl.start(kill=order)
        await network.feed.hand_in(1)
        await nl.struck(dying)
    for order in both_sides("settle.receipt"):
        await network.feed.hand_in(1)
        await fr.workers[-1].kill()
        worker = await nl.start()
        await fr.struck(await fr.start(kill=order))
        await worker.kill()
        await fr.start()
        await fr.serving()
    await nl.start()
    await network.settle()
    await network.check()


async def test_the_proof_of_a_second_story_is_kept_once(network: Network) -> None:
    nl = network.nl
    peer = PeerSimulator(network.fr.node, nl.node, nl.session)
    worker = await nl.start()
    await nl.serving()
    await peer.deliver(2)
    await worker.kill()
    story = peer.batch(1, first=0, history=[])
    for kept, order in enumerate(both_sides("receive.equivocation")):
        dying = await nl.start(kill=order)
        await nl.serving()
        with pytest.raises(aiohttp.ClientError):
            await _tell(peer, story)
        await nl.struck(dying)
        assert (await nl.status())["equivocations"] == kept
    await nl.start()
    await nl.serving()
    assert (await _tell(peer, story)).problem["code"] == "equivocation"
    assert (await nl.status())["equivocations"] == 1
    assert await nl.count("SELECT count(*) FROM inbox") == 2


async def _tell(peer: PeerSimulator, story: Batch) -> Answer:
    return await peer.put(story)
