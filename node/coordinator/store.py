"""What is published, in the database: one transaction replaces all of it. Signs nothing and verifies nothing."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from node.platform.database import Transaction

#: Who is in the middle of an update may still ask for what was replaced.
_KEPT: Final = timedelta(days=1)
_LOCK: Final = 7020


async def files(tx: Transaction) -> dict[str, bytes]:
    """Return every file that is served, those just replaced included."""
    rows = await tx.fetch("SELECT name, content FROM metadata_files")
    return {row["name"]: bytes(row["content"]) for row in rows}


async def current(tx: Transaction) -> dict[str, bytes]:
    """Return the files of what is published."""
    rows = await tx.fetch("SELECT name, content FROM metadata_files WHERE replaced_at IS NULL")
    return {row["name"]: bytes(row["content"]) for row in rows}


async def hold(tx: Transaction) -> None:
    """Keep others from publishing until the transaction ends."""
    await tx.fetch("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def replace(tx: Transaction, published: Mapping[str, bytes], now: datetime) -> None:
    """Put `published` in the place of what is there, and forget what was replaced a day ago."""
    await tx.execute("DELETE FROM metadata_files WHERE replaced_at < $1", now - _KEPT)
    await tx.execute(
        "UPDATE metadata_files SET replaced_at = $1 WHERE replaced_at IS NULL AND NOT name = ANY($2::text[])",
        now,
        list(published),
    )
    for name, content in published.items():
        await tx.execute(
            "INSERT INTO metadata_files (name, content, published_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE "
            "SET content = excluded.content, published_at = excluded.published_at, replaced_at = NULL",
            name,
            content,
            now,
        )


async def remember_listed(tx: Transaction, nodes: Iterable[str]) -> None:
    """Remember that these nodes were listed, for ever."""
    await tx.execute(
        "INSERT INTO listed_nodes (node_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", sorted(nodes)
    )


async def ever_listed(tx: Transaction, nodes: Iterable[str]) -> set[str]:
    """Return which of these nodes a directory that was published here ever listed."""
    rows = await tx.fetch("SELECT node_id FROM listed_nodes WHERE node_id = ANY($1::text[])", sorted(nodes))
    return {row["node_id"] for row in rows}
