"""Two hotlines that each say "it is the other's": no ping-pong, but the desk, whose signed word both follow."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from node.clock import SystemClock
from node.coordinator import cases
from node.coordinator.cases import DISPUTE
from node.coordinator.cli.desk import decide
from node.coordinator.publisher import Publisher
from node.coordinator.serve import running
from node.errors import OperatorError
from node.hotline.domain.assessment import Assessment
from node.hotline.flows.transfer.disputes import Disputer
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.hotline.store.status import read_status
from node.platform.telemetry import make_logger
from node.platform.trust import Freshness
from protocol.codes import Classification
from protocol.desk import open_ruling
from protocol.directory import Directory
from protocol.note import Note, NoteSignature, parse_note
from tests.hotline.network import Station, eventually, station
from tests.moves.chain import arrived, custodians, knows, move, reported, way
from tests.peers.simulator import PeerSimulator
from tests.world import ADDRESS, RANGES, World


def another_opinion(folder: Path, ranges: dict[str, str]) -> Path:
    """Write a country file that knows better."""
    path = folder / "other.mmdb"
    writer: Any = MMDBWriter(6, "Other-Country", languages=["en"], ipv4_compatible=True)
    for country, network in ranges.items():
        writer.insert_network(IPSet([network]), {"country": {"iso_code": country}})
    writer.to_db_file(str(path))
    return path


@asynccontextmanager
async def desk_of(world: World) -> AsyncIterator[Publisher]:
    """Run the coordinator, whose desk is the network's."""
    assert world.desk is not None
    log = make_logger("error", "json")
    async with running(world.desk.settings, clock=SystemClock(), log=log) as (publisher, _, _):
        yield publisher


async def case_at(desk: Publisher) -> Any:
    """Wait until the desk has a dispute, and return it."""
    found: list[Any] = []

    async def there() -> bool:
        async with desk.db.transaction("test.cases") as tx:
            found[:] = [row for row in await cases.cases(tx, undecided=True, limit=10) if row["kind"] == DISPUTE]
        return bool(found)

    await eventually(there)
    (row,) = found
    return row


async def decided(world: World, case: UUID, custodian: str, country: str) -> None:
    """Decide as `hotline desk decide` does."""
    assert world.desk is not None
    await decide(world.desk.settings, SystemClock(), case, custodian, country)


@pytest.fixture
async def disputing(world: World, coordinator_database: str) -> World:
    """A world with a coordinator; the Dutch node believes that Dutch addresses are German."""
    world.add_desk(coordinator_database)
    world.sign_directory()
    await world.tell_desk()
    nl = world.nodes[1]
    path = another_opinion(world.folder, {"DE": RANGES["NL"]})
    nl.settings = replace(nl.settings, geo_country_databases=(path,), desk_poll_s=0.1)
    return world


@pytest.fixture
async def world_with_desk(world: World, coordinator_database: str) -> World:
    """A world with a coordinator, whose desk everybody asks often."""
    world.add_desk(coordinator_database)
    world.sign_directory()
    await world.tell_desk()
    for node in world.nodes:
        node.settings = replace(node.settings, desk_poll_s=0.1)
    await world.create_field_keys()
    return world


async def test_nobody_calls_the_desk_while_the_directory_has_expired(
    disputing: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nl_node = disputing.nodes[1]
    await disputing.create_field_keys([nl_node])
    calls: list[int] = []

    async def run_once(_self: Disputer, directory: Directory) -> int:
        calls.append(directory.version)
        return 0

    monkeypatch.setattr(Disputer, "run_once", run_once)
    async with station(nl_node) as nl:
        jobs = Jobs(nl.node, Rounds(nl.node))
        with monkeypatch.context() as expired:
            expired.setattr(nl.node.membership, "freshness", lambda: Freshness.EXPIRED)
            calls.clear()
            await jobs._desk()
            assert calls == []

        async def called() -> bool:
            return bool(calls)

        await eventually(called)


async def test_a_directory_that_expires_during_a_call_ends_what_the_desk_is_asked(disputing: World) -> None:
    world = disputing
    await world.create_field_keys()
    fr_node, nl_node, *_ = world.nodes
    nl_node.settings = replace(nl_node.settings, desk_poll_s=86_400.0)
    calls: list[str] = []

    async def dispute(_desk: object, _statement: bytes) -> None:
        calls.append("dispute")

    async def ruling(_desk: object, _dispute: UUID) -> None:
        calls.append("ruling")

    async with station(fr_node) as fr, station(nl_node) as nl:
        item = await reported(fr, nl, "NL")
        await move(nl, item)
        await arrived(nl, item, "disputed")
        async with nl.node.db.transaction("test.again") as tx:
            await tx.execute("UPDATE disputes SET handed_in_to = NULL")
        disputer = replace(nl.node.moving.disputer, dispute=dispute, ruling=ruling, may_call=lambda: not calls)
        await disputer.run_once(nl.node.directory())
        assert calls == ["dispute"]
        await disputer.run_once(nl.node.directory())
        assert calls == ["dispute"]
        await replace(disputer, may_call=lambda: True).run_once(nl.node.directory())
        assert calls == ["dispute", "ruling"]


async def test_two_databases_that_disagree_are_for_the_desk(disputing: World) -> None:
    world = disputing
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, desk_of(world) as desk:
        item = await reported(fr, nl, "NL")
        await move(nl, item)
        await arrived(nl, item, "disputed")
        case = await case_at(desk)
        statement = json.loads(case["body"])
        assert (statement["holder"], statement["other"]) == (nl_node.id, de_node.id)
        assert statement["code"] == "same-evidence"
        assert [one["country"] for one in statement["trail"]] == ["NL", "DE"]
        assert len({one["evidence"] for one in statement["trail"]}) == 1
        assert [one["type"] for one in statement["databases"]] == ["Other-Country"]
        assert ADDRESS["NL"].encode() not in case["body"]
        assert b"http" not in case["body"]
        assert await nl.value("SELECT count(*) FROM outbox WHERE type = 'transfer'") == 0

        async def told() -> bool:
            return bool((await fr.item(item))["reason"] == "disputed")

        await eventually(told)
        await decided(world, case["id"], de_node.id, "DE")
        await arrived(de, item, "assigned")
        await arrived(nl, item, "transferred")
        await knows(fr, item, "FR", "NL", "DE")
        assert await custodians([fr, nl, de], item) == ["DE"]
        ruling = open_ruling(await nl.value("SELECT ruling FROM disputes"), nl.node.directory())
        assert (ruling.item, ruling.custodian, ruling.country) == (str(item), de_node.id, "DE")
        with pytest.raises(OperatorError, match="for ever"):
            await decided(world, case["id"], nl_node.id, "NL")


async def test_the_desk_may_leave_the_item_where_it_is(disputing: World) -> None:
    world = disputing
    await world.create_field_keys()
    fr_node, nl_node, _, us_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl:
        item = await reported(fr, nl, "NL")
        await move(nl, item)
        await arrived(nl, item, "disputed")
        # The desk is away at first: the dispute stays open, and is handed in when it is back.
        async with desk_of(world) as desk:
            await case_at(desk)
            # As after a restore from a backup of before: the holder hears that it is not held, and hands it in again.
            async with desk.db.transaction("test.restore") as tx:
                await tx.execute("DELETE FROM desk_cases")
            case = await case_at(desk)
            with pytest.raises(OperatorError, match="nothing to do"):
                await decided(world, case["id"], us_node.id, "US")
            await decided(world, case["id"], nl_node.id, "NL")
            await arrived(nl, item, "assigned")
        assert await way(nl, item) == []
        assert (await nl.item(item))["hosting_country"] == "NL"
        await move(nl, item, country="NL")

        async def looked_at() -> bool:
            return bool((await nl.item(item))["reason"] == "not-moved")

        await eventually(looked_at)


async def gone_round(fr: Station, nl: Station, de: Station) -> UUID:
    """Let an item go by people's words from the second node to the third and back."""
    item = await reported(fr, nl, "NL")
    for holder, to, country in ((nl, de, "DE"), (de, nl, "NL")):
        await move(holder, item, country=country)
        await arrived(to, item, "assigned")
        await arrived(holder, item, "transferred")
    return item


async def contested(fr: Station, nl: Station, de: Station) -> UUID:
    """Let an item go round until it is disputed at the second node, as the other two have heard."""
    item = await gone_round(fr, nl, de)
    await move(nl, item, country="DE")
    await arrived(nl, item, "disputed")
    for one in (fr, de):
        await marked(one, item, "disputed")
    return item


async def marked(at: Station, item: UUID, mark: str | None) -> None:
    """Wait until an item has this reason, or none, at a node."""

    async def there() -> bool:
        return bool((await at.item(item))["reason"] == mark)

    await eventually(there)


@pytest.mark.parametrize("custodian", ["NL", "DE", "FR"])
async def test_everybody_who_heard_of_a_dispute_hears_that_it_is_over(world_with_desk: World, custodian: str) -> None:
    """It stays, goes back to who gave it, or to its reporter; who had it on its way waits for nothing either."""
    world = world_with_desk
    fr_node, nl_node, de_node, _ = world.nodes
    nodes = {"FR": fr_node, "NL": nl_node, "DE": de_node}
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, desk_of(world) as desk:
        item = await contested(fr, nl, de)
        case = await case_at(desk)
        await decided(world, case["id"], nodes[custodian].id, custodian)
        stations = {"FR": fr, "NL": nl, "DE": de}
        await arrived(stations[custodian], item, "assigned", "kept")
        for country in nodes.keys() - {custodian, "NL"}:
            await marked(stations[country], item, None)
        assert await custodians([fr, nl, de], item) == [custodian]
        for one in (fr, nl, de):
            assert await one.value("SELECT count(*) FROM inbox_refusals") == 0


async def test_who_heard_of_a_dispute_hears_that_it_is_over_though_it_was_closed_before(world_with_desk: World) -> None:
    """The holder finds the item not illegal, and the desk rules all the same."""
    world = world_with_desk
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, desk_of(world) as desk:
        item = await contested(fr, nl, de)
        case = await case_at(desk)
        now = nl.clock.now()
        await nl.node.store.assessor().assess(item, Assessment(Classification.NOT_ILLEGAL, now))
        await arrived(fr, item, "declined")
        await decided(world, case["id"], de_node.id, "DE")
        await marked(de, item, None)
        assert (await nl.item(item))["state"] == "closed"
        assert await custodians([fr, nl, de], item) == ["NL"]


async def test_an_item_that_stays_by_a_ruling_is_no_orphan(world_with_desk: World) -> None:
    """It counts as hosted where another hotline is competent, and goes on only when it is found elsewhere anew."""
    world = world_with_desk
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, desk_of(world) as desk:
        item = await contested(fr, nl, de)
        await decided(world, (await case_at(desk))["id"], nl_node.id, "US")
        await arrived(nl, item, "assigned")
        given = await nl.value("SELECT count(*) FROM outbox WHERE type = 'transfer'")
        await nl.node.moving.orphans.run(nl.node.directory())
        assert (await nl.item(item))["state"] == "assigned"
        assert await nl.value("SELECT count(*) FROM disputes") == 1
        assert await nl.value("SELECT count(*) FROM outbox WHERE type = 'transfer'") == given
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")


async def test_an_item_that_comes_by_a_ruling_is_no_orphan(world_with_desk: World) -> None:
    world = world_with_desk
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, desk_of(world) as desk:
        item = await contested(fr, nl, de)
        await decided(world, (await case_at(desk))["id"], de_node.id, "US")
        await arrived(de, item, "assigned")
        await de.node.moving.orphans.run(de.node.directory())
        assert (await de.item(item))["state"] == "assigned"
        assert await de.value("SELECT count(*) FROM disputes") == 0


async def test_what_was_found_elsewhere_on_known_evidence_is_disputed_when_that_hotline_is_back(
    world_with_desk: World,
) -> None:
    """While it was away the item stayed; given to it on evidence of the chain, it would be refused."""
    world = world_with_desk
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, desk_of(world) as desk:

        async def listed(state: str) -> None:
            de_node.entry["state"] = state
            world.sign_directory()
            for one in (fr, nl, de):
                await one.node.membership.refresh()

        item = await gone_round(fr, nl, de)
        await listed("suspended")
        await move(nl, item, country="DE")

        async def found() -> bool:
            return bool((await nl.item(item))["hosting_country"] == "DE")

        await eventually(found)
        assert (await nl.item(item))["state"] == "assigned"
        await listed("active")
        await nl.node.moving.orphans.run(nl.node.directory())
        await arrived(nl, item, "disputed")
        assert await custodians([fr, nl, de], item) == ["NL"]
        assert (await case_at(desk))["id"]


async def test_a_contradiction_is_handed_in_at_the_desk_that_there_is(disputing: World) -> None:
    world = disputing
    await world.create_field_keys()
    fr_node, nl_node, *_ = world.nodes
    nl_node.settings = replace(nl_node.settings, desk_poll_s=86_400.0)
    async with station(nl_node) as nl, desk_of(world) as desk, aiohttp.ClientSession() as session:
        peer = PeerSimulator(fr_node, nl_node, session)
        await peer.deliver(2)
        story = peer.batch(1, first=0, history=[])
        assert (await peer.put(story)).problem["code"] == "equivocation"

        async def handed_in(*changes: str) -> int:
            """Change what the hotline notes, let the desk lose its cases, and return how many it has after a round."""
            for change in changes:
                async with nl.node.db.transaction("test.change") as tx:
                    await tx.execute(change)
            async with desk.db.transaction("test.restore") as tx:
                await tx.execute("DELETE FROM desk_cases")
            await disputer.run_once(nl.node.directory())
            async with desk.db.transaction("test.cases") as tx:
                return len(await cases.cases(tx, undecided=True, limit=10))

        told: list[Any] = []
        log: Any = SimpleNamespace(error=lambda *_said, **how: told.append((how["action"], how["alarm"], how["code"])))
        disputer = replace(nl.node.moving.disputer, log=log)
        assert await handed_in() == 1
        assert await handed_in() == 0
        # The directory named another desk then; a desk that was restored is told again within a day.
        assert await handed_in("UPDATE equivocations SET handed_in_to = 'elsewhere.example'") == 1
        assert await handed_in("UPDATE equivocations SET handed_in_at = handed_in_at - interval '25 hours'") == 1
        assert told == []
        # What the desk refuses for good is an alarm, once, and stays visible until the desk takes it.
        shown = {"kind": "equivocation", "code": "schema-invalid", "cases": 1}
        spoil = "UPDATE equivocations SET handed_in_to = NULL, seen_at = seen_at + interval '1 hour'"
        assert await handed_in(spoil) == 0
        assert await handed_in() == 0
        assert told == [("desk.refused", True, "schema-invalid")]
        async with nl.node.db.transaction("test.status") as tx:
            assert (await read_status(tx, nl.clock.now()))["desk_refusals"] == [shown]
        assert await handed_in("UPDATE equivocations SET seen_at = seen_at - interval '1 hour'") == 1
        async with nl.node.db.transaction("test.status") as tx:
            assert (await read_status(tx, nl.clock.now()))["desk_refusals"] == []


async def test_a_contradiction_with_lines_in_the_senders_name_fits_the_desk_all_the_same(disputing: World) -> None:
    """Anybody can add lines to a signed note, the sender's own name on them; only those of its keys are handed in."""
    await disputing.create_field_keys()
    fr_node, nl_node, *_ = disputing.nodes
    nl_node.settings = replace(nl_node.settings, desk_poll_s=86_400.0)
    async with station(nl_node) as nl, desk_of(disputing) as desk, aiohttp.ClientSession() as session:
        peer = PeerSimulator(fr_node, nl_node, session)
        await peer.deliver(2)
        assert (await peer.put(peer.batch(1, first=0, history=[]))).problem["code"] == "equivocation"
        async with nl.node.db.transaction("test.pad") as tx:
            note = parse_note(await tx.value("SELECT offered FROM equivocations"))
            junk = [NoteSignature(peer.stream.origin(), b"abc%d" % n, b"x" * 8000) for n in range(6)]
            await tx.execute(
                "UPDATE equivocations SET offered = $1, handed_in_at = NULL, handed_in_to = NULL",
                Note(note.text, (*note.signatures, *junk)).to_bytes(),
            )
        async with desk.db.transaction("test.restore") as tx:
            await tx.execute("DELETE FROM desk_cases")
        await nl.node.moving.disputer.run_once(nl.node.directory())
        async with desk.db.transaction("test.cases") as tx:
            (case,) = await cases.cases(tx, undecided=True, limit=10)
        assert parse_note(json.loads(case["body"])["offered"].encode()) == note


async def test_an_item_that_has_made_all_its_hops_stays_and_is_for_the_desk(
    world: World, coordinator_database: str
) -> None:
    """Five transfers, each on evidence of its own; the sixth is not sent, whatever the evidence."""
    world.add_desk(coordinator_database)
    world.sign_directory()
    await world.tell_desk()
    de_node = world.nodes[2]
    de_node.settings = replace(de_node.settings, desk_poll_s=0.1)
    await world.create_field_keys()
    fr_node, nl_node, _, us_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, desk_of(world) as desk:
        item = await reported(fr, nl, "NL")
        holder = nl
        for number, (to, country) in enumerate(((de, "DE"), (nl, "NL"), (de, "DE"), (nl, "NL"), (de, "DE"))):
            await move(holder, item, ip=ADDRESS[country].rsplit(".", 1)[0] + f".{20 + number}")
            await arrived(to, item, "assigned")
            await arrived(holder, item, "transferred")
            holder = to
        assert await way(de, item) == ["FR", *("NL", "DE") * 3]
        sent = "SELECT count(*) FROM outbox WHERE type = 'transfer'"
        before = await de.value(sent)
        await move(de, item, ip=ADDRESS["US"])
        await arrived(de, item, "disputed")
        assert (await de.item(item))["reason"] == "too-many-hops"
        assert await de.value(sent) == before == 2
        assert await custodians([fr, nl, de], item) == ["DE"]
        case = await case_at(desk)
        statement = json.loads(case["body"])
        assert (statement["code"], statement["holder"], statement["other"]) == ("too-many-hops", de_node.id, us_node.id)
        assert [one["node"][:2] for one in statement["trail"]] == ["fr", *("nl", "de") * 3]

        async def told() -> bool:
            return bool((await fr.item(item))["reason"] == "disputed")

        await eventually(told)
        # The desk cannot make a sixth hop either: the item stays, and is worked on where it is.
        with pytest.raises(OperatorError, match="after 5 transfers the item stays with its holder"):
            await decided(world, case["id"], us_node.id, "US")
        await decided(world, case["id"], de_node.id, "US")
        await arrived(de, item, "assigned")
        assert await de.value(sent) == before
        for one in (fr, nl, de):
            assert await one.value("SELECT count(*) FROM inbox_refusals") == 0
