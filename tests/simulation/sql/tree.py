"""The parts a statement is made of, as `tests.simulation.sql.syntax` reads them; nothing but shapes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    value: object


@dataclass(frozen=True, slots=True)
class Param:
    index: int


@dataclass(frozen=True, slots=True)
class Column:
    table: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Star:
    table: str | None


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Logic:
    operator: str
    parts: "tuple[Expr, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class IsNull:
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class InList:
    left: "Expr"
    options: "tuple[Expr, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    operator: str
    left: "Expr"
    right: "Expr"
    every: bool


@dataclass(frozen=True, slots=True)
class Cast:
    operand: "Expr"
    type: str


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    args: "tuple[Expr, ...]"


@dataclass(frozen=True, slots=True)
class Aggregate:
    name: str
    argument: "Expr | None"
    test: "Expr | None"
    distinct: bool


@dataclass(frozen=True, slots=True)
class Case:
    branches: "tuple[tuple[Expr, Expr], ...]"
    otherwise: "Expr"


@dataclass(frozen=True, slots=True)
class Exists:
    query: "Select"


@dataclass(frozen=True, slots=True)
class Sub:
    query: "Select"


@dataclass(frozen=True, slots=True)
class SubArray:
    query: "Select"


Expr = (
    Literal
    | Param
    | Column
    | Star
    | Unary
    | Binary
    | Logic
    | Not
    | IsNull
    | InList
    | AnyOf
    | Cast
    | Call
    | Aggregate
    | Case
    | Exists
    | Sub
    | SubArray
)


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    args: tuple[Expr, ...]
    alias: str
    columns: tuple[str, ...]
    ordinality: bool


@dataclass(frozen=True, slots=True)
class SubSelect:
    query: "Statement"
    alias: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    rows: tuple[tuple[Expr, ...], ...]
    alias: str
    columns: tuple[str, ...]


Source = Table | Function | SubSelect | Rows


@dataclass(frozen=True, slots=True)
class Join:
    source: Source
    kind: str
    on: Expr | None


@dataclass(frozen=True, slots=True)
class Item:
    expr: Expr
    name: str | None


@dataclass(frozen=True, slots=True)
class Order:
    expr: Expr
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Lock:
    of: tuple[str, ...]
    skip: bool


@dataclass(frozen=True, slots=True)
class Select:
    items: tuple[Item, ...]
    sources: tuple[Join, ...]
    where: Expr | None
    group: tuple[Expr, ...]
    having: Expr | None
    order: tuple[Order, ...]
    limit: Expr | None
    offset: Expr | None
    distinct: bool
    distinct_on: tuple[Expr, ...]
    lock: Lock | None
    union: "Select | None"


@dataclass(frozen=True, slots=True)
class Conflict:
    target: tuple[str, ...]
    #: Which partial index the target means.
    implied: Expr | None
    sets: tuple[tuple[str, Expr], ...]
    where: Expr | None
    nothing: bool


@dataclass(frozen=True, slots=True)
class Insert:
    table: str
    columns: tuple[str, ...]
    source: "Select | WithQuery | tuple[tuple[Expr, ...], ...]"
    conflict: Conflict | None
    returning: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Update:
    table: Table
    sets: tuple[tuple[str, Expr], ...]
    sources: tuple[Join, ...]
    where: Expr | None
    returning: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    table: Table
    sources: tuple[Join, ...]
    where: Expr | None
    returning: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Cte:
    name: str
    columns: tuple[str, ...]
    statement: "Statement"


@dataclass(frozen=True, slots=True)
class WithQuery:
    ctes: tuple[Cte, ...]
    statement: "Statement"


Statement = Select | Insert | Update | Delete | WithQuery
