"""The coordinator's form of the commands that both roles have. Everything they do is in `node.coordinator`."""

from argparse import Namespace

from node.coordinator.cli.setup import set_up
from node.coordinator.cli.state import show_status
from node.coordinator.publisher import ROLE
from node.coordinator.serve import serve
from node.coordinator.tables import metadata
from node.errors import OperatorError
from node.platform import migrate
from node.platform.cli.command import Context
from node.platform.cli.migrating import run_migrating
from node.platform.cli.serving import run_serving
from node.platform.database import DATABASE_ERRORS
from node.platform.dbopening import open_database


def run_init(arguments: Namespace, context: Context) -> int:
    """Set the coordinator up; raises OperatorError."""
    set_up(arguments, context)
    return 0


def run_status(arguments: Namespace, context: Context) -> int:
    """Show the state of the coordinator; raises OperatorError."""
    show_status(arguments, context)
    return 0


def run_serve(_arguments: Namespace, context: Context) -> int:
    """Serve until told to end; raises OperatorError when the start makes no sense."""
    return run_serving(serve, context)


def run_migrate(_arguments: Namespace, context: Context) -> int:
    """Bring the database to the schema of this version; raises OperatorError."""
    return run_migrating(_migrate(context), context)


async def _migrate(context: Context) -> bool:
    try:
        async with open_database(context.settings()) as db:
            current = await migrate.is_current(db.engine, ROLE, metadata)
            if not current:
                await migrate.upgrade(db.engine, ROLE, metadata)
            return not current
    except DATABASE_ERRORS as error:
        raise OperatorError(f"The database failed during the command ({type(error).__name__}).") from None
