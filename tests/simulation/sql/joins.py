"""Joins the sources of a statement in the order in which it names them, row by row."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.simulation.sql.expressions import Context, Env, Scope
from tests.simulation.sql.tables import ROW_ID, Row

#: What gives the rows of a source, and the values that it may look for.
Scan = Callable[[Context, Env, Sequence[tuple[str, object]]], Iterable[Row]]
#: One source joined: each of the environments with each row that goes with it.
Step = Callable[[Context, list[Env]], list[Env]]


@dataclass(slots=True)
class Conjunct:
    """One condition of WHERE or ON, as Python; `equal` when it is `column = something`, which an index serves."""

    test: str
    reads: frozenset[int]
    equal: list[tuple[int, str, str, frozenset[int]]]


@dataclass(slots=True)
class From:
    """One source, in the order they are joined."""

    number: int
    alias: str
    columns: tuple[str, ...]
    table: str | None
    scan: Scan
    outer: bool
    tests: list[Conjunct] = field(default_factory=list)
    on: list[Conjunct] = field(default_factory=list)


def first_of_each(envs: list[Env], key: Callable[[Env], object]) -> list[Env]:
    """Return the first environment of each key."""
    found: dict[object, Env] = {}
    for one in envs:
        found.setdefault(key(one), one)
    return list(found.values())


def put(conjuncts: Iterable[Conjunct], sources: list[From]) -> None:
    """Give each condition to the first source at which all it reads is known."""
    numbers = [one.number for one in sources]
    for conjunct in conjuncts:
        ours = [numbers.index(number) for number in conjunct.reads if number in numbers]
        sources[max(ours, default=0)].tests.append(conjunct)


def steps_of(sources: list[From], scope: Scope) -> list[Step]:
    """Return how to join the sources, once every condition was given to one of them."""
    steps = []
    for at, source in enumerate(sources):
        later = {one.number for one in sources[at:]}
        # Of a left join, WHERE must not narrow the search: a row of nulls is for those of which no row meets ON.
        searching = source.on if source.outer else source.tests
        equal = "".join(
            f"({column!r}, {value}), "
            for conjunct in searching
            for number, column, value, reads in conjunct.equal
            if number == source.number and not reads & later
        )
        steps.append((_outer if source.outer else _inner)(source, f"({equal})", scope))
    return steps


def _rows(source: From, equal: str, scope: Scope) -> str:
    if source.table is not None:
        return f"ctx.session.rows({source.table!r}, {equal})"
    return f"{scope.python.named(source.scan)}(ctx, env, {equal})"


def _tested(conjuncts: list[Conjunct]) -> str:
    return " and ".join(one.test for one in conjuncts) or "True"


def _inner(source: From, equal: str, scope: Scope) -> Step:
    step: Step = scope.python.function(
        f"def f(ctx, envs):\n"
        f"    found = []\n"
        f"    for before in envs:\n"
        f"        env = before\n"
        f"        rows = {_rows(source, equal, scope)}\n"
        f"        env = before.copy()\n"
        f"        for row in rows:\n"
        f"            env[{source.number}] = row\n"
        f"            if {_tested(source.tests)}:\n"
        f"                found.append(env)\n"
        f"                env = before.copy()\n"
        f"    return found\n"
    )
    return step


def _outer(source: From, equal: str, scope: Scope) -> Step:
    nulls = scope.python.named(dict.fromkeys(source.columns))
    step: Step = scope.python.function(
        f"def f(ctx, envs):\n"
        f"    found = []\n"
        f"    for before in envs:\n"
        f"        env, met = before, []\n"
        f"        for row in {_rows(source, equal, scope)}:\n"
        f"            env = {{**before, {source.number}: row}}\n"
        f"            if {_tested(source.on)}:\n"
        f"                met.append(env)\n"
        f"        for env in met or [{{**before, {source.number}: {nulls}}}]:\n"
        f"            if {_tested(source.tests)}:\n"
        f"                found.append(env)\n"
        f"    return found\n"
    )
    return step


def join(ctx: Context, env: Env, steps: list[Step]) -> list[Env]:
    """Return an environment for each way in which rows go together."""
    envs = [env]
    for step in steps:
        envs = step(ctx, envs)
        if not envs:
            break
    return envs


def matches_of(ctx: Context, env: Env, steps: list[Step], table: str, number: int) -> list[Env]:
    """Return the rows to change, each once, all locked before the first is changed."""
    found = join(ctx, env, steps)
    if len(steps) > 1:
        found = first_of_each(found, lambda one: one[number][ROW_ID])
    for one in found:
        ctx.session.lock(table, one[number][ROW_ID])
    return found
