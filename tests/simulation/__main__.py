"""Runs the simulator by hand: `python -m tests.simulation --hours 8`, `--seed 17`, `--seed 17 --keep 0,3`."""

import argparse
import os
import sys
from contextlib import nullcontext
from time import perf_counter

from tests.simulation.bugs import BUGS, planted
from tests.simulation.plan import draw
from tests.simulation.running import explained, keeping
from tests.simulation.world import run

_SAY_EVERY = 200


def main() -> int:
    """Return 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.02, help="how long to run, in hours")
    parser.add_argument("--seed", type=int, help="run this history alone and print its trace")
    parser.add_argument("--keep", default="", help="with --seed: only these of its events, counted from 0")
    parser.add_argument("--from", dest="first", type=int, help="the first seed; drawn when not given")
    parser.add_argument("--bug", choices=[bug.name for bug in BUGS], help="with --seed: plant this mistake")
    given = parser.parse_args()
    if given.seed is not None:
        with nullcontext() if given.bug is None else planted(given.bug):
            return _one(given.seed, given.keep)
    first = int.from_bytes(os.urandom(4)) if given.first is None else given.first
    return _many(first, given.hours * 3600)


def _one(seed: int, keep: str) -> int:
    plan = draw(seed)
    if keep:
        plan = keeping(plan, [int(number) for number in keep.split(",")])
    outcome = run(plan)
    _say(*outcome.trace)
    if outcome.found is not None:
        _say(str(outcome.found))
    return int(outcome.found is not None)


def _many(first: int, seconds: float) -> int:
    started = perf_counter()
    seed = first
    _say(f"from seed {first}")
    while (spent := perf_counter() - started) < seconds:
        outcome = run(draw(seed))
        if outcome.found is not None:
            _say(explained(outcome))
            return 1
        seed += 1
        if (seed - first) % _SAY_EVERY == 0:
            _say(f"{seed - first} histories, {(seed - first) / spent:.1f} a second, up to seed {seed - 1}")
    _say(f"{seed - first} histories found nothing: seeds {first} to {seed - 1}")
    return 0


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
