"""The daily comparison: receipts alike on both sides, what can be mended is, and the rest is shown."""

from datetime import timedelta

from node.hotline.api.health import warnings_of
from node.hotline.domain.delivery import Problem
from node.hotline.rounds import Rounds
from node.hotline.store import heads as store
from node.hotline.store.status import read_status
from node.platform.trust import Freshness
from tests.catchup.copies import receipts_agree
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.hotline.test_exchange import told
from tests.world import ADDRESS, World


async def _differences(one: Station) -> list[str]:
    async with one.node.db.transaction("test.read") as tx:
        return [found.kind.value for found in await store.differences(tx)]


async def _compare(one: Station) -> None:
    rounds = Rounds(one.node)
    (peer,) = rounds.callable_peers()
    assert await rounds.compare(peer) is None


async def test_lost_receipts_are_fetched_and_everything_agrees(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], batch_records_max=2) as fr, station(world.nodes[1]) as nl:
        for n in range(6):
            await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)
        await told(fr, 6)
        await _compare(fr)
        assert await _differences(fr) == []
        async with fr.node.db.transaction("test.lose") as tx:
            await tx.execute("DELETE FROM receipts")
            await tx.execute("UPDATE delivery_cursors SET acked_size = 0, acked_edge = ''::bytea")
        await _compare(fr)
        assert await _differences(fr) == []
        await eventually(lambda: receipts_agree(fr, nl))


async def test_what_a_peer_lost_is_sent_again(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
        await told(fr, 1)
        async with nl.node.db.transaction("test.lose") as tx:
            await tx.execute("DELETE FROM inbox")
            await tx.execute("DELETE FROM inbound_batches")
            await tx.execute("UPDATE inbound_streams SET size = 0, edge = ''::bytea")
        await _compare(fr)

        async def back() -> bool:
            return bool(await nl.value("SELECT size FROM inbound_streams")) and await receipts_agree(fr, nl)

        await eventually(back)
        await _compare(fr)
        assert await _differences(fr) == []


async def test_another_receipt_for_one_size_is_shown_to_a_person(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]):
        await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
        await told(fr, 1)
        async with fr.node.db.transaction("test.alter") as tx:
            await tx.execute("UPDATE receipts SET note = 'another'::bytea")
        await _compare(fr)
        assert await _differences(fr) == ["receipt-differs"]
        async with fr.node.db.transaction("test.read") as tx:
            (sentence,) = (await read_status(tx, fr.clock.now()))["differences"]
        assert sentence.startswith("receipt-differs: of our stream to nl.hotline.example, epoch 1")
        fr.node.standing[:] = [sentence]
        assert sentence in warnings_of(fr.node)


async def test_each_peer_is_compared_with_once_a_day(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]):
        rounds = Rounds(fr.node)
        assert await rounds.compare_due() == 1
        assert await rounds.compare_due() == 0
        async with fr.node.db.transaction("test.age") as tx:
            await tx.execute("UPDATE peers SET compared_at = compared_at - interval '25 hours'")
        assert await rounds.compare_due() == 1


async def test_nobody_is_called_or_answered_with_records_once_the_directory_has_expired(world: World) -> None:
    fr_node, nl_node = world.nodes
    world.valid = timedelta(days=3)
    world.sign_directory()
    await world.create_field_keys()
    async with station(fr_node) as fr, station(nl_node) as nl:
        rounds, peer = Rounds(nl.node), nl.node.directory().nodes[fr_node.id]
        assert rounds.callable_peers() == [peer]
        for one in (fr, nl):
            one.clock.ahead_s = timedelta(days=15).total_seconds()
            assert one.node.membership.freshness() is Freshness.EXPIRED
        assert rounds.callable_peers() == []
        asked = await nl.node.catchup.fetch(peer, 1, 0, records_max=1)
        assert isinstance(asked, Problem)
        assert asked.code == "directory-stale"
