"""The list of planted mistakes with the histories that find them, tests/simulation/BUGS.md: written, read, kept true.

Written anew by `python -m tests.simulation.casebook`, after a change that makes other histories of the seeds; with
names behind it, only these mistakes are looked for anew.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.simulation.bug import Bug
from tests.simulation.bugs import BUGS
from tests.simulation.plan import Plan, draw
from tests.simulation.running import keeping, shortened
from tests.simulation.world import Outcome, run

PAGE: Final = Path(__file__).with_name("BUGS.md")
#: Each mistake is found by one of the first histories.
HISTORIES_MAX: Final = 600
_CASE: Final = re.compile(
    r"^## (?P<name>[a-z-]+)$.*?SEED=(?P<seed>\d+) KEEP=(?P<keep>[\d,]*) .*?breaks (?P<broken>[\w-]+)",
    re.MULTILINE | re.DOTALL,
)
_HEAD: Final = """# What the simulator finds

Mistakes that systems like this one have had, each planted into the running code by `tests/simulation/bugs.py`.
For each: the first seed whose history finds it, what is broken, and the events that are enough to see it.
`tests/simulation/test_bugs.py` replays every history here, with the mistake and without.
Written by `python -m tests.simulation.casebook`.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A mistake and the history that finds it; `kept` are the events that are enough."""

    name: str
    seed: int
    kept: tuple[int, ...]
    broken: str


def with_bug(bug: Bug, plan: Plan) -> Outcome:
    """Run a history with a mistake planted."""
    with bug.planted():
        return run(plan)


def find(bug: Bug) -> Outcome | None:
    """Return the first history that finds the mistake."""
    for seed in range(HISTORIES_MAX):
        plan = draw(seed)
        if bug.needs and bug.needs not in {event.kind for event in plan.events}:
            continue
        outcome = with_bug(bug, plan)
        if outcome.found is not None:
            return outcome
    return None


def cases() -> list[Case]:
    """Return what the page says."""
    return [
        Case(
            match["name"],
            int(match["seed"]),
            tuple(int(number) for number in match["keep"].split(",") if number),
            match["broken"],
        )
        for match in _CASE.finditer(PAGE.read_text())
    ]


def _kept(bug: Bug) -> str | None:
    """Return what the page says of a mistake."""
    match = re.search(rf"^## {bug.name}$.*?(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return None if match is None else match[0].rstrip() + "\n"


def _written(bug: Bug) -> str:
    outcome = find(bug)
    if outcome is None or outcome.found is None:
        raise SystemExit(f"{bug.name} is not found by {HISTORIES_MAX} histories")
    seed, broken = outcome.plan.seed, outcome.found.invariant
    kept = shortened(outcome.plan, broken, runner=lambda plan: with_bug(bug, plan))
    short = with_bug(bug, keeping(outcome.plan, kept))
    chosen = ",".join(map(str, kept))
    return "\n".join(
        [
            f"## {bug.name}",
            "",
            bug.sentence,
            f"Found by history {seed + 1}: `make simulate SEED={seed} KEEP={chosen} BUG={bug.name}` breaks {broken}.",
            "",
            "```",
            f"nodes {', '.join(short.plan.countries)}",
            *(str(event) for event in short.plan.events),
            str(short.found),
            "```",
            "",
        ]
    )


def main() -> None:
    """Write the page anew, or only what it says of the mistakes named."""
    named = sys.argv[1:]
    pages = [(None if not named or bug.name in named else _kept(bug)) or _written(bug) for bug in BUGS]
    PAGE.write_text("\n".join([_HEAD, *pages]))


if __name__ == "__main__":
    main()
