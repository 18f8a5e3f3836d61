"""`python -m tests.soak --minutes 10 --nodes 12`: runs a soak; exit status 1 when not whole."""

import argparse
import asyncio
import json
import secrets
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.soak.run import Plan, Soak
from tests.soak.site import COUNTRIES, build


def main() -> int:
    """Run one soak; its files stay when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--nodes", type=int, default=12, choices=range(2, len(COUNTRIES) + 1))
    parser.add_argument("--servers", type=int, default=3, help="database servers that the nodes share")
    parser.add_argument("--seed", type=int, default=None, help="draws the same faults again; when they strike differs")
    parser.add_argument("--reports-per-s", type=float, default=40.0)
    parser.add_argument("--gap-s", type=float, default=2.0, help="seconds between two faults, about")
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="hxsoak"))
    site = build(folder, folder / "p", nodes=given.nodes, servers=given.servers)
    started = time.monotonic()
    try:
        plan = Plan(given.minutes * 60, seed, given.reports_per_s, given.gap_s)
        outcome = asyncio.run(Soak(site, plan, lambda line: print(line, flush=True)).run())
    finally:
        for server in site.servers:
            server.stop()
    print(json.dumps(asdict(outcome), indent=1))
    if outcome.wrong:
        print(f"NOT WHOLE: {len(outcome.wrong)} findings (seed {seed}); the files are in {folder}")
        return 1
    shutil.rmtree(folder)
    print(f"whole: everything is accounted for, after {time.monotonic() - started:.0f} s (seed {seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
