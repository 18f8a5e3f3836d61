"""Remembers which membership directories this node has trusted, so that an older one is noticed."""

from datetime import datetime

from node.errors import OperatorError
from node.platform.database import Transaction


async def accept(tx: Transaction, version: int, sha256: bytes, now: datetime) -> None:
    """Remember a directory version; raises OperatorError for a lower version, or the same with other content."""
    row = await tx.row("SELECT version, sha256 FROM directory_versions ORDER BY version DESC LIMIT 1")
    if row is not None and version < row["version"]:
        raise OperatorError(
            f"The membership directory has version {version}, but version {row['version']} was trusted before: "
            "an older directory is refused."
        )
    if row is not None and version == row["version"] and sha256 != row["sha256"]:
        raise OperatorError(
            f"The membership directory has version {version} but other content than the one trusted before: "
            "a change needs a higher version."
        )
    await tx.execute(
        "INSERT INTO directory_versions (version, sha256, first_seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        version,
        sha256,
        now,
    )
