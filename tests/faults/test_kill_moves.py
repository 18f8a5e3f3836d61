"""`kill -9` at each durable step of a transfer, at the one who gives and the one who takes: one custodian after it."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from node.hotline.store import outbound
from tests.faults.conftest import make_world
from tests.faults.feed import Feed
from tests.faults.orders import Order, both_sides
from tests.faults.station import Station, until
from tests.world import ADDRESS, World

Three = tuple[Station, Station, Station]


@pytest.fixture
def three_countries(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """The files and databases of France, the Netherlands and Germany."""
    return make_world(tmp_path, new_database, ("FR", "NL", "DE"))


@pytest.fixture
async def three(three_countries: World) -> AsyncIterator[Three]:
    """The three nodes, not started; what still runs at the end is killed."""
    three_countries.sign_directory()
    await three_countries.create_field_keys()
    async with aiohttp.ClientSession() as session:
        fr, nl, de = [await Station.prepare(node, session) for node in three_countries.nodes]
        try:
            yield fr, nl, de
        finally:
            for one in (fr, nl, de):
                await one.end()


async def _arrived(at: Station, count: int, *states: str) -> None:
    names = ", ".join(f"'{state}'" for state in states)

    async def there() -> bool:
        return await at.count(f"SELECT count(*) FROM items WHERE state IN ({names})") == count  # noqa: S608 - ours

    await until(there, f"{count} items are {names} at {at.id}\n{at.tail()}")


async def _ask(at: Station, item: str) -> bool:
    """Ask for a move to Germany; False when the node died meanwhile."""
    url = f"{at.api}/api/v1/items/{item}/move"
    headers = {"Authorization": f"Bearer {at.key}"}
    try:
        async with at.session.post(url, json={"ip": ADDRESS["DE"]}, headers=headers) as answer:
            assert answer.status == 202, await answer.text()
            return True
    except aiohttp.ClientError:
        return False


async def _check(three: Three, items: list[str]) -> None:
    """Each item changed hands once: one transfer, one custodian, and the first reporter knows it."""
    fr, nl, de = three
    count = len(items)
    await _arrived(nl, count, "transferred")
    await _arrived(de, count, "assigned")
    assert await nl.count("SELECT count(*) FROM outbox WHERE type = 'transfer'") == count
    assert await nl.count("SELECT count(DISTINCT item_id) FROM outbox WHERE type = 'transfer'") == count
    told = f"SELECT count(*) FROM custody WHERE holder = '{de.id}' AND jsonb_array_length(trail) = 2"  # noqa: S608

    async def heard() -> bool:
        return await fr.count(told) == count

    await until(heard, f"the first reporter hears of {count} transfers\n{de.tail()}")
    assert await de.count("SELECT count(*) FROM outbox WHERE type = 'status'") == count
    for one in three:
        assert await one.count("SELECT (SELECT count(*) FROM inbox_refusals) + (SELECT count(*) FROM relocations)") == 0
        assert not one.unforeseen()


async def _reported(three: Three, count: int) -> list[str]:
    """Report items in France that are hosted in the Netherlands, and wait until they are there."""
    fr, nl, _ = three
    feed = Feed(fr)
    await fr.start()
    worker = await nl.start()
    await fr.serving()
    await feed.hand_in(count)
    await _arrived(nl, count, "assigned")
    await worker.kill()
    return sorted(feed.acknowledged.values())


async def test_whenever_the_giver_dies_an_item_has_one_custodian(three: Three) -> None:
    _, nl, de = three
    orders = both_sides("move.ask", "move.lease", "move.store", "deliver.receipt")
    items = await _reported(three, len(orders))
    await de.start()
    for item, order in zip(items, orders, strict=True):
        dying = await nl.start(kill=order, lease_s=1.0)
        await nl.serving()
        await _ask(nl, item)
        await nl.struck(dying)
        await _ask_again(nl, item, order)
    await nl.start()
    await _check(three, items)


async def _ask_again(nl: Station, item: str, order: Order) -> None:
    """A caller without an answer asks again; who died before the wish was stored has forgotten it."""
    worker = await nl.start(lease_s=1.0)
    await nl.serving()
    stands = f"SELECT count(*) FROM items WHERE id = '{item}' AND state = 'assigned'"  # noqa: S608 - ours
    wished = await nl.count("SELECT count(*) FROM relocations")
    if order.step == "move.ask" and not wished and await nl.count(stands):
        assert await _ask(nl, item)
    # What this one leaves undone the next would do before it serves, and die of it before it is asked for anything.
    await until(lambda: _told_of(nl, item), f"{nl.id} is done with an item\n{nl.tail()}")
    await worker.kill()


async def _told_of(at: Station, item: str) -> bool:
    """Tell whether the item has gone, and each record about anything has its receipt."""
    gone = f"SELECT count(*) FROM items WHERE id = '{item}' AND state = 'transferred'"  # noqa: S608 - ours
    unreceipted = (
        "SELECT count(*) FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
        "WHERE c.acked_size < s.next_index"
    )
    return await at.count(gone) == 1 and await at.count(unreceipted) == 0


async def test_whenever_the_taker_dies_an_item_has_one_custodian(three: Three) -> None:
    _, nl, de = three
    orders = both_sides("receive.store", "apply.store", "deliver.receipt")
    items = await _reported(three, len(orders))
    await nl.start()
    await nl.serving()
    for number, (item, order) in enumerate(zip(items, orders, strict=True), start=1):
        dying = await de.start(kill=order)
        assert await _ask(nl, item)
        await de.struck(dying)
        # The taker never has an item that the giver has not let go, or is about to.
        assert await de.count("SELECT count(*) FROM items WHERE state = 'assigned'") <= number
    await de.start()
    await _check(three, items)


async def test_whenever_the_taker_dies_who_did_not_believe_it_is_told_once_more(three: Three) -> None:
    """The reporter is away while it is told, and what it would answer is noted as if it had: it believes nothing."""
    fr, nl, de = three
    items = await _reported(three, 2)
    for worker in fr.workers:
        await worker.kill()
    await nl.start()
    await nl.serving()
    taker = await de.start()
    for item in items:
        assert await _ask(nl, item)
    await _arrived(de, 2, "assigned")
    await taker.kill()
    async with de.db.transaction("test.refuse") as tx:
        rows = await tx.fetch("SELECT stream, idx FROM outbox WHERE type = 'status'")
        said = [(row["idx"], "handling-violation", "the proof fails at step 5") for row in rows]
        assert len(said) == 2
        await outbound.refuse(tx, rows[0]["stream"], said, datetime.now(UTC) - timedelta(minutes=2))
    told = "SELECT count(*) FROM outbox WHERE type = 'status'"
    for order, tellings in zip(both_sides("retell.store"), (2, 4), strict=True):
        await de.struck(await de.start(kill=order))
        assert await de.count(told) == tellings
    await de.start()
    await fr.start()
    holds = f"SELECT count(*) FROM custody WHERE holder = '{de.id}' AND jsonb_array_length(trail) = 2"  # noqa: S608

    async def heard() -> bool:
        return await fr.count(holds) == 2

    await until(heard, f"the first reporter hears of 2 transfers\n{de.tail()}")
    assert await de.count(told) == 4
    assert await de.count("SELECT count(*) FROM outbox_refusals WHERE again_at IS NOT NULL") == 0
    for one in three:
        assert not one.unforeseen()
