"""The rows of one simulated database, its locks, and transactions that see their own changes; parses no SQL.

Read committed, as PostgreSQL has it: a statement sees what is committed when it runs, and what its own transaction
did. A row that another transaction changed or locked is waited for; the statement then runs again.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any, Final, NoReturn

import asyncpg

from tests.simulation.sql.forms import Form, Key, Partial, Unique

#: A row by column; under ROW_ID the number that the row keeps while it lives.
Row = dict[str, Any]
ROW_ID: Final = ""


def _twice(table: str, unique: Key) -> NoReturn:
    raise asyncpg.UniqueViolationError(f"{table} has a row with this {unique}")


@dataclass(slots=True)
class _Data:
    """The committed rows of one table, and indexes made when first asked for."""

    form: Form
    rows: dict[int, Row] = field(default_factory=dict)
    indexes: dict[str, dict[object, dict[int, None]]] = field(default_factory=dict)
    #: Who has the values of a unique key, for the keys that were asked for.
    keys: dict[Key, dict[object, int]] = field(default_factory=dict)
    sequence: int = 0
    #: How often a row was changed: what was read before the last time may be old.
    changes: int = 0

    def index(self, column: str) -> dict[object, dict[int, None]]:
        """Make the index of a column."""
        found = self.indexes[column] = {}
        for row_id, row in self.rows.items():
            found.setdefault(_hashable(row[column]), {})[row_id] = None
        return found

    def key(self, unique: Key) -> dict[object, int]:
        """Make the index of a unique key."""
        found, key_of = {}, _key_of(unique)
        for row_id, row in self.rows.items():
            found[key_of(row)] = row_id
        self.keys[unique] = found
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
        """Put a row in the place of what it was, last of all; None removes it."""
        self.changes += 1
        before = self.rows.pop(row_id, None)
        if row is not None:
            self.rows[row_id] = row
        for column, index in self.indexes.items():
            if before is not None:
                value = before[column]
                del index[_hashable(value) if type(value) in _UNHASHABLE else value][row_id]
            if row is not None:
                value = row[column]
                key = _hashable(value) if type(value) in _UNHASHABLE else value
                ids = index.get(key)
                if ids is None:
                    ids = index[key] = {}
                ids[row_id] = None
        for unique, owners in self.keys.items():
            # Another row may have the key by now, where both were changed in one transaction.
            key_of = _key_of(unique)
            if before is not None and owners.get(gone := key_of(before)) == row_id:
                del owners[gone]
            if row is not None:
                owners[key_of(row)] = row_id


#: What a value of a column may be that no index can hold as it is.
_UNHASHABLE: Final = frozenset({list, dict})


def _hashable(value: object) -> object:
    kind = type(value)
    if kind is list:
        return tuple(map(_hashable, value))  # type: ignore[call-overload] # it is a list
    return repr(value) if kind is dict else value


@cache
def _key_of(unique: Key) -> Callable[[Row], Any]:
    """Return what gives a row's values of a key: a tuple, or the one value; None for a row that has none."""
    if not isinstance(unique, Partial):
        return itemgetter(*unique)
    values, holds = itemgetter(*unique.columns), unique.holds
    return lambda row: values(row) if holds(row) else None


def _has(row: Row, wanted: Iterable[tuple[str, object]]) -> bool:
    for column, value in wanted:  # noqa: SIM110 - a generator costs more, and this is asked most
        if row[column] != value:
            return False
    return True


def _take_in(form: Form, row: Row, values: Mapping[str, object]) -> None:
    """Put what is given into a row, as its columns hold it."""
    kinds = form.kinds
    for column, value in values.items():
        row[column] = value if value is None or type(value) is kinds[column] else form.coerce[column](value)


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

    __slots__ = ("_before", "_held", "failed", "notified", "over", "tables", "waits_for", "writes")

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
        key = table, what
        holder = self.tables.locks.setdefault(key, self)
        if holder is not self:
            raise Blocked(holder)
        self._held.append(key)

    # Writing.

    def insert(self, table: str, values: Mapping[str, object], arbiters: tuple[Key, ...] = ()) -> Row | None:
        """Insert one row and return None, or return the row that stands in its way; raises for what no row may be.

        The keys that ON CONFLICT means, `arbiters`, are looked at before the others.
        """
        data = self.tables.data[table]
        row = self._formed(data, values)
        for unique in data.form.looked_at(arbiters) if arbiters else data.form.uniques:
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
        row = form.blank.copy()
        _take_in(form, row, values)
        if form.identity is not None and row[form.identity] is None:
            data.sequence += 1
            row[form.identity] = data.sequence
        for column in form.required:
            if row[column] is None:
                raise asyncpg.NotNullViolationError(f"{form.name}.{column} is null")
        return row

    def in_the_way(self, form: Form, unique: Key, row: Row) -> Row | None:
        """Return the row that has the same key already, and take the key if there is none; raises Blocked."""
        key_of = _key_of(unique)
        key = key_of(row)
        if key is None or (type(key) is tuple and None in key):
            return None
        name, ours = form.name, row.get(ROW_ID)
        data, over = self.tables.data[name], self.writes.get(name)
        owners = data.keys.get(unique)
        row_id = (data.key(unique) if owners is None else owners).get(key)
        if row_id is not None and row_id != ours and (not over or row_id not in over):
            holder = self.tables.locks.get((name, row_id))
            if holder is not None and holder is not self:
                after = holder.version(name, row_id)
                if after is None or key_of(after) != key:
                    # Whether the key is free, the other's end will tell.
                    raise Blocked(holder)
            return data.rows[row_id]
        for other in over.values() if over else ():
            if other is not None and other[ROW_ID] != ours and key_of(other) == key:
                return other
        self.lock(name, (unique, key))
        return None

    def update(self, table: str, row: Row, changes: Mapping[str, object]) -> Row:
        """Change one row, which this transaction has locked, and return it."""
        form = self.tables.data[table].form
        after = row.copy()
        _take_in(form, after, changes)
        for column in changes:
            if after[column] is None and column in form.required:
                raise asyncpg.NotNullViolationError(f"{form.name}.{column} is null")
        for unique in form.moved(changes):
            key_of = _key_of(unique)
            if key_of(after) != key_of(row) and self.in_the_way(form, unique, after) is not None:
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
            key = _key_of(ours)(row)
            if not (key is None or (type(key) is tuple and None in key)) and not self._holds(table, theirs, key):
                raise asyncpg.ForeignKeyViolationError(f"{form.name} refers to a row that {table} does not hold")

    def _holds(self, table: str, unique: Unique, key: object) -> bool:
        data, over = self.tables.data[table], self.writes.get(table)
        owners = data.keys.get(unique)
        row_id = (data.key(unique) if owners is None else owners).get(key)
        if not over:
            return row_id is not None
        if row_id is not None and row_id not in over:
            return True
        key_of = _key_of(unique)
        return any(other is not None and key_of(other) == key for other in over.values())

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
            # A row that was locked twice is held once.
            locks.pop(key, None)
        self._held = []
        self.tables.open.pop(self, None)
        if self.over is not None:
            self.over.set()
