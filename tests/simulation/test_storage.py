"""The simulated database answers the node's calls one after another as PostgreSQL does, and keeps the same rows."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from uuid import UUID

import pytest

from node.hotline.store import outbound, restored
from node.hotline.store.trees import OUTBOX, PART, Tree
from node.platform.database import Transaction
from protocol.merkle import Edge
from tests.simulation.calls import Calls
from tests.simulation.twins import NOW, both, outcome, plain

TABLES = (
    "outbound_streams",
    "delivery_cursors",
    "outbox",
    "receipts",
    "subtrees",
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


async def test_the_trees_of_long_streams_are_the_same(new_database: Callable[[], str]) -> None:
    leaves = [sha256(b"%d" % at).digest() for at in range(2 * PART + 3)]

    async def grow(tx: Transaction) -> object:
        head = (await outbound.lock_streams(tx, ["nl.example"]))["nl.example"]
        rows = [outbound.OutboxRow(at, UUID(int=at), None, "report", leaf, b"") for at, leaf in enumerate(leaves)]
        await outbound.append(tx, head, rows, NOW)
        return head.id

    async def read(tx: Transaction) -> object:
        tree = Tree(tx, OUTBOX, 1)
        kept = sorted(str(plain(dict(row))) for row in await tx.fetch("SELECT * FROM subtrees"))
        return kept, await tree.edge(2 * PART + 1), await tree.path(PART + 7, 2 * PART + 3)

    async def cut(tx: Transaction) -> object:
        gone = await restored.cut_tail(tx, 1, PART + 5)
        return len(gone), await Tree(tx, OUTBOX, 1).edge(PART + 5), await tx.value("SELECT count(*) FROM subtrees")

    async with both(await asyncio.to_thread(new_database)) as (real, simulated):
        for step in (grow, read, cut):
            expected = await outcome(real, step)
            assert await outcome(simulated, step) == expected
        assert expected == plain((PART - 2, Edge.EMPTY.extend(leaves[: PART + 5]), 1))
