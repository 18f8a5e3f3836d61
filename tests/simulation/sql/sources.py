"""Compiles FROM, JOIN and WHERE: where rows come from, and at which of the sources each condition is asked."""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

from tests.simulation.sql import tree
from tests.simulation.sql.expressions import Context, Env, Query, Scope, compile_row, condition, written
from tests.simulation.sql.joins import Conjunct, From, put
from tests.simulation.sql.tables import Row
from tests.simulation.sql.tokens import UnknownSyntax


def sources_of(joins: Sequence[tree.Join], scope: Scope) -> list[From]:
    """Compile sources in the order in which they are joined; an inner join's condition is as one of WHERE."""
    found: list[From] = []
    for join in joins:
        source = _source(join.source, scope)
        source.outer = join.kind == "left"
        found.append(source)
        if join.on is not None:
            conjuncts = _conjuncts(join.on, scope)
            if source.outer:
                source.on = conjuncts
            else:
                put(conjuncts, found)
    return found


def place(where: tree.Expr | None, sources: list[From], scope: Scope) -> None:
    """Give each condition of WHERE its place."""
    if where is None:
        return
    if not sources:
        sources.append(From(scope.add("", ()), "", (), None, lambda _ctx, _env, _eq: [{}], outer=False))
    put(_conjuncts(where, scope), sources)


def _conjuncts(expr: tree.Expr, scope: Scope) -> list[Conjunct]:
    if isinstance(expr, tree.Logic) and expr.operator == "and":
        return [one for part in expr.parts for one in _conjuncts(part, scope)]
    test, reads = condition(expr, scope)
    equal = []
    if isinstance(expr, tree.Binary) and expr.operator == "=":
        for one, other in ((expr.left, expr.right), (expr.right, expr.left)):
            if isinstance(one, tree.Column) and (number := scope.find(one.table, one.name)) is not None:
                equal.append((number, one.name, *written(other, scope)))
    return [Conjunct(test, reads, equal)]


def _source(source: tree.Source, scope: Scope) -> From:
    match source:
        case tree.Table(name, alias) if name in scope.queries:
            columns = scope.queries[name]
            number = scope.add(alias, columns)
            return From(number, alias, columns, None, lambda ctx, _env, _eq: ctx.named[name], outer=False)
        case tree.Table(name, alias):
            if name not in scope.tables:
                raise UnknownSyntax(f"no table {name}")
            columns = scope.tables[name].columns
            number = scope.add(alias, columns)
            return From(number, alias, columns, name, lambda ctx, _env, eq: ctx.session.rows(name, eq), outer=False)
        case tree.Function():
            return _function(source, scope)
        case tree.SubSelect(query, alias, columns):
            if not isinstance(query, tree.Select):
                raise UnknownSyntax("a subquery that is no select")
            # Lateral is taken for granted: what stands before may be read.
            compiled = scope.compile_query(query, scope.inner())
            names = columns or compiled.names
            number = scope.add(alias, names)
            return From(number, alias, names, None, _scan(names, compiled), outer=False)
        case tree.Rows(rows, alias, columns):
            values = [compile_row(row, scope) for row in rows]
            number = scope.add(alias, columns)

            def scan(ctx: Context, env: Env, _eq: object) -> Iterable[Row]:
                return [dict(zip(columns, row(ctx, env), strict=True)) for row in values]

            return From(number, alias, columns, None, scan, outer=False)


def _function(source: tree.Function, scope: Scope) -> From:
    if source.name not in {"unnest", "jsonb_array_elements"}:
        raise UnknownSyntax(f"the function {source.name} as a source")
    args = compile_row(source.args, scope)
    count = len(source.args) + source.ordinality
    columns = source.columns
    if not columns:
        columns = (source.alias,) if count == 1 else tuple(f"unnest_{at}" for at in range(count))
    number = scope.add(source.alias, columns)

    def scan(ctx: Context, env: Env, _eq: object) -> Iterable[Row]:
        lists = [values or () for values in args(ctx, env)]
        for at, values in enumerate(zip_longest(*lists), start=1):
            numbered = (*values, at) if source.ordinality else values
            yield dict(zip(columns, numbered, strict=True))

    return From(number, source.alias, columns, None, scan, outer=False)


def _scan(names: tuple[str, ...], query: Query) -> Callable[[Context, Env, object], Iterable[Row]]:
    def scan(ctx: Context, env: Env, _eq: object) -> Iterable[Row]:
        return [dict(zip(names, row, strict=True)) for row in query.run(ctx, env)]

    return scan
