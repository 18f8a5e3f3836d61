"""Joins the sources of a statement in the order in which it names them, row by row; compiles nothing."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.simulation.sql.expressions import Context, Env, Fn
from tests.simulation.sql.tables import ROW_ID, Row


@dataclass(slots=True)
class Conjunct:
    """One condition of WHERE or ON; `equal` when it is `column = something`, which an index serves."""

    test: Fn
    reads: frozenset[int]
    equal: list[tuple[int, str, Fn, frozenset[int]]]


@dataclass(slots=True)
class From:
    """One source, in the order they are joined."""

    number: int
    alias: str
    columns: tuple[str, ...]
    table: str | None
    scan: Callable[[Context, Env, Sequence[tuple[str, object]]], Iterable[Row]]
    outer: bool
    tests: list[Conjunct] = field(default_factory=list)
    on: list[Conjunct] = field(default_factory=list)


@dataclass(slots=True)
class Step:
    """One source when all conditions have their place: what to look up in it, and what to ask of each row."""

    number: int
    #: The table that it is, if it is one, and otherwise what gives its rows.
    table: str | None
    scan: Callable[[Context, Env, Sequence[tuple[str, object]]], Iterable[Row]]
    equal: list[tuple[str, Fn]]
    tests: list[Fn]
    on: list[Fn]
    #: The row that a left join gives where it finds none.
    nulls: Row | None

    def inner(self, ctx: Context, envs: list[Env]) -> list[Env]:
        """Return each of the environments with each row that goes with it."""
        number, table, equal, tests = self.number, self.table, self.equal, self.tests
        found = []
        for env in envs:
            lookup = [(column, value(ctx, env)) for column, value in equal] if equal else ()
            rows = self.scan(ctx, env, lookup) if table is None else ctx.session.rows(table, lookup)
            here = env.copy()
            for row in rows:
                here[number] = row
                for test in tests:
                    if not test(ctx, here):
                        break
                else:
                    found.append(here)
                    here = env.copy()
        return found

    def outer(self, ctx: Context, envs: list[Env], nulls: Row) -> list[Env]:
        """Return the same for a left join."""
        found = []
        for env in envs:
            # WHERE must not narrow the search: a row of nulls is for those of which no row meets ON.
            lookup = [(column, value(ctx, env)) for column, value in self.equal]
            beside = [{**env, self.number: row} for row in self.scan(ctx, env, lookup)]
            met = [here for here in beside if all(test(ctx, here) for test in self.on)]
            found += [
                here for here in met or [{**env, self.number: nulls}] if all(test(ctx, here) for test in self.tests)
            ]
        return found


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


def steps_of(sources: list[From]) -> list[Step]:
    """Return how to join the sources, once every condition was given to one of them."""
    steps = []
    for at, source in enumerate(sources):
        later = {one.number for one in sources[at:]}
        # Of a left join, WHERE must not narrow the search.
        searching = source.on if source.outer else source.tests
        equal = [
            (column, value)
            for conjunct in searching
            for number, column, value, reads in conjunct.equal
            if number == source.number and not reads & later
        ]
        nulls = dict.fromkeys(source.columns) if source.outer else None
        tests, on = ([conjunct.test for conjunct in kind] for kind in (source.tests, source.on))
        steps.append(Step(source.number, source.table, source.scan, equal, tests, on, nulls))
    return steps


def join(ctx: Context, env: Env, steps: list[Step]) -> list[Env]:
    """Return an environment for each way in which rows go together."""
    envs = [env]
    for step in steps:
        envs = step.inner(ctx, envs) if step.nulls is None else step.outer(ctx, envs, step.nulls)
        if not envs:
            break
    return envs


def matches_of(ctx: Context, env: Env, steps: list[Step], table: str) -> list[Env]:
    """Return the rows to change, each once, all locked before the first is changed."""
    number = steps[0].number
    found = join(ctx, env, steps)
    if len(steps) > 1:
        found = first_of_each(found, lambda one: one[number][ROW_ID])
    for one in found:
        ctx.session.lock(table, one[number][ROW_ID])
    return found
