"""Opens the node's store for one command, and says in one sentence what the database refused. Reads no row."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from node.errors import OperatorError
from node.hotline.assembly import Store, open_store
from node.platform.cli.command import Context
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.dbopening import open_database
from node.settings import Settings


@asynccontextmanager
async def opened_store(context: Context) -> AsyncIterator[Store]:
    """Yield the store: database reached, schema of this version, field keys open. Raises OperatorError.

    Files are read and written outside the block: an error of theirs would pass for one of the database.
    """
    try:
        async with open_store(context.settings(), clock=context.clock) as store:
            yield store
    except DATABASE_ERRORS as error:
        raise failed(error) from None


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[Database]:
    """Yield the database, whatever its schema. Raises OperatorError."""
    try:
        async with open_database(settings) as db:
            yield db
    except DATABASE_ERRORS as error:
        raise failed(error) from None


def failed(error: BaseException) -> OperatorError:
    """Return what is said of a database that failed under a command; its own words could quote a row."""
    return OperatorError(
        f"The database failed during the command ({type(error).__name__}); see its log and run it again."
    )
