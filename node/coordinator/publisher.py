"""The coordinator at work: reads what is published, publishes proposals, renews the timestamp. Makes no directory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from node.clock import Clock
from node.coordinator import store
from node.coordinator.ceremony import Proposal
from node.coordinator.publication import Published, Valid, check_online, publish, renewed
from node.coordinator.tables import metadata
from node.errors import OperatorError
from node.platform import migrate
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.dbopening import MakeDatabase, open_database
from node.platform.keyfiles import read_key
from node.platform.repository import OnlineKeys
from node.platform.telemetry import Metrics
from node.settings import Settings
from protocol.keys import KeyUse, SigningKey

ROLE: Final = "coordinator"


@dataclass(slots=True)
class Publisher:
    """What the coordinator's doors and commands work with; `published` is what was read last.

    `failing`: the last round of `serve` did not renew the timestamp, and nothing was published here since.
    """

    node_id: str
    db: Database
    clock: Clock
    keys: Callable[[], OnlineKeys]
    valid: Valid
    published: Published | None = None
    served: dict[str, bytes] = field(default_factory=dict)
    failing: bool = False

    def file(self, name: str) -> bytes | None:
        """Return a file as it is served."""
        return self.served.get(name)

    async def read(self) -> Published | None:
        """Read what is published, by whichever process."""
        async with self.db.transaction("publish.read") as tx:
            served = await store.files(tx)
            if served != self.served:
                # Answers under way hold a file each as it was read.
                self.served = served
            current = await store.current(tx)
        if self.published is None or current != self.published.files:
            self.published = Published.of(current)
        return self.published

    async def publish(self, proposal: Proposal) -> Published:
        """Publish a proposal, all of it at once; raises OperatorError when it may not be."""
        online = self.keys()
        async with self.db.transaction("publish.store") as tx:
            await store.hold(tx)
            before = Published.of(await store.current(tx))
            made = publish(before, proposal, online, self.clock.now(), self.valid)
            await store.replace(tx, made.files, self.clock.now())
            # What was there before, too: it may be from before anybody was remembered.
            listed = set(made.directory.nodes) | (set() if before is None else set(before.directory.nodes))
            await store.remember_listed(tx, listed)
        self.failing = False
        await self.read()
        return made

    async def renew(self, *, older_than_s: float = 0.0) -> bool:
        """Sign a new timestamp unless there is one that is young enough; tells whether it did."""
        online = self.keys()
        now = self.clock.now()
        async with self.db.transaction("publish.renew") as tx:
            await store.hold(tx)
            before = Published.of(await store.current(tx))
            if before is None:
                return False
            age = self.age(before, now)
            if timedelta(0) <= age < timedelta(seconds=older_than_s):
                return False
            await store.replace(tx, renewed(before, online, now, self.valid).files, now)
        await self.read()
        return True

    def age(self, published: Published, now: datetime) -> timedelta:
        """Return how long ago the timestamp was signed."""
        return now - (published.use.timestamp.expires - self.valid.timestamp)

    def check(self) -> None:
        """Refuse, with OperatorError, online keys that no node would believe."""
        if self.published is not None:
            check_online(self.published.root, self.keys())


@asynccontextmanager
async def opened(
    settings: Settings, clock: Clock, metrics: Metrics | None = None, make: MakeDatabase = Database
) -> AsyncIterator[Publisher]:
    """Yield the publisher on the coordinator's database; raises OperatorError, one sentence."""
    if settings.role != ROLE:
        raise OperatorError("This is for the coordinator: the settings are of another role.")
    async with open_database(settings, metrics=metrics, make=make) as db:
        try:
            if not await migrate.is_current(db.engine, ROLE, metadata):
                raise OperatorError("The database schema is not the one of this version; run `hotline migrate`.")
            made = Publisher(
                settings.node_id,
                db,
                clock,
                lambda: online_keys(settings),
                Valid(timestamp=timedelta(hours=settings.timestamp_hours)),
            )
            await made.read()
        except DATABASE_ERRORS as error:
            raise OperatorError(f"The database went away during the start ({type(error).__name__}).") from None
        yield made


def online_keys(settings: Settings) -> OnlineKeys:
    """Return the keys that sign online; raises OperatorError."""
    folder = settings.directory_keys_dir
    return OnlineKeys(_authority_key(folder / "snapshot.key"), _authority_key(folder / "timestamp.key"))


def _authority_key(path: Path) -> SigningKey:
    stored = read_key(path)
    if stored.use is not KeyUse.AUTHORITY:
        raise OperatorError(
            f"The key {path} is one for {stored.use}; `hotline directory new-key` makes the right ones."
        )
    return stored.key
