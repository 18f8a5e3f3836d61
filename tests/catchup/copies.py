"""Copies of a node's database as a backup is one: taken while the node is stopped, and started from later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import sqlalchemy as sa

from node.hotline.assembly import Node, assemble
from node.platform.database import Database
from node.platform.telemetry import make_logger
from protocol.batch import MEDIA_TYPE
from protocol.profile import Request
from tests.hotline.network import Station, SteppedClock
from tests.world import TestNode


@asynccontextmanager
async def standing_still(node: TestNode) -> AsyncIterator[Node]:
    """Assemble a node that does not serve, as the command does."""
    async with assemble(node.settings, clock=SteppedClock(), log=make_logger("error", "json")) as assembled:
        yield assembled


async def copied(node: TestNode) -> TestNode:
    """Return the node on a copy of its database as it is now; nobody may be connected to the original."""
    parts = urlsplit(node.settings.database_url)
    original, copy = parts.path.lstrip("/"), f"t_{uuid4().hex[:12]}"
    admin = Database(urlunsplit(parts._replace(path="/postgres")))
    try:
        async with admin.engine.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            # Connections that were just closed take a moment to go.
            for _ in range(100):
                busy = await autocommit.scalar(
                    sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name"), {"name": original}
                )
                if not busy:
                    break
                await asyncio.sleep(0.05)
            await autocommit.execute(sa.text(f"CREATE DATABASE {copy} TEMPLATE {original}"))
    finally:
        await admin.close()
    url = urlunsplit(parts._replace(path=f"/{copy}"))
    return replace(node, settings=replace(node.settings, database_url=url))


def as_json(request: Request) -> Request:
    """Change a simulated peer's request before it is signed: its body is JSON."""
    return request.adding({"content-type": "application/json"})


def as_batch(request: Request) -> Request:
    """Change a simulated peer's request before it is signed: its body is a batch."""
    return request.adding({"content-type": MEDIA_TYPE})


def as_note(request: Request) -> Request:
    """Change a simulated peer's request before it is signed: its body is a signed note."""
    return request.adding({"content-type": "text/plain; charset=utf-8"})


async def receipts_agree(sender: Station, receiver: Station) -> bool:
    """Tell whether the sender keeps exactly the receipts that the receiver gave, byte for byte, up to the end.

    Those that prove nothing any more aside.
    """
    async with sender.node.db.transaction("test.read") as tx:
        rows = await tx.fetch(
            "SELECT s.epoch, r.size, r.note FROM receipts r JOIN outbound_streams s ON s.id = r.stream "
            "WHERE s.peer = $1 AND NOT r.worthless",
            receiver.node.settings.node_id,
        )
        ended = await tx.fetch(
            "SELECT epoch, next_index FROM outbound_streams WHERE peer = $1", receiver.node.settings.node_id
        )
    async with receiver.node.db.transaction("test.read") as tx:
        batches = await tx.fetch(
            "SELECT s.epoch, b.size, b.receipt FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream "
            "WHERE s.peer = $1 AND NOT b.worthless",
            sender.node.settings.node_id,
        )
    ours = {(row["epoch"], row["size"]): row["note"] for row in rows}
    theirs = {(row["epoch"], row["size"]): row["receipt"] for row in batches}
    return ours == theirs and all((row["epoch"], row["next_index"]) in ours for row in ended if row["next_index"])
