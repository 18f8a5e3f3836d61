"""A recovery and the peers that are not asked in the ordinary way: who only fetches, was left out, or changed keys."""

import asyncio
from uuid import UUID

import pytest

from node.__main__ import main
from node.errors import OperatorError
from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from node.hotline.flows.replay import REFUSED
from node.hotline.recovery import recover
from node.hotline.serve import recovery_door
from node.hotline.store.status import read_status
from node.setting_files import write_settings
from protocol.codes import Action, Classification, WithdrawalReason
from protocol.errors import ProtocolError
from protocol.keys import KeyUse
from tests.catchup.copies import copied, receipts_agree, standing_still
from tests.catchup.test_recover import Feed, recovered
from tests.catchup.test_worthless import report, retired, stolen
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.hotline.test_exchange import told
from tests.moves.chain import accounted_for, arrived, move
from tests.ports import free_port
from tests.world import ADDRESS, TestNode, World, file_values

_SET_BACK = "SELECT EXISTS (SELECT 1 FROM stream_differences WHERE kind = 'set-back' AND proven)"


async def _exchanged(world: World, feed: Feed) -> tuple[TestNode, TestNode]:
    """Exchange records twice; returns the first node on a backup of between, and on one of afterwards."""
    await world.create_field_keys()
    async with station(world.nodes[1]) as nl:
        async with station(world.nodes[0]) as fr:
            await feed.hand_in(fr, nl, 1)
            await feed.settled(fr, nl)
        between = await copied(world.nodes[0])
        async with station(world.nodes[0]) as fr:
            await feed.hand_in(fr, nl, 2)
            await feed.settled(fr, nl)
    return between, await copied(world.nodes[0])


async def test_a_peer_that_only_fetches_is_waited_for_though_the_backup_knows_nothing_of_it(world: World) -> None:
    feed = Feed()
    nl_node = world.nodes[1]
    nl_node.entry["delivery"] = "pull"
    nl_node.entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    await world.create_field_keys()
    older = await copied(world.nodes[0])
    async with station(nl_node) as nl:
        async with station(world.nodes[0]) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/lost", qualification=ILLEGAL)
            await told(fr, 1)
        async with standing_still(older) as still:
            done = await recover(still, frozenset(), recovery_door(still), wait_s=40.0)
        assert done.own == {nl_node.id: 1}
        assert done.epochs == [(nl_node.id, 2)]
        async with station(older) as fr:
            await feed.hand_in(fr, nl, 1)
            await feed.settled(fr, nl)
            assert await receipts_agree(fr, nl)
            assert await nl.value("SELECT count(*) FROM equivocations") == 0


async def test_records_come_back_whose_receipts_have_lost_their_worth(world: World) -> None:
    """The node signed with a key that was retired, as everybody heard later; then it lost its database."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    older = await copied(fr_node)
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            moment = fr.clock.now().replace(microsecond=0)
            item = await report(fr, "1")
            await told(fr, 1)
        retired(fr_node, [KeyUse.STREAM], moment)
        world.sign_directory()
        done = await recovered(older)
        assert (done.own, done.left) == ({nl_node.id: 1}, {})
        async with station(older) as fr:
            assert (await fr.item(item))["state"] == "sent"
            await eventually(lambda: receipts_agree(fr, nl))
            # Sent again, under a key that counts, and taken no second time.
            assert await fr.value("SELECT count(*) FROM receipts WHERE NOT worthless") > 0
            assert await nl.value("SELECT count(*) FROM items") == 1
            assert await nl.value("SELECT count(*) FROM equivocations") == 0
            second = await report(fr, "2")
            await arrived(nl, second, "assigned")


@pytest.mark.parametrize("delivery", ["push", "pull"])
async def test_what_only_a_stolen_key_has_signed_comes_back_when_the_operator_says_so(
    world: World, delivery: str
) -> None:
    """The key was stolen before the node wrote with it; then the node lost its database."""
    fr_node, nl_node = world.nodes
    nl_node.entry["delivery"] = delivery
    if delivery == "pull":
        nl_node.entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    await world.create_field_keys()
    older = await copied(fr_node)
    async with station(nl_node, peer_timeout_s=2.0, backoff_cap_s=0.2) as nl:
        async with station(fr_node) as fr:
            moment = fr.clock.now().replace(microsecond=0)
            item = await report(fr, "1")
            await told(fr, 1)
        stolen(fr_node, [KeyUse.STREAM], moment)
        world.sign_directory()
        async with standing_still(older) as still:
            door = recovery_door(still)
            with pytest.raises(
                OperatorError,
                match=f"not proven by our signature, but by a key that was stolen.*--believe {nl_node.id}",
            ):
                await recover(still, frozenset(), door, wait_s=30.0)
            done = await recover(still, frozenset(), door, wait_s=30.0, believed={nl_node.id})
        assert (done.own, done.left) == ({nl_node.id: 1}, {})
        async with station(older) as fr:
            assert (await fr.item(item))["state"] == "sent"
            await eventually(lambda: receipts_agree(fr, nl), limit_s=40)
            # Sent again under the new key, and taken no second time.
            assert await fr.value("SELECT count(*) FROM receipts WHERE NOT worthless") > 0
            assert await nl.value("SELECT count(*) FROM items") == 1
            assert await nl.value("SELECT count(*) FROM equivocations") == 0


@pytest.mark.parametrize("option", ["--without", "--believe"])
async def test_a_peer_that_is_named_has_to_be_listed(
    world: World, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.create_field_keys(world.nodes[:1])
    file = world.folder / "settings.toml"
    write_settings(file, file_values(world.nodes[0].settings))
    command = ["--settings", str(file), "recover", option, "nobody.hotline.example"]
    assert await asyncio.to_thread(main, command) == 2
    assert f"Option {option} names a node that the directory does not list." in capsys.readouterr().err


async def test_nothing_is_exchanged_with_who_was_left_out_and_holds_more(world: World) -> None:
    feed = Feed()
    older, _ = await _exchanged(world, feed)
    fr_node, nl_node = world.nodes
    async with standing_still(older) as still:
        await recover(still, {nl_node.id})
        with pytest.raises(ProtocolError, match="recovered") as refused:
            await still.offerer.offer(nl_node.id, 1, 0, 1)
        assert refused.value.code == "maintenance"
    async with station(older) as fr:
        held = await fr.value("SELECT sum(size) FROM inbound_streams")
        async with station(nl_node) as nl:
            at = feed.at_nl
            at.append((await nl.report(f"http://{ADDRESS['FR']}/new", qualification=ILLEGAL)).items[0].id)
            await eventually(lambda: _is_refused(nl, fr_node.id))
            await eventually(lambda: _noticed(fr))
            assert await fr.value("SELECT sum(size) FROM inbound_streams") == held
            assert await fr.value("SELECT count(*) FROM inbox_refusals") == 0
    async with station(nl_node) as nl:
        await recovered(older)
        async with station(older) as fr:
            await feed.settled(fr, nl)
            await feed.check(fr, nl)


async def test_who_was_left_out_and_holds_nothing_new_is_exchanged_with_at_once(world: World) -> None:
    feed = Feed()
    _, newest = await _exchanged(world, feed)
    async with standing_still(newest) as still:
        await recover(still, {world.nodes[1].id})
    async with station(newest) as fr, station(world.nodes[1]) as nl:
        await feed.hand_in(fr, nl, 1)
        await feed.settled(fr, nl)
        await feed.check(fr, nl)


async def test_who_only_fetches_and_was_left_out_brings_again_what_its_receipts_were(world: World) -> None:
    """The backup holds the record, and is of before the receipt came; the next receipt covers both."""
    nl_node = world.nodes[1]
    nl_node.entry["delivery"] = "pull"
    nl_node.entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/first", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
    older = await copied(world.nodes[0])
    async with station(nl_node) as nl, station(world.nodes[0]) as fr:
        await eventually(lambda: receipts_agree(fr, nl))
        assert await fr.value("SELECT count(*) FROM receipts") > 0
    async with standing_still(older) as still:
        await recover(still, {nl_node.id})
    async with station(older) as fr:
        second = await report(fr, "second")
        await fr.until(second, "sent")
        async with station(nl_node) as nl:
            await arrived(nl, second, "assigned")
            await eventually(lambda: receipts_agree(fr, nl))


async def _on_its_way(world: World) -> tuple[UUID, TestNode]:
    """Report an item that has left and has no receipt yet; returns it, and the first node on a backup of then."""
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr:
        item = await report(fr, "first")
        await fr.until(item, "sent")
    return item, await copied(world.nodes[0])


async def _taken_back(world: World, older: TestNode, item: UUID) -> None:
    """The node serves on the backup, and hears that the other has left."""
    nl_node = world.nodes[1]
    nl_node.entry["state"] = "left"
    world.sign_directory()
    async with station(older) as fr:
        await fr.until(item, "undeliverable")
        assert await fr.value("SELECT count(*) FROM relay_failures") == 1
    nl_node.entry["state"] = "active"
    world.sign_directory()


async def test_what_was_taken_back_for_want_of_a_receipt_stays_where_it_was_receipted(world: World) -> None:
    item, older = await _on_its_way(world)
    async with station(world.nodes[1]) as nl, station(world.nodes[0]) as fr:
        await arrived(nl, item, "assigned")
        # What the backup does not know of stands where the withdrawal is written.
        await report(fr, "second")
        await told(fr, 2)
    await _taken_back(world, older, item)
    async with station(world.nodes[1]) as nl:
        await recovered(older)
        async with station(older) as fr:
            assert (await fr.item(item))["state"] == "sent"
            assert await fr.value("SELECT count(*) FROM relay_failures") == 0
            await eventually(lambda: receipts_agree(fr, nl))
            await nl.node.store.actor().act(item, ActionAsked(Action.REMOVED))
            await arrived(fr, item, "done")
            assert await fr.value("SELECT count(*) FROM outbox WHERE type = 'withdrawal'") == 0
            assert (await nl.item(item))["state"] == "done"


async def test_what_came_back_and_went_again_since_is_not_taken_back(world: World) -> None:
    """The item was at home meanwhile; that a receipt was wanting is said of the first time that it left."""
    item, older = await _on_its_way(world)
    async with station(world.nodes[1]) as nl, station(world.nodes[0]) as fr:
        await arrived(nl, item, "assigned")
        await move(nl, item, ip=ADDRESS["FR"])
        await arrived(fr, item, "kept")
        await move(fr, item, country="NL")
        await arrived(nl, item, "assigned")
        await arrived(fr, item, "transferred")
        await told(fr, 2)
    await _taken_back(world, older, item)
    async with station(world.nodes[1]) as nl:
        await recovered(older)
        async with station(older) as fr:
            await eventually(lambda: receipts_agree(fr, nl))
            await told(fr, 2)
            assert [(await one.item(item))["state"] for one in (fr, nl)] == ["transferred", "assigned"]
            assert await nl.value("SELECT count(*) FROM inbox_refusals") == 0


async def _left_late(world: World) -> tuple[UUID, TestNode]:
    """Return an item that has left, and its reporter on a backup of before it was qualified."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    async with station(fr_node) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/late")).items[0].id
        await fr.until(item, "waiting")
    older = await copied(fr_node)
    async with station(fr_node) as fr, station(nl_node) as nl:
        await fr.node.store.assessor().assess(item, Assessment(Classification.NATIONAL, fr.clock.now()))
        await arrived(nl, item, "assigned")
        await told(fr, 1)
    return item, older


async def test_what_had_left_and_was_taken_back_on_the_backup_is_taken_back_from_its_holder(world: World) -> None:
    """The backup is of before it left, and its reporter withdrew it there: it had gone to nobody by then."""
    item, older = await _left_late(world)
    nl_node = world.nodes[1]
    async with station(older) as fr:
        await fr.node.store.amender().withdraw(item, WithdrawalReason.REPORTED_IN_ERROR)
    async with station(nl_node) as nl:
        done = await recovered(older)
        assert done.left == {REFUSED: 1}
        async with station(older) as fr:
            await arrived(nl, item, "withdrawn")
            assert (await nl.item(item))["reason"] == "reported-in-error"
            assert (await fr.item(item))["state"] == "withdrawn"
            assert await nl.value("SELECT count(*) FROM inbox_refusals") == 0


async def test_what_was_refused_on_the_backup_is_judged_again(world: World) -> None:
    """Nobody could be asked at the start, and then the other told what the backup knows nothing of."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            await arrived(nl, await report(fr, "first"), "assigned")
            await told(fr, 1)
        older = await copied(fr_node)
        async with station(fr_node) as fr:
            kept, home = await report(fr, "kept"), await report(fr, "home")
            await arrived(nl, home, "assigned")
            await arrived(nl, kept, "assigned")
            await nl.node.store.actor().act(kept, ActionAsked(Action.HOSTER_NOTIFIED))
            await move(nl, home, ip=ADDRESS["FR"])
            await arrived(nl, home, "transferred")
            await arrived(fr, home, "kept")
    async with station(older) as fr, station(nl_node) as nl:
        # An outcome, an action, and an item that comes home: all of what was never reported from here.
        await eventually(lambda: _refused(fr, 3), limit_s=30)
        await eventually(lambda: _noticed(fr))
    async with station(nl_node) as nl:
        await recovered(older)
        async with station(older) as fr:
            await eventually(lambda: receipts_agree(fr, nl))
            assert (await fr.item(home))["state"] == "kept"
            assert await fr.value("SELECT count(*) FROM actions WHERE item_id = $1", kept) == 1
            for one in (fr, nl):
                assert await one.value("SELECT count(*) FROM inbox_refusals") == 0
                assert await one.value("SELECT count(*) FROM outbox_refusals") == 0
            assert (await nl.item(home))["state"] == "transferred"
            await accounted_for([fr, nl])


async def _refused(one: Station, count: int) -> bool:
    return bool(await one.value("SELECT count(*) >= $1 FROM inbox_refusals", count))


async def test_a_peer_that_has_gone_back_already_gives_all_that_was_receipted(world: World) -> None:
    """It was told of the loss before the recovery, and says that it is receipted no further than what is here."""
    feed = Feed()
    older, _ = await _exchanged(world, feed)
    async with station(world.nodes[1]) as nl:
        lost = await nl.value("SELECT acked_size FROM delivery_cursors") - await _held(older)
        await nl.value("UPDATE delivery_cursors SET acked_size = 0, acked_edge = ''::bytea RETURNING acked_size")
        done = await recovered(older)
        assert lost > 0
        assert (done.received, done.left) == ({nl.node.settings.node_id: lost}, {})
        async with station(older) as fr:
            await feed.settled(fr, nl)
            await feed.check(fr, nl)


async def _held(node: TestNode) -> int:
    async with standing_still(node) as still, still.db.transaction("test.read") as tx:
        return int(await tx.value("SELECT size FROM inbound_streams"))


async def test_a_person_hears_when_who_was_left_out_can_be_asked(world: World) -> None:
    feed = Feed()
    older, _ = await _exchanged(world, feed)
    nl_node = world.nodes[1]
    async with standing_still(older) as still:
        await recover(still, {nl_node.id})
    async with station(older) as fr:
        (before,) = await _differences(fr)
        assert "waits until" in before
        async with station(nl_node):
            await eventually(lambda: _noticed(fr))
        (sentence,) = [one for one in await _differences(fr) if one.startswith("not-asked")]
        assert nl_node.id in sentence
        assert "can be asked by now" in sentence
        assert "hotline recover" in sentence


async def _differences(one: Station) -> list[str]:
    async with one.node.db.transaction("test.read") as tx:
        found: list[str] = (await read_status(tx, one.clock.now()))["differences"]
        return found


async def _is_refused(one: Station, peer: str) -> bool:
    return bool(await one.value("SELECT last_problem = 'maintenance' FROM peers WHERE node_id = $1", peer))


async def _noticed(one: Station) -> bool:
    return bool(await one.value(_SET_BACK))


async def test_an_item_that_had_left_and_was_sent_again_since_goes_once(world: World) -> None:
    """The backup is of before it left; the node served for a while before it was recovered, and no peer answered."""
    item, older = await _left_late(world)
    nl_node = world.nodes[1]
    async with station(older) as fr:
        await fr.node.store.assessor().assess(item, Assessment(Classification.NATIONAL, fr.clock.now()))
        await fr.until(item, "sent")
    async with station(nl_node) as nl:
        await recovered(older)
        async with station(older) as fr:
            await eventually(lambda: receipts_agree(fr, nl))
            assert (await fr.item(item))["state"] == "sent"
            assert await fr.value("SELECT count(*) FROM outbox WHERE type = 'report'") == 1
            assert await nl.value("SELECT count(*) FROM inbox_refusals") == 0
