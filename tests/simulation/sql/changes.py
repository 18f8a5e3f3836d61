"""Compiles INSERT, UPDATE and DELETE: what they change, what a conflict does instead, and what they return."""

from collections.abc import Callable, Iterable
from typing import Any

import asyncpg

from tests.simulation.sql import tree
from tests.simulation.sql.expressions import Context, Env, Scope, compile_expr, compile_row, written
from tests.simulation.sql.joins import matches_of, steps_of
from tests.simulation.sql.queries import Result, outputs_of
from tests.simulation.sql.sources import place, sources_of
from tests.simulation.sql.tables import ROW_ID, Row

Run = Callable[[Context, Env], Result]


#: What gives the rows to insert.
Rows = Callable[[Context, Env], Iterable[tuple[Any, ...]]]


def insert_of(insert: tree.Insert, rows_of: Rows, scope: Scope) -> Run:
    """Compile an INSERT of the rows that `rows_of` gives; a conflict that it does not settle raises."""
    form = scope.tables[insert.table]
    columns = insert.columns or form.columns
    inner = scope.inner()
    number = inner.add(insert.table, form.columns)
    names, returned = outputs_of(insert.returning, inner)
    excluded = inner.add("excluded", form.columns)
    conflict = insert.conflict
    arbiters = () if conflict is None else form.arbiters(conflict.target, conflict.implied)
    changed = None if conflict is None else _changed(conflict.sets, inner)
    where = None if conflict is None or conflict.where is None else compile_expr(conflict.where, inner)

    def settle(ctx: Context, env: Env, other: Row, values: Row, touched: set[int]) -> Row | None:
        """The row that the conflict leaves changed, or None."""
        unique = other.pop("\0unique")
        if conflict is None or changed is None or unique not in arbiters:
            raise asyncpg.UniqueViolationError(f"{insert.table} has this {unique}")
        if conflict.nothing:
            return None
        if other[ROW_ID] in touched:
            raise asyncpg.CardinalityViolationError("a row would be changed a second time")
        ctx.session.lock(insert.table, other[ROW_ID])
        here = {**env, number: other, excluded: form.blank | values}
        if where is not None and not where(ctx, here):
            return None
        return ctx.session.update(insert.table, other, changed(ctx, here))

    def run(ctx: Context, env: Env) -> Result:
        touched: set[int] = set()
        rows: list[tuple[Any, ...]] = []
        done = 0
        for given in rows_of(ctx, env):
            values = dict(zip(columns, given, strict=True))
            other = ctx.session.insert(insert.table, values, arbiters)
            row = ctx.session.last(insert.table) if other is None else settle(ctx, env, other, values, touched)
            if row is None:
                continue
            touched.add(row[ROW_ID])
            done += 1
            if names:
                rows.append(returned(ctx, {**env, number: row}))
        return Result(names, rows, f"INSERT 0 {done}")

    return run


def values_of(rows: tuple[tuple[tree.Expr, ...], ...], scope: Scope) -> Rows:
    """Compile VALUES."""
    values = [compile_row(row, scope) for row in rows]
    return lambda ctx, env: [row(ctx, env) for row in values]


def _changed(sets: tuple[tuple[str, tree.Expr], ...], scope: Scope) -> Callable[[Context, Env], Row]:
    """Compile SET: the new values by column."""
    values = "".join(f"{name!r}: {written(value, scope)[0]}, " for name, value in sets)
    changed: Callable[[Context, Env], Row] = scope.python.function(f"def f(ctx, env):\n    return {{{values}}}\n")
    return changed


def update_of(update: tree.Update, scope: Scope) -> Run:
    """Compile an UPDATE: every row that it changes is locked first."""
    inner = scope.inner()
    sources = sources_of((tree.Join(update.table, "inner", None), *update.sources), inner)
    place(update.where, sources, inner)
    changed = _changed(update.sets, inner)
    names, returned = outputs_of(update.returning, inner)
    table, number, steps = update.table.name, sources[0].number, steps_of(sources, inner)

    def run(ctx: Context, env: Env) -> Result:
        matches = matches_of(ctx, env, steps, table, number)
        rows: list[tuple[Any, ...]] = []
        for match in matches:
            row = ctx.session.update(table, match[number], changed(ctx, match))
            if names:
                rows.append(returned(ctx, {**match, number: row}))
        return Result(names, rows, f"UPDATE {len(matches)}")

    return run


def delete_of(delete: tree.Delete, scope: Scope) -> Run:
    """Compile a DELETE."""
    inner = scope.inner()
    sources = sources_of((tree.Join(delete.table, "inner", None), *delete.sources), inner)
    place(delete.where, sources, inner)
    names, returned = outputs_of(delete.returning, inner)
    table, number, steps = delete.table.name, sources[0].number, steps_of(sources, inner)

    def run(ctx: Context, env: Env) -> Result:
        matches = matches_of(ctx, env, steps, table, number)
        for match in matches:
            ctx.session.delete(table, match[number])
        rows = [returned(ctx, match) for match in matches] if names else []
        return Result(names, rows, f"DELETE {len(matches)}")

    return run
