"""Intake and lookup with 1,000,000 items in the database, against their own speed at 10,000, in one run.

Usage: python -m bench.scale [items]
"""

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.network import CLOCK, build_world, migrated, servers, submissions
from node.hotline.assembly import Store, open_store
from node.hotline.store import items
from node.settings import Settings

FEW = 10_000
ROUNDS = 20
LOOKUPS = 2000

#: Rows as large as real ones, with ids spread over a year, written by the server itself.
_FILL = (
    """INSERT INTO cases (id, submitter, reference, content_digest, channel, received_at, payment_methods, created_at)
    SELECT fill_id(n, 1), 'fill', 'f' || n, sha256(n::text::bytea), 'public', now(), '{}', now()
    FROM generate_series($1::bigint, $2::bigint) AS n""",
    """INSERT INTO items (id, case_id, kind, url_enc, url_digest, state, hosting_country, evidence_enc, created_at,
    updated_at) SELECT fill_id(n, 2), fill_id(n, 1), 'page', sha512(n::text::bytea) || sha512(n::text::bytea),
    sha256(('u' || n)::bytea), (ARRAY['waiting', 'sent', 'kept', 'sent'])[1 + n % 4], 'NL',
    (SELECT string_agg(sha512((n * 10 + g)::text::bytea), '') FROM generate_series(1, 10) AS g), now(), now()
    FROM generate_series($1::bigint, $2::bigint) AS n""",
    """INSERT INTO url_identities (url_digest, item_id, times_seen) SELECT sha256(('u' || n)::bytea), fill_id(n, 2), 1
    FROM generate_series($1::bigint, $2::bigint) AS n""",
)
_FILL_ID = """CREATE OR REPLACE FUNCTION fill_id(n bigint, part int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(1700000000000 + n * 30), 12, '0') || '7' || lpad(to_hex(part), 3, '0') || 'a' ||
    substr(md5(n::text), 1, 15))::uuid $$"""


async def fill(store: Store, first: int, last: int) -> None:
    """Write items `first` to `last`."""
    async with store.db.transaction("bench.fill") as tx:
        await tx.execute(_FILL_ID)
    for start in range(first, last + 1, 50_000):
        async with store.db.transaction("bench.fill") as tx:
            for statement in _FILL:
                await tx.execute(statement, start, min(start + 49_999, last))
    async with store.db.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql("VACUUM ANALYZE")
        await autocommit.exec_driver_sql("CHECKPOINT")


async def intake_rate(store: Store, first: int) -> float:
    """Return reports/s in groups as the API commits them, the middle of ROUNDS."""
    times = []
    for at in range(ROUNDS):
        group = submissions(500, first=first + at * 500)
        started = time.perf_counter()
        await store.intake().take_in(group)
        times.append(time.perf_counter() - started)
    return 500 / sorted(times)[ROUNDS // 2]


async def lookup_rate(store: Store, count: int) -> float:
    """Return how many items a second are found by URL digest and shown, one after the other."""
    pick = random.Random(7)
    started = time.perf_counter()
    async with store.db.transaction("bench.lookup") as tx:
        for _ in range(LOOKUPS):
            digest = await tx.value("SELECT sha256(('u' || $1::bigint)::bytea)", pick.randint(1, count))
            found = await items.find_by_digest(tx, digest)
            if found is None or await items.item(tx, found) is None:
                raise SystemExit("an item was not found")
    return LOOKUPS / (time.perf_counter() - started)


async def run(settings: Settings, many: int) -> None:
    """Measure at FEW and at `many` items and print."""
    async with open_store(settings, clock=CLOCK) as store:
        await fill(store, 1, FEW)
        await intake_rate(store, 0)
        few = (await intake_rate(store, 100_000), await lookup_rate(store, FEW))
        await fill(store, FEW + 1, many)
        await intake_rate(store, 200_000)
        full = (await intake_rate(store, 300_000), await lookup_rate(store, many))
    for name, one, other in zip(("intake", "lookup"), few, full, strict=True):
        print(
            f"{name}: {one:,.0f}/s at {FEW:,}, {other:,.0f}/s at {many:,} items -> {one / other:.2f} times (at most 1.5)"
        )


def main() -> None:
    """Measure and print."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 1) as (server,):
            world = build_world(folder, [migrated(server, "fr")], log_level="error")
            uvloop.run(run(world.nodes[0].settings, many))


if __name__ == "__main__":
    main()
