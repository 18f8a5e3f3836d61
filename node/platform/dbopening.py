"""Opens the database that the settings name, the private one started first. Knows no table of any role."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.exc import ArgumentError

from node.errors import OperatorError
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.embedded import EmbeddedPostgres
from node.platform.telemetry import Metrics
from node.settings import Settings

DATABASE_NAME = "hotline"


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Yield the address of the database, starting the private PostgreSQL while the block runs if that is configured."""
    if not settings.embedded_database:
        yield settings.database_url
        return
    with EmbeddedPostgres.start(settings.embedded_database_dir) as server:
        server.create_database(DATABASE_NAME)
        yield server.url(DATABASE_NAME)


MakeDatabase = Callable[..., Database]


@asynccontextmanager
async def open_database(
    settings: Settings, *, metrics: Metrics | None = None, make: MakeDatabase = Database
) -> AsyncIterator[Database]:
    """Yield the database after a first contact; raises OperatorError when it cannot be reached."""

    def observe(name: str, seconds: float) -> None:
        if metrics is not None:
            metrics.transaction_seconds.labels(name=name).observe(seconds)

    with database_url(settings) as url:
        try:
            db = make(url, pool_size=settings.database_pool_size, observe=observe)
        except (ValueError, ArgumentError):
            raise OperatorError("Setting database_url: this is not an address of a PostgreSQL database.") from None
        try:
            try:
                async with db.transaction("start.contact") as tx:
                    await tx.value("SELECT 1")
            except DATABASE_ERRORS as error:
                raise OperatorError(f"The database cannot be reached ({type(error).__name__}).") from None
            yield db
        finally:
            await db.close()
