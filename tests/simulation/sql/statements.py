"""Turns statements into functions that run in a transaction: sources, joins, order, locks, changes and conflicts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cmp_to_key
from itertools import zip_longest
from operator import itemgetter
from typing import Any

import asyncpg

from tests.simulation.sql import tree
from tests.simulation.sql.expressions import AGGREGATES, Collect, Context, Env, Fn, Scope, compile_expr
from tests.simulation.sql.syntax import UnknownSyntax, parse
from tests.simulation.sql.tables import ROW_ID, Form, Row, Session


@dataclass(slots=True)
class Result:
    """What a statement gave: its rows, and PostgreSQL's word for what it did."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    status: str


Run = Callable[[Context, Env], Result]


@dataclass(slots=True)
class _Conjunct:
    """One condition of WHERE or ON; `equal` when it is `column = something`, which an index serves."""

    test: Fn
    reads: frozenset[int]
    equal: list[tuple[int, str, Fn, frozenset[int]]]


@dataclass(slots=True)
class _From:
    """One source, in the order they are joined."""

    number: int
    alias: str
    columns: tuple[str, ...]
    table: str | None
    scan: Callable[[Context, Env, Sequence[tuple[str, object]]], Iterable[Row]]
    outer: bool
    tests: list[_Conjunct] = field(default_factory=list)
    on: list[_Conjunct] = field(default_factory=list)


@dataclass(slots=True)
class _Step:
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
        """The same for a left join."""
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


@dataclass(frozen=True, slots=True)
class _Known:
    """A statement that was compiled.

    `reads` are the tables that it reads where it does nothing else; `locking` is a select that locks what it finds.
    """

    run: Run
    changes: bool
    reads: tuple[str, ...] | None
    locking: "tuple[_Query, tuple[str, ...]] | None"


class Compiler:
    """Compiles the statements of one set of tables; keeps what it compiled."""

    def __init__(self, forms: dict[str, Form]) -> None:
        """Take the tables."""
        self._forms = forms
        self._known: dict[str, _Known] = {}

    def run(self, session: Session, query: str, args: Sequence[object]) -> Result:
        """Run one statement; raises Blocked, with nothing changed, when it has to wait."""
        known = self._known.get(query)
        if known is None:
            known = self._known[query] = self._compiled(query)
        if known.reads is not None:
            answer: Result = _again(known.run, known.reads, Context(args, session, {}), query)
            return answer
        if known.locking is not None:
            return _locked(known.locking, Context(args, session, {}), query)
        if not known.changes:
            return known.run(Context(args, session, {}), {})
        mark = session.mark()
        try:
            return known.run(Context(args, session, {}), {})
        except BaseException:
            session.back(mark)
            raise

    def _compiled(self, query: str) -> "_Known":
        statement = parse(query)
        changes, parts = _changes(statement), list(_parts(statement))
        reads = tuple(sorted({one.name for one in parts if isinstance(one, tree.Table) and one.name in self._forms}))
        scope = Scope(self._query)
        lock = statement.lock if isinstance(statement, tree.Select) else None
        notifies = any(isinstance(one, tree.Call) and one.name == "pg_notify" for one in parts)
        if changes or notifies or any(isinstance(one, tree.Lock) and one is not lock for one in parts):
            return _Known(self._statement(statement, scope), changes, None, None)
        if lock is not None and isinstance(statement, tree.Select):
            locking = self._query(statement, scope.inner())
            return _Known(self._statement(statement, scope), changes, None, (locking, reads))
        return _Known(self._statement(statement, scope), changes, reads, None)

    # Statements.

    def _statement(self, statement: tree.Statement, scope: Scope) -> Run:
        match statement:
            case tree.WithQuery():
                return self._with(statement, scope)
            case tree.Select():
                query = self._query(statement, scope.inner())
                return lambda ctx, env: _selected(query.names, query.run(ctx, env))
            case tree.Insert():
                return self._insert(statement, scope)
            case tree.Update():
                return self._update(statement, scope)
            case tree.Delete():
                return self._delete(statement, scope)

    def _with(self, statement: tree.WithQuery, scope: Scope) -> Run:
        inner = scope.inner()
        steps: list[tuple[str, Run]] = []
        for cte in statement.ctes:
            run = self._statement(cte.statement, inner)
            steps.append((cte.name, run))
            inner.queries[cte.name] = cte.columns or self._names_of(cte.statement, inner)
        last = self._statement(statement.statement, inner)

        def whole(ctx: Context, env: Env) -> Result:
            for name, run in steps:
                columns = inner.queries[name]
                ctx.named[name] = [dict(zip(columns, row, strict=True)) for row in run(ctx, env).rows]
            return last(ctx, env)

        return whole

    def _names_of(self, statement: tree.Statement, scope: Scope) -> tuple[str, ...]:
        match statement:
            case tree.WithQuery():
                raise UnknownSyntax("a WITH query inside a WITH query")
            case tree.Select():
                return self._query(statement, scope.inner()).names
            case tree.Insert(table):
                sub = scope.inner()
                sub.add(table, self._forms[table].columns)
            case tree.Update(table=table) | tree.Delete(table=table):
                sub = scope.inner()
                self._sources((tree.Join(table, "inner", None), *statement.sources), sub)
        return tuple(name for name, _ in self._outputs(statement.returning, sub))

    # Select.

    def _query(self, select: tree.Select, scope: Scope) -> "_Query":
        sources = self._sources(select.sources, scope)
        self._place(select.where, sources, scope)
        scope.aggregates = []
        outputs = self._outputs(select.items, scope)
        having = None if select.having is None else compile_expr(select.having, scope)[0]
        order = [
            (compile_expr(self._ordered(one.expr, select), scope)[0], one.descending, one.nulls_first)
            for one in select.order
        ]
        collects, scope.aggregates = scope.aggregates, None
        return _Query(
            names=tuple(name for name, _ in outputs),
            produce=_produce([fn for _, fn in outputs], scope),
            steps=_steps(sources),
            group=[compile_expr(self._ordered(one, select), scope)[0] for one in select.group],
            grouped=bool(select.group or collects),
            collects=collects,
            having=having,
            order=order,
            limit=None if select.limit is None else compile_expr(select.limit, scope)[0],
            offset=None if select.offset is None else compile_expr(select.offset, scope)[0],
            distinct=select.distinct,
            distinct_on=[compile_expr(one, scope)[0] for one in select.distinct_on],
            locked=self._locked(select.lock, sources),
            skip=select.lock is not None and select.lock.skip,
            union=None if select.union is None else self._query(select.union, scope.parent or scope.inner()),
        )

    @staticmethod
    def _ordered(expr: tree.Expr, select: tree.Select) -> tree.Expr:
        """Return what ORDER BY or GROUP BY means: an output by its number or name, or an expression."""
        if isinstance(expr, tree.Literal) and isinstance(expr.value, int):
            return select.items[expr.value - 1].expr
        if isinstance(expr, tree.Column) and expr.table is None:
            for item in select.items:
                if item.name == expr.name:
                    return item.expr
        return expr

    @staticmethod
    def _locked(lock: tree.Lock | None, sources: list[_From]) -> list[tuple[int, str]]:
        if lock is None:
            return []
        return [
            (one.number, one.table)
            for one in sources
            if one.table is not None and (not lock.of or one.alias in lock.of)
        ]

    def _outputs(self, items: Iterable[tree.Item], scope: Scope) -> list[tuple[str, Fn]]:
        found: list[tuple[str, Fn]] = []
        for item in items:
            if isinstance(item.expr, tree.Star):
                for alias, columns, _ in scope.sources:
                    if item.expr.table in {None, alias}:
                        found += [(name, compile_expr(tree.Column(alias, name), scope)[0]) for name in columns]
            else:
                found.append((item.name or _output_name(item.expr), compile_expr(item.expr, scope)[0]))
        return found

    # Sources.

    def _sources(self, joins: Sequence[tree.Join], scope: Scope) -> list[_From]:
        found: list[_From] = []
        for join in joins:
            source = self._source(join.source, scope)
            source.outer = join.kind == "left"
            found.append(source)
            if join.on is not None:
                conjuncts = self._conjuncts(join.on, scope)
                if source.outer:
                    source.on = conjuncts
                else:
                    _put(conjuncts, found)
        return found

    def _place(self, where: tree.Expr | None, sources: list[_From], scope: Scope) -> None:
        if where is None:
            return
        if not sources:
            sources.append(_From(scope.add("", ()), "", (), None, lambda _ctx, _env, _eq: [{}], outer=False))
        _put(self._conjuncts(where, scope), sources)

    def _conjuncts(self, expr: tree.Expr, scope: Scope) -> list[_Conjunct]:
        if isinstance(expr, tree.Logic) and expr.operator == "and":
            return [one for part in expr.parts for one in self._conjuncts(part, scope)]
        test, reads = compile_expr(expr, scope)
        equal = []
        if isinstance(expr, tree.Binary) and expr.operator == "=":
            for one, other in ((expr.left, expr.right), (expr.right, expr.left)):
                if isinstance(one, tree.Column) and (place := scope.find(one.table, one.name)) is not None:
                    equal.append((place[0], one.name, *compile_expr(other, scope)))
        return [_Conjunct(test, reads, equal)]

    def _source(self, source: tree.Source, scope: Scope) -> _From:
        match source:
            case tree.Table(name, alias) if name in scope.queries:
                columns = scope.queries[name]
                number = scope.add(alias, columns)
                return _From(number, alias, columns, None, lambda ctx, _env, _eq: ctx.named[name], outer=False)
            case tree.Table(name, alias):
                if name not in self._forms:
                    raise UnknownSyntax(f"no table {name}")
                columns = self._forms[name].columns
                number = scope.add(alias, columns)
                return _From(
                    number, alias, columns, name, lambda ctx, _env, eq: ctx.session.rows(name, eq), outer=False
                )
            case tree.Function():
                return self._function(source, scope)
            case tree.SubSelect(query, alias, columns):
                if not isinstance(query, tree.Select):
                    raise UnknownSyntax("a subquery that is no select")
                # Lateral is taken for granted: what stands before may be read.
                compiled = self._query(query, scope.inner())
                names = columns or compiled.names
                number = scope.add(alias, names)
                return _From(number, alias, names, None, _scan(names, compiled), outer=False)
            case tree.Rows(rows, alias, columns):
                fns = [[compile_expr(value, scope)[0] for value in row] for row in rows]
                number = scope.add(alias, columns)

                def scan(ctx: Context, env: Env, _eq: object) -> Iterable[Row]:
                    return [{name: fn(ctx, env) for name, fn in zip(columns, row, strict=True)} for row in fns]

                return _From(number, alias, columns, None, scan, outer=False)

    def _function(self, source: tree.Function, scope: Scope) -> _From:
        if source.name not in {"unnest", "jsonb_array_elements"}:
            raise UnknownSyntax(f"the function {source.name} as a source")
        args = [compile_expr(arg, scope)[0] for arg in source.args]
        count = len(args) + source.ordinality
        columns = source.columns
        if not columns:
            columns = (source.alias,) if count == 1 else tuple(f"unnest_{at}" for at in range(count))
        number = scope.add(source.alias, columns)

        def scan(ctx: Context, env: Env, _eq: object) -> Iterable[Row]:
            lists = [arg(ctx, env) or () for arg in args]
            for at, values in enumerate(zip_longest(*lists), start=1):
                numbered = (*values, at) if source.ordinality else values
                yield dict(zip(columns, numbered, strict=True))

        return _From(number, source.alias, columns, None, scan, outer=False)

    # Changes.

    def _insert(self, insert: tree.Insert, scope: Scope) -> Run:
        form = self._forms[insert.table]
        columns = insert.columns or form.columns
        produce = self._produced(insert.source, scope)
        inner = scope.inner()
        number = inner.add(insert.table, form.columns)
        outputs = self._outputs(insert.returning, inner)
        names = tuple(name for name, _ in outputs)
        excluded = inner.add("excluded", form.columns)
        conflict = insert.conflict
        arbiter = () if conflict is None else conflict.target
        sets = [] if conflict is None else [(name, compile_expr(value, inner)[0]) for name, value in conflict.sets]
        where = None if conflict is None or conflict.where is None else compile_expr(conflict.where, inner)[0]

        def settle(ctx: Context, env: Env, other: Row, values: Row, touched: set[int]) -> Row | None:
            """The row that the conflict leaves changed, or None."""
            unique = other.pop("\0unique")
            if conflict is None or (conflict.target and set(conflict.target) != set(unique)):
                raise asyncpg.UniqueViolationError(f"{insert.table} has this {unique}")
            if conflict.nothing:
                return None
            if other[ROW_ID] in touched:
                raise asyncpg.CardinalityViolationError("a row would be changed a second time")
            ctx.session.lock(insert.table, other[ROW_ID])
            here = {**env, number: other, excluded: dict.fromkeys(form.columns) | values}
            if where is not None and not where(ctx, here):
                return None
            return ctx.session.update(insert.table, other, {name: fn(ctx, here) for name, fn in sets})

        def run(ctx: Context, env: Env) -> Result:
            touched: set[int] = set()
            rows: list[tuple[Any, ...]] = []
            done = 0
            for given in produce(ctx, env):
                values = dict(zip(columns, given, strict=True))
                other = ctx.session.insert(insert.table, values, arbiter)
                row = ctx.session.last(insert.table) if other is None else settle(ctx, env, other, values, touched)
                if row is None:
                    continue
                touched.add(row[ROW_ID])
                done += 1
                if outputs:
                    here = {**env, number: row}
                    rows.append(tuple([fn(ctx, here) for _, fn in outputs]))
            return Result(names, rows, f"INSERT 0 {done}")

        return run

    def _produced(
        self, source: tree.Select | tree.WithQuery | tuple[tuple[tree.Expr, ...], ...], scope: Scope
    ) -> Callable[[Context, Env], Iterable[tuple[Any, ...]]]:
        if isinstance(source, tuple):
            fns = [[compile_expr(value, scope)[0] for value in row] for row in source]
            return lambda ctx, env: [tuple(fn(ctx, env) for fn in row) for row in fns]
        run = self._statement(source, scope)
        return lambda ctx, env: run(ctx, env).rows

    def _update(self, update: tree.Update, scope: Scope) -> Run:
        inner = scope.inner()
        sources = self._sources((tree.Join(update.table, "inner", None), *update.sources), inner)
        self._place(update.where, sources, inner)
        sets = [(name, compile_expr(value, inner)[0]) for name, value in update.sets]
        outputs = self._outputs(update.returning, inner)
        names = tuple(name for name, _ in outputs)
        table, number, steps = update.table.name, sources[0].number, _steps(sources)

        def run(ctx: Context, env: Env) -> Result:
            matches = _matches(ctx, env, steps, table)
            rows: list[tuple[Any, ...]] = []
            for match in matches:
                changes = {name: fn(ctx, match) for name, fn in sets}
                row = ctx.session.update(table, match[number], changes)
                if outputs:
                    here = {**match, number: row}
                    rows.append(tuple([fn(ctx, here) for _, fn in outputs]))
            return Result(names, rows, f"UPDATE {len(matches)}")

        return run

    def _delete(self, delete: tree.Delete, scope: Scope) -> Run:
        inner = scope.inner()
        sources = self._sources((tree.Join(delete.table, "inner", None), *delete.sources), inner)
        self._place(delete.where, sources, inner)
        outputs = self._outputs(delete.returning, inner)
        names = tuple(name for name, _ in outputs)
        table, number, steps = delete.table.name, sources[0].number, _steps(sources)

        def run(ctx: Context, env: Env) -> Result:
            matches = _matches(ctx, env, steps, table)
            for match in matches:
                ctx.session.delete(table, match[number])
            rows = [tuple([fn(ctx, match) for _, fn in outputs]) for match in matches] if outputs else []
            return Result(names, rows, f"DELETE {len(matches)}")

        return run


@dataclass(slots=True)
class _Query:
    """A compiled select."""

    names: tuple[str, ...]
    produce: Callable[[Context, list[Env]], list[tuple[Any, ...]]]
    steps: list[_Step]
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
    union: "_Query | None"

    def run(self, ctx: Context, env: Env) -> list[tuple[Any, ...]]:
        """Return the rows; raises Blocked when one has to be waited for."""
        return self.taken(ctx, env, self.found(ctx, env))

    def found(self, ctx: Context, env: Env) -> list[Env]:
        """Return what meets all conditions, in order; locks nothing."""
        envs = _join(ctx, env, self.steps)
        if self.grouped:
            envs = self._grouped(ctx, env, envs)
        if self.having is not None:
            having = self.having
            envs = [one for one in envs if having(ctx, one)]
        if len(envs) > 1 and self.order:
            envs.sort(key=cmp_to_key(lambda one, other: self._compare(ctx, one, other)))
        if self.distinct_on:
            envs = _first_of_each(envs, lambda one: tuple(fn(ctx, one) for fn in self.distinct_on))
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


def _produce(outputs: list[Fn], scope: Scope) -> Callable[[Context, list[Env]], list[tuple[Any, ...]]]:
    """Return what makes the rows: one lookup a row where they are columns of one source."""
    places = [scope.columns.get(fn) for fn in outputs]
    names = [place[1] for place in places if place is not None]
    numbers = {None if place is None else place[0] for place in places}
    (number,) = numbers if len(numbers) == 1 else (None,)
    if number is None or len(names) == 1:
        return lambda ctx, envs: [tuple([fn(ctx, one) for fn in outputs]) for one in envs]
    pick = itemgetter(*names)
    return lambda _ctx, envs: [pick(one[number]) for one in envs]


def _again(work: Callable[[Context, Env], Any], reads: tuple[str, ...], ctx: Context, query: str) -> Any:
    """Return what the same question was answered, unless a table that it reads was changed since then."""
    writes, tables = ctx.session.writes, ctx.session.tables
    if writes and not writes.keys().isdisjoint(reads):
        return work(ctx, {})
    args = ctx.args
    if list in map(type, args):
        args = tuple([tuple(one) if type(one) is list else one for one in args])
    asked = query, args
    changes = tables.changes(reads)
    known = tables.answers.get(asked)
    if known is not None and known[0] == changes:
        return known[1]
    answer = work(ctx, {})
    tables.answers[asked] = changes, answer
    return answer


def _locked(locking: "tuple[_Query, tuple[str, ...]]", ctx: Context, query: str) -> Result:
    """Run a select that locks what it finds: what it finds may be known, whether it is free has to be seen."""
    select, reads = locking
    found = _again(select.found, reads, ctx, query)
    return _selected(select.names, select.taken(ctx, {}, found))


def _parts(one: Any) -> Iterator[Any]:
    """Return everything that a statement is made of."""
    if isinstance(one, tuple):
        for part in one:
            yield from _parts(part)
    elif is_dataclass(one):
        yield one
        for name in fields(one):
            yield from _parts(getattr(one, name.name))


def _changes(statement: tree.Statement) -> bool:
    match statement:
        case tree.Select():
            return False
        case tree.WithQuery(ctes, last):
            return _changes(last) or any(_changes(cte.statement) for cte in ctes)
    return True


def _scan(names: tuple[str, ...], query: _Query) -> Callable[[Context, Env, object], Iterable[Row]]:
    def scan(ctx: Context, env: Env, _eq: object) -> Iterable[Row]:
        return [dict(zip(names, row, strict=True)) for row in query.run(ctx, env)]

    return scan


def _selected(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Result:
    return Result(names, rows, f"SELECT {len(rows)}")


def _first_of_each(envs: list[Env], key: Callable[[Env], object]) -> list[Env]:
    found: dict[object, Env] = {}
    for one in envs:
        found.setdefault(key(one), one)
    return list(found.values())


def _put(conjuncts: Iterable[_Conjunct], sources: list[_From]) -> None:
    """Give each condition to the first source at which all it reads is known."""
    numbers = [one.number for one in sources]
    for conjunct in conjuncts:
        ours = [numbers.index(number) for number in conjunct.reads if number in numbers]
        sources[max(ours, default=0)].tests.append(conjunct)


def _steps(sources: list[_From]) -> list[_Step]:
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
        steps.append(_Step(source.number, source.table, source.scan, equal, tests, on, nulls))
    return steps


def _join(ctx: Context, env: Env, steps: list[_Step]) -> list[Env]:
    envs = [env]
    for step in steps:
        envs = step.inner(ctx, envs) if step.nulls is None else step.outer(ctx, envs, step.nulls)
        if not envs:
            break
    return envs


def _matches(ctx: Context, env: Env, steps: list[_Step], table: str) -> list[Env]:
    """Return the rows to change, each once, all locked before the first is changed."""
    number = steps[0].number
    found = _join(ctx, env, steps)
    if len(steps) > 1:
        found = _first_of_each(found, lambda one: one[number][ROW_ID])
    for one in found:
        ctx.session.lock(table, one[number][ROW_ID])
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
