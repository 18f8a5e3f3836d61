"""`kill -9` at each durable step of a dispute, of the fallback and of what goes again or home: done once, by one."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from protocol.codes import NodeState
from tests.faults.conftest import make_world
from tests.faults.feed import Feed
from tests.faults.orders import both_sides
from tests.faults.station import Station, until
from tests.world import World

Four = tuple[World, Station, Station, Station, Station]


@pytest.fixture
def four_countries(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """The files and databases of France, the Netherlands, Germany and the United States."""
    return make_world(tmp_path, new_database, ("FR", "NL", "DE", "US"))


@pytest.fixture
async def four(four_countries: World) -> AsyncIterator[Four]:
    """The four nodes, not started."""
    world = four_countries
    for node in world.nodes:
        node.settings = replace(node.settings, desk_poll_s=0.1)
    world.sign_directory()
    await world.create_field_keys()
    async with aiohttp.ClientSession() as session:
        stations = [await Station.prepare(node, session) for node in world.nodes]
        try:
            yield (world, stations[0], stations[1], stations[2], stations[3])
        finally:
            for one in stations:
                await one.end()


async def _count(at: Station, query: str, count: int) -> None:
    async def there() -> bool:
        return await at.count(query) == count

    await until(there, f"{query}: {count}\n{at.tail()}")


def _in(*states: str) -> str:
    names = ", ".join(f"'{state}'" for state in states)
    return f"SELECT count(*) FROM items WHERE state IN ({names})"  # noqa: S608 - ours


async def _reported(fr: Station, to: Station, country: str, count: int) -> list[str]:
    feed = Feed(fr, country=country)
    await to.start()
    await to.serving()
    await fr.start()
    await fr.serving()
    await feed.hand_in(count)
    await _count(to, _in("assigned"), count)
    return sorted(feed.acknowledged.values())


async def _move(at: Station, item: str, country: str) -> None:
    url, headers = f"{at.api}/api/v1/items/{item}/move", {"Authorization": f"Bearer {at.key}"}
    async with at.session.post(url, json={"country": country}, headers=headers) as answer:
        assert answer.status == 202, await answer.text()


@pytest.fixture
async def desk(four: Four, coordinator_database: str) -> AsyncIterator[Station]:
    """The coordinator, not started, whose desk the directory names."""
    world, fr, *_ = four
    made = Station.watch(world.add_desk(coordinator_database), fr.session)
    world.sign_directory()
    await world.tell_desk()
    try:
        yield made
    finally:
        await made.end()


async def test_a_dispute_is_handed_in_decided_and_followed_once(four: Four, desk: Station) -> None:
    """The item comes back on a person's word that the chain has heard before: that is for the desk."""
    _, fr, nl, de, _ = four
    (item,) = await _reported(fr, nl, "NL", 1)
    await de.start()
    await de.serving()
    for giver, taker, country in ((nl, de, "DE"), (de, nl, "NL")):
        await _move(giver, item, country)
        await _count(taker, _in("assigned"), 1)
        await _count(giver, _in("transferred"), 1)
    await _move(nl, item, "DE")
    await _count(nl, _in("disputed"), 1)
    for worker in nl.workers:
        await worker.kill()
    for order in both_sides("desk.take"):
        dying = await desk.start(kill=order)
        await desk.serving()
        worker = await nl.start()
        await desk.struck(dying)
        await worker.kill()
    await desk.start()
    await desk.serving()
    await nl.struck(await nl.start(kill=both_sides("dispute.handed")[0]))
    await _count(desk, "SELECT count(*) FROM desk_cases", 1)
    await _decide(desk, de.id)
    for order in (both_sides("dispute.handed")[1], *both_sides("dispute.follow")):
        await nl.struck(await nl.start(kill=order))
    await nl.start()
    await _count(de, _in("assigned"), 1)
    await _count(nl, _in("transferred"), 1)
    assert await nl.count("SELECT count(*) FROM outbox WHERE type = 'transfer'") == 2
    assert await nl.count("SELECT count(*) FROM disputes WHERE followed_at IS NOT NULL") == 1


async def _decide(desk: Station, custodian: str) -> None:
    """A command that dies before its commit has decided nothing; one that dies after it has decided for ever."""
    async with desk.db.transaction("test.case") as tx:
        case: UUID = await tx.value("SELECT id FROM desk_cases")
    before, after = both_sides("desk.decide")
    ruled = "SELECT count(*) FROM desk_cases WHERE ruling IS NOT NULL"
    await desk.struck(await desk.start(kill=before, deciding=(case, custodian, "DE")))
    assert await desk.count(ruled) == 0
    await desk.struck(await desk.start(kill=after, deciding=(case, custodian, "DE")))
    assert await desk.count(ruled) == 1
    again = await desk.start(deciding=(case, desk.id, "DE"))
    assert await again.ended() == 2
    assert "decided already, for ever" in desk.tail()


async def test_what_is_not_receipted_goes_another_way_once(four: Four) -> None:
    world, fr, nl, de, us = four
    world.mandated.append(us.id)
    world.sign_directory()
    items = await _reported(fr, nl, "NL", 2)
    for item in items:
        await _move(nl, item, "DE")
    await _count(nl, _in("leaving"), 2)
    for worker in nl.workers:
        await worker.kill()
    world.nodes[2].entry["state"] = NodeState.SUSPENDED
    world.sign_directory()
    await us.start()
    await us.serving()
    for order in both_sides("fallback.store"):
        await nl.struck(await nl.start(kill=order))
    await nl.start()
    await _count(us, _in("assigned"), 2)
    await _count(nl, _in("transferred"), 2)
    assert await nl.count("SELECT count(*) FROM relay_failures") == 2
    assert await nl.count("SELECT count(*) FROM outbox WHERE type = 'withdrawal'") == 2
    assert await nl.count("SELECT count(*) FROM outbox WHERE type = 'transfer'") == 4
    await _count(fr, f"SELECT count(*) FROM custody WHERE holder = '{us.id}'", 2)  # noqa: S608 - ours
    assert await de.count("SELECT count(*) FROM items") == 0


async def test_orphans_go_home_once(four: Four) -> None:
    world, fr, _, de, us = four
    home = world.nodes[2]
    world.nodes.remove(home)
    world.mandated.append(us.id)
    world.sign_directory()
    await _reported(fr, us, "DE", 2)
    for one in (fr, us):
        for worker in one.workers:
            await worker.kill()
    world.nodes.append(home)
    world.sign_directory()
    await fr.start()
    await de.start()
    await de.serving()
    for order in both_sides("orphans.store"):
        await us.struck(await us.start(kill=order))
    await us.start()
    await _count(de, _in("assigned"), 2)
    await _count(us, _in("transferred"), 2)
    assert await us.count("SELECT count(*) FROM outbox WHERE type = 'transfer'") == 2


async def test_a_report_that_was_refused_as_another_hotlines_goes_again_once(four: Four) -> None:
    """It was written for a hotline that has given its country to another one when it comes up."""
    world, fr, nl, de, _ = four
    await fr.start()
    await fr.serving()
    await Feed(fr).hand_in(2)
    await _count(fr, _in("sent"), 2)
    world.nodes[1].entry["countries"] = ["BE"]
    world.nodes[2].entry["countries"] = ["DE", "NL"]
    world.sign_directory()
    await nl.start()
    await _count(fr, "SELECT count(*) FROM outbox_refusals", 2)
    for worker in fr.workers:
        await worker.kill()
    await de.start()
    await de.serving()
    for order in both_sides("resend.store"):
        await fr.struck(await fr.start(kill=order))
    await fr.start()
    await _count(de, _in("assigned"), 2)
    await _count(fr, _in("sent"), 2)
    assert await fr.count("SELECT count(*) FROM outbox WHERE type = 'report'") == 4
    assert await nl.count("SELECT count(*) FROM items") == 0
