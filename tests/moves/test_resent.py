"""A report that crosses a change of the directory: whoever hears of it first, the item arrives, and a person hears."""

import io
import json

import pytest

from node.hotline.store.items import queue_depths
from node.platform.membership import Membership
from node.platform.telemetry import make_logger
from tests.hotline.network import ILLEGAL, Station, eventually, heard_of, station
from tests.moves.chain import accounted_for, arrived, custodians
from tests.world import ADDRESS, TestNode, World

URL = f"http://{ADDRESS['US']}/page"


@pytest.fixture
def heard_late(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Nobody is competent for the United States but by mandate; a node hears of a directory when the test says so."""

    async def not_looked(_: Membership) -> bool:
        return False

    monkeypatch.setattr(Membership, "refresh_if_due", not_looked)
    monkeypatch.setattr("node.hotline.jobs._ORPHANS_S", 1)
    del world.nodes[3]
    world.sign_directory()
    return world


def mandate(world: World, *nodes: TestNode) -> int:
    """Sign a directory in which these hotlines alone are mandated; returns its version."""
    world.mandated[:] = [node.id for node in nodes]
    world.sign_directory()
    return world.version


def later(minutes: int, *stations: Station) -> None:
    """Let so many minutes pass at all of these nodes."""
    for one in stations:
        one.clock.ahead_s += minutes * 60.0


async def refused_by(at: Station, peer: TestNode, times: int) -> None:
    """Wait until a peer has refused so many reports of a node."""

    async def there() -> bool:
        said = "SELECT count(*) = $2 FROM outbox_refusals r JOIN outbound_streams s ON s.id = r.stream "
        return bool(await at.value(said + "WHERE s.peer = $1 AND r.code = 'not-competent'", peer.id, times))

    await eventually(there, limit_s=30)


async def refused(at: Station) -> int:
    """Return how many refused items wait for a person at a node."""
    async with at.node.db.transaction("test.read") as tx:
        return (await queue_depths(tx))["refused"]


async def test_a_mandate_of_which_the_sender_hears_first(heard_late: World) -> None:
    world = heard_late
    fr_node, nl_node, _ = world.nodes
    await world.create_field_keys()
    async with station(fr_node) as fr, station(nl_node) as nl:
        version = mandate(world, nl_node)
        await heard_of(fr.node, version)
        item = (await fr.report(URL, qualification=ILLEGAL)).items[0].id
        assert (await fr.until(item, "refused"))["reason"] == "not-competent"
        await heard_of(nl.node, version)
        assert await refused(fr) == 0
        later(2, fr, nl)
        await arrived(nl, item, "assigned")
        row = await fr.item(item)
        assert (row["state"], row["assigned_node"], row["reason"]) == ("sent", nl_node.id, "mandated")
        assert await custodians([fr, nl], item) == ["NL"]
        # One record was refused and one was taken, of one item.
        kinds = "SELECT string_agg(type, ' ' ORDER BY idx) FROM outbox WHERE item_id = $1"
        assert await fr.value(kinds, item) == "report report"
        await accounted_for([fr, nl])


async def test_the_end_of_a_mandate_of_which_the_receiver_hears_first(heard_late: World) -> None:
    world = heard_late
    fr_node, nl_node, de_node = world.nodes
    await world.create_field_keys()
    mandate(world, nl_node)
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        version = mandate(world, de_node)
        for one in (nl, de):
            await heard_of(one.node, version)
        item = (await fr.report(URL, qualification=ILLEGAL)).items[0].id
        assert (await fr.until(item, "refused"))["assigned_node"] == nl_node.id
        # It waits for no minute: the directory says that it is another's.
        await heard_of(fr.node, version)
        await arrived(de, item, "assigned")
        assert (await fr.item(item))["assigned_node"] == de_node.id
        assert await custodians([fr, nl, de], item) == ["DE"]
        await accounted_for([fr, nl, de])


async def test_what_nobody_is_competent_for_any_more_waits_for_the_directory(heard_late: World) -> None:
    world = heard_late
    fr_node, nl_node, _ = world.nodes
    await world.create_field_keys()
    mandate(world, nl_node)
    async with station(fr_node) as fr, station(nl_node) as nl:
        version = mandate(world)
        await heard_of(nl.node, version)
        item = (await fr.report(URL, qualification=ILLEGAL)).items[0].id
        await fr.until(item, "refused")
        await heard_of(fr.node, version)
        assert (await fr.until(item, "undeliverable", limit_s=30))["reason"] == "no-competent-hotline"


async def test_what_is_refused_five_times_is_a_persons_until_the_directory_changes(heard_late: World) -> None:
    world = heard_late
    fr_node, nl_node, _ = world.nodes
    await world.create_field_keys()
    lines = io.StringIO()
    async with station(fr_node, log=make_logger("error", "json", lines)) as fr, station(nl_node) as nl:
        version = mandate(world, nl_node)
        await heard_of(fr.node, version)
        item = (await fr.report(URL, qualification=ILLEGAL)).items[0].id
        for times, wait_min in enumerate((1, 4, 16, 64), start=1):
            await refused_by(fr, nl_node, times)
            later(wait_min, fr, nl)
        await refused_by(fr, nl_node, 5)

        async def is_told() -> bool:
            return await refused(fr) == 1

        await eventually(is_told)
        row = await fr.item(item)
        assert (row["state"], row["reason"]) == ("refused", "refused-too-often")
        (line,) = [json.loads(line) for line in lines.getvalue().splitlines() if "move.not-taken" in line]
        assert (line["item"], line["peer"], line["code"]) == (str(item), nl_node.id, "not-competent")
        later(24 * 60, fr, nl)
        world.sign_directory()
        for one in (nl, fr):
            await heard_of(one.node, world.version)
        await arrived(nl, item, "assigned")
        assert await refused(fr) == 0
