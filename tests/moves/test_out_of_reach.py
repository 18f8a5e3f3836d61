"""What a hotline has that is suspended or has left: its first reporter is warned of it."""

from functools import partial

from node.hotline.api.health import warnings_of
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.hotline.store.status import read_status
from tests.hotline.network import Station, eventually, heard_of, station
from tests.moves.chain import arrived, knows, move, reported
from tests.world import ADDRESS, TestNode, World


async def listed(world: World, one: TestNode, state: str, *stations: Station) -> None:
    """Have the directory list a node in this state, and these hear of it."""
    one.entry["state"] = state
    world.sign_directory()
    for each in stations:
        await heard_of(each.node, world.version)


async def told(at: Station, about: str) -> list[str]:
    """Return what health warns of one hotline."""
    await Jobs(at.node, Rounds(at.node))._gauges()
    return [warning for warning in warnings_of(at.node) if about in warning]


async def nothing_waits(at: Station) -> bool:
    """Tell whether everything that a node wrote was receipted."""
    waiting = "SELECT count(*) FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
    return not await at.value(waiting + "WHERE s.next_index > c.acked_size")


async def test_who_reported_an_item_is_warned_when_its_hotline_is_gone(world: World) -> None:
    fr_node, nl_node, de_node, _ = world.nodes
    await world.create_field_keys()
    async with station(fr_node) as fr, station(nl_node) as nl:
        async with station(de_node) as de:
            item = await reported(fr, nl, "NL")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            await knows(fr, item, "FR", "NL", "DE")
            await arrived(nl, item, "transferred")
            for one in (fr, nl, de):
                await eventually(partial(nothing_waits, one))
        assert await told(fr, de_node.id) == []
        for state, words in (("suspended", "is suspended"), ("left", "has left the network")):
            await listed(world, de_node, state, fr, nl)
            said = f"1 items of ours are with {de_node.id}, which {words}, and nobody acts on them"
            assert await told(fr, de_node.id) == [said]
            gauge = f'hotline_items_out_of_reach{{code="{state}",peer="{de_node.id}"}} 1.0'
            assert gauge in fr.node.metrics.render().decode()
            async with fr.node.db.transaction("test.read") as tx:
                status = await read_status(tx, fr.clock.now(), fr_node.id, fr.node.directory())
            assert status["out_of_reach"] == [{"node": de_node.id, "code": state, "items": 1}]
            # Who handed it on has no say in it; its reporter knows.
            assert await told(nl, de_node.id) == []
        await listed(world, de_node, "active", fr)
        assert await told(fr, de_node.id) == []


async def test_what_has_no_receipt_is_not_out_of_reach(world: World) -> None:
    """It comes back by itself."""
    fr_node, nl_node, _, _ = world.nodes
    await world.create_field_keys()
    async with station(fr_node) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification={"classification": "national"})).items[0]
        await fr.until(item.id, "sent")
        nl_node.entry["state"] = "suspended"
        world.sign_directory()
        await heard_of(fr.node, world.version)
        assert await told(fr, nl_node.id) == []
