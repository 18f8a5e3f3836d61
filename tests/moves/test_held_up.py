"""The only hotline of a country is suspended or away for a while: what is for it waits, and is delivered in the end."""

from datetime import timedelta

import pytest

from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from tests.hotline.network import ILLEGAL, Station, station
from tests.moves.chain import accounted_for, arrived, custodians, knows, move, reported
from tests.moves.test_out_of_reach import listed, told
from tests.world import ADDRESS, TestNode, World

_KINDS = "SELECT string_agg(o.type, ' ' ORDER BY o.idx) FROM outbox o JOIN outbound_streams s ON s.id = o.stream "


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.hotline.jobs._FALLBACK_S", 1)


async def looked(at: Station) -> None:
    """Let a node look once for what it has to take back, as it does every minute and with each new directory."""
    jobs = Jobs(at.node, Rounds(at.node))
    jobs._asking_since_s = at.node.clock.monotonic() - at.node.settings.backoff_cap_s - 1
    await jobs._fallback()


async def written(at: Station, to: TestNode) -> str:
    """Return the types of the records that a node wrote to another."""
    return str(await at.value(_KINDS + "WHERE s.peer = $1 AND o.type IN ('report', 'withdrawal', 'transfer')", to.id))


async def test_a_report_to_the_only_hotline_waits_while_that_is_suspended(world: World) -> None:
    fr_node, nl_node, _, _ = world.nodes
    await world.create_field_keys()
    async with station(fr_node) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        await listed(world, nl_node, "suspended", fr)
        await looked(fr)
        assert (await fr.item(item))["state"] == "sent"
        assert await written(fr, nl_node) == "report"
        (said,) = await told(fr, nl_node.id)
        assert said.startswith(f"1 records wait for {nl_node.id}, which is suspended, the oldest since ")
        # Another one has nobody to go to, and waits here until the directory changes.
        other = (await fr.report(f"http://{ADDRESS['NL']}/other", qualification=ILLEGAL)).items[0].id
        await fr.until(other, "undeliverable")
        await listed(world, nl_node, "active", fr)
        async with station(nl_node) as nl:
            await arrived(nl, item, "assigned")
            await arrived(nl, other, "assigned")
            assert await custodians([fr, nl], item) == ["NL"]
            await accounted_for([fr, nl])
        assert await told(fr, nl_node.id) == []


async def test_a_report_to_the_only_hotline_is_delivered_after_its_time(world: World) -> None:
    fr_node, nl_node, _, _ = world.nodes
    await world.create_field_keys()
    month_s = timedelta(days=31).total_seconds()
    async with station(fr_node) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        assert await told(fr, nl_node.id) == []
        fr.clock.ahead_s = month_s
        await fr.node.membership.refresh()
        await looked(fr)
        assert (await fr.item(item))["state"] == "sent"
        assert await written(fr, nl_node) == "report"
        (said,) = await told(fr, nl_node.id)
        assert said.startswith(f"1 records wait for {nl_node.id}, the oldest since ")
        async with station(nl_node) as nl:
            nl.clock.ahead_s = month_s
            await nl.node.membership.refresh()
            await arrived(nl, item, "assigned")
            assert await nl.value("SELECT count(*) FROM inbox_refusals") == 0
            assert await custodians([fr, nl], item) == ["NL"]


async def test_an_item_handed_on_to_the_only_hotline_waits_while_that_is_suspended(world: World) -> None:
    fr_node, nl_node, de_node, _ = world.nodes
    await world.create_field_keys()
    async with station(fr_node) as fr, station(nl_node) as nl:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "leaving")
        await listed(world, de_node, "suspended", fr, nl)
        await looked(nl)
        assert (await nl.item(item))["state"] == "leaving"
        assert await custodians([fr, nl], item) == ["NL"]
        await listed(world, de_node, "active", fr, nl)
        async with station(de_node) as de:
            await arrived(de, item, "assigned")
            await knows(fr, item, "FR", "NL", "DE")
            assert await custodians([fr, nl, de], item) == ["DE"]


async def test_what_waits_for_a_suspended_hotline_goes_as_soon_as_another_is_competent(world: World) -> None:
    fr_node, nl_node, _, us_node = world.nodes
    await world.create_field_keys()
    async with station(fr_node) as fr, station(us_node) as us:
        items = [
            (await fr.report(f"http://{ADDRESS['NL']}/{page}", qualification=ILLEGAL)).items[0].id for page in range(60)
        ]
        for item in items:
            await fr.until(item, "sent")
        await listed(world, nl_node, "suspended", fr, us)
        await looked(fr)
        assert await written(fr, nl_node) == " ".join(["report"] * 60)
        world.mandated.append(us_node.id)
        await listed(world, nl_node, "suspended", us, fr)
        await looked(fr)
        for item in items:
            await arrived(us, item, "assigned")
            assert (await fr.item(item))["assigned_node"] == us_node.id
        assert await written(fr, nl_node) == " ".join(["report"] * 60 + ["withdrawal"] * 60)
