"""A recovery, and what others were to hear of a peer's records: each thing that nobody told them, they are told."""

from node.hotline.recovery import recover
from tests.catchup.copies import copied, receipts_agree, standing_still
from tests.hotline.network import ILLEGAL, eventually, station
from tests.moves.chain import accounted_for, arrived, knows, move, reported
from tests.world import ADDRESS, World


async def test_that_an_item_came_a_second_time_is_told_though_the_first_time_was(three: World) -> None:
    """The reporter was away when it came again, and then the storage of its holder was lost."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    older = await copied(de_node)
    async with station(nl_node) as nl:
        async with station(de_node) as de:
            async with station(fr_node) as fr:
                item = await reported(fr, nl, "NL")
                await move(nl, item, ip=ADDRESS["DE"])
                await arrived(de, item, "assigned")
                await move(de, item, country="NL")
                await arrived(nl, item, "assigned")
                await arrived(de, item, "transferred")
                await knows(fr, item, "FR", "NL", "DE", "NL")
                await eventually(lambda: receipts_agree(de, fr))
            await move(nl, item, country="DE")
            await arrived(de, item, "assigned")
            await arrived(nl, item, "transferred")
            await eventually(lambda: receipts_agree(de, nl))
        async with station(fr_node) as fr:
            async with standing_still(older) as still:
                await recover(still, frozenset())
            async with station(older) as de:
                await knows(fr, item, "FR", "NL", "DE", "NL", "DE")
                assert (await de.item(item))["state"] == "assigned"
                await accounted_for([fr, nl, de])


async def test_what_comes_again_since_its_receipt_was_lost_goes_where_it_had_gone(three: World) -> None:
    """Its reporter never got the receipt; it was handed on, and then the storage of who had done so was lost."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    older = await copied(nl_node)
    async with station(fr_node) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/once", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
    without_receipt = await copied(fr_node)
    async with station(de_node) as de:
        async with station(nl_node) as nl:
            async with station(fr_node):
                await arrived(nl, item, "assigned")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            await arrived(nl, item, "transferred")
        async with station(without_receipt) as fr:
            async with standing_still(older) as still:
                done = await recover(still, frozenset())
            async with station(older) as nl:
                await arrived(nl, item, "transferred")
                await knows(fr, item, "FR", "NL", "DE")
                assert done.left
                assert await nl.value("SELECT count(*) FROM recovery_replays") == 0
                assert (await de.item(item))["state"] == "assigned"
                await accounted_for([fr, nl, de])
