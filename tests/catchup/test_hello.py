"""Hello: back-off ends at once, both sides compare, and a node on an older database is noticed before it writes."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest

from node.clock import SystemClock
from node.errors import OperatorError
from node.hotline.domain.delivery import BackOff, Problem, decide
from node.hotline.gateways.catchup import CatchupGateway
from node.hotline.serve import running
from node.hotline.store import heads as store
from node.platform.database import Database
from node.platform.telemetry import make_logger
from node.settings import Settings
from protocol.directory import NodeEntry
from protocol.hello import Heads, Held, Lost, Written, encode_heads, parse_heads
from protocol.merkle import EMPTY_ROOT
from tests.api.door import database_gone
from tests.catchup.copies import as_json, copied
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.hotline.test_exchange import told
from tests.peers.simulator import PeerSimulator
from tests.world import ADDRESS, TestNode, World


async def _waits_long(one: Station, peer: str) -> None:
    """Let the node have failed so often that it leaves the peer alone for long."""
    async with one.node.db.transaction("test.backoff") as tx:
        await tx.execute(
            "INSERT INTO peers (node_id, failures, retry_at, last_problem) VALUES ($1, 12, $2, 'unreachable-connect') "
            "ON CONFLICT (node_id) DO UPDATE SET failures = 12, retry_at = $2",
            peer,
            one.clock.now() + timedelta(seconds=800),
        )


async def test_a_peer_that_comes_back_gets_its_first_record_within_seconds(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], backoff_cap_s=900.0, backoff_base_s=900.0) as fr:
        nl_id = world.nodes[1].id
        item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        await _waits_long(fr, nl_id)
        started = time.monotonic()
        async with station(world.nodes[1]) as nl:

            async def arrived() -> bool:
                return bool(await nl.value("SELECT count(*) FROM inbox"))

            await eventually(arrived, limit_s=20.0)
            taken_s = time.monotonic() - started
            await told(fr, 1)
            assert await fr.value("SELECT failures FROM peers WHERE node_id = $1", nl_id) == 0
        # The start of the node is in it; the requirement is 5 s on a machine that does nothing else.
        assert taken_s < 10.0


@asynccontextmanager
async def silent(address: str) -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
    """Take connections at a peer's address and say nothing, until told to hang up; yields `called` and `hang_up`."""
    called, hang_up = asyncio.Event(), asyncio.Event()

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await hang_up.wait()
        writer.close()
        await writer.wait_closed()

    host, port = address.rsplit(":", 1)
    server = await asyncio.start_server(take, host, int(port))
    try:
        yield called, hang_up
    finally:
        hang_up.set()
        server.close()
        await server.wait_closed()


async def ready(settings: Settings) -> tuple[int, dict[str, object]]:
    """Ask a node whether it is ready."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{settings.listen_api}/readyz") as answer:
        return answer.status, await answer.json()


async def test_a_start_outlives_its_database_and_says_that_it_is_one(world: World) -> None:
    await world.create_field_keys()
    fr, nl, *others = world.nodes
    for one in others:
        one.entry["state"] = "left"
    world.sign_directory()
    db = Database(fr.settings.database_url)
    lines = io.StringIO()
    log = make_logger("warning", "json", lines)
    async with AsyncExitStack() as stack, silent(nl.settings.listen_peer) as (called, hang_up):
        stack.push_async_callback(db.close)
        starting = asyncio.ensure_future(stack.enter_async_context(running(fr.settings, clock=SystemClock(), log=log)))
        await called.wait()
        assert await ready(fr.settings) == (503, {"ready": False, "reason": "starting"})
        async with database_gone(db, nl.settings.database_url):
            hang_up.set()

            async def noticed() -> bool:
                return '"action": "start.database"' in lines.getvalue()

            await eventually(noticed)
            assert await ready(fr.settings) == (503, {"ready": False, "reason": "database"})
            assert not starting.done()
        await starting
        assert await ready(fr.settings) == (200, {"ready": True})


async def test_a_start_that_is_told_to_end_ends(world: World) -> None:
    await world.create_field_keys()
    fr, nl, *_ = world.nodes
    ended = asyncio.Event()
    log = make_logger("critical", "json")
    async with AsyncExitStack() as stack, silent(nl.settings.listen_peer) as (called, _):
        starting = asyncio.ensure_future(
            stack.enter_async_context(running(fr.settings, clock=SystemClock(), log=log, ended=ended))
        )
        await called.wait()
        ended.set()
        await starting
        assert (await ready(fr.settings))[0] == 503


async def test_hello_tells_how_far_both_sides_are(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)
        await told(fr, 1)
        async with aiohttp.ClientSession() as session:
            peer = PeerSimulator(world.nodes[0], world.nodes[1], session)
            body = encode_heads(Heads((), ()))
            answer = await peer.call("POST", "/peer/v1/hello", body, before=as_json)
        assert answer.status == 200
        heads = parse_heads(answer.body, caller=nl.node.settings.node_id, callee=fr.node.settings.node_id)
        assert [(one.epoch, one.size) for one in heads.held] == [(1, 1)]
        assert [(one.epoch, one.size) for one in heads.written] == [(1, 1)]


async def test_a_node_on_an_older_database_does_not_start(world: World) -> None:
    """Its peer shows our own signature on more than the database knows: nothing is written, and the reason is said."""
    await world.create_field_keys()
    async with station(world.nodes[1]):
        async with station(world.nodes[0]) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
            await told(fr, 1)
        older = await copied(world.nodes[0])
        async with station(world.nodes[0]) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/2", qualification=ILLEGAL)
            await told(fr, 2)
        with pytest.raises(OperatorError, match="hotline recover"):
            async with station(older):
                pass
        # It is remembered: also without the peer it does not start.
    with pytest.raises(OperatorError, match="hotline recover"):
        async with station(older):
            pass


async def _told_more(world: World) -> TestNode:
    """Return the first node as it was before the second one heard more of it."""
    await world.create_field_keys()
    async with station(world.nodes[1]):
        async with station(world.nodes[0]) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
            await told(fr, 1)
        older = await copied(world.nodes[0])
        async with station(world.nodes[0]) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/2", qualification=ILLEGAL)
            await told(fr, 2)
    return older


async def test_a_node_that_meets_its_peer_later_signs_nothing_for_it(world: World) -> None:
    older = await _told_more(world)
    # Nobody is there to tell: it starts, and meets its peer while it runs.
    async with station(older) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/3", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        async with station(world.nodes[1]) as nl:

            async def noticed() -> bool:
                async with fr.node.db.transaction("test.read") as tx:
                    return ((await store.stops(tx)).set_back).get(nl.node.settings.node_id, False)

            await eventually(noticed, limit_s=20.0)
            assert await nl.value("SELECT count(*) FROM equivocations") == 0
            assert await nl.value("SELECT count(*) FROM inbox") == 2


async def test_nothing_is_signed_for_whom_the_proof_of_its_claim_could_not_be_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many records were written since the backup as the peer holds beyond it, and its answer is lost."""
    older = await _told_more(world)
    async with station(older) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/3", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        asks = CatchupGateway.newest_receipt
        asked: list[int] = []

        async def lost(self: CatchupGateway, peer: NodeEntry, epoch: int) -> bytes | Problem | None:
            if self is not fr.node.catchup or len(asked) >= 2:
                return await asks(self, peer, epoch)
            asked.append(epoch)
            return Problem("answer-malformed")

        monkeypatch.setattr(CatchupGateway, "newest_receipt", lost)
        async with station(world.nodes[1]) as nl:

            async def noticed() -> bool:
                async with fr.node.db.transaction("test.read") as tx:
                    return ((await store.stops(tx)).set_back).get(nl.node.settings.node_id, False)

            await eventually(noticed, limit_s=20.0)
            assert asked == [1, 1]
            assert await nl.value("SELECT count(*) FROM equivocations") == 0
            assert await nl.value("SELECT count(*) FROM inbox") == 2


async def test_a_claim_without_our_signature_stops_nothing(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, aiohttp.ClientSession() as session:
        peer = PeerSimulator(world.nodes[1], world.nodes[0], session)
        lie = encode_heads(Heads((), (Held(1, 1000, bytes(32)),)))
        answer = await peer.call("POST", "/peer/v1/hello", lie, before=as_json)
        assert answer.status == 200
        async with fr.node.db.transaction("test.read") as tx:
            assert (await store.stops(tx)).set_back == {peer.id: False}
        async with station(world.nodes[1]):
            await fr.report(f"http://{ADDRESS['NL']}/1", qualification=ILLEGAL)
            await told(fr, 1)
            async with fr.node.db.transaction("test.read") as tx:
                assert (await store.stops(tx)).set_back == {}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"v": 2}, "schema-invalid"),
        ({"written": [{"epoch": 1, "size": 1, "receipted": 2, "root": "x"}]}, "malformed"),
        ({"held": [{"epoch": 0, "size": 0, "root": "x"}]}, "malformed"),
        ({"held": [{"epoch": 2**31, "size": 1, "root": "A" * 43 + "="}]}, "malformed"),
        ({"held": "many"}, "schema-invalid"),
        ({"lost": [{"epoch": 0, "first": 0}]}, "malformed"),
        ({"lost": [{"epoch": 2, "first": 0}, {"epoch": 1, "first": 0}]}, "malformed"),
    ],
)
async def test_a_hello_that_says_nonsense_is_refused(world: World, change: dict[str, object], code: str) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]), aiohttp.ClientSession() as session:
        peer = PeerSimulator(world.nodes[1], world.nodes[0], session)
        body = json.dumps({**json.loads(encode_heads(Heads((), ()))), **change}).encode()
        answer = await peer.call("POST", "/peer/v1/hello", body, before=as_json)
        assert answer.problem["code"] == code


def test_a_hello_reads_back_as_it_was_said() -> None:
    heads = Heads((Written(1, 5, 3, b"a" * 32), Written(2, 1, 0, EMPTY_ROOT)), (Held(1, 7, b"b" * 32),))
    for said in (heads, replace(heads, lost=(Lost(1, 3), Lost(2, 0)))):
        assert parse_heads(encode_heads(said), caller="fr.hotline.example", callee="nl.hotline.example") == said
    # Who is whole says nothing of it.
    assert b"lost" not in encode_heads(heads)


def test_no_wait_is_longer_than_a_quarter_of_an_hour() -> None:
    """Without a hello the next attempt is at most the cap away, and no setting makes the cap longer than 15 minutes."""
    cap = Settings.__dataclass_fields__["backoff_cap_s"].default
    assert cap == 900
    for failures in range(64):
        for draw in (0.0, 0.5, 0.999999):
            decided = decide(
                Problem("unreachable-connect"),
                failures=failures,
                first_index=0,
                batch_records=1,
                rewound=False,
                key_problems=0,
                base_s=2.0,
                cap_s=cap,
                draw=lambda draw=draw: draw,  # type: ignore[misc]
            )
            assert isinstance(decided, BackOff)
            assert decided.seconds <= 900
