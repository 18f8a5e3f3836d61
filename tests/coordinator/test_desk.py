"""The desk's door: members alone, whoever the directory says is the desk, and nothing that is too large."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from node.clock import SystemClock
from node.conformance.checks import Verdict
from node.conformance.member import Member, create_member
from node.conformance.running import Options, open_run, results
from node.conformance.table import CHECKS_OF_DESK
from node.coordinator import cases, store
from node.coordinator.desk import Desk, Found
from node.coordinator.serve import running
from node.hotline.gateways.desk import DeskGateway
from node.hotline.gateways.peers import PeerGateway
from node.platform.database import Database
from node.platform.httpclient import PeerClient, make_session
from node.platform.membership import read_directory
from node.platform.repository import fingerprint
from node.platform.telemetry import make_logger
from protocol.directory import Directory
from protocol.errors import ProtocolError
from tests.coordinator.conftest import Authority, coordinating
from tests.protocol.sample_network import DESK, FR, NL, NOW, directory_of, document
from tests.protocol.test_desk import DISPUTE, KEYS, STATEMENT, network
from tests.vectors.test_examples import DIRECTORY
from tests.world import TestNode, World

VECTORS = Path(__file__).parents[1] / "vectors" / "desk.json"


@pytest.fixture
def made(tmp_path: Path, new_database: Callable[[], str], coordinator_database: str) -> World:
    """A French hotline and a coordinator, not started."""
    made = World(tmp_path, new_database)
    made.add("FR")
    made.add_desk(coordinator_database)
    made.sign_directory()
    return made


@pytest.fixture
async def world(made: World) -> AsyncIterator[World]:
    """The coordinator serves."""
    assert made.desk is not None
    await made.tell_desk()
    async with running(made.desk.settings, clock=SystemClock(), log=make_logger("error", "json")):
        yield made


#: The members of the sample network, whom the sample dispute is about.
LISTED = directory_of(document())


def directory(world: World) -> Directory:
    return read_directory(world.repository, fingerprint(world.root)).directory


@pytest.mark.parametrize("path", ["disputes", "equivocations"])
async def test_a_stranger_is_refused_before_its_body_is_read(world: World, path: str) -> None:
    assert world.desk is not None
    url = f"{world.desk.settings.base_url}/peer/v1/{path}"
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json={}) as answer:
            assert answer.status == 400
        async with session.post(url, data=b"{" * 100_000, headers={"content-type": "application/json"}) as answer:
            assert answer.status == 413


async def test_a_member_has_so_many_open_cases_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.coordinator.desk.OPEN_MAX", {"dispute": 2, "equivocation": 0})
    assert world.desk is not None
    db = Database(world.desk.settings.database_url)
    desk = Desk(world.desk.id, db, SystemClock().now, lambda: LISTED)
    try:
        for number in (1, 2, 2):
            await desk.take_dispute(NL, statement(number))
        with pytest.raises(ProtocolError, match="over-quota"):
            await desk.take_dispute(NL, statement(3))
        await desk.take_dispute(NL, statement(1))
        assert await desk.open_cases() == {"dispute": 2}
    finally:
        await db.close()


async def test_contradictions_leave_a_member_its_room_for_disputes(
    coordinator_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who contradicts itself towards a member must not keep the disputes of that one from the desk."""
    monkeypatch.setattr("node.coordinator.desk.OPEN_MAX", {"dispute": 1, "equivocation": 1})
    told = json.loads(VECTORS.read_text())["contradiction"]
    db = Database(coordinator_database)
    desk = Desk("coordinator.example", db, SystemClock().now, lambda: DIRECTORY)
    try:
        await desk.take_equivocation(NL, told.encode())
        desk = replace(desk, directory=lambda: LISTED)
        await desk.take_dispute(NL, statement(1))
        with pytest.raises(ProtocolError, match="over-quota"):
            await desk.take_dispute(NL, statement(2))
        assert await desk.open_cases() == {"dispute": 1, "equivocation": 1}
    finally:
        await db.close()


async def test_what_names_a_host_is_refused(coordinator_database: str) -> None:
    db = Database(coordinator_database)
    desk = Desk("coordinator.example", db, SystemClock().now, lambda: LISTED)
    said = json.loads(statement(1))
    station = said["trail"][0]
    for change, field in (
        ({"other": "gallery.host.example"}, "other"),
        ({"trail": [{**station, "node": "gallery.host.example"}, station]}, "trail[0].node"),
        ({"databases": [{"type": "gallery.host.example", "built": "2026-11-01"}]}, "databases[0]"),
        ({"code": "gallery.host.example"}, "code"),
    ):
        with pytest.raises(ProtocolError) as caught:
            await desk.take_dispute(NL, json.dumps({**said, **change}).encode())
        assert (caught.value.code, caught.value.field) == ("schema-invalid", field)
    await db.close()


async def test_who_was_listed_once_may_be_part_of_a_dispute(coordinator_database: str) -> None:
    db = Database(coordinator_database)
    nobody = replace(LISTED, nodes={}, mandated=())
    desk = Desk("coordinator.example", db, SystemClock().now, lambda: nobody)
    with pytest.raises(ProtocolError, match="no directory ever listed"):
        await desk.take_dispute(NL, statement(1))
    async with db.transaction("test.listed") as tx:
        await store.remember_listed(tx, LISTED.nodes)
    await desk.take_dispute(NL, statement(1))
    assert await desk.open_cases() == {"dispute": 1}
    await db.close()


async def test_of_a_contradiction_there_is_one_case(coordinator_database: str) -> None:
    """Found and handed in again it has another time; closed it stays."""
    told = json.loads(VECTORS.read_text())["contradiction"]
    db = Database(coordinator_database)
    desk = Desk("coordinator.example", db, SystemClock().now, lambda: DIRECTORY)
    said = json.loads(told)
    swapped = {**said, "held": said["offered"], "offered": said["held"]}
    for body in (said, said, {**said, "seen_at": "2026-11-22T12:00:01.000Z"}, swapped):
        await desk.take_equivocation(NL, json.dumps(body).encode())
    (case,) = await desk.cases(undecided=True, limit=10)
    await desk.close(case["id"])
    await desk.take_equivocation(NL, json.dumps(said).encode())
    assert await desk.open_cases() == {}
    await db.close()


def statement(number: int) -> bytes:
    return json.dumps({**STATEMENT, "dispute": f"0193a5f0-0000-7000-8000-00000000000{number}"}).encode()


async def test_the_desk_itself_asks_nobody_and_nothing_is_taken_for_another_desk(world: World) -> None:
    assert world.desk is not None
    listed = directory(world)
    assert listed.desk is not None
    async with make_session(timeout_s=10) as session:

        def gateway(key: int) -> DeskGateway:
            keys = (world.nodes[0].keys.http, world.desk.keys.http) if world.desk else ()
            client = PeerClient(session, lambda: keys[key], SystemClock(), window_s=300)
            return DeskGateway(PeerGateway(client, SystemClock(), lambda: listed, world.nodes[0].id))

        member, desk = gateway(0), gateway(1)
        found = await member.dispute(listed.desk, b"{}")
        assert found is not None
        assert found.code == "schema-invalid"
        found = await desk.dispute(listed.desk, b"{}")
        assert found is not None
        assert found.code == "unknown-key"


async def test_a_contradiction_is_the_receivers_to_hand_in_and_not_of_the_future() -> None:
    told = json.loads(VECTORS.read_text())["contradiction"].encode()
    before = datetime(2020, 1, 1, tzinfo=UTC)
    desk = Desk("coordinator.example", Database("postgresql://127.0.0.1:1/none"), lambda: before, lambda: DIRECTORY)
    for caller, field in ((FR, "held"), (NL, "seen_at")):
        with pytest.raises(ProtocolError) as caught:
            await desk.take_equivocation(caller, told)
        assert caught.value.field == field


async def test_a_case_that_a_newer_version_took_is_read_and_decided(coordinator_database: str) -> None:
    db = Database(coordinator_database)
    desk = Desk(DESK, db, lambda: NOW, network)
    case = UUID(DISPUTE)
    body = json.dumps({**STATEMENT, "later": 1}).encode()
    async with db.transaction("test.newer") as tx:
        await cases.take(tx, case, cases.DISPUTE, NL, body, NOW)
    assert await desk.ruling(FR, case) == Found(held=True)
    await desk.decide(case, FR, "FR", lambda _: KEYS)
    assert (await desk.ruling(NL, case)).ruling is not None
    await db.close()


async def test_while_nothing_is_published_no_version_is_named(authority: Authority) -> None:
    url = f"{authority.settings.base_url}/peer/v1/disputes"
    async with coordinating(authority), aiohttp.ClientSession() as session, session.post(url, json={}) as answer:
        assert answer.status == 400
        assert "hx-directory" not in answer.headers


async def test_the_desk_keeps_every_rule_that_the_conformance_client_knows(made: World) -> None:
    world = made
    assert world.desk is not None
    tester = world.folder / "tester"
    raw = create_member(tester, node_id="tester.test", base_url=None, contact="desk", now=datetime.now(UTC))
    world.nodes.append(TestNode(world.nodes[0].settings, Member.load(tester).keys, json.loads(raw)))
    world.sign_directory()
    await world.tell_desk()
    listed = directory(world)
    assert listed.desk is not None
    options = Options(world.desk.settings.base_url, listed.desk, None, 20.0, None)
    async with (
        running(world.desk.settings, clock=SystemClock(), log=make_logger("error", "json")),
        open_run(options, Member.load(tester), listed, SystemClock()) as run,
    ):
        found = [one async for one in results(run, CHECKS_OF_DESK, destructive=False)]
    assert [(one.check.name, one.sentence) for one in found if one.verdict is not Verdict.OK] == []
    db = Database(world.desk.settings.database_url)
    assert await Desk(world.desk.id, db, SystemClock().now, lambda: listed).open_cases() == {}
    await db.close()
