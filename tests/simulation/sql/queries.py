"""Compiles and runs a select: groups, order, limits and locks over the rows that its sources give."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.simulation.sql import tree
from tests.simulation.sql.expressions import (
    AGGREGATES,
    Collect,
    Context,
    Env,
    Fn,
    Scope,
    compile_expr,
    compile_row,
    written,
)
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
    group: Fn | None
    grouped: bool
    collects: list[Collect]
    having: Fn | None
    #: What to sort by, the last first, and whether backwards.
    order: list[tuple[Fn, bool]]
    limit: Fn | None
    offset: Fn | None
    distinct: bool
    distinct_on: Fn | None
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
            for key, backwards in self.order:
                envs.sort(key=partial(key, ctx), reverse=backwards)
        if self.distinct_on is not None:
            envs = first_of_each(envs, partial(self.distinct_on, ctx))
        return envs

    def taken(self, ctx: Context, env: Env, envs: list[Env]) -> list[tuple[Any, ...]]:
        """Return the rows of what was found, as many as are wanted; raises Blocked when one has to be waited for."""
        if self.limit is not None or self.offset is not None or self.locked:
            envs = self._limited(ctx, env, envs)
        rows = self.produce(ctx, envs)
        if self.distinct and self.distinct_on is None:
            rows = list(dict.fromkeys(rows))
        return rows if self.union is None else rows + self.union.run(ctx, env)

    def _grouped(self, ctx: Context, env: Env, envs: list[Env]) -> list[Env]:
        groups: dict[tuple[Any, ...], list[Env]] = {}
        if self.group is None:
            groups[()] = envs
        else:
            for one in envs:
                groups.setdefault(self.group(ctx, one), []).append(one)
        return [
            {**(members[0] if members else env), AGGREGATES: [collect.of(ctx, members) for collect in self.collects]}
            for members in groups.values()
        ]

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
    names, outputs = _outputs(select.items, scope)
    produce = _producer(outputs, scope)
    having = None if select.having is None else compile_expr(select.having, scope)
    order = [_key(_ordered(one.expr, select), one, scope) for one in reversed(select.order)]
    collects, scope.aggregates = scope.aggregates, None
    return Select(
        names=names,
        produce=produce,
        steps=steps_of(sources, scope),
        group=compile_row([_ordered(one, select) for one in select.group], scope) if select.group else None,
        grouped=bool(select.group or collects),
        collects=collects,
        having=having,
        order=order,
        limit=None if select.limit is None else compile_expr(select.limit, scope),
        offset=None if select.offset is None else compile_expr(select.offset, scope),
        distinct=select.distinct,
        distinct_on=compile_row(select.distinct_on, scope) if select.distinct_on else None,
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


def outputs_of(items: Iterable[tree.Item], scope: Scope) -> tuple[tuple[str, ...], Fn]:
    """Compile RETURNING: the names of the outputs, and what makes a row of them."""
    names, outputs = _outputs(items, scope)
    return names, compile_row(outputs, scope)


def _outputs(items: Iterable[tree.Item], scope: Scope) -> tuple[tuple[str, ...], list[tree.Expr]]:
    names: list[str] = []
    outputs: list[tree.Expr] = []
    for item in items:
        if isinstance(item.expr, tree.Star):
            for alias, columns, _ in scope.sources:
                if item.expr.table in {None, alias}:
                    names += columns
                    outputs += [tree.Column(alias, name) for name in columns]
        else:
            names.append(item.name or _output_name(item.expr))
            outputs.append(item.expr)
    return tuple(names), outputs


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


def _producer(outputs: list[tree.Expr], scope: Scope) -> Callable[[Context, list[Env]], list[tuple[Any, ...]]]:
    """Return what makes the rows."""
    row = written(tree.Call("row", tuple(outputs)), scope)[0]
    produce: Callable[[Context, list[Env]], list[tuple[Any, ...]]] = scope.python.function(
        f"def f(ctx, envs):\n    rows = []\n    for env in envs:\n        rows.append({row})\n    return rows\n"
    )
    return produce


def _key(expr: tree.Expr, order: tree.Order, scope: Scope) -> tuple[Fn, bool]:
    """Return what to sort by: values between the two places that NULL may have."""
    value, name = written(expr, scope)[0], scope.python.name()
    null = 2 if order.descending is order.nulls_first else 0
    text = f"def f(ctx, env):\n    {name} = {value}\n    return ({null},) if {name} is None else (1, {name})\n"
    key: Fn = scope.python.function(text)
    return key, order.descending


def selected(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Result:
    """Return what a select gave."""
    return Result(names, rows, f"SELECT {len(rows)}")
