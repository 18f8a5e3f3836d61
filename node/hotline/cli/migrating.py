"""`hotline migrate`: brings the database to the schema of this version and makes missing field keys. Loses no row."""

from argparse import ArgumentParser, Namespace

from node.hotline.assembly import ROLE
from node.hotline.cli.opening import opened_database
from node.hotline.store.tables import metadata
from node.hotline.store.vault import create_keys, load_vault
from node.platform import migrate
from node.platform.cli.command import Context
from node.platform.cli.migrating import run_migrating
from node.platform.fieldcrypto import MasterKey


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Bring the database to the schema of this version, each step in a transaction of its own, and make the keys "
        "that encrypt its fields where there are none yet. Running it again changes nothing."
    )
    parser.set_defaults(run=run)


def run(_arguments: Namespace, context: Context) -> int:
    """Migrate; raises OperatorError."""
    return run_migrating(_migrate(context), context)


async def _migrate(context: Context) -> bool:
    settings = context.settings()
    # Read first: without the master key a migrated database would still not serve.
    master = MasterKey.load(settings)
    async with opened_database(settings) as db:
        current = await migrate.is_current(db.engine, ROLE, metadata)
        if not current:
            await migrate.upgrade(db.engine, ROLE, metadata)
        async with db.transaction("migrate.keys") as tx:
            await create_keys(tx, master, context.clock.now())
            await load_vault(tx, master)
    return not current
