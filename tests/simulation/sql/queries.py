"""Compiles and runs a select: groups, order, limits and locks over the rows that its sources give."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cmp_to_key
from operator import itemgetter
from typing import Any

from tests.simulation.sql import tree
from tests.simulation.sql.expressions import AGGREGATES, Collect, Context, Env, Fn, Scope, compile_expr
from tests.simulation.sql.joins import From, Step, first_of_each, join, steps_of
from tests.simulation.sql.sources import place, sources_of
from tests.simulation.sql.tables import ROW_ID


@dataclass(slots=True)
class Result:
    """What a statement gave: its rows, and PostgreSQL's word for what it did."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    status: str


@dataclass(slots=True)
class Select:
    """A compiled select."""

    names: tuple[str, ...]
    produce: Callable[[Context, list[Env]], list[tuple[Any, ...]]]
    steps: list[Step]
    group: list[Fn]
    grouped: bool
    collects: list[Collect]
    having: Fn | None
    order: list[tuple[Fn, bool, bool]]
    limit: Fn | None
    offset: Fn | None
    distinct: bool
    distinct_on: list[Fn]
    locked: list[tuple[int, str]]
    skip: bool
    union: "Select | None"

    def run(self, ctx: Context, env: Env) -> list[tuple[Any, ...]]:
        """Return the rows; raises Blocked when one has to be waited for."""
        return self.taken(ctx, env, self.found(ctx, env))

    def found(self, ctx: Context, env: Env) -> list[Env]:
        """Return what meets all conditions, in order; locks nothing."""
        envs = join(ctx, env, self.steps)
        if self.grouped:
            envs = self._grouped(ctx, env, envs)
        if self.having is not None:
            having = self.having
            envs = [one for one in envs if having(ctx, one)]
        if len(envs) > 1 and self.order:
            envs.sort(key=cmp_to_key(lambda one, other: self._compare(ctx, one, other)))
        if self.distinct_on:
            envs = first_of_each(envs, lambda one: tuple(fn(ctx, one) for fn in self.distinct_on))
        return envs

    def taken(self, ctx: Context, env: Env, envs: list[Env]) -> list[tuple[Any, ...]]:
        """Return the rows of what was found, as many as are wanted; raises Blocked when one has to be waited for."""
        if self.limit is not None or self.offset is not None or self.locked:
            envs = self._limited(ctx, env, envs)
        rows = self.produce(ctx, envs)
        if self.distinct and not self.distinct_on:
            rows = list(dict.fromkeys(rows))
        return rows if self.union is None else rows + self.union.run(ctx, env)

    def _grouped(self, ctx: Context, env: Env, envs: list[Env]) -> list[Env]:
        groups: dict[tuple[Any, ...], list[Env]] = {}
        if not self.group:
            groups[()] = envs
        for one in envs if self.group else ():
            groups.setdefault(tuple(fn(ctx, one) for fn in self.group), []).append(one)
        return [
            {**(members[0] if members else env), AGGREGATES: [collect.of(ctx, members) for collect in self.collects]}
            for members in groups.values()
        ]

    def _compare(self, ctx: Context, one: Env, other: Env) -> int:
        for fn, descending, nulls_first in self.order:
            left, right = fn(ctx, one), fn(ctx, other)
            if left == right:
                continue
            if left is None or right is None:
                return -1 if (left is None) is nulls_first else 1
            return -1 if (left < right) is not descending else 1
        return 0

    def _limited(self, ctx: Context, env: Env, envs: list[Env]) -> list[Env]:
        start = 0 if self.offset is None else self.offset(ctx, env) or 0
        limit = None if self.limit is None else self.limit(ctx, env)
        envs = envs[start:]
        if not self.locked:
            return envs if limit is None else envs[:limit]
        taken: list[Env] = []
        for one in envs:
            if limit is not None and len(taken) >= limit:
                break
            if self.skip and not all(ctx.session.free(table, one[number][ROW_ID]) for number, table in self.locked):
                continue
            for number, table in self.locked:
                ctx.session.lock(table, one[number][ROW_ID])
            taken.append(one)
        return taken


def query_of(select: tree.Select, scope: Scope) -> Select:
    """Compile a select into a scope of its own; raises UnknownSyntax."""
    sources = sources_of(select.sources, scope)
    place(select.where, sources, scope)
    scope.aggregates = []
    outputs = outputs_of(select.items, scope)
    having = None if select.having is None else compile_expr(select.having, scope)[0]
    order = [
        (compile_expr(_ordered(one.expr, select), scope)[0], one.descending, one.nulls_first) for one in select.order
    ]
    collects, scope.aggregates = scope.aggregates, None
    return Select(
        names=tuple(name for name, _ in outputs),
        produce=_producer([fn for _, fn in outputs], scope),
        steps=steps_of(sources),
        group=[compile_expr(_ordered(one, select), scope)[0] for one in select.group],
        grouped=bool(select.group or collects),
        collects=collects,
        having=having,
        order=order,
        limit=None if select.limit is None else compile_expr(select.limit, scope)[0],
        offset=None if select.offset is None else compile_expr(select.offset, scope)[0],
        distinct=select.distinct,
        distinct_on=[compile_expr(one, scope)[0] for one in select.distinct_on],
        locked=_locked(select.lock, sources),
        skip=select.lock is not None and select.lock.skip,
        union=None if select.union is None else query_of(select.union, scope.parent or scope.inner()),
    )


def _ordered(expr: tree.Expr, select: tree.Select) -> tree.Expr:
    """Return what ORDER BY or GROUP BY means: an output by its number or name, or an expression."""
    if isinstance(expr, tree.Literal) and isinstance(expr.value, int):
        return select.items[expr.value - 1].expr
    if isinstance(expr, tree.Column) and expr.table is None:
        for item in select.items:
            if item.name == expr.name:
                return item.expr
    return expr


def _locked(lock: tree.Lock | None, sources: list[From]) -> list[tuple[int, str]]:
    if lock is None:
        return []
    return [
        (one.number, one.table) for one in sources if one.table is not None and (not lock.of or one.alias in lock.of)
    ]


def outputs_of(items: Iterable[tree.Item], scope: Scope) -> list[tuple[str, Fn]]:
    """Compile a select list or RETURNING: each output with its name."""
    found: list[tuple[str, Fn]] = []
    for item in items:
        if isinstance(item.expr, tree.Star):
            for alias, columns, _ in scope.sources:
                if item.expr.table in {None, alias}:
                    found += [(name, compile_expr(tree.Column(alias, name), scope)[0]) for name in columns]
        else:
            found.append((item.name or _output_name(item.expr), compile_expr(item.expr, scope)[0]))
    return found


def _output_name(expr: tree.Expr) -> str:
    match expr:
        case tree.Column(_, name) | tree.Call(name, _):
            return name
        case tree.Aggregate(name=name):
            return name
        case tree.Cast(operand, _):
            return _output_name(operand)
        case tree.Exists():
            return "exists"
    return "?column?"


def _producer(outputs: list[Fn], scope: Scope) -> Callable[[Context, list[Env]], list[tuple[Any, ...]]]:
    """Return what makes the rows: one lookup a row where they are columns of one source."""
    places = [scope.columns.get(fn) for fn in outputs]
    names = [place[1] for place in places if place is not None]
    numbers = {None if place is None else place[0] for place in places}
    (number,) = numbers if len(numbers) == 1 else (None,)
    if number is None or len(names) == 1:
        return lambda ctx, envs: [tuple([fn(ctx, one) for fn in outputs]) for one in envs]
    pick = itemgetter(*names)
    return lambda _ctx, envs: [pick(one[number]) for one in envs]


def selected(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Result:
    """Return what a select gave."""
    return Result(names, rows, f"SELECT {len(rows)}")
