"""A directory that expires while something is under way: nothing more of it is sent, and nothing new is begun."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from node.__main__ import main
from node.errors import OperatorError
from node.hotline.assembly import Node
from node.hotline.domain.delivery import BatchAnswer, Problem
from node.hotline.flows.offer import Offered, Offerer
from node.hotline.framing import Cut, Framer
from node.hotline.gateways.peers import PeerGateway
from node.hotline.jobs import Jobs
from node.hotline.pulling import Pulls
from node.hotline.recovery import recover
from node.hotline.rounds import Rounds
from node.hotline.store.outbound import Cursor
from node.platform.httpclient import PeerAnswer
from node.platform.membership import Membership
from node.platform.telemetry import make_logger
from node.platform.trust import Freshness
from node.setting_files import write_settings
from protocol.directory import NodeEntry
from protocol.merkle import Edge
from tests.catchup.copies import copied, standing_still
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.hotline.test_exchange import told
from tests.world import ADDRESS, World, file_values


@pytest.fixture
def expire(monkeypatch: pytest.MonkeyPatch) -> Callable[[Membership], None]:
    """Let a node's directory have expired from now on."""

    def done(membership: Membership) -> None:
        monkeypatch.setattr(membership, "freshness", lambda: Freshness.EXPIRED)

    return done


async def _waiting(fr: Station, count: int) -> None:
    """Let so many records wait for a peer that is away."""
    for n in range(count):
        item = (await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")


async def test_a_delivery_under_way_begins_no_other_batch(
    world: World, expire: Callable[[Membership], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    sent: list[int] = []
    real = PeerGateway.put_batch

    async def put_batch(self: PeerGateway, peer: NodeEntry, epoch: int, first_index: int, body: bytes) -> BatchAnswer:
        if peer.id == nl_node.id:
            sent.append(first_index)
            expire(fr.node.membership)
        return await real(self, peer, epoch, first_index, body)

    async def over() -> bool:
        if not await fr.value("SELECT count(*) FROM receipts"):
            return False
        async with fr.node.db.session_lock(f"deliver:{nl_node.id}") as held:
            return held is not None

    monkeypatch.setattr(PeerGateway, "put_batch", put_batch)
    async with station(fr_node, batch_records_max=1, batches_in_flight_max=1, poll_s=0.1) as fr:
        await _waiting(fr, 3)
        async with station(nl_node):
            await eventually(over)
    assert sent == [0]


async def test_a_batch_that_was_being_made_is_not_sent(
    world: World, expire: Callable[[Membership], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_field_keys(world.nodes[:1])
    sent: list[int] = []
    cut = asyncio.Event()
    real = Framer.cut

    async def late(self: Framer, peer: str, cursor: Cursor, before: Edge, count: int) -> Cut | None:
        made = await real(self, peer, cursor, before, count)
        expire(fr.node.membership)
        cut.set()
        return made

    async def put_batch(_self: PeerGateway, _peer: NodeEntry, _epoch: int, first: int, _body: bytes) -> BatchAnswer:
        sent.append(first)
        return BatchAnswer(None, Problem("unreachable-connect"))

    monkeypatch.setattr(Framer, "cut", late)
    monkeypatch.setattr(PeerGateway, "put_batch", put_batch)
    async with station(world.nodes[0]) as fr:
        await _waiting(fr, 1)
        peer = fr.node.directory().nodes[world.nodes[1].id]
        jobs = Jobs(fr.node, Rounds(fr.node))
        await fr.node.sender.deliver(peer, lambda: jobs._enough(peer.id, lambda: True))
    assert cut.is_set()
    assert sent == []


async def test_whoever_waits_for_a_record_is_not_given_it(
    world: World, expire: Callable[[Membership], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request came while the directory was in force; the record is written when it is not any more."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    asked = asyncio.Event()
    real = Offerer.offer

    async def offer(self: Offerer, peer: str, epoch: int, first: int, records_max: int) -> Offered:
        offered = await real(self, peer, epoch, first, records_max)
        asked.set()
        return offered

    async with station(fr_node) as fr, station(nl_node) as nl:
        monkeypatch.setattr(Offerer, "offer", offer)
        peer = nl.node.directory().nodes[fr_node.id]
        fetching = asyncio.ensure_future(nl.node.catchup.fetch(peer, 1, 0, wait_s=20, records_max=1))
        await asked.wait()
        expire(fr.node.membership)
        await _waiting(fr, 1)
        fr.node.signals.wake("outbox")
        answer = await fetching
    assert isinstance(answer, Problem)
    assert answer.code == "directory-stale"


@pytest.fixture
def three(world: World) -> World:
    world.add("DE")
    world.sign_directory()
    return world


async def test_the_daily_comparison_stops(
    three: World, expire: Callable[[Membership], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await three.create_field_keys()
    asked: list[str] = []

    async def compare(_self: Rounds, peer: NodeEntry) -> None:
        asked.append(peer.id)
        expire(fr.node.membership)

    async with station(three.nodes[0]) as fr:
        monkeypatch.setattr(Rounds, "compare", compare)
        assert await Rounds(fr.node).compare_due() == 1
    assert len(asked) == 1


async def test_receipts_that_are_being_brought_wait(
    world: World, expire: Callable[[Membership], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_field_keys()
    brought: list[int] = []

    async def put_receipt(_peer: NodeEntry, _epoch: int, size: int, _note: bytes) -> None:
        brought.append(size)
        expire(fr.node.membership)

    async def survive(_name: str, _work: object) -> None:
        raise AssertionError("nothing runs")

    async with station(world.nodes[0]) as fr:
        monkeypatch.setattr(fr.node.catchup, "put_receipt", put_receipt)
        peer = fr.node.directory().nodes[world.nodes[1].id]
        pulls = Pulls(fr.node, asyncio.Event(), survive)
        assert await pulls._bring(peer, [(1, 1, 1, b"one"), (1, 1, 2, b"two")]) is None
    assert brought == [1]


async def test_a_recovery_asks_nobody(world: World, expire: Callable[[Membership], None]) -> None:
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    async with station(nl_node) as nl:
        async with standing_still(fr_node) as still:
            expire(still.membership)
            with pytest.raises(OperatorError, match="has expired: no member is called"):
                await recover(still, frozenset())
        assert not await nl.value("SELECT count(*) FROM peers WHERE last_heard_at IS NOT NULL")
        # Nothing of it stands in the way of the next try.
        async with standing_still(fr_node) as still:
            await recover(still, frozenset())


async def test_a_recovery_under_way_calls_nobody_any_more(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory expires while the first call is under way, then the second, and so on until all is done."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    older = await copied(fr_node)
    called: list[str] = []
    ends_with = 0
    real, freshness = PeerGateway.call, Membership.freshness

    async def call(self: PeerGateway, peer: NodeEntry, method: str, path: str, **more: Any) -> PeerAnswer | Problem:
        if self is still.catchup._peers:
            called.append(path)
        return await real(self, peer, method, path, **more)

    def expiring(self: Membership) -> Freshness:
        expired = self is still.membership and len(called) >= ends_with
        return Freshness.EXPIRED if expired else freshness(self)

    async with station(nl_node, batch_records_max=1), station(de_node):
        async with station(fr_node, batch_records_max=1, batches_in_flight_max=1) as fr:
            await _waiting(fr, 2)
            await told(fr, 2)
        async with standing_still(older) as still:
            monkeypatch.setattr(PeerGateway, "call", call)
            monkeypatch.setattr(Membership, "freshness", expiring)
            last: list[str] = []
            for ends_with in range(1, 30):
                called.clear()
                sentence = await _sentence(still)
                if sentence is None:
                    break
                assert "has expired: no member is called" in sentence
                assert len(called) == ends_with
                last.append(called[-1].split("/")[3])
    # It was broken off after a hello, and after each kind of fetch; in the end it is done.
    assert sentence is None
    assert {"hello", "inbox", "outbox"} <= set(last)


async def _sentence(still: Node) -> str | None:
    """Recover; return why it broke off, if it did."""
    try:
        await recover(still, frozenset())
    except OperatorError as error:
        return error.sentence
    return None


async def test_commands_ask_nobody_and_say_so(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    file = world.folder / "settings.toml"
    write_settings(file, file_values(fr_node.settings))
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            await _waiting(fr, 1)
            await told(fr, 1)
        heard = await nl.value("SELECT last_heard_at FROM peers")
        monkeypatch.setattr("node.platform.trust.InUse.freshness", lambda _use, _now: Freshness.EXPIRED)
        assert await asyncio.to_thread(main, ["--settings", str(file), "compare"]) == 2
        assert "has expired: no member is called" in capsys.readouterr().err
        # What is in the node's own tables is looked at all the same.
        assert await asyncio.to_thread(main, ["--settings", str(file), "audit-network"]) == 0
        shown = capsys.readouterr().out
        assert "NOT ASKED: nl.hotline.example (the directory here has expired)." in shown
        assert await nl.value("SELECT last_heard_at FROM peers") == heard


async def test_it_is_said_though_the_database_is_away(
    world: World, expire: Callable[[Membership], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer directory may be there, and cannot be remembered."""
    await world.create_field_keys()
    lines = io.StringIO()

    async def refresh_if_due(_self: Membership) -> bool:
        raise asyncpg.ConnectionDoesNotExistError("away")

    async with station(world.nodes[0], log=make_logger("info", "json", lines)) as fr:
        monkeypatch.setattr(Membership, "refresh_if_due", refresh_if_due)
        expire(fr.node.membership)
        jobs = Jobs(fr.node, Rounds(fr.node))
        await jobs._refresh()
    assert '"state": "expired"' in lines.getvalue()
    assert '"action": "refresh.database"' in lines.getvalue()
