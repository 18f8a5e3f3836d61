"""Compiles statements to functions that run in a transaction, and keeps them; what is asked again is looked up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from tests.simulation.sql import tree
from tests.simulation.sql.changes import Rows, Run, delete_of, insert_of, update_of, values_of
from tests.simulation.sql.expressions import Context, Env, Scope
from tests.simulation.sql.forms import Form
from tests.simulation.sql.queries import Result, Select, outputs_of, query_of, selected
from tests.simulation.sql.sources import sources_of
from tests.simulation.sql.syntax import parse
from tests.simulation.sql.tables import Session
from tests.simulation.sql.tokens import UnknownSyntax


@dataclass(frozen=True, slots=True)
class _Known:
    """A statement that was compiled.

    `reads` are the tables that it reads where it does nothing else; `locking` is a select that locks what it finds.
    """

    run: Run
    changes: bool
    reads: tuple[str, ...] | None
    locking: "tuple[Select, tuple[str, ...]] | None"


class Compiler:
    """Compiles the statements of one set of tables; keeps what it compiled."""

    def __init__(self, forms: dict[str, Form]) -> None:
        """Take the tables."""
        self._tables = forms
        self._known: dict[str, _Known] = {}

    def run(self, session: Session, query: str, args: Sequence[object]) -> Result:
        """Run one statement; raises Blocked, with nothing changed, when it has to wait."""
        known = self._known.get(query)
        if known is None:
            known = self._known[query] = self._compiled(query)
        ctx = Context(args, session)
        if known.reads is not None:
            answer: Result = _again(known.run, known.reads, ctx, query)
            return answer
        if known.locking is not None:
            return _locked(known.locking, ctx, query)
        if not known.changes:
            return known.run(ctx, {})
        mark = session.mark()
        try:
            return known.run(ctx, {})
        except BaseException:
            session.back(mark)
            raise

    def _compiled(self, query: str) -> _Known:
        statement = parse(query)
        changes, parts = _changes(statement), list(_parts(statement))
        reads = tuple(sorted({one.name for one in parts if isinstance(one, tree.Table) and one.name in self._tables}))
        scope = Scope(query_of, self._tables)
        lock = statement.lock if isinstance(statement, tree.Select) else None
        notifies = any(isinstance(one, tree.Call) and one.name == "pg_notify" for one in parts)
        if changes or notifies or any(isinstance(one, tree.Lock) and one is not lock for one in parts):
            return _Known(_statement(statement, scope), changes, None, None)
        if lock is not None and isinstance(statement, tree.Select):
            locking = query_of(statement, scope.inner())
            return _Known(_statement(statement, scope), changes, None, (locking, reads))
        return _Known(_statement(statement, scope), changes, reads, None)


def _statement(statement: tree.Statement, scope: Scope) -> Run:
    match statement:
        case tree.WithQuery():
            return _with(statement, scope)
        case tree.Select():
            query = query_of(statement, scope.inner())
            return lambda ctx, env: selected(query.names, query.run(ctx, env))
        case tree.Insert():
            return insert_of(statement, _rows(statement, scope), scope)
        case tree.Update():
            return update_of(statement, scope)
        case tree.Delete():
            return delete_of(statement, scope)


def _rows(insert: tree.Insert, scope: Scope) -> Rows:
    if isinstance(insert.source, tuple):
        return values_of(insert.source, scope)
    run = _statement(insert.source, scope)
    return lambda ctx, env: run(ctx, env).rows


def _with(statement: tree.WithQuery, scope: Scope) -> Run:
    inner = scope.inner()
    steps: list[tuple[str, Run]] = []
    for cte in statement.ctes:
        run = _statement(cte.statement, inner)
        steps.append((cte.name, run))
        inner.queries[cte.name] = cte.columns or _names_of(cte.statement, inner)
    last = _statement(statement.statement, inner)

    def whole(ctx: Context, env: Env) -> Result:
        for name, run in steps:
            columns = inner.queries[name]
            ctx.named[name] = [dict(zip(columns, row, strict=True)) for row in run(ctx, env).rows]
        return last(ctx, env)

    return whole


def _names_of(statement: tree.Statement, scope: Scope) -> tuple[str, ...]:
    match statement:
        case tree.WithQuery():
            raise UnknownSyntax("a WITH query inside a WITH query")
        case tree.Select():
            return query_of(statement, scope.inner()).names
        case tree.Insert(table):
            sub = scope.inner()
            sub.add(table, scope.tables[table].columns)
        case tree.Update(table=table) | tree.Delete(table=table):
            sub = scope.inner()
            sources_of((tree.Join(table, "inner", None), *statement.sources), sub)
    return outputs_of(statement.returning, sub)[0]


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


def _locked(locking: "tuple[Select, tuple[str, ...]]", ctx: Context, query: str) -> Result:
    """Run a select that locks what it finds: what it finds may be known, whether it is free has to be seen."""
    select, reads = locking
    found = _again(select.found, reads, ctx, query)
    return selected(select.names, select.taken(ctx, {}, found))


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
