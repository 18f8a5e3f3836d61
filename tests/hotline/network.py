"""What the tests of whole nodes share: hotlines that are only listed, a node with DNS, and waiting for conditions."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from geo.proxies import DEFAULT_FILE, ProxyTable
from node.clock import SystemClock
from node.hotline.assembly import Node
from node.hotline.domain.intake import check_report
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Submission, Taken
from node.hotline.serve import running
from node.platform.database import Row
from node.platform.keyfiles import create_node_keys, descriptor
from node.platform.telemetry import Logger, make_logger
from node.settings import settings_from
from tests.geo.dns_server import Entry, LoopbackDns
from tests.patience import stretched
from tests.world import TestNode, World

ILLEGAL = {"classification": "national"}
NOT_ILLEGAL = {"classification": "not-illegal"}


class SteppedClock(SystemClock):
    """The machine's clock, which a test can set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(super().now().timestamp() + self.ahead_s, UTC)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def list_hotline(
    world: World, node_id: str, countries: Sequence[str], *, weight: int = 1, state: str = "active"
) -> TestNode:
    """Put a hotline into the directory that nobody runs; nothing answers at its address."""
    home = world.folder / node_id
    home.mkdir(mode=0o700)
    keys = create_node_keys(home / "keys", datetime(2026, 1, 1, tzinfo=UTC))
    values: dict[str, object] = {
        "node_id": node_id,
        "countries": list(countries),
        "data_dir": str(home),
        "base_url": "http://127.0.0.1:9",
        "embedded_database": True,
    }
    settings = settings_from(values, home)
    entry = json.loads(descriptor(settings, keys, name=node_id, contact="ops@hotline.example", weight=weight))
    node = TestNode(settings, keys, {**entry, "state": state})
    world.nodes.append(node)
    return node


def relay_suffix() -> str:
    """A name under which a relay of the project's own table lives."""
    table = ProxyTable.load(DEFAULT_FILE)
    return min(table._suffixes)


@dataclass(slots=True)
class Station:
    """One running node and what it stands on."""

    node: Node
    clock: SteppedClock
    dns: LoopbackDns

    async def report(self, url: str, **fields: object) -> Taken:
        """Hand one report in."""
        received = convert_report({"url": url, **fields})
        checked = check_report(received, self.clock.now())
        (taken,) = await self.node.store.intake().take_in([Submission("test", checked.reference, checked)])
        assert isinstance(taken, Taken)
        return taken

    async def item(self, item_id: UUID) -> Row:
        async with self.node.db.transaction("test.read") as tx:
            row = await tx.row("SELECT * FROM items WHERE id = $1", item_id)
        assert row is not None
        return row

    async def value(self, query: str, *args: object) -> Any:
        async with self.node.db.transaction("test.read") as tx:
            return await tx.value(query, *args)

    async def until(self, item_id: UUID, *states: str, limit_s: float = 15.0) -> Row:
        """Wait until the item is in one of these states."""

        async def there() -> bool:
            return str((await self.item(item_id))["state"]) in states

        try:
            await eventually(there, limit_s=limit_s)
        except TimeoutError:
            row = await self.item(item_id)
            raise AssertionError(f"still {row['state']} ({row['reason']}), expected {states}") from None
        return await self.item(item_id)

    async def settled(self, limit_s: float = 20.0) -> None:
        """Wait until nothing waits for location or for its route."""

        async def done() -> bool:
            return bool(
                await self.value(
                    "SELECT NOT EXISTS (SELECT 1 FROM location_queue) "
                    "AND NOT EXISTS (SELECT 1 FROM items WHERE state IN ('locating', 'ready'))"
                )
            )

        await eventually(done, limit_s=limit_s)


async def eventually(condition: Callable[[], Awaitable[bool]], *, limit_s: float = 15.0) -> None:
    """Ask again until the condition holds; TimeoutError when it does not within the limit."""
    turn = asyncio.Event()
    async with asyncio.timeout(stretched(limit_s)):
        while not await condition():
            asyncio.get_running_loop().call_later(0.02, turn.set)
            await turn.wait()
            turn.clear()


async def heard_of(node: Node, version: int) -> None:
    """Have the node take up the directory of this version; a scheduled look may have done so already."""
    await node.membership.refresh()
    assert node.directory().version == version, node.membership.problem


@asynccontextmanager
async def station(
    one: TestNode,
    zone: Mapping[str, Sequence[Entry]] | None = None,
    *,
    log: Logger | None = None,
    **settings: Any,
) -> AsyncIterator[Station]:
    """Run a node beside a name server of its own that serves `zone`; its field keys are there already."""
    clock = SteppedClock()
    log = log or make_logger("error", "json")
    async with LoopbackDns(zone or {}) as dns:
        address = "{}:{}".format(*dns.address)
        changed = replace(one.settings, dns_servers=(address,), **settings)
        async with running(changed, clock=clock, log=log) as (node, _, _):
            yield Station(node, clock, dns)
