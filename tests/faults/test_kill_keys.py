"""`kill -9` while receipts that prove nothing any more are found, given again and stored again, on both sides."""

import json
from datetime import UTC, datetime, timedelta

from node.hotline.cli.rotating import announce, switch
from node.platform.keyfiles import descriptor_path
from protocol.keys import KeyUse
from tests.faults.network import Network
from tests.faults.orders import Moment, Order, both_sides

_ITEMS = 4


async def test_receipts_are_given_again_once_whatever_dies_meanwhile(network: Network) -> None:
    fr, nl, world = network.fr, network.nl, network.world
    since = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    workers = [await fr.start(), await nl.start()]
    await network.feed.hand_in(_ITEMS)
    await network.settle()
    for worker in workers:
        await worker.kill()
    node = world.nodes[0]
    descriptor = descriptor_path(node.settings)
    descriptor.write_text(json.dumps(node.entry))
    announce(node.settings, [KeyUse.STREAM], since, since)
    switch(node.settings, [KeyUse.STREAM], since, since)
    node.entry = json.loads(descriptor.read_bytes())
    world.sign_directory()
    # Each looks at what it sent first, and then at what it received: the Dutch node has its receipts there.
    for order in both_sides("judge.store"):
        await fr.struck(await fr.start(kill=order))
    for moment in Moment:
        await nl.struck(await nl.start(kill=Order(moment, "judge.store", 2)))
    assert await fr.count("SELECT count(*) FROM receipts WHERE worthless") > 0
    # The new receipt is stored and its answer lost; then it is the sender that dies over it.
    dying = await nl.start(kill=Order(Moment.AFTER, "receive.store"))
    worker = await fr.start()
    await nl.struck(dying)
    await worker.kill()
    await nl.start()
    await fr.struck(await fr.start(kill=Order(Moment.BEFORE, "deliver.receipt")))
    await fr.start()
    await network.settle()
    await network.check()
