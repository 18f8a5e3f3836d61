"""A unique index over some of the rows binds these in the simulated database as it does in PostgreSQL."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import sqlalchemy as sa

from node.platform.database import Database, Transaction
from tests.simulation.twins import both, outcome

STANDS = sa.Table(
    "stands",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("item", sa.Integer),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="1"),
    sa.Column("ended", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("ended_at", sa.Integer),
    sa.Index("uq_stands_open", "item", "node", unique=True, postgresql_where=sa.text("NOT ended")),
    sa.Index("uq_stands_once", "item", unique=True, postgresql_where=sa.text("node = 'b' AND ended_at IS NOT NULL")),
)
ADD = "INSERT INTO stands (id, item, node, ended, ended_at) VALUES "
#: One after the other, each in a transaction of its own.
STATEMENTS = (
    f"{ADD} (1, 1, 'a', false, NULL)",
    # A second that is open; one that is ended; another item, and no item, twice.
    f"{ADD} (2, 1, 'a', false, NULL)",
    f"{ADD} (3, 1, 'a', true, NULL)",
    f"{ADD} (4, 1, 'a', true, NULL)",
    f"{ADD} (5, 2, 'a', false, NULL)",
    f"{ADD} (6, NULL, 'a', false, NULL)",
    f"{ADD} (7, NULL, 'a', false, NULL)",
    f"{ADD} (8, 3, 'a', false, NULL), (9, 3, 'a', false, NULL)",
    # What ON CONFLICT means.
    f"{ADD} (10, 1, 'a', false, NULL) ON CONFLICT DO NOTHING",
    f"{ADD} (10, 1, 'a', false, NULL) ON CONFLICT (item, node) WHERE NOT ended DO NOTHING",
    f"{ADD} (10, 1, 'a', false, NULL) ON CONFLICT (item, node) DO NOTHING",
    f"{ADD} (10, 1, 'a', false, NULL) ON CONFLICT (id) DO NOTHING",
    f"{ADD} (1, 9, 'a', false, NULL) ON CONFLICT (item, node) WHERE NOT ended DO NOTHING",
    f"{ADD} (10, 1, 'a', false, NULL) ON CONFLICT (item, node) WHERE NOT ended DO UPDATE SET tries = stands.tries + 7",
    f"{ADD} (10, 1, 'a', false, 3) ON CONFLICT (item, node) WHERE NOT ended DO UPDATE SET tries = excluded.tries + 3",
    f"{ADD} (11, 1, 'a', true, NULL) ON CONFLICT (item, node) WHERE NOT ended DO UPDATE SET tries = 9",
    # Into the condition by an update, and out of it.
    "UPDATE stands SET ended = false WHERE id = 3",
    "UPDATE stands SET ended = true WHERE id = 1",
    "UPDATE stands SET ended = false WHERE id = 3",
    "UPDATE stands SET item = 2 WHERE id = 3",
    "UPDATE stands SET item = 2 WHERE id = 4",
    "UPDATE stands SET tries = tries + 1 WHERE item = 2",
    "DELETE FROM stands WHERE id = 5",
    "UPDATE stands SET item = 2 WHERE id = 3",
    # The other index, of which the condition reads other columns than it has.
    f"{ADD} (20, 7, 'b', true, 1), (21, 7, 'b', true, NULL), (22, 7, 'c', true, 1)",
    "UPDATE stands SET ended_at = 2 WHERE id = 21",
    "UPDATE stands SET node = 'b' WHERE id = 22",
    "UPDATE stands SET node = 'c' WHERE id = 20",
    "UPDATE stands SET node = 'b' WHERE id = 22",
)


async def test_each_statement_does_the_same(new_database: Callable[[], str]) -> None:
    url = await asyncio.to_thread(new_database)
    refused = set()
    async with both(url, STANDS) as databases:
        for statement in STATEMENTS:

            async def step(tx: Transaction, statement: str = statement) -> object:
                return await tx.execute(statement)

            real, simulated = [(await outcome(db, step), await outcome(db, _rows)) for db in databases]
            assert simulated == real, statement
            refused.add(real[0])
    assert {"UniqueViolationError", "InvalidColumnReferenceError"} <= {one for one in refused if isinstance(one, str)}


async def _rows(tx: Transaction) -> object:
    return [dict(row) for row in await tx.fetch("SELECT * FROM stands ORDER BY id")]


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "simulated"])
@pytest.mark.parametrize("kept", [True, False], ids=["committed", "rolled-back"])
async def test_a_key_that_another_gives_up_is_waited_for(
    new_database: Callable[[], str], which: int, *, kept: bool
) -> None:
    url = await asyncio.to_thread(new_database)
    async with both(url, STANDS) as databases:
        db = databases[which]
        async with db.transaction("test.make") as tx:
            await tx.execute(f"{ADD} (1, 1, 'a', false, NULL)")
        waiting = await _given_up(db, kept=kept)
        assert await waiting == (1 if kept else "UniqueViolationError")


async def _given_up(db: Database, *, kept: bool) -> "asyncio.Task[object]":
    """Give a key up, and keep to that or not; return what somebody does who wanted it meanwhile."""
    with suppress(_GivenUp):
        async with db.transaction("test.first") as tx:
            await tx.execute("UPDATE stands SET ended = true WHERE id = 1")
            waiting = asyncio.create_task(_add(db))
            for _ in range(5):
                await tx.value("SELECT 1")
            assert not waiting.done()
            if not kept:
                raise _GivenUp
    return waiting


class _GivenUp(Exception):  # noqa: N818 - names the fact
    """The transaction is not to be kept."""


async def _add(db: Database) -> object:
    async def step(tx: Transaction) -> object:
        return await tx.execute(f"{ADD} (2, 1, 'a', false, NULL)")

    return await outcome(db, step)
