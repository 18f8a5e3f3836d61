"""What tables are declared as: their columns, what a column takes, keys and references; holds no row."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tests.simulation.sql import tree
from tests.simulation.sql.tokens import UnknownSyntax

Unique = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Partial:
    """A key of those rows only for which a condition holds."""

    columns: Unique
    where: tree.Expr
    holds: Callable[[dict[str, Any]], bool] = field(compare=False)


#: Columns that no two rows have alike.
Key = Unique | Partial
#: Reads the condition of a partial index over these columns.
Condition = Callable[[str, tuple[str, ...]], tuple[tree.Expr, Callable[[dict[str, Any]], bool]]]


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


#: What a value may be to be stored as it is.
_KINDS: dict[Callable[[object], object], type[Any]] = {_uuid: UUID, _text: str, _integer: int, _bytes: bytes}


class _Never:
    """The type of no value."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a table is declared as."""

    name: str
    columns: tuple[str, ...]
    #: What a value given for a column becomes, and the type of which a value stays what it is.
    coerce: Mapping[str, Callable[[object], object]]
    kinds: Mapping[str, type[Any]]
    required: frozenset[str]
    uniques: tuple[Key, ...]
    references: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...]
    identity: str | None
    #: A row of which nothing is said.
    blank: dict[str, Any]
    _orders: dict[tuple[Key, ...], list[Key]] = field(default_factory=dict)
    _moved: dict[frozenset[str], list[Key]] = field(default_factory=dict)

    def arbiters(self, target: Unique, implied: tree.Expr | None) -> tuple[Key, ...]:
        """Return the keys that ON CONFLICT means; raises InvalidColumnReferenceError when it means none."""
        if not target:
            return self.uniques
        named = {key: _columns(key) for key in self.uniques if set(_columns(key)) == set(target)}
        found = tuple(key for key in named if not isinstance(key, Partial) or key.where == implied)
        if not found and named and implied is not None:
            raise UnknownSyntax(f"whether {implied} is the condition of a key")
        if not found:
            raise asyncpg.InvalidColumnReferenceError(f"{self.name} has no key of {target}")
        return found

    def looked_at(self, arbiters: tuple[Key, ...]) -> list[Key]:
        """Return the keys, those that ON CONFLICT means before the others."""
        found = self._orders.get(arbiters)
        if found is None:
            found = self._orders[arbiters] = sorted(self.uniques, key=lambda one: one not in arbiters)
        return found

    def moved(self, columns: Collection[str]) -> list[Key]:
        """Return the keys that a change of these columns may change; the condition of a partial one may read any."""
        changed = frozenset(columns)
        found = self._moved.get(changed)
        if found is None:
            found = self._moved[changed] = [
                key for key in self.uniques if isinstance(key, Partial) or not changed.isdisjoint(key)
            ]
        return found

    @classmethod
    def of(cls, table: sa.Table, condition: Condition) -> "Form":
        """Read a declaration of `node.hotline.store.tables`."""
        uniques: list[Key] = [tuple(column.name for column in table.primary_key.columns)]
        references = []
        for constraint in sorted(table.constraints, key=lambda one: str(one.name)):
            if isinstance(constraint, sa.UniqueConstraint):
                uniques.append(tuple(column.name for column in constraint.columns))
            if isinstance(constraint, sa.ForeignKeyConstraint):
                ours = tuple(constraint.column_keys)
                theirs = tuple(element.column.name for element in constraint.elements)
                references.append((ours, constraint.referred_table.name, theirs))
        columns = tuple(column.name for column in table.columns)
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            if index.unique:
                key = tuple(column.name for column in index.columns)
                where = index.dialect_options["postgresql"]["where"]
                uniques.append(key if where is None else Partial(key, *condition(str(where), columns)))
        identity = next((column.name for column in table.columns if column.identity is not None), None)
        defaults = {
            column.name: _default(column.server_default)
            for column in table.columns
            if isinstance(column.server_default, sa.DefaultClause)
        }
        return cls(
            name=table.name,
            columns=columns,
            coerce={column.name: _coercion(column.type) for column in table.columns},
            kinds={column.name: _KINDS.get(_coercion(column.type), _Never) for column in table.columns},
            required=frozenset(column.name for column in table.columns if not column.nullable),
            uniques=tuple(dict.fromkeys(uniques)),
            references=tuple(references),
            identity=identity,
            blank={column.name: defaults.get(column.name) for column in table.columns},
        )


def _columns(key: Key) -> Unique:
    return key.columns if isinstance(key, Partial) else key


def _coercion(kind: object) -> Callable[[object], object]:
    return next((coerce for one, coerce in _COERCE if isinstance(kind, one)), _as_is)


def _default(clause: sa.DefaultClause) -> object:
    text = str(clause.arg).split("::")[0].strip()
    if text.startswith("'"):
        return text[1:-1]
    return {"true": True, "false": False, "null": None}.get(text.lower()) if text.isalpha() else int(text)
