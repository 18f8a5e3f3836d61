"""What the tests of moves share: where an item stands at each node, and who has it by all of them together."""

from collections.abc import Sequence
from uuid import UUID

from node.clock import SystemClock
from node.hotline.cli.audit_network import audit_nodes
from node.hotline.store import custody
from node.hotline.store.custody import Chain
from tests.hotline.network import ILLEGAL, Station, eventually
from tests.world import ADDRESS

#: States in which a node has the item and may act on it; in the last it is at the desk, which is open.
IN_CUSTODY = frozenset({"assigned", "kept", "leaving", "disputed", "closed", "duplicate"})


async def reported(fr: Station, to: Station, country: str) -> UUID:
    """Report an item hosted in `country` at the first hotline, and wait until the other has it."""
    item = (await fr.report(f"http://{ADDRESS[country]}/page", qualification=ILLEGAL)).items[0].id
    await arrived(to, item, "assigned")
    return item


async def arrived(at: Station, item: UUID, *states: str) -> None:
    """Wait until the item is at a node, in one of these states."""

    async def there() -> bool:
        return bool(await at.value("SELECT count(*) FROM items WHERE id = $1 AND state = ANY($2)", item, list(states)))

    try:
        await eventually(there, limit_s=30)
    except TimeoutError:
        found = await at.value("SELECT state || ' ' || coalesce(reason, '') FROM items WHERE id = $1", item)
        raise AssertionError(f"{at.node.settings.node_id}: {found}, expected {states}") from None


async def move(at: Station, item: UUID, *, country: str | None = None, ip: str | None = None) -> None:
    """Ask for another location at a node, as an analyst does."""
    await at.node.store.asker().ask(item, country, ip)


async def chain(at: Station, item: UUID) -> Chain | None:
    """Return what a node knows of an item's way."""
    async with at.node.db.transaction("test.chain") as tx:
        return (await custody.chains(tx, [item])).get(item)


async def way(at: Station, item: UUID) -> list[str]:
    """Return everybody who had the item as a node knows it, who has it now last."""
    known = await chain(at, item)
    return [] if known is None else [*(country(station.node) for station in known.trail), country(known.holder)]


async def knows(at: Station, item: UUID, *countries: str) -> None:
    """Wait until a node knows this way of the item."""

    async def told() -> bool:
        return await way(at, item) == list(countries)

    try:
        await eventually(told, limit_s=30)
    except TimeoutError:
        raise AssertionError(f"{await way(at, item)}, expected {countries}") from None


async def custodians(stations: Sequence[Station], item: UUID) -> list[str]:
    """Return the countries of the nodes that have the item by their own account."""
    found = []
    for one in stations:
        state = await one.value("SELECT state FROM items WHERE id = $1 AND received_stream IS NOT NULL", item)
        if state in IN_CUSTODY:
            found.append(country(one.node.settings.node_id))
    return found


def country(node_id: str) -> str:
    """Return the country of a node of the test's world."""
    return node_id[:2].upper()


async def accounted_for(stations: Sequence[Station]) -> None:
    """Wait until nothing is under way between these nodes; `hotline audit-network` never finds a difference."""

    async def over() -> bool:
        accounts = await audit_nodes([one.node.settings for one in stations], SystemClock())
        differences = [each.words() for account in accounts for each in account.found.named]
        assert not differences, differences
        return not any(account.under_way for account in accounts)

    await eventually(over, limit_s=30)
