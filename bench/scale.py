"""Intake and lookup with 1,000,000 items in the database, against their own speed at 10,000, in one run.

Usage: python -m bench.scale [items]
"""

import random
import statistics
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
GROUP = 500
WARM = 10
ROUNDS = 15
LOOKUPS = 200

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


async def intake_seconds(store: Store, first: int) -> float:
    """Return how long one group of reports takes, as the API commits them."""
    group = submissions(GROUP, first=first)
    started = time.perf_counter()
    await store.intake().take_in(group)
    return time.perf_counter() - started


async def lookup_seconds(store: Store, count: int, pick: random.Random) -> float:
    """Return how long LOOKUPS items take to be found by URL digest and shown, one after the other."""
    started = time.perf_counter()
    async with store.db.transaction("bench.lookup") as tx:
        for _ in range(LOOKUPS):
            digest = await tx.value("SELECT sha256(('u' || $1::bigint)::bytea)", pick.randint(1, count))
            found = await items.find_by_digest(tx, digest)
            if found is None or await items.item(tx, found) is None:
                raise SystemExit("an item was not found")
    return time.perf_counter() - started


async def run(small: Settings, large: Settings, many: int) -> None:
    """Fill both databases, measure them in turn and print the middle of the rounds."""
    pick = random.Random(7)  # noqa: S311 - which items are looked up is no secret
    async with open_store(small, clock=CLOCK) as few, open_store(large, clock=CLOCK) as full:
        await fill(few, 1, FEW)
        await fill(full, 1, many)
        for at in range(WARM):
            await intake_seconds(few, at * GROUP)
            await intake_seconds(full, at * GROUP)
        times: dict[str, list[tuple[float, float]]] = {"intake": [], "lookup": []}
        for at in range(WARM, WARM + ROUNDS):
            times["intake"].append((await intake_seconds(few, at * GROUP), await intake_seconds(full, at * GROUP)))
            times["lookup"].append((await lookup_seconds(few, FEW, pick), await lookup_seconds(full, many, pick)))
    for name, pairs in times.items():
        rows = GROUP if name == "intake" else LOOKUPS
        one, other = (rows / statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        print(f"{name}: {one:,.0f}/s at {FEW:,} items, {other:,.0f}/s at {many:,} -> {ratio:.2f} times (at most 1.5)")


def main() -> None:
    """Measure and print."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 1) as (server,):
            world = build_world(folder, [migrated(server, "few"), migrated(server, "many")], log_level="error")
            uvloop.run(run(world.nodes[0].settings, world.nodes[1].settings, many))


if __name__ == "__main__":
    main()
