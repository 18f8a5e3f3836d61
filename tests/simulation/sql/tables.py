"""The rows of one simulated database, its locks, and transactions that see their own changes; parses no SQL.

Read committed, as PostgreSQL has it: a statement sees what is committed when it runs, and what its own transaction
did. A row that another transaction changed or locked is waited for; the statement then runs again.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

#: A row by column; under ROW_ID the number that the row keeps while it lives.
Row = dict[str, Any]
ROW_ID: Final = ""
Unique = tuple[str, ...]
Key = tuple[str, object]


def _text(value: object) -> object:
    return str(value) if isinstance(value, str) else _refuse(value, "text")


def _integer(value: object) -> object:
    return value if isinstance(value, int) and not isinstance(value, bool) else _refuse(value, "integer")


def _bytes(value: object) -> object:
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else _refuse(value, "bytea")


def _time(value: object) -> object:
    aware = isinstance(value, datetime) and value.tzinfo is not None
    return value if aware else _refuse(value, "timestamptz")


def _uuid(value: object) -> object:
    return UUID(value) if isinstance(value, str) else value if isinstance(value, UUID) else _refuse(value, "uuid")


def _array(value: object) -> object:
    return list(value) if isinstance(value, list | tuple) else _refuse(value, "array")


def _json(value: object) -> object:
    return json.loads(value) if isinstance(value, str | bytes) else value


def _as_is(value: object) -> object:
    return value


def _twice(table: str, unique: Unique) -> NoReturn:
    raise asyncpg.UniqueViolationError(f"{table} has a row with this {unique}")


def _refuse(value: object, kind: str) -> object:
    raise asyncpg.DataError(f"a {type(value).__name__} is no {kind}")


_COERCE: tuple[tuple[type[Any], Callable[[object], object]], ...] = (
    (pg.JSONB, _json),
    (sa.JSON, _json),
    (sa.ARRAY, _array),
    (sa.Uuid, _uuid),
    (sa.String, _text),
    (sa.Integer, _integer),
    (sa.LargeBinary, _bytes),
    (sa.DateTime, _time),
)


@dataclass(frozen=True, slots=True)
class Form:
    """What a table is declared as."""

    name: str
    columns: tuple[str, ...]
    coerce: Mapping[str, Callable[[object], object]]
    required: frozenset[str]
    uniques: tuple[Unique, ...]
    partial: Mapping[Unique, str]
    references: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...]
    identity: str | None
    defaults: Mapping[str, object]
    #: A row of which nothing is said.
    blank: Row
    _orders: dict[Unique, list[Unique]] = field(default_factory=dict)

    def looked_at(self, arbiter: Unique) -> list[Unique]:
        """Return the keys, the one that ON CONFLICT names before the others."""
        found = self._orders.get(arbiter)
        if found is None:
            found = self._orders[arbiter] = sorted(self.uniques, key=lambda one: set(one) != set(arbiter))
        return found

    @classmethod
    def of(cls, table: sa.Table) -> "Form":
        """Read a declaration of `node.hotline.store.tables`."""
        uniques: list[Unique] = [tuple(column.name for column in table.primary_key.columns)]
        partial: dict[Unique, str] = {}
        references = []
        for constraint in sorted(table.constraints, key=lambda one: str(one.name)):
            if isinstance(constraint, sa.UniqueConstraint):
                uniques.append(tuple(column.name for column in constraint.columns))
            if isinstance(constraint, sa.ForeignKeyConstraint):
                ours = tuple(constraint.column_keys)
                theirs = tuple(element.column.name for element in constraint.elements)
                references.append((ours, constraint.referred_table.name, theirs))
        for index in table.indexes:
            if index.unique:
                key = tuple(column.name for column in index.columns)
                uniques.append(key)
                where = index.dialect_options["postgresql"]["where"]
                if where is not None:
                    partial[key] = str(where)
        identity = next((column.name for column in table.columns if column.identity is not None), None)
        defaults = {
            column.name: _default(column.server_default)
            for column in table.columns
            if isinstance(column.server_default, sa.DefaultClause)
        }
        return cls(
            name=table.name,
            columns=tuple(column.name for column in table.columns),
            coerce={column.name: _coercion(column.type) for column in table.columns},
            required=frozenset(column.name for column in table.columns if not column.nullable),
            uniques=tuple(dict.fromkeys(uniques)),
            partial=partial,
            references=tuple(references),
            identity=identity,
            defaults=defaults,
            blank={column.name: defaults.get(column.name) for column in table.columns},
        )


def _coercion(kind: object) -> Callable[[object], object]:
    return next((coerce for one, coerce in _COERCE if isinstance(kind, one)), _as_is)


def _default(clause: sa.DefaultClause) -> object:
    text = str(clause.arg).split("::")[0].strip()
    if text.startswith("'"):
        return text[1:-1]
    return {"true": True, "false": False, "null": None}.get(text.lower()) if text.isalpha() else int(text)


@dataclass(slots=True)
class _Data:
    """The committed rows of one table, and indexes made when first asked for."""

    form: Form
    rows: dict[int, Row] = field(default_factory=dict)
    indexes: dict[str, dict[object, dict[int, None]]] = field(default_factory=dict)
    sequence: int = 0
    #: How often a row was changed: what was read before the last time may be old.
    changes: int = 0

    def index(self, column: str) -> dict[object, dict[int, None]]:
        """Make the index of a column."""
        found = self.indexes[column] = {}
        for row_id, row in self.rows.items():
            found.setdefault(_hashable(row[column]), {})[row_id] = None
        return found

    def among(self, equal: Iterable[tuple[str, object]]) -> Collection[int]:
        """Return the rows that may have these values: the fewest that an index gives."""
        ids: Collection[int] = self.rows
        fewest, indexes = len(ids), self.indexes
        for column, value in equal:
            index = indexes.get(column)
            if index is None:
                index = self.index(column)
            found = index.get(_hashable(value) if type(value) in _UNHASHABLE else value, ())
            if len(found) < fewest:
                ids, fewest = found, len(found)
        return ids

    def change(self, row_id: int, row: Row | None) -> None:
        self.changes += 1
        before = self.rows.pop(row_id, None)
        if row is not None:
            self.rows[row_id] = row
        for column, index in self.indexes.items():
            if before is not None:
                value = before[column]
                index[_hashable(value) if type(value) in _UNHASHABLE else value].pop(row_id, None)
            if row is not None:
                value = row[column]
                key = _hashable(value) if type(value) in _UNHASHABLE else value
                ids = index.get(key)
                if ids is None:
                    ids = index[key] = {}
                ids[row_id] = None


#: What a value of a column may be that no index can hold as it is.
_UNHASHABLE: Final = frozenset({list, dict})


def _hashable(value: object) -> object:
    kind = type(value)
    if kind is list:
        return tuple(map(_hashable, value))  # type: ignore[call-overload] # it is a list
    return repr(value) if kind is dict else value


def _has(row: Row, wanted: Iterable[tuple[str, object]]) -> bool:
    for column, value in wanted:  # noqa: SIM110 - a generator costs more, and this is asked most
        if row[column] != value:
            return False
    return True


class Blocked(Exception):  # noqa: N818 - a fact, not an error
    """The statement needs what another transaction has; it runs again when that one ends."""

    def __init__(self, holder: "Session") -> None:
        """Name who has it."""
        super().__init__("another transaction has it")
        self.holder = holder


class Tables:
    """All tables of one node's database; what is here is on the disk."""

    def __init__(self, forms: Iterable[Form]) -> None:
        """Begin empty."""
        self.data = {form.name: _Data(form) for form in forms}
        self.locks: dict[tuple[str, object], Session] = {}
        self.open: dict[Session, None] = {}
        #: What selects answered, with the count of changes in the tables that they read.
        self.answers: dict[object, tuple[int, Any]] = {}
        self._last_row = 0

    def begin(self) -> "Session":
        """Open a transaction."""
        session = Session(self)
        self.open[session] = None
        return session

    def copied(self) -> "Tables":
        """Return what is committed as tables of their own, as a backup has it; no row is changed in place."""
        copy = Tables(data.form for data in self.data.values())
        for name, data in self.data.items():
            copy.data[name].rows = dict(data.rows)
            copy.data[name].sequence = data.sequence
        copy._last_row = self._last_row
        return copy

    def follow(self, others: "Tables") -> None:
        """Give rows made from now on numbers that no row of `others` had."""
        self._last_row = max(self._last_row, others._last_row)

    def next_row(self) -> int:
        self._last_row += 1
        return self._last_row

    def changes(self, tables: Sequence[str]) -> int:
        """Return how often these tables were changed: when it is the same again, none was."""
        count = 0
        for table in tables:
            count += self.data[table].changes
        return count

    def committed(self, table: str) -> list[Row]:
        """Return the committed rows of a table, in the order of their making."""
        return list(self.data[table].rows.values())

    def found(self, table: str, equal: Mapping[str, object]) -> list[Row]:
        """Return the committed rows of a table that have these values."""
        data = self.data[table]
        rows = [data.rows[row_id] for row_id in data.among(equal.items())]
        wanted = list(equal.items())
        return [row for row in rows if _has(row, wanted)]


class Session:
    """One open transaction."""

    def __init__(self, tables: Tables) -> None:
        """See what is committed; nothing is changed yet."""
        self.tables = tables
        self.writes: dict[str, dict[int, Row | None]] = {}
        #: What `back` puts in the place of each table's writes; None where there were none.
        self._before: dict[str, dict[int, Row | None] | None] = {}
        self.notified: list[str] = []
        self.failed = False
        self.waits_for: Session | None = None
        self.over: asyncio.Event | None = None
        self._held: list[tuple[str, object]] = []

    # Reading.

    def rows(self, table: str, equal: Sequence[tuple[str, object]] = ()) -> list[Row]:
        """Return the rows that may have these values, as this transaction sees them; the caller looks again."""
        data = self.tables.data[table]
        over = self.writes.get(table)
        kept = data.rows
        if not equal:
            if not over:
                return list(kept.values())
            seen = [row for row_id, row in kept.items() if row_id not in over]
        else:
            ids = data.among(equal)
            if not over:
                return [kept[row_id] for row_id in ids]
            seen = [kept[row_id] for row_id in ids if row_id not in over]
        seen += [row for row in over.values() if row is not None]
        return seen

    def version(self, table: str, row_id: int) -> Row | None:
        """Return a row as this transaction sees it now."""
        over = self.writes.get(table, {})
        return over[row_id] if row_id in over else self.tables.data[table].rows.get(row_id)

    # Locks.

    def free(self, table: str, row_id: int) -> bool:
        """Tell whether no other transaction has the row."""
        return self.tables.locks.get((table, row_id), self) is self

    def lock(self, table: str, what: object) -> None:
        """Take a row (by number) or a key of a unique constraint; raises Blocked."""
        holder = self.tables.locks.setdefault((table, what), self)
        if holder is not self:
            raise Blocked(holder)
        self._held.append((table, what))

    # Writing.

    def insert(self, table: str, values: Mapping[str, object], arbiter: Unique = ()) -> Row | None:
        """Insert one row and return None, or return the row that stands in its way; raises for what no row may be.

        The key that ON CONFLICT names, `arbiter`, is looked at before the others.
        """
        data = self.tables.data[table]
        row = self._formed(data, values)
        for unique in data.form.uniques if not arbiter else data.form.looked_at(arbiter):
            if (other := self.in_the_way(data.form, unique, row)) is not None:
                return {**other, "\0unique": unique}
        self._check_references(data.form, row)
        row_id = self.tables.next_row()
        row[ROW_ID] = row_id
        self._write(table, row_id, row)
        return None

    def copy(self, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Insert all rows or none; raises Blocked."""
        mark = self.mark()
        try:
            for row in rows:
                if (other := self.insert(table, row)) is not None:
                    _twice(table, other["\0unique"])
        except BaseException:
            self.back(mark)
            raise

    def last(self, table: str) -> Row:
        """Return the row inserted last."""
        row = next(reversed(self.writes[table].values()))
        if row is None:
            raise LookupError("the last change was no insert")
        return row

    def _formed(self, data: _Data, values: Mapping[str, object]) -> Row:
        form = data.form
        row, coerce = form.blank.copy(), form.coerce
        for column, value in values.items():
            row[column] = None if value is None else coerce[column](value)
        if form.identity is not None and row[form.identity] is None:
            data.sequence += 1
            row[form.identity] = data.sequence
        self._check_required(form, row)
        return row

    def _check_required(self, form: Form, row: Row) -> None:
        for column in form.required:
            if row[column] is None:
                raise asyncpg.NotNullViolationError(f"{form.name}.{column} is null")

    def in_the_way(self, form: Form, unique: Unique, row: Row) -> Row | None:
        """Return the row that has the same key already, and take the key if there is none; raises Blocked."""
        lookup = [(column, row[column]) for column in unique]
        key = tuple([_hashable(value) for _, value in lookup])
        if unique in form.partial or None in key:
            return None
        committed = self.tables.data[form.name]
        for other in self.rows(form.name, lookup):
            if other.get(ROW_ID) != row.get(ROW_ID) and _has(other, lookup):
                holder = self.tables.locks.get((form.name, other[ROW_ID]))
                gone = holder is not None and holder is not self and self._leaves(holder, form.name, other[ROW_ID])
                if holder is not None and gone:
                    raise Blocked(holder)
                return committed.rows.get(other[ROW_ID], other) if other[ROW_ID] not in self._own(form.name) else other
        self.lock(form.name, (unique, key))
        return None

    def _own(self, table: str) -> Mapping[int, Row | None]:
        return self.writes.get(table, {})

    @staticmethod
    def _leaves(holder: "Session", table: str, row_id: int) -> bool:
        over = holder.writes.get(table, {})
        return row_id in over and over[row_id] is None

    def update(self, table: str, row: Row, changes: Mapping[str, object]) -> Row:
        """Change one row, which this transaction has locked, and return it."""
        form = self.tables.data[table].form
        after = dict(row)
        for column, value in changes.items():
            after[column] = None if value is None else form.coerce[column](value)
        self._check_required(form, after)
        for unique in form.uniques:
            moved = any(after[column] != row[column] for column in unique)
            if moved and self.in_the_way(form, unique, after) is not None:
                raise asyncpg.UniqueViolationError(f"{table} has this {unique}")
        self._write(table, row[ROW_ID], after)
        return after

    def delete(self, table: str, row: Row) -> None:
        """Delete one row, which this transaction has locked."""
        self._write(table, row[ROW_ID], None)

    def _write(self, table: str, row_id: int, row: Row | None) -> None:
        over = self.writes.get(table)
        if table not in self._before:
            self._before[table] = None if over is None else over.copy()
        if over is None:
            over = self.writes[table] = {}
        over.pop(row_id, None)
        over[row_id] = row

    def _check_references(self, form: Form, row: Row) -> None:
        for ours, table, theirs in form.references:
            wanted = [(name, row[column]) for column, name in zip(ours, theirs, strict=True)]
            if None in [value for _, value in wanted]:
                continue
            if not any(_has(one, wanted) for one in self.rows(table, wanted)):
                raise asyncpg.ForeignKeyViolationError(f"{form.name} refers to a row that {table} does not hold")

    # The end.

    def mark(self) -> int:
        """Begin a statement, and return what `back` needs to undo it."""
        self._before = {}
        return len(self.notified)

    def back(self, mark: int) -> None:
        """Undo everything since the last `mark`."""
        for table, over in self._before.items():
            if over is None:
                del self.writes[table]
            else:
                self.writes[table] = over
        del self.notified[mark:]

    def commit(self) -> None:
        """Make the changes durable, in one step."""
        for table, over in self.writes.items():
            data = self.tables.data[table]
            for row_id, row in over.items():
                data.change(row_id, row)
        self.end()

    def end(self) -> None:
        """Let go of everything; what was not committed is gone."""
        self.writes = {}
        locks = self.tables.locks
        for key in self._held:
            if locks.get(key) is self:
                del locks[key]
        self._held = []
        self.tables.open.pop(self, None)
        if self.over is not None:
            self.over.set()
