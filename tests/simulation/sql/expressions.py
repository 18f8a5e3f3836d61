"""Writes expressions as Python that reads the rows in hand, with SQL's three-valued logic; reads no table itself."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tests.simulation.sql import tree
from tests.simulation.sql.forms import Form
from tests.simulation.sql.functions import CASTS, OPEN, OTHER, SAME, STRICT, among, compared
from tests.simulation.sql.tables import Row, Session
from tests.simulation.sql.tokens import UnknownSyntax

#: The rows in hand, by the number of the source they come from.
Env = dict[int, Any]
#: Where a grouped query keeps what its aggregates came to.
AGGREGATES = -1


class Context:
    """One run of a statement: its parameters, the transaction, and what its WITH queries returned."""

    __slots__ = ("args", "named", "session")

    def __init__(self, args: Sequence[Any], session: Session) -> None:
        """Begin."""
        self.args = args
        self.session = session
        self.named: dict[str, list[Row]] = {}


Fn = Callable[[Context, Env], Any]


class Query(Protocol):
    """A compiled query: tuples out."""

    names: tuple[str, ...]

    def run(self, ctx: Context, env: Env) -> list[tuple[Any, ...]]:
        """Return its rows."""


@dataclass(slots=True)
class Python:
    """The Python of one statement: what its functions call by a name, and how many names it took."""

    names: dict[str, Any] = field(default_factory=dict)
    _count: int = 0

    def name(self) -> str:
        """Return a name that nothing has."""
        self._count += 1
        return f"v{self._count}"

    def named(self, value: Any) -> str:
        """Name a value."""
        name = self.name()
        self.names[name] = value
        return name

    def function(self, text: str) -> Any:
        """Make the function `f` that is written there."""
        names = dict(self.names)
        exec(compile(text, "<sql>", "exec"), names)  # noqa: S102 - written here, of statements of ours
        return names["f"]


@dataclass(slots=True)
class Scope:
    """The sources that names can mean, innermost first; `tables` are all there are."""

    compile_query: "Callable[[tree.Select, Scope], Query]"
    tables: Mapping[str, Form]
    parent: "Scope | None" = None
    sources: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)
    queries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=lambda: [0])
    python: Python = field(default_factory=Python)
    aggregates: "list[Collect] | None" = None

    def inner(self) -> "Scope":
        """Return a scope inside this one."""
        return Scope(self.compile_query, self.tables, self, [], dict(self.queries), self.numbers, self.python)

    def add(self, alias: str, columns: tuple[str, ...]) -> int:
        """Name a source and return its number."""
        self.numbers[0] += 1
        self.sources.append((alias, columns, self.numbers[0]))
        return self.numbers[0]

    def find(self, table: str | None, name: str) -> int | None:
        """Return the source that has the column."""
        for alias, columns, number in self.sources:
            if table in {None, alias} and name in columns:
                return number
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


def compile_expr(expr: tree.Expr, scope: Scope) -> Fn:
    """Return the function of an expression."""
    fn: Fn = scope.python.function(f"def f(ctx, env):\n    return {written(expr, scope)[0]}\n")
    return fn


def compile_row(exprs: Iterable[tree.Expr], scope: Scope) -> Callable[[Context, Env], tuple[Any, ...]]:
    """Return the function of a row of them."""
    return compile_expr(tree.Call("row", tuple(exprs)), scope)


def written(expr: tree.Expr, scope: Scope) -> tuple[str, frozenset[int]]:
    """Return the Python of an expression, in which `env` are the rows in hand, and the sources it reads."""
    reads: set[int] = set()
    return _Writer(scope, reads).value(expr), frozenset(reads)


def condition(expr: tree.Expr, scope: Scope) -> tuple[str, frozenset[int]]:
    """Return the same of a condition, for which NULL is as good as false."""
    reads: set[int] = set()
    return _Writer(scope, reads).truth(expr), frozenset(reads)


@dataclass(slots=True)
class _Writer:
    scope: Scope
    reads: set[int]

    def truth(self, expr: tree.Expr) -> str:
        match expr:
            case tree.Logic(name, parts):
                return f"({f' {name} '.join(map(self.truth, parts))})"
            case tree.Binary("=", left, right):
                one = self.scope.python.name()
                return f"(({one} := {self.value(left)}) is not None and {one} == {self.value(right)})"
            case tree.Binary(name, left, right) if name in SAME:
                one, other = self.scope.python.name(), self.scope.python.name()
                return (
                    f"(({one} := {self.value(left)}) is not None and ({other} := {self.value(right)}) is not None"
                    f" and {one} {SAME[name]} {other})"
                )
            case tree.Not(tree.IsNull(operand)):
                return f"({self.value(operand)} is not None)"
        return self.value(expr)

    def value(self, expr: tree.Expr) -> str:
        match expr:
            case tree.Literal(value):
                return repr(value)
            case tree.Param(index):
                return f"ctx.args[{index}]"
            case tree.Column():
                return self._column(expr)
            case tree.Aggregate():
                return self._aggregate(expr)
            case tree.IsNull(operand):
                return f"({self.value(operand)} is None)"
            case tree.Logic(name, parts):
                return self._logic(name, parts)
            case tree.Case(branches, otherwise):
                tests = [f"{self.value(value)} if {self.truth(test)} else " for test, value in branches]
                return f"({''.join(tests)}{self.value(otherwise)})"
            case tree.Exists(query):
                return f"bool({self._query(query)})"
            case tree.Sub(query):
                rows = self.scope.python.name()
                return f"({rows}[0][0] if ({rows} := {self._query(query)}) else None)"
            case tree.SubArray(query):
                return self._column_of(query)
            case tree.InList(left, options):
                return self._call(among, left, options)
            case tree.AnyOf():
                return self._any(expr)
            case tree.Call("pg_notify", (_, topic)):
                return f"{self.scope.python.named(_notify)}(ctx, {self.value(topic)})"
            case tree.Call(name, args) if name in OPEN:
                return self._open(name, args)
        return self._strict(expr)

    def _strict(self, expr: tree.Expr) -> str:
        """Write what gives NULL for a NULL."""
        named = self.scope.python.named
        match expr:
            case tree.Unary(_, operand):
                return self._unless_null("-{}", operand)
            case tree.Not(operand):
                return self._unless_null("not {}", operand)
            case tree.Cast(operand, kind) if kind.endswith("[]"):
                return self.value(operand)
            case tree.Cast(operand, kind) if kind in CASTS:
                return self._unless_null(f"{named(CASTS[kind])}({{}})", operand)
            case tree.Binary(name, left, right) if name in SAME:
                return self._unless_null(f"{{}} {SAME[name]} {{}}", left, right)
            case tree.Binary(name, left, right):
                return self._unless_null(f"{named(OTHER[name])}({{}}, {{}})", left, right)
            case tree.Call(name, args) if name in STRICT:
                return self._unless_null(f"{named(STRICT[name])}({', '.join(['{}'] * len(args))})", *args)
        raise UnknownSyntax(f"{expr} in an expression")

    def _unless_null(self, text: str, *operands: tree.Expr) -> str:
        names, tests = [], []
        for operand in operands:
            name = self.scope.python.name()
            names.append(name)
            tests.append(f"({name} := {self.value(operand)}) is None")
        return f"(None if {' or '.join(tests)} else {text.format(*names)})" if tests else text

    def _column(self, expr: tree.Column) -> str:
        number = self.scope.find(expr.table, expr.name)
        if number is None:
            raise UnknownSyntax(f"no column {expr.table or ''}.{expr.name}")
        self.reads.add(number)
        return f"env[{number}][{expr.name!r}]"

    def _logic(self, name: str, parts: tuple[tree.Expr, ...]) -> str:
        names = [self.scope.python.name() for _ in parts]
        found = [f"({one} := {self.value(part)})" for one, part in zip(names, parts, strict=True)]
        unknown = " or ".join(f"{one} is None" for one in names)
        if name == "or":
            return f"(True if {' or '.join(found)} else None if {unknown} else False)"
        wrong = " or ".join(f"({one} is not None and not {name})" for one, name in zip(found, names, strict=True))
        return f"(False if {wrong} else None if {unknown} else True)"

    def _query(self, query: tree.Select) -> str:
        compiled = self.scope.compile_query(query, self.scope.inner())
        # What it reads of the outer query is not known apart: it waits for all of it.
        outer: Scope | None = self.scope
        while outer is not None:
            self.reads.update(number for _, _, number in outer.sources)
            outer = outer.parent
        return f"{self.scope.python.named(compiled.run)}(ctx, env)"

    def _column_of(self, query: tree.Select) -> str:
        return f"{self.scope.python.named(_first_column)}({self._query(query)})"

    def _any(self, expr: tree.AnyOf) -> str:
        left = self.value(expr.left)
        right = self._column_of(expr.right.query) if isinstance(expr.right, tree.Sub) else self.value(expr.right)
        return f"{self.scope.python.named(compared(expr.operator, every=expr.every))}({left}, {right})"

    def _call(self, function: Callable[..., Any], left: tree.Expr, options: tuple[tree.Expr, ...]) -> str:
        others = "".join(f"{self.value(option)}, " for option in options)
        return f"{self.scope.python.named(function)}({self.value(left)}, ({others}))"

    def _open(self, name: str, args: tuple[tree.Expr, ...]) -> str:
        given = [self.value(arg) for arg in args]
        if name == "row":
            return f"({''.join(f'{one}, ' for one in given)})"
        return f"{self.scope.python.named(OPEN[name])}({', '.join(given)})"

    def _aggregate(self, expr: tree.Aggregate) -> str:
        if self.scope.aggregates is None:
            raise UnknownSyntax(f"{expr.name} outside of a select list")
        bare = replace(self.scope, aggregates=None)
        argument = None if expr.argument is None else compile_expr(expr.argument, bare)
        test = None if expr.test is None else compile_expr(expr.test, bare)
        self.scope.aggregates.append(Collect(expr.name, argument, test, expr.distinct))
        return f"env[{AGGREGATES}][{len(self.scope.aggregates) - 1}]"


def _first_column(rows: list[tuple[Any, ...]]) -> list[Any]:
    return [row[0] for row in rows]


def _notify(ctx: Context, topic: str) -> str:
    ctx.session.notified.append(topic)
    return ""
