"""Remembers which membership directories this node has trusted, so that an older one is noticed."""

from dataclasses import dataclass

from node.clock import Clock
from node.errors import OperatorError
from node.platform.database import Database, Transaction
from node.platform.membership import Seen


@dataclass(frozen=True, slots=True)
class Directories:
    """The ledger of `node.platform.membership`, in the database: a folder that was set back is noticed by it."""

    db: Database
    clock: Clock

    async def check(self, seen: Seen) -> None:
        """Raise OperatorError for a directory that is older than, or contradicts, one trusted before."""
        async with self.db.transaction("directory.check") as tx:
            await check(tx, seen)

    async def record(self, seen: Seen) -> None:
        """Remember a directory, checked in the same transaction."""
        async with self.db.transaction("directory.accept") as tx:
            await check(tx, seen)
            await tx.execute(
                "INSERT INTO directory_versions (keys, version, sha256, root_version, snapshot_version, "
                "timestamp_version, first_seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7) "
                "ON CONFLICT (keys, version) DO UPDATE SET root_version = excluded.root_version, "
                "snapshot_version = excluded.snapshot_version, timestamp_version = excluded.timestamp_version",
                seen.keys,
                seen.version,
                seen.sha256,
                seen.root_version,
                seen.snapshot_version,
                seen.timestamp_version,
                self.clock.now(),
            )


async def check(tx: Transaction, seen: Seen) -> None:
    """Raise OperatorError when something older than what was trusted is offered.

    A root never goes back. The other versions are compared among those of the same keys only: where the root names
    others, a thief of the old ones may have counted ahead (TUF 5.3.11).
    """
    newest_root = await tx.value("SELECT coalesce(max(root_version), 0) FROM directory_versions")
    if seen.root_version < newest_root:
        raise OperatorError(
            f"The root of the membership directory has version {seen.root_version}, but version {newest_root} was "
            "trusted before: an older root is refused."
        )
    row = await tx.row(
        "SELECT max(version) AS version, max(snapshot_version) AS snapshot, max(timestamp_version) AS timestamp "
        "FROM directory_versions WHERE keys = $1",
        seen.keys,
    )
    if row is None or row["version"] is None:
        return
    if seen.version < row["version"]:
        raise OperatorError(
            f"The membership directory has version {seen.version}, but version {row['version']} was trusted before: "
            "an older directory is refused."
        )
    if seen.snapshot_version < row["snapshot"] or seen.timestamp_version < row["timestamp"]:
        raise OperatorError(
            "The timestamp or the snapshot of the membership directory is older than one that was trusted before, "
            "and is refused."
        )
    sha256 = await tx.value(
        "SELECT sha256 FROM directory_versions WHERE keys = $1 AND version = $2", seen.keys, seen.version
    )
    if sha256 is not None and sha256 != seen.sha256:
        raise OperatorError(
            f"The membership directory has version {seen.version} but other content than the one trusted before: "
            "a change needs a higher version."
        )
