"""Catching up after an outage, beside steady delivery of as many records in the same run; and how soon it begins.

The peer is away while the records are written, long enough for the sender to be backing off with the product's own
settings (2 s, doubling, cap 15 min); it comes back, says hello, and everything is receipted. fsync is on, fields are
encrypted. Usage: python -m bench.catchup [records]
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.delivery import CHUNK, fill
from bench.network import CLOCK, build_world, migrated, servers, serving, submissions
from node.hotline.assembly import Node
from node.hotline.serve import running
from node.platform.collector import settle
from node.platform.telemetry import make_logger
from tests.world import TestNode

#: By then the sender's wait is seconds long, and it would not come back by itself within the five that are asked.
FAILURES = 4
RECEIPTED = "SELECT sum(acked_size) FROM delivery_cursors"


async def until(node: Node, query: str, wanted: int) -> float:
    """Look until `query` answers `wanted` or more; returns the time."""
    while True:
        async with node.db.transaction("bench.check") as tx:
            if (await tx.value(query) or 0) >= wanted:
                return time.perf_counter()
        await asyncio.sleep(0.02)


async def steady(fr: TestNode, count: int) -> float:
    """Deliver `count` records to a peer that is there; return the seconds from the first receipt to the last."""
    settle()
    async with running(fr.settings, clock=CLOCK, log=make_logger("error", "json")) as (node, _, _):
        begun = await until(node, RECEIPTED, 1)
        return await until(node, RECEIPTED, count) - begun


async def outage(fr: TestNode, nl: TestNode, count: int) -> tuple[float, float]:
    """Write `count` records while the peer is away; return (seconds to the first receipt, from then to the last)."""
    settle()
    async with running(fr.settings, clock=CLOCK, log=make_logger("error", "json")) as (node, _, _):
        for first in range(count, 2 * count, CHUNK):
            await node.store.intake().take_in(submissions(min(CHUNK, 2 * count - first), first=first))
        await until(node, "SELECT sum(next_index) FROM outbound_streams", 2 * count)
        await until(node, "SELECT max(failures) FROM peers", FAILURES)
        back = serving(nl)
        await asyncio.to_thread(back.__enter__)
        try:
            opened = time.perf_counter()
            begun = await until(node, RECEIPTED, count + 1)
            return begun - opened, await until(node, RECEIPTED, 2 * count) - begun
        finally:
            await asyncio.to_thread(back.__exit__, None, None, None)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 2) as (fr_server, nl_server):
            urls = [migrated(fr_server, "fr"), migrated(nl_server, "nl")]
            plain = {"backoff_base_s": 2.0, "backoff_cap_s": 900.0, "log_level": "error"}
            fr, nl = build_world(folder, urls, **plain).nodes
            uvloop.run(fill(fr, count))
            with serving(nl):
                before = uvloop.run(steady(fr, count))
            begun, caught_up = uvloop.run(outage(fr, nl, count))
    ratio = before / caught_up
    print(f"steady delivery:          {count / before:,.0f} records/s")
    print(f"catching up:              {count / caught_up:,.0f} records/s -> ratio {ratio:.2f} (at least 0.90)")
    print(f"peer back, first receipt: {begun:.2f} s with hello (under 5 s)")


if __name__ == "__main__":
    main()
