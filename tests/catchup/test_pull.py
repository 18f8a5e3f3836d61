"""A hotline behind a firewall: outgoing connections only, and everything works, its receipts included."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from node.__main__ import main
from node.hotline.api.catchup import Waiting
from node.hotline.api.health import warnings_of
from node.hotline.domain.delivery import Problem
from node.hotline.gateways.catchup import Fetched
from node.hotline.jobs import Jobs
from node.hotline.pulling import Pulls
from node.hotline.rounds import Rounds
from node.hotline.store import judged
from node.platform.trust import Freshness
from node.setting_files import write_settings
from protocol.checkpoint import Checkpoint
from protocol.codes import NodeState
from protocol.directory import NodeEntry
from protocol.keys import KeyUse
from protocol.note import Note, parse_note
from tests.catchup.copies import as_note, receipts_agree
from tests.catchup.test_worthless import heard, later, stolen
from tests.hotline.network import ILLEGAL, Station, eventually, heard_of, station
from tests.hotline.test_exchange import told
from tests.moves.chain import accounted_for
from tests.peers.simulator import PeerSimulator
from tests.ports import free_port
from tests.world import ADDRESS, TestNode, World, file_values


@pytest.fixture
def behind(world: World) -> TestNode:
    """The Dutch hotline cannot be called: nothing answers at the address that the directory names."""
    nl = world.nodes[1]
    nl.entry["delivery"] = "pull"
    nl.entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    return nl


async def test_everything_works_by_outgoing_connections_alone(world: World, behind: TestNode) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], batch_records_max=4) as fr, station(behind) as nl:
        items = [(await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)).items[0].id for n in range(10)]
        back = (await nl.report(f"http://{ADDRESS['FR']}/x", qualification=ILLEGAL)).items[0].id

        async def arrived() -> bool:
            there = await nl.value("SELECT count(*) FROM items WHERE state = 'assigned'")
            here = await fr.value("SELECT count(*) FROM items WHERE state = 'assigned'")
            return (there, here) == (10, 1)

        await eventually(arrived, limit_s=30.0)
        assert [(await nl.item(item))["state"] for item in items] == ["assigned"] * 10
        assert (await fr.item(back))["state"] == "assigned"
        await eventually(lambda: receipts_agree(fr, nl))
        await eventually(lambda: receipts_agree(nl, fr))
        await accounted_for([fr, nl])
        # Nobody called it, and nothing is wrong with it.
        assert await fr.value("SELECT count(*) FROM peers WHERE failures > 0 OR last_problem IS NOT NULL") == 0
        assert await nl.value("SELECT count(*) FROM inbox_refusals") == 0


async def test_two_that_only_fetch_are_told_that_nothing_gets_through(world: World, behind: TestNode) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr:
        await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
        await fr.settled()
        # A peer that only fetches comes for it.
        assert await _told(fr, behind) == []
        world.nodes[0].entry["delivery"] = "pull"
        world.sign_directory()
        await heard_of(fr.node, world.version)
        said = f"1 records for {behind.id} cannot be delivered: neither can be called"
        assert await _told(fr, behind) == [said]
        behind.entry["delivery"] = "push"
        world.sign_directory()
        await heard_of(fr.node, world.version)
        assert await _told(fr, behind) == []


async def _told(at: Station, about: TestNode) -> list[str]:
    """Return what health warns of one hotline."""
    await Jobs(at.node, Rounds(at.node))._gauges()
    return [warning for warning in warnings_of(at.node) if about.id in warning]


async def test_who_can_rely_on_no_directory_fetches_nothing_until_it_can(
    world: World, behind: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    rounds = 0

    class Watched(Pulls):
        async def _wanted(self) -> list[NodeEntry]:
            nonlocal rounds
            rounds += 1
            return await super()._wanted()

        async def _turn(self, peer: NodeEntry, wait_s: int, most: int) -> int | Problem:
            asked.append(peer.id)
            return await super()._turn(peer, wait_s, most)

    monkeypatch.setattr("node.hotline.jobs.Pulls", Watched)
    world.valid = timedelta(days=1)
    world.sign_directory()
    await world.create_field_keys()
    async with station(behind, poll_s=0.05) as nl:
        nl.clock.ahead_s = timedelta(days=16).total_seconds()
        assert nl.node.membership.freshness() is Freshness.EXPIRED

        async def three_rounds() -> None:
            until = rounds + 3

            async def over() -> bool:
                return rounds >= until

            await eventually(over)

        # What was being asked of somebody who is away ends within the first of them.
        await three_rounds()
        before = len(asked)
        await three_rounds()
        assert len(asked) == before
        nl.clock.ahead_s = 0.0
        async with station(world.nodes[0]) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)
            await eventually(lambda: _holds(nl, 1), limit_s=30.0)


async def test_a_receipt_that_lost_its_worth_on_its_way_is_brought_again(
    world: World, behind: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is found to be stolen between the peer's answer and the note that the peer has the receipt."""
    await world.create_field_keys()
    brought: list[int] = []
    async with station(world.nodes[0]) as fr, station(behind) as nl:
        real = nl.node.catchup.put_receipt

        async def put_receipt(peer: NodeEntry, epoch: int, size: int, note: bytes) -> Problem | None:
            problem = await real(peer, epoch, size, note)
            if not brought:
                async with nl.node.db.transaction("test.judge") as tx:
                    await tx.execute("UPDATE inbound_batches SET worthless = true")
                    await judged.fetch_again(tx, await tx.value("SELECT stream FROM inbound_batches"))
            brought.append(size)
            return problem

        monkeypatch.setattr(nl.node.catchup, "put_receipt", put_receipt)
        await fr.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)

        async def again() -> bool:
            return brought == [1, 1]

        await eventually(again)


async def test_a_new_receipt_is_brought_to_who_has_not_heard_why(world: World, behind: TestNode) -> None:
    """It is refused until its bearer's peer has heard of the new key, and then both keep the same."""
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(behind) as nl:
        await fr.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)
        await told(fr, 1)
        await eventually(lambda: receipts_agree(fr, nl))
        moment = later(fr, nl)
        stolen(behind, [KeyUse.RECEIPT], moment)
        await heard(world, nl)

        async def given() -> bool:
            return bool(await nl.value("SELECT count(*) > 0 AND NOT bool_or(worthless) FROM inbound_batches"))

        await eventually(given)
        note = parse_note(await nl.value("SELECT receipt FROM inbound_batches ORDER BY size LIMIT 1"))
        # One of each algorithm: none of the key that was stolen.
        assert [line.name for line in note.signatures].count(f"{behind.id}/receipt") == 2
        await heard(world, fr)
        await eventually(lambda: receipts_agree(fr, nl))


async def _holds(at: Station, items: int) -> bool:
    return bool(await at.value("SELECT count(*) FROM items WHERE state = 'assigned'") == items)


@pytest.mark.parametrize("lies", [False, True], ids=["it does not wait", "it names an epoch that is not there"])
async def test_a_peer_that_has_nothing_and_does_not_wait_is_asked_less_and_less_often(
    world: World, behind: TestNode, monkeypatch: pytest.MonkeyPatch, *, lies: bool
) -> None:
    rests: list[float] = []

    class Watched(Pulls):
        async def _pause(self, seconds: float) -> None:
            rests.append(seconds)
            await super()._pause(0.01)

    @contextmanager
    def at_once(_self: Waiting, _peer: str) -> Iterator[bool]:
        yield False

    monkeypatch.setattr("node.hotline.jobs.Pulls", Watched)
    monkeypatch.setattr(Waiting, "place", at_once)
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(behind, backoff_cap_s=7.0) as nl:
        real = nl.node.catchup.fetch

        async def fetch(*asked: Any, **more: Any) -> Fetched | Problem:
            found = await real(*asked, **more)
            return replace(found, epoch=99) if lies and isinstance(found, Fetched) and found.body is None else found

        monkeypatch.setattr(nl.node.catchup, "fetch", fetch)
        await eventually(partial(_met, rests, [1.0, 2.0, 4.0, 7.0, 7.0]))
        rests.clear()
        # Who has something to say is asked as before.
        await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
        await eventually(partial(_met, rests, [1.0, 2.0, 4.0, 7.0]))
        assert await _holds(nl, 1)


async def _met(rests: list[float], wanted: list[float]) -> bool:
    """Tell whether these rests came one after the other."""
    return any(rests[n : n + len(wanted)] == wanted for n in range(len(rests)))


async def test_who_has_less_room_than_a_batch_of_its_peer_asks_for_less(world: World, behind: TestNode) -> None:
    """A batch that does not fit is refused whole; the peer cannot know that, as it could after a push."""
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr:
        for n in range(7):
            await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)
        await eventually(lambda: _written(fr, 7))
        async with station(behind, batch_records_max=5, unapplied_records_max=2) as nl:
            await told(fr, 7)
            sizes = await nl.value("SELECT array_agg(size ORDER BY size) FROM inbound_batches")
            assert all(after - before <= 2 for before, after in pairwise([0, *sizes]))
            await eventually(lambda: receipts_agree(fr, nl))


async def _written(fr: Station, count: int) -> bool:
    return bool(await fr.value("SELECT count(*) = $1 FROM outbox", count))


async def test_a_record_that_is_waited_for_arrives_within_seconds(world: World, behind: TestNode) -> None:
    """The request is open already: the record is its answer."""
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(behind) as nl:

        async def asks() -> bool:
            return bool(await fr.value("SELECT count(*) FROM peers WHERE last_heard_at IS NOT NULL"))

        await eventually(asks)
        for n in range(3):
            item = (await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)).items[0].id
            await fr.until(item, "sent")

            async def there(item: object = item) -> bool:
                return bool(await nl.value("SELECT count(*) FROM items WHERE id = $1", item))

            await eventually(there, limit_s=8.0)


async def test_it_fetches_again_when_its_peer_was_away(world: World, behind: TestNode) -> None:
    await world.create_field_keys()
    async with station(behind) as nl:
        await nl.report(f"http://{ADDRESS['FR']}/x", qualification=ILLEGAL)
        async with station(world.nodes[0]) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)
            # An absent peer is asked again within half a minute.
            await told(fr, 1, limit_s=90.0)
            await told(nl, 1, limit_s=90.0)


async def test_it_fetches_where_its_peer_is_now_and_nothing_from_a_suspended_one(
    world: World, behind: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being fetched goes by the directory of now, not by the one that the fetching began with."""
    asked: list[NodeState] = []

    class Watched(Pulls):
        async def _turn(self, peer: NodeEntry, wait_s: int, most: int) -> int | Problem:
            asked.append(nl.node.directory().nodes[peer.id].state)
            return await super()._turn(peer, wait_s, most)

    monkeypatch.setattr("node.hotline.jobs.Pulls", Watched)
    await world.create_field_keys()
    there = world.nodes[0]
    async with station(behind, poll_s=0.05) as nl:
        async with station(there) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
            await eventually(lambda: _holds(nl, 1), limit_s=30.0)
        port = free_port()
        url, listen = f"http://127.0.0.1:{port}", f"127.0.0.1:{port}"
        there.settings = replace(there.settings, base_url=url, listen_peer=listen)
        there.entry["base_url"] = url
        world.sign_directory()
        await nl.node.membership.refresh()
        async with station(there) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/2", qualification=ILLEGAL)
            await eventually(lambda: _holds(nl, 2), limit_s=60.0)
            there.entry["state"] = "suspended"
            world.sign_directory()
            await nl.node.membership.refresh()
            there.entry["state"] = "active"
            await fr.report(f"http://{ADDRESS['NL']}/3", qualification=ILLEGAL)
            world.sign_directory()
            await nl.node.membership.refresh()
            await eventually(lambda: _holds(nl, 3), limit_s=60.0)
    assert set(asked) == {NodeState.ACTIVE}


async def test_a_receipt_that_was_not_brought_is_brought_by_the_next_process(
    world: World, behind: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node dies between its commit and the receipt's way home."""
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr:
        with monkeypatch.context() as broken:
            broken.setattr(Pulls, "_bring", _nothing_brought)
            async with station(behind) as nl:
                await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)

                async def stored() -> bool:
                    return bool(await nl.value("SELECT count(*) FROM inbox"))

                await eventually(stored)
                assert await fr.value("SELECT acked_size FROM delivery_cursors") == 0
        async with station(behind) as nl:
            await fr.report(f"http://{ADDRESS['NL']}/2", qualification=ILLEGAL)
            await told(fr, 2)
            assert await nl.value("SELECT count(*) FROM inbox") == 2
            await eventually(lambda: receipts_agree(fr, nl))


async def _nothing_brought(*_: object) -> None:
    """The receipt does not leave."""


async def _receipt(nl: Station) -> tuple[Checkpoint, Note]:
    note = parse_note(await nl.value("SELECT receipt FROM inbound_batches ORDER BY size LIMIT 1"))
    return Checkpoint.parse(note.text), note


async def test_a_receipt_that_proves_nothing_is_refused(world: World, behind: TestNode) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(behind) as nl, aiohttp.ClientSession() as session:
        await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
        await told(fr, 1)
        checkpoint, note = await _receipt(nl)
        peer = PeerSimulator(behind, world.nodes[0], session)
        path = f"/peer/v1/receipts/{fr.node.settings.node_id}/1/"
        good = note.to_bytes()
        kept = await fr.value("SELECT note FROM receipts")

        async def answer(body: bytes, size: int = 1, issuer: str | None = None) -> tuple[int, str | None]:
            where = path if issuer is None else f"/peer/v1/receipts/{issuer}/1/"
            answered = await peer.call("PUT", f"{where}{size}", body, before=as_note)
            return answered.status, None if answered.status == 200 else answered.problem["code"]

        assert await answer(good) == (200, None)
        assert await answer(good, size=2) == (400, "malformed")
        assert await answer(good, issuer=peer.id) == (421, "wrong-audience")
        assert await answer(b"no note at all") == (400, "malformed")
        bare = Note(note.text, tuple(one for one in note.signatures if not one.name.endswith("/receipt")))
        assert await answer(bare.to_bytes()) == (401, "bad-signature")
        other = Checkpoint(checkpoint.origin, 1, bytes(32))
        assert await answer(Note(other.text(), note.signatures).to_bytes()) == (401, "bad-signature")
        assert await fr.value("SELECT note FROM receipts") == kept


async def test_nobody_fetches_what_is_said_to_another(world: World, behind: TestNode) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, aiohttp.ClientSession() as session:
        peer = PeerSimulator(behind, world.nodes[0], session)
        answer = await peer.get(f"/peer/v1/outbox/{fr.node.settings.node_id}/1?from=0")
        assert answer.problem["code"] == "wrong-audience"
        assert (await peer.get(f"/peer/v1/outbox/{peer.id}/0?from=0")).problem["code"] == "malformed"
        assert (await peer.get(f"/peer/v1/outbox/{peer.id}/1?from=0&wait=100")).problem["code"] == "malformed"
        assert (await peer.get(f"/peer/v1/outbox/{peer.id}/1?from=0&records=0")).problem["code"] == "malformed"
        nothing = await peer.get(f"/peer/v1/outbox/{peer.id}/1?from=0")
        assert (nothing.status, nothing.body) == (404, b'{"written": 0, "epoch": 1}')


async def test_each_side_audits_over_the_wire_as_far_as_the_other_can_be_called(
    world: World, behind: TestNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who fetches asks its peer; its peer cannot ask it, says so, and counts that as no fault."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes[:2]

    async def audit(node: TestNode) -> tuple[int, dict[str, Any]]:
        file = node.settings.data_dir / "settings.toml"
        write_settings(file, file_values(node.settings))
        capsys.readouterr()
        status = await asyncio.to_thread(main, ["--settings", str(file), "audit-network", "--strict", "--json"])
        return status, json.loads(capsys.readouterr().out)

    async with station(fr_node) as fr, station(behind) as nl:
        await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
        await nl.report(f"http://{ADDRESS['FR']}/1", qualification=ILLEGAL)
        await eventually(lambda: receipts_agree(fr, nl))
        await eventually(lambda: receipts_agree(nl, fr))
        await accounted_for([fr, nl])
        status, said = await audit(nl_node)
        assert (status, said["differences"], said["not_asked"]) == (0, [], {})
        asked = [one for one in said["streams"] if one["looked_at"] == "the peer's word"]
        assert [(one["stream"], one["held"] >= 1, one["differences"]) for one in asked] == [
            (f"hx/1/{nl_node.id}/{fr_node.id}/1", True, 0)
        ]
        status, said = await audit(fr_node)
        assert (status, said["differences"]) == (0, [])
        assert said["not_asked"] == {nl_node.id: "it fetches, and cannot be called"}
        assert "the peer's word" not in {one["looked_at"] for one in said["streams"]}
