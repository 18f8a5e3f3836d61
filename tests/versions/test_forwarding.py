"""What a node does not know it forwards: a transfer holds a report of 1.1 byte for byte, through nodes of 1.0."""

import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from node.hotline.domain.acts import ActionAsked
from protocol.codes import Action
from protocol.steps import TransferBody
from protocol.tlogproof import parse_tlog_proof
from tests.faults import station as processes
from tests.faults.feed import Feed
from tests.hotline.network import ILLEGAL, station
from tests.moves.chain import arrived, move
from tests.moves.test_chain import received
from tests.versions import later
from tests.versions.later import BODY_MEMBER, ENVELOPE_MEMBER
from tests.versions.test_together import sent
from tests.world import ADDRESS, TestNode, World


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """Three nodes; each test says which of them speaks 1.1."""
    made = World(tmp_path, new_database)
    for country in ("FR", "NL", "DE"):
        made.add(country, poll_s=0.05)
    return made


def speak_later(world: World, node: TestNode) -> None:
    """List a node as one of 1.1."""
    node.entry["versions"] = ["1.0", "1.1"]
    world.sign_directory()


async def test_a_transfer_holds_what_the_one_who_makes_it_does_not_know(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node = world.nodes
    speak_later(world, fr_node)
    async with aiohttp.ClientSession() as session, station(nl_node) as nl, station(de_node) as de:
        fr = await processes.Station.prepare(fr_node, session)
        try:
            await fr.start(target=later.run)
            await fr.serving()
            feed = Feed(fr)
            await feed.hand_in(1)
            item = UUID(feed.acknowledged[0])
            await arrived(nl, item, "assigned")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            (report,) = await sent(fr, nl_node.id)
        finally:
            await fr.end()
        transfer = await received(de, item)
        assert isinstance(transfer.body, TransferBody)
        assert parse_tlog_proof(transfer.body.original.encode()).extra == report
        tree = json.loads(report)
        assert tree[ENVELOPE_MEMBER[0]] == ENVELOPE_MEMBER[1]
        assert tree["body"][BODY_MEMBER[0]] == BODY_MEMBER[1]
        assert ENVELOPE_MEMBER[0] not in json.loads(transfer.raw)


async def test_an_item_moves_from_1_0_over_1_1_to_1_0_with_steps_on_the_way(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node = world.nodes
    speak_later(world, nl_node)
    async with aiohttp.ClientSession() as session, station(fr_node) as fr, station(de_node) as de:
        nl = await processes.Station.prepare(nl_node, session)
        try:
            await nl.start(target=later.run)
            await nl.serving()
            item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0].id
            await arrived(fr, item, "sent")
            # A step of 1.1 to a node of 1.0, then a transfer of 1.1 to another.
            await _ask(nl, "PATCH", item, "assessment", {"classification": "national", "age": "infant"})
            await _ask(nl, "POST", item, "move", {"ip": ADDRESS["DE"]})
            await arrived(de, item, "assigned")
            # A step of 1.0 to a node of 1.1, and on.
            await de.node.store.actor().act(item, ActionAsked(Action.REMOVED, de.clock.now()))
            await arrived(fr, item, "done")
            done = "SELECT count(*) FROM items WHERE state = 'done'"
            await processes.until(lambda: nl.count(done), f"{nl.id} hears of what was done")
            said = await sent(nl, fr_node.id)
            assert await nl.count("SELECT count(*) FROM inbox_refusals") == 0
        finally:
            await nl.end()
        types = {tree["type"] for tree in map(json.loads, said) if tree[ENVELOPE_MEMBER[0]] == ENVELOPE_MEMBER[1]}
        assert types >= {"assessment", "outcome"}
        transfer = await received(de, item)
        assert isinstance(transfer.body, TransferBody)
        assert json.loads(transfer.raw)[ENVELOPE_MEMBER[0]] == ENVELOPE_MEMBER[1]
        for one in (fr, de):
            assert await one.value("SELECT count(*) FROM inbox_refusals") == 0


async def _ask(station: processes.Station, method: str, item: UUID, what: str, body: dict[str, str]) -> None:
    """Ask a node for something about an item as soon as it has it."""
    headers = {"Authorization": f"Bearer {station.key}"}

    async def taken() -> bool:
        url = f"{station.api}/api/v1/items/{item}/{what}"
        async with station.session.request(method, url, json=body, headers=headers) as answer:
            assert answer.status in {200, 202, 404, 409}, await answer.text()
            return answer.status in {200, 202}

    await processes.until(taken, f"{station.id} takes {what}")
