"""A simulated node dies at whichever commit is drawn: the n-th that writes, of any name, or of the seldom ones."""

import re
from dataclasses import replace
from pathlib import Path

import node
from tests.simulation.plan import SELDOM, Event, draw
from tests.simulation.world import run

_TRANSACTION = re.compile(r'\.transaction\(\s*"([a-z.-]+)"')
_DEATH = re.compile(r"dies at=(\S+) after=(\w+)")


def deaths(detail: str, number: int) -> list[tuple[str, str]]:
    """Return where a node dies in a history without other harm."""
    reported = [
        Event(1.0, "report", "FR", "NL", number=2, detail="qualified"),
        Event(2.0, "report", "NL", "FR", number=2, detail="qualified"),
        Event(12.0, "analyst", "NL", detail="act"),
    ]
    killed = Event(0.0, "crash-at-commit", "NL", number=number, amount=0.5, detail=detail)
    outcome = run(replace(draw(0), events=(killed, *reported)))
    assert outcome.found is None, outcome.found
    return [(found[1], found[2]) for line in outcome.trace if (found := _DEATH.search(line))]


def test_a_node_dies_at_the_nth_commit_that_writes_whatever_its_name() -> None:
    died = [deaths("before any", number) for number in range(1, 13)]
    assert all(len(one) == 1 for one in died)
    names = {name for ((name, after),) in died if after == "False"}
    assert {"directory.accept", "hello.store", "intake.store", "apply.store", "receive.store"} <= names


def test_a_node_dies_at_a_seldom_commit() -> None:
    assert deaths("after seldom", 1) == [("act.store", "True")]


def test_what_is_seldom_is_a_commit_of_the_program() -> None:
    sources = Path(node.__file__).parent.rglob("*.py")
    names = {name for path in sources for name in _TRANSACTION.findall(path.read_text(encoding="utf-8"))}
    assert names >= SELDOM
