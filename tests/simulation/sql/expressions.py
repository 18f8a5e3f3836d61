"""Turns expressions into functions of (context, environment), with SQL's three-valued logic; reads no table itself."""

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from tests.simulation.sql import tree
from tests.simulation.sql.tables import Row, Session
from tests.simulation.sql.tokens import UnknownSyntax

#: The rows in hand, by the number of the source they come from.
Env = dict[int, Any]
#: Where a grouped query keeps what its aggregates came to.
AGGREGATES = -1


@dataclass(slots=True)
class Context:
    """One run of a statement: its parameters, the transaction, and what its WITH queries returned."""

    args: Sequence[Any]
    session: Session
    named: dict[str, list[Row]]


Fn = Callable[[Context, Env], Any]


class Query(Protocol):
    """A compiled query: tuples out."""

    names: tuple[str, ...]

    def run(self, ctx: Context, env: Env) -> list[tuple[Any, ...]]:
        """Return its rows."""


@dataclass(slots=True)
class Scope:
    """The sources that names can mean, innermost first; `tables` are the columns of all there are."""

    compile_query: "Callable[[tree.Select, Scope], Query]"
    tables: Mapping[str, tuple[str, ...]]
    parent: "Scope | None" = None
    sources: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)
    queries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=lambda: [0])
    #: What is a column and nothing more, with its source: rows of such are made in one go.
    columns: dict[Fn, tuple[int, str]] = field(default_factory=dict)
    aggregates: "list[Collect] | None" = None

    def inner(self) -> "Scope":
        """Return a scope inside this one."""
        return Scope(self.compile_query, self.tables, self, [], dict(self.queries), self.numbers, self.columns)

    def add(self, alias: str, columns: tuple[str, ...]) -> int:
        """Name a source and return its number."""
        self.numbers[0] += 1
        self.sources.append((alias, columns, self.numbers[0]))
        return self.numbers[0]

    def find(self, table: str | None, name: str) -> tuple[int, bool] | None:
        """Return the source that has the column, and whether a bare name means its whole row."""
        for alias, columns, number in self.sources:
            if table in {None, alias} and name in columns:
                return number, False
        return None if self.parent is None else self.parent.find(table, name)


@dataclass(frozen=True, slots=True)
class Collect:
    """One aggregate of a grouped query."""

    name: str
    argument: Fn | None
    test: Fn | None
    distinct: bool

    def of(self, ctx: Context, envs: Iterable[Env]) -> Any:
        """Return what it comes to over these rows."""
        kept = [env for env in envs if self.test is None or self.test(ctx, env)]
        if self.argument is None:
            return len(kept)
        values = [value for env in kept if (value := self.argument(ctx, env)) is not None]
        if self.distinct:
            values = list(dict.fromkeys(values))
        if self.name == "count":
            return len(values)
        if self.name == "array_agg":
            return values or None
        whole: dict[str, Callable[[list[Any]], Any]] = {
            "sum": sum,
            "max": max,
            "min": min,
            "bool_or": any,
            "bool_and": all,
        }
        return whole[self.name](values) if values else None


def compile_expr(expr: tree.Expr, scope: Scope) -> tuple[Fn, frozenset[int]]:
    """Return the function of an expression, and the numbers of the sources it reads."""
    reads: set[int] = set()
    return _compile(expr, scope, reads), frozenset(reads)


def _compile(expr: tree.Expr, scope: Scope, reads: set[int]) -> Fn:
    def sub(one: tree.Expr) -> Fn:
        return _compile(one, scope, reads)

    match expr:
        case tree.Literal(value):
            return lambda _ctx, _env: value
        case tree.Param(index):
            return lambda ctx, _env: ctx.args[index]
        case tree.Column():
            return _column(expr, scope, reads)
        case tree.Unary(_, operand):
            inner = sub(operand)
            return lambda ctx, env: None if (value := inner(ctx, env)) is None else -value
        case tree.Binary(name, tree.Column() as left, tree.Param(index)) if name in _OPERATORS:
            return _column_to_param(name, scope.columns[sub(left)], index)
        case tree.Binary(name, left, right):
            return _binary(name, sub(left), sub(right))
        case tree.Logic(name, parts):
            return _logic(name == "and", [sub(part) for part in parts])
        case tree.Not(operand):
            inner = sub(operand)
            return lambda ctx, env: None if (value := inner(ctx, env)) is None else not value
        case tree.IsNull(operand):
            inner = sub(operand)
            return lambda ctx, env: inner(ctx, env) is None
        case tree.InList(left, options):
            return _in(sub(left), [sub(option) for option in options])
        case tree.AnyOf():
            return _any(expr, scope, reads)
        case tree.Cast(operand, kind):
            return _cast(sub(operand), kind)
        case tree.Case(branches, otherwise):
            return _case([(sub(test), sub(value)) for test, value in branches], sub(otherwise))
        case tree.Exists(query):
            run = _query(query, scope, reads)
            return lambda ctx, env: bool(run(ctx, env))
        case tree.Sub(query):
            run = _query(query, scope, reads)
            return lambda ctx, env: rows[0][0] if (rows := run(ctx, env)) else None
        case tree.SubArray(query):
            run = _query(query, scope, reads)
            return lambda ctx, env: [row[0] for row in run(ctx, env)]
        case tree.Aggregate():
            return _aggregate(expr, scope)
        case tree.Call(name, args):
            return _call(name, [sub(arg) for arg in args])
    raise UnknownSyntax(f"{type(expr).__name__} in an expression")


def _column(expr: tree.Column, scope: Scope, reads: set[int]) -> Fn:
    found = scope.find(expr.table, expr.name)
    if found is None:
        raise UnknownSyntax(f"no column {expr.table or ''}.{expr.name}")
    number, name = found[0], expr.name
    reads.add(number)

    def column(_ctx: Context, env: Env) -> Any:
        return env[number][name]

    scope.columns[column] = number, name
    return column


def _query(query: tree.Select, scope: Scope, reads: set[int]) -> Callable[[Context, Env], list[tuple[Any, ...]]]:
    compiled = scope.compile_query(query, scope.inner())
    # What it reads of the outer query is not known apart: it waits for all of it.
    outer: Scope | None = scope
    while outer is not None:
        reads.update(number for _, _, number in outer.sources)
        outer = outer.parent
    return compiled.run


def _aggregate(expr: tree.Aggregate, scope: Scope) -> Fn:
    if scope.aggregates is None:
        raise UnknownSyntax(f"{expr.name} outside of a select list")
    bare = replace(scope, aggregates=None)
    argument = None if expr.argument is None else compile_expr(expr.argument, bare)[0]
    test = None if expr.test is None else compile_expr(expr.test, bare)[0]
    scope.aggregates.append(Collect(expr.name, argument, test, expr.distinct))
    at = len(scope.aggregates) - 1
    return lambda _ctx, env: env[AGGREGATES][at]


def _member(tree_: Any, key: Any) -> Any:
    try:
        return tree_[key]
    except (KeyError, IndexError, TypeError):
        return None


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _without(tree_: Any, key: Any) -> Any:
    rest = tree_.copy()
    try:
        del rest[key]
    except (KeyError, IndexError):
        return rest
    return rest


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "+": operator.add,
    "-": lambda left, right: _without(left, right) if isinstance(left, list | dict) else left - right,
    "->": _member,
    "->>": lambda left, right: _as_text(_member(left, right)),
    "*": operator.mul,
    "%": operator.mod,
    "||": operator.add,
}


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        return int(left / right)
    return left / right


def _binary(name: str, left: Fn, right: Fn) -> Fn:
    apply = _divide if name == "/" else _OPERATORS[name]

    def run(ctx: Context, env: Env) -> Any:
        one = left(ctx, env)
        if one is None:
            return None
        other = right(ctx, env)
        return None if other is None else apply(one, other)

    return run


def _column_to_param(name: str, column: tuple[int, str], index: int) -> Fn:
    """The same for what most conditions are."""
    apply, (number, key) = _OPERATORS[name], column

    def run(ctx: Context, env: Env) -> Any:
        one, other = env[number][key], ctx.args[index]
        return None if one is None or other is None else apply(one, other)

    return run


def _logic(every: bool, parts: list[Fn]) -> Fn:  # noqa: FBT001 - one flag of two
    def run(ctx: Context, env: Env) -> bool | None:
        unknown = False
        for part in parts:
            value = part(ctx, env)
            if value is None:
                unknown = True
            elif bool(value) is not every:
                return not every
        return None if unknown else every

    return run


def _in(left: Fn, options: list[Fn]) -> Fn:
    def run(ctx: Context, env: Env) -> bool | None:
        value = left(ctx, env)
        if value is None:
            return None
        found = [option(ctx, env) for option in options]
        return True if value in found else None if None in found else False

    return run


def _any(expr: tree.AnyOf, scope: Scope, reads: set[int]) -> Fn:
    left = _compile(expr.left, scope, reads)
    apply, every = _OPERATORS[expr.operator], expr.every
    values: Callable[[Context, Env], Iterable[Any] | None]
    if isinstance(expr.right, tree.Sub):
        query = _query(expr.right.query, scope, reads)

        def values(ctx: Context, env: Env) -> Iterable[Any] | None:
            return [row[0] for row in query(ctx, env)]
    else:
        values = _compile(expr.right, scope, reads)

    def run(ctx: Context, env: Env) -> bool | None:
        value, others = left(ctx, env), values(ctx, env)
        if value is None or others is None:
            return None
        return all(apply(value, one) for one in others) if every else any(apply(value, one) for one in others)

    return run


_CASTS: dict[str, Callable[[Any], Any]] = {
    "jsonb": lambda value: json.loads(value) if isinstance(value, str) else value,
    "bytea": lambda value: b"" if value == "" else bytes(value),
    "inet": str,
    "uuid": lambda value: UUID(value) if isinstance(value, str) else value,
    "text": str,
    "int": int,
    "integer": int,
    "bigint": int,
    "smallint": int,
    "numeric": lambda value: value,
    "float8": float,
    "boolean": bool,
    "timestamptz": lambda value: datetime.fromisoformat(value) if isinstance(value, str) else value,
    "date": lambda value: value.date() if isinstance(value, datetime) else value,
    "interval": lambda value: _interval(value) if isinstance(value, str) else value,
}


def _cast(inner: Fn, kind: str) -> Fn:
    if kind.endswith("[]"):
        return inner
    if kind not in _CASTS:
        raise UnknownSyntax(f"the type {kind}")
    convert = _CASTS[kind]
    return lambda ctx, env: None if (value := inner(ctx, env)) is None else convert(value)


def _case(branches: list[tuple[Fn, Fn]], otherwise: Fn) -> Fn:
    def run(ctx: Context, env: Env) -> Any:
        for test, value in branches:
            if test(ctx, env):
                return value(ctx, env)
        return otherwise(ctx, env)

    return run


_UNITS = {"second": 1, "seconds": 1, "minute": 60, "minutes": 60, "hour": 3600, "hours": 3600, "day": 86400}


def _interval(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+) ([a-z]+)", text)
    if match is None:
        raise UnknownSyntax(f"the interval {text}")
    unit = match[2] if match[2] in _UNITS else match[2].removesuffix("s")
    return timedelta(seconds=int(match[1]) * _UNITS[unit])


def _split(text: str | None, mark: str) -> list[str] | None:
    return None if text is None else text.split(mark) if text else []


#: Functions that give NULL for a NULL among their arguments.
_STRICT: dict[str, Callable[..., Any]] = {
    "string_to_array": _split,
    "length": len,
    "octet_length": len,
    "cardinality": len,
    "lower": str.lower,
    "upper": str.upper,
    "abs": abs,
    "power": lambda base, exponent: float(base) ** exponent,
    "host": str,
    "make_interval": lambda seconds: timedelta(seconds=seconds),
    "interval": _interval,
    "subscript": lambda values, at: values[at - 1] if 0 < at <= len(values) else None,
}

#: Functions that see NULL.
_OPEN: dict[str, Callable[..., Any]] = {
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "greatest": lambda *values: max((value for value in values if value is not None), default=None),
    "least": lambda *values: min((value for value in values if value is not None), default=None),
    "nullif": lambda one, other: None if one == other else one,
    "row": lambda *values: values,
    "array": lambda *values: list(values),
    "is_true": lambda value: value is True,
    "is_distinct": operator.ne,
    "jsonb_build_object": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
}


def _call(name: str, args: list[Fn]) -> Fn:
    if name == "pg_notify":
        topic = args[1]

        def notify(ctx: Context, env: Env) -> str:
            ctx.session.notified.append(topic(ctx, env))
            return ""

        return notify
    if name in _STRICT:
        strict = _STRICT[name]

        def run(ctx: Context, env: Env) -> Any:
            values = []
            for arg in args:
                value = arg(ctx, env)
                if value is None:
                    return None
                values.append(value)
            return strict(*values)

        return run
    if name in _OPEN:
        function = _OPEN[name]
        return lambda ctx, env: function(*[arg(ctx, env) for arg in args])
    raise UnknownSyntax(f"the function {name}")
