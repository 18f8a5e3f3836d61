"""What a hotline has that is suspended or has left: its first reporter is warned of it."""

from functools import partial

from node.hotline.api.health import warnings_of
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.hotline.store.status import read_status
from tests.hotline.network import ILLEGAL, Station, eventually, heard_of, station
from tests.moves.chain import accounted_for, arrived, custodians, knows, move, reported
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


async def test_what_is_reclaimed_goes_to_another_and_the_hotline_that_comes_back_has_nothing(world: World) -> None:
    """Reported at home with what was corrected of it; known elsewhere by nobody but who has the new item."""
    fr_node, nl_node, _, us_node = world.nodes
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys()
    hashes = [{"algorithm": "sha256", "value": "ab" * 32}]
    async with station(fr_node) as fr, station(us_node) as us:
        async with station(nl_node) as nl:
            url = f"http://{ADDRESS['NL']}/page"
            item = (await fr.report(url, qualification=ILLEGAL, hashes=hashes)).items[0].id
            twice = (await fr.report(f"{url}2", qualification=ILLEGAL)).items[0].id
            for one in (item, twice):
                await arrived(nl, one, "assigned")
            for at in (fr, nl):
                await eventually(partial(nothing_waits, at))
        second = (await fr.report(f"{url}2", qualification=ILLEGAL)).items[0].id
        amender = fr.node.store.amender()
        await listed(world, nl_node, "suspended", fr, us)
        assert await amender.astray(nl_node.id, None) == [item, twice]
        assert await amender.astray(nl_node.id, [twice, second]) == [twice]
        # It is another's: nothing changes.
        assert await amender.reclaim(item, us_node.id) is None
        new = await amender.reclaim(item, nl_node.id)
        assert new is not None
        assert await amender.reclaim(twice, nl_node.id) == second
        assert await amender.reclaim(item, nl_node.id) is None
        assert await amender.astray(nl_node.id, None) == []
        assert await told(fr, nl_node.id) == []
        for one in (new, second):
            await arrived(us, one, "assigned")
        before, after = await fr.item(item), await fr.item(new)
        assert (before["state"], before["reason"]) == ("withdrawn", "other")
        assert (after["state"], after["assigned_node"]) == ("sent", us_node.id)
        for member in ("case_id", "kind", "hashes", "qualification", "url_digest"):
            assert after[member] == before[member], member
        assert await us.value("SELECT hashes FROM items WHERE id = $1", new) == before["hashes"]
        assert (await fr.report(url, qualification=ILLEGAL)).items[0].duplicate_of == new
        async with station(nl_node) as nl:
            await listed(world, nl_node, "active", fr, us, nl)
            for one in (item, twice):
                await arrived(nl, one, "withdrawn")
            for at in (fr, us, nl):
                await eventually(partial(nothing_waits, at))
            await accounted_for([fr, nl, us])
            for one, who in ((item, []), (twice, []), (new, ["US"]), (second, ["US"])):
                assert await custodians([fr, nl, us], one) == who


async def test_what_came_home_and_went_again_is_reclaimed_too(world: World) -> None:
    fr_node, nl_node, de_node, us_node = world.nodes
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys()
    async with station(fr_node) as fr, station(us_node) as us:
        async with station(nl_node) as nl, station(de_node) as de:
            item = await reported(fr, nl, "NL")
            await move(nl, item, ip=ADDRESS["FR"])
            await arrived(fr, item, "assigned", "kept")
            await move(fr, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned", "kept")
            await arrived(fr, item, "transferred")
            for at in (fr, nl, de):
                await eventually(partial(nothing_waits, at))
        await listed(world, de_node, "left", fr, us)
        amender = fr.node.store.amender()
        assert await amender.astray(de_node.id, None) == [item]
        new = await amender.reclaim(item, de_node.id)
        assert new is not None
        assert (await fr.item(item))["state"] == "withdrawn"
        # Where it is hosted is looked up again.
        await arrived(fr, new, "sent")


async def test_what_has_no_receipt_is_not_out_of_reach(world: World) -> None:
    """It waits, or comes back by itself."""
    fr_node, nl_node, _, _ = world.nodes
    await world.create_field_keys()
    async with station(fr_node) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0]
        await fr.until(item.id, "sent")
        nl_node.entry["state"] = "suspended"
        world.sign_directory()
        await heard_of(fr.node, world.version)
        (said,) = await told(fr, nl_node.id)
        assert said.startswith(f"1 records wait for {nl_node.id}, which is suspended, ")
