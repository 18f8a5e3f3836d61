"""A node restored from yesterday's backup: nothing lost, nothing doubled, both sides agree again."""

import asyncio
from dataclasses import dataclass, field, replace
from uuid import UUID

import aiohttp
import pytest

from node.__main__ import main
from node.errors import OperatorError
from node.hotline.assembly import Node
from node.hotline.flows.reclaim import Reclaimer
from node.hotline.recovery import Recovered, Visits, recover
from node.hotline.serve import recovery_door
from node.hotline.store.heads import read_heads
from node.setting_files import write_settings
from protocol.batch import RETURNED_BYTES_MAX, decode_batch
from protocol.merkle import Edge
from tests.catchup.copies import as_batch, copied, receipts_agree, standing_still
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.moves.chain import accounted_for
from tests.peers.simulator import PeerSimulator
from tests.ports import free_port
from tests.world import ADDRESS, TestNode, World, file_values


async def recovered(node: TestNode) -> Recovered:
    async with standing_still(node) as still:
        return await recover(still, frozenset())


@dataclass(slots=True)
class Feed:
    """Reports handed in at both sides, and where each item belongs."""

    at_fr: list[UUID] = field(default_factory=list)
    at_nl: list[UUID] = field(default_factory=list)

    async def hand_in(self, fr: Station, nl: Station, count: int) -> None:
        for _ in range(count):
            first = f"http://{ADDRESS['NL']}/fr-{len(self.at_fr)}"
            self.at_fr.append((await fr.report(first, qualification=ILLEGAL)).items[0].id)
            second = f"http://{ADDRESS['FR']}/nl-{len(self.at_nl)}"
            self.at_nl.append((await nl.report(second, qualification=ILLEGAL)).items[0].id)

    async def settled(self, fr: Station, nl: Station) -> None:
        """Wait until every item is where it belongs, applied, answered, and receipted on both sides."""

        async def quiet() -> bool:
            for one, other in ((fr, nl), (nl, fr)):
                if await one.value("SELECT EXISTS (SELECT 1 FROM items WHERE state IN ('locating', 'ready'))"):
                    return False
                if await one.value(_BACKLOG, other.node.settings.node_id):
                    return False
            arrived = await nl.value("SELECT count(*) FROM items WHERE id = ANY($1)", self.at_fr)
            came = await fr.value("SELECT count(*) FROM items WHERE id = ANY($1)", self.at_nl)
            return (arrived, came) == (len(self.at_fr), len(self.at_nl))

        await eventually(quiet, limit_s=40.0)

    async def check(self, fr: Station, nl: Station) -> None:
        """Each item once at each side, in its state; receipts alike; each record answered once; nobody accused."""
        assert await receipts_agree(fr, nl)
        assert await receipts_agree(nl, fr)
        for one, sent, got in ((fr, self.at_fr, self.at_nl), (nl, self.at_nl, self.at_fr)):
            assert await one.value("SELECT count(*) FROM items") == len(sent) + len(got)
            assert await one.value("SELECT count(*) FROM items WHERE id = ANY($1) AND state = 'sent'", sent) == len(
                sent
            )
            assert await one.value("SELECT count(*) FROM items WHERE id = ANY($1) AND state = 'assigned'", got) == len(
                got
            )
            assert await one.value("SELECT count(*) FROM equivocations") == 0
            assert await one.value("SELECT count(*) FROM inbox_refusals") == 0
            assert await one.value("SELECT count(*) FROM outbox_refusals") == 0
            reports = "SELECT count(*) FROM outbox WHERE type = 'report'"
            assert await one.value(reports) == len(sent)
            assert await one.value("SELECT count(DISTINCT item_id) FROM outbox WHERE type = 'report'") == len(sent)
            standing = "SELECT count(*) FROM stream_differences WHERE mended_at IS NULL"
            assert await one.value(standing) == 0
        await accounted_for([fr, nl])


_BACKLOG = (
    "SELECT EXISTS (SELECT 1 FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
    "WHERE s.peer = $1 AND s.next_index > c.acked_size) OR EXISTS (SELECT 1 FROM inbound_streams s "
    "JOIN apply_cursors c ON c.stream = s.id WHERE s.size > c.applied)"
)


async def _history(world: World, feed: Feed, restored: int) -> TestNode:
    """Exchange records, take a backup of one node, and exchange more; returns the node on the backup."""
    await world.create_field_keys()
    async with station(world.nodes[1 - restored]) as other:
        async with station(world.nodes[restored]) as one:
            await _exchange(feed, one, other, restored, 3)
        older = await copied(world.nodes[restored])
        async with station(world.nodes[restored]) as one:
            await _exchange(feed, one, other, restored, 4)
    return older


async def _exchange(feed: Feed, one: Station, other: Station, restored: int, count: int) -> None:
    fr, nl = (one, other) if restored == 0 else (other, one)
    await feed.hand_in(fr, nl, count)
    await feed.settled(fr, nl)


async def test_both_sides_agree_again_after_a_restore(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    feed = Feed()
    older = await _history(world, feed, restored=0)
    async with station(world.nodes[1]) as nl:
        with pytest.raises(OperatorError, match="hotline recover"):
            async with station(older):
                pass
        done = await recovered(older)
        assert done.own[nl.node.settings.node_id] >= 4
        assert done.received[nl.node.settings.node_id] >= 4
        assert done.epochs == [(nl.node.settings.node_id, 2)]
        async with station(older) as fr:
            await feed.settled(fr, nl)
            await feed.check(fr, nl)
            await feed.hand_in(fr, nl, 2)
            await feed.settled(fr, nl)
            await feed.check(fr, nl)
            # What is new stands in the new epoch, and its first record names the end of the old one.
            assert await nl.value("SELECT max(epoch) FROM inbound_streams") == 2
            # The audit asks the peer for the epoch that ended, too.
            file = older.settings.data_dir / "settings.toml"
            write_settings(file, file_values(older.settings))
            audit = ["--settings", str(file), "audit-network"]
            assert await asyncio.to_thread(main, audit) == 0
            async with nl.node.db.transaction("test.spoil") as tx:
                await tx.execute(
                    "UPDATE inbound_batches b SET receipt = receipt || '\\x41'::bytea FROM inbound_streams s "
                    "WHERE s.id = b.stream AND s.epoch = 1 AND b.first = 0"
                )
            assert await asyncio.to_thread(main, audit) == 1
            assert "the peer's receipt is not the one that we stored" in capsys.readouterr().out


async def test_records_written_after_the_restore_move_into_the_new_epoch(world: World) -> None:
    """The peer was away when the node started on the older database: nothing was signed, and nothing is lost."""
    feed = Feed()
    older = await _history(world, feed, restored=0)
    async with station(older) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/late", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
    feed.at_fr.append(item)
    async with station(world.nodes[1]) as nl:
        await recovered(older)
        async with station(older) as fr:
            await feed.settled(fr, nl)
            await feed.check(fr, nl)


async def test_more_was_lost_than_may_wait_to_be_applied(world: World) -> None:
    feed = Feed()
    older = await _history(world, feed, restored=0)
    narrow = replace(older, settings=replace(older.settings, unapplied_records_max=1, peer_records_burst=1))
    async with station(world.nodes[1]) as nl:
        done = await recovered(narrow)
        assert done.received[nl.node.settings.node_id] >= 4
        async with station(older) as fr:
            await feed.settled(fr, nl)
            await feed.check(fr, nl)


async def test_nothing_changes_while_a_peer_cannot_be_asked(world: World) -> None:
    feed = Feed()
    older = await _history(world, feed, restored=0)
    with pytest.raises(OperatorError, match="--without"):
        await recovered(older)
    async with station(world.nodes[1]) as nl:
        await recovered(older)
        async with station(older) as fr:
            await feed.settled(fr, nl)
            await feed.check(fr, nl)


async def test_a_peer_that_moved_while_the_node_was_down_is_asked_where_it_is_now(world: World) -> None:
    feed = Feed()
    older = await _history(world, feed, restored=0)
    nl, port = world.nodes[1], free_port()
    async with standing_still(older) as still:
        nl.entry["base_url"] = f"http://127.0.0.1:{port}"
        nl.settings = replace(nl.settings, base_url=nl.entry["base_url"], listen_peer=f"127.0.0.1:{port}")
        world.sign_directory()
        async with station(nl):
            done = await recover(still, frozenset())
    assert done.epochs == [(nl.id, 2)]
    assert done.own[nl.id] >= 4


async def test_a_peer_that_only_fetches_brings_what_was_lost(world: World) -> None:
    """Nothing answers at its address: it hears that the node recovers when it fetches, and brings its copy."""
    feed = Feed()
    nl = world.nodes[1]
    nl.entry["delivery"] = "pull"
    nl.entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    older = await _history(world, feed, restored=0)
    with pytest.raises(OperatorError, match="--without"):
        await recovered(older)
    async with standing_still(older) as still:
        # It waits, and does not wait for ever.
        with pytest.raises(OperatorError, match=nl.id):
            await recover(still, frozenset(), recovery_door(still), wait_s=0.2)
    async with station(nl) as behind:
        async with standing_still(older) as still:
            done = await recover(still, frozenset(), recovery_door(still), wait_s=8.0)
        assert done.own[nl.id] >= 4
        assert done.received[nl.id] >= 4
        assert done.epochs == [(nl.id, 2)]
        assert done.left == {}
        async with station(older) as fr:
            await feed.settled(fr, behind)
            await feed.check(fr, behind)
            await feed.hand_in(fr, behind, 2)
            await feed.settled(fr, behind)
            await feed.check(fr, behind)


def _reclaimer(still: Node) -> Reclaimer:
    return Reclaimer(
        still.settings.node_id,
        still.db,
        still.store.vault,
        still.judge,
        still.greeter.pool,
        still.catchup.fetch_own,
        still.clock.now,
    )


async def test_a_recovering_node_waits_for_what_is_held_without_a_receipt_that_counts(world: World) -> None:
    feed = Feed()
    fr, nl = world.nodes
    fr.entry["delivery"] = "pull"
    world.sign_directory()
    await world.create_field_keys()
    async with station(fr) as behind, station(nl) as one:
        await feed.hand_in(behind, one, 1)
        await feed.settled(behind, one)
        # What both write, wrote and hold when all is said.
        await eventually(lambda: receipts_agree(behind, one))
        async with behind.node.db.transaction("test.read") as tx:
            said = await read_heads(tx, nl.id)
    async with standing_still(nl) as still:
        visits = Visits(still, _reclaimer(still), {fr.id})
        ours = await visits.greeted(fr.id, said)
        assert [one.size for one in ours.held] == [one.receipted for one in said.written]
        await visits.complete(0.1)
        async with still.db.transaction("test.spoil") as tx:
            await tx.execute("UPDATE inbound_batches SET worthless = true")
        ours = await visits.greeted(fr.id, said)
        assert [(one.size, one.root) for one in ours.held] == [(0, Edge.EMPTY.root())]
        # It has gone back to what we have, and says so: that is not all that it has to send.
        back = replace(said, written=tuple(replace(one, receipted=0) for one in said.written))
        await visits.greeted(fr.id, back)
        with pytest.raises(OperatorError, match=fr.id):
            await visits.complete(0.1)
        # It does not know better, and will be told later.
        await visits.refused(fr.id, 1, said.written[0].receipted)
        with pytest.raises(OperatorError, match=fr.id):
            await visits.complete(0.1)
        await visits.refused(fr.id, 1, 0)
        assert await visits.complete(0.1) == {fr.id: 0}


async def test_a_recovery_waits_for_a_peer_that_was_asked_much_lately(world: World) -> None:
    feed = Feed()
    scanty = world.nodes[1]
    scanty.settings = replace(scanty.settings, peer_answers_bytes_per_s=65_536.0, peer_answers_bytes_burst=1_048_576)
    older = await _history(world, feed, restored=0)
    async with station(scanty) as nl, aiohttp.ClientSession() as session:
        peer = PeerSimulator(older, scanty, session)
        asked = await asyncio.gather(*(peer.get(f"/peer/v1/streams/{older.id}") for _ in range(32)))
        assert {one.problem["code"] for one in asked if one.status != 200} == {"over-quota"}
        done = await recovered(older)
        assert done.own[nl.node.settings.node_id] >= 4
        async with station(older) as fr:
            await feed.settled(fr, nl)
            await feed.check(fr, nl)


async def test_a_recovering_node_takes_only_what_it_signed_from_whom_it_waits_for(world: World) -> None:
    feed = Feed()
    nl = world.nodes[1]
    nl.entry["delivery"] = "pull"
    world.sign_directory()
    await world.create_field_keys()
    older = await copied(world.nodes[0])
    async with station(world.nodes[0]) as fr, station(nl) as behind:
        await feed.hand_in(fr, behind, 1)
        await feed.settled(fr, behind)
        body = (await behind.node.give_back.held(fr.node.settings.node_id, 1, 0)).body
        assert body is not None
    end = len(decode_batch(body, bytes_max=RETURNED_BYTES_MAX)[1])
    path = f"/peer/v1/outbox/{older.id}/1/"
    async with aiohttp.ClientSession() as session, standing_still(older) as still:
        peer, visits = PeerSimulator(nl, older, session), Visits(still, _reclaimer(still), {nl.id})

        async def answer(path: str, body: bytes) -> tuple[int, str | None]:
            answered = await peer.call("PUT", path, body, before=as_batch)
            return answered.status, None if answered.status == 200 else answered.problem["code"]

        async with recovery_door(still)(visits):
            fetched = await peer.get(f"/peer/v1/outbox/{nl.id}/1?from=0")
            assert (fetched.status, fetched.problem["code"]) == (503, "maintenance")
            assert await answer(f"{path}0", b"no batch at all") == (400, "malformed")
            assert await answer(f"{path}1", body) == (409, "stream-gap")
            assert await answer(f"/peer/v1/outbox/{nl.id}/1/0", body) == (421, "wrong-audience")
            visits.awaited = frozenset()
            assert await answer(f"{path}0", body) == (503, "maintenance")
            visits.awaited = frozenset({nl.id})
            assert await answer(f"{path}0", body) == (200, None)
            assert await answer(f"{path}{end}", body) == (400, "malformed")
