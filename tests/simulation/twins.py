"""PostgreSQL and the simulated database beside each other, and what either answers in a form that both share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg
import sqlalchemy as sa

from node.errors import OperatorError
from node.platform.database import Database, Transaction
from tests.simulation.database import Disk, MemoryDatabase
from tests.simulation.sql.conditions import row_condition
from tests.simulation.sql.forms import Form
from tests.simulation.sql.statements import Compiler
from tests.simulation.sql.tables import ROW_ID, Session, Tables

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
PEERS: Final = ("a.hotline.example", "b.hotline.example")

Step = Callable[[Transaction], Awaitable[object]]


class _Still:
    """Storage that is always there."""

    def statement(self) -> Awaitable[None]:
        return asyncio.sleep(0)

    def before_commit(self, name: str, session: Session) -> None:
        """Go on."""

    def after_commit(self, name: str, session: Session) -> None:
        """Go on."""


@asynccontextmanager
async def both(url: str, table: sa.Table | None = None) -> AsyncIterator[tuple[Database, Database]]:
    """Yield the real database at `url`, which has no row yet, and a simulated one.

    With `table` it is made in the real one, and the simulated one has it alone.
    """
    real = Database(url)
    try:
        if table is None:
            yield real, MemoryDatabase(Disk(), _Still())
            return
        async with real.engine.begin() as connection:
            await connection.run_sync(table.create)
        form = Form.of(table, row_condition)
        yield real, MemoryDatabase(Disk(Tables([form])), _Still(), Compiler({form.name: form}))
    finally:
        await real.close()


def plain(value: object) -> object:
    """Return the value as both give it: rows as dicts, in an order of their own where SQL promises none."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in sorted(value.items()) if key != ROW_ID}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, set):
        return sorted(map(str, value))
    if isinstance(value, UUID):
        return str(value)
    return plain({**value}) if isinstance(value, Mapping) else value


async def outcome(db: Database, step: Step) -> object:
    """Return what a step gave in a transaction of its own, or the name of the error that ended it."""
    try:
        async with db.transaction("test.step") as tx:
            return plain(await step(tx))
    except (asyncpg.PostgresError, OperatorError, LookupError, ValueError) as error:
        return type(error).__name__
