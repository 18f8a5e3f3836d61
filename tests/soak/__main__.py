"""`python -m tests.soak --minutes 10 --nodes 12`: runs a soak; exit status 1 when not whole, 130 when told to end."""

import argparse
import asyncio
import json
import multiprocessing
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.soak.run import Outcome, Plan, Soak
from tests.soak.site import COUNTRIES, build, serving_databases

_INTERRUPTED = 130
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run one soak; its files stay when something is wrong. SIGTERM and SIGINT end it with everything it started."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--nodes", type=int, default=12, choices=range(2, len(COUNTRIES) + 1))
    parser.add_argument("--servers", type=int, default=3, help="database servers that the nodes share")
    parser.add_argument("--seed", type=int, default=None, help="draws the same faults again; when they strike differs")
    parser.add_argument("--reports-per-s", type=float, default=15.0, help="at most; fewer when the machine is busy")
    parser.add_argument("--gap-s", type=float, default=2.0, help="seconds between two faults, about")
    parser.add_argument("--ceremony-gap-s", type=float, default=5.0, help="seconds between two ceremonies, about")
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    for number in _SIGNALS:
        signal.signal(number, _interrupted)
    plan = Plan(given.minutes * 60, seed, given.reports_per_s, given.gap_s, given.ceremony_gap_s)
    folder = Path(tempfile.mkdtemp(prefix="hxsoak"))
    keep = True
    started = time.monotonic()
    try:
        outcome = _soak(folder, plan, given.nodes, given.servers)
        keep = bool(outcome.wrong)
    except (KeyboardInterrupt, asyncio.CancelledError):
        keep = False
        print("told to end: nothing was accounted for")
        return _INTERRUPTED
    finally:
        for process in multiprocessing.active_children():
            process.kill()
            process.join(30)
        if keep:
            print(f"the files are in {folder}")
        else:
            shutil.rmtree(folder)
    print(json.dumps(asdict(outcome), indent=1))
    if outcome.wrong:
        print(f"NOT WHOLE: {len(outcome.wrong)} findings (seed {seed})")
        return 1
    print(f"whole: everything is accounted for, after {time.monotonic() - started:.0f} s (seed {seed})")
    return 0


def _soak(folder: Path, plan: Plan, nodes: int, servers: int) -> Outcome:
    with serving_databases(folder / "p", servers) as running:
        site = build(folder, running, nodes=nodes)
        print("the database servers run", flush=True)
        return asyncio.run(_until_told(Soak(site, plan, lambda line: print(line, flush=True))))


async def _until_told(soak: Soak) -> Outcome:
    """Run the soak; a signal cancels it, so that it ends everything that it started."""
    task = asyncio.current_task()
    assert task is not None
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await soak.run()


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    """Stop waiting once; what is being cleaned up then is not interrupted again."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
