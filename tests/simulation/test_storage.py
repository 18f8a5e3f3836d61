"""The simulated database answers the node's calls one after another as PostgreSQL does, and keeps the same rows."""

import asyncio
from collections.abc import Callable

import pytest

from node.platform.database import Transaction
from tests.simulation.calls import Calls
from tests.simulation.twins import both, outcome, plain

TABLES = (
    "outbound_streams",
    "delivery_cursors",
    "outbox",
    "receipts",
    "outbox_refusals",
    "inbound_streams",
    "apply_cursors",
    "inbox",
    "inbox_refusals",
    "inbox_waiting",
    "stream_differences",
    "inbound_batches",
    "judged_keys",
    "pull_cursors",
    "equivocations",
    "nonces",
    "peers",
    "cases",
    "items",
    "url_identities",
    "location_queue",
    "relocations",
    "custody",
    "directory_versions",
)


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_calls_give_the_same_answers_and_rows(new_database: Callable[[], str], seed: int) -> None:
    calls = Calls(seed)
    url = await asyncio.to_thread(new_database)
    async with both(url) as (real, simulated):
        for number in range(120):
            name, step = calls.draw()
            expected, given = await outcome(real, step), await outcome(simulated, step)
            assert given == expected, f"step {number} {name}"
        for table in TABLES:

            async def whole(tx: Transaction, table: str = table) -> object:
                return sorted(str(plain(dict(row))) for row in await tx.fetch(f"SELECT * FROM {table}"))  # noqa: S608 - names of ours

            assert await outcome(simulated, whole) == await outcome(real, whole), table
