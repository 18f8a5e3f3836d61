"""Brings a role's database to the newest schema and tells whether it is there; holds no schema itself."""

from importlib.resources import files

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine


def _config(role: str, metadata: sa.MetaData, connection: sa.Connection | None) -> Config:
    root = files("migrations")
    config = Config()
    config.set_main_option("script_location", str(root))
    config.set_main_option("version_locations", str(root / role))
    config.set_main_option("path_separator", "os")
    config.attributes["metadata"] = metadata
    config.attributes["connection"] = connection
    return config


async def upgrade(engine: AsyncEngine, role: str, metadata: sa.MetaData) -> None:
    """Run every migration of `role` that the database lacks, each in a transaction of its own."""

    def run(connection: sa.Connection) -> None:
        # One upgrade at a time, also when several processes start on one database.
        connection.execute(sa.text("SELECT pg_advisory_lock(7019)"))
        connection.commit()
        try:
            command.upgrade(_config(role, metadata, connection), "heads")
            connection.commit()
        finally:
            connection.execute(sa.text("SELECT pg_advisory_unlock(7019)"))
            connection.commit()

    async with engine.connect() as connection:
        await connection.run_sync(run)


def _heads(role: str, metadata: sa.MetaData) -> set[str]:
    return set(ScriptDirectory.from_config(_config(role, metadata, None)).get_heads())


async def is_current(engine: AsyncEngine, role: str, metadata: sa.MetaData) -> bool:
    """Tell whether every migration of `role` has run."""

    def run(connection: sa.Connection) -> bool:
        return set(MigrationContext.configure(connection).get_current_heads()) == _heads(role, metadata)

    async with engine.connect() as connection:
        return await connection.run_sync(run)


async def differences(engine: AsyncEngine, metadata: sa.MetaData) -> list[object]:
    """Return what the database and the metadata disagree on (`alembic check`); empty means they agree."""

    def run(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    async with engine.connect() as connection:
        return await connection.run_sync(run)


async def write_revision(engine: AsyncEngine, role: str, metadata: sa.MetaData, message: str, rev_id: str) -> None:
    """Write a new migration file from the difference (a developer's command)."""

    def run(connection: sa.Connection) -> None:
        command.revision(_config(role, metadata, connection), message, autogenerate=True, rev_id=rev_id)

    async with engine.connect() as connection:
        await connection.run_sync(run)
