"""Reads the SQL that the node's store is written in into a tree; knows no table and runs nothing."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.simulation.sql.tree import (
    Aggregate,
    AnyOf,
    Binary,
    Call,
    Case,
    Cast,
    Column,
    Conflict,
    Cte,
    Delete,
    Exists,
    Expr,
    Function,
    InList,
    Insert,
    IsNull,
    Item,
    Join,
    Literal,
    Lock,
    Logic,
    Not,
    Order,
    Param,
    Rows,
    Select,
    Source,
    Star,
    Statement,
    Sub,
    SubArray,
    SubSelect,
    Table,
    Unary,
    Update,
    WithQuery,
)

_TOKEN = re.compile(
    r"\s*(?:(?P<param>\$\d+)|(?P<number>\d+(?:\.\d+)?)|(?P<string>'(?:[^']|'')*')|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<quoted>\"[^\"]+\")|(?P<op>::|=>|->>|->|<=|>=|<>|!=|\|\||[-+*/%=<>(),.\[\]]))"
)
#: Words that no alias can be.
_RESERVED = frozenset(
    re.findall(
        "[a-z]+",
        "select from where order group having limit offset for join left inner cross on and or not as union s"
        "et returning values conflict do using is in between like when then else end asc desc nulls with of skip",
    )
)
_AGGREGATES = frozenset({"count", "sum", "max", "min", "bool_or", "bool_and", "array_agg"})


T = TypeVar("T")


class UnknownSyntax(Exception):  # noqa: N818 - names the fact: the simulator has to learn it
    """A statement says something that the simulated database does not know yet."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def parse(query: str) -> Statement:
    """Return the statement's tree; raises UnknownSyntax."""
    return _Parser(query).whole()


def _tokens(query: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(query.rstrip())
    while at < end:
        match = _TOKEN.match(query, at)
        if match is None:
            raise UnknownSyntax(f"at {query[at : at + 30]!r}")
        kind = str(match.lastgroup)
        text = match[kind]
        found.append(_Token(kind, text.lower() if kind == "name" else text))
        at = match.end()
    return found


class _Parser:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = _tokens(query)
        self._at = 0

    # Tokens.

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].text if at < len(self._tokens) else ""

    def _kind(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].kind if at < len(self._tokens) else ""

    def _next(self) -> str:
        text = self._peek()
        self._at += 1
        return text

    def _take(self, *words: str) -> bool:
        """Take these words if they come next, all of them."""
        if all(self._peek(ahead) == word for ahead, word in enumerate(words)):
            self._at += len(words)
            return True
        return False

    def _need(self, *words: str) -> None:
        if not self._take(*words):
            raise self._unknown(f"expected {' '.join(words)}")

    def _unknown(self, what: str) -> UnknownSyntax:
        return UnknownSyntax(f"{what} at {' '.join(t.text for t in self._tokens[self._at : self._at + 6])!r}")

    def _name(self) -> str:
        if self._kind() == "quoted":
            return self._next().strip('"')
        if self._kind() != "name":
            raise self._unknown("expected a name")
        return self._next()

    def _names(self) -> tuple[str, ...]:
        self._need("(")
        return self._list(self._name)

    def _list(self, one: Callable[[], T]) -> tuple[T, ...]:
        """Read `one, one, …)` up to the closing parenthesis."""
        found = [one()]
        while self._take(","):
            found.append(one())
        self._need(")")
        return tuple(found)

    def _commas(self, one: Callable[[], T]) -> tuple[T, ...]:
        found = [one()]
        while self._take(","):
            found.append(one())
        return tuple(found)

    # Statements.

    def whole(self) -> Statement:
        statement = self._statement()
        if self._at != len(self._tokens):
            raise self._unknown("more than a statement")
        return statement

    def _statement(self) -> Statement:
        if self._take("with"):
            ctes = self._commas(self._cte)
            return WithQuery(ctes, self._statement())
        if self._peek() == "select" or self._peek() == "(":
            return self._select()
        if self._take("insert", "into"):
            return self._insert()
        if self._take("update"):
            return self._update()
        if self._take("delete", "from"):
            return self._delete()
        raise self._unknown("no statement")

    def _cte(self) -> Cte:
        name = self._name()
        columns = self._names() if self._peek() == "(" else ()
        self._need("as")
        self._take("materialized")
        self._need("(")
        statement = self._statement()
        self._need(")")
        return Cte(name, columns, statement)

    def _select(self) -> Select:
        self._need("select")
        distinct = self._take("distinct")
        on: tuple[Expr, ...] = ()
        if distinct and self._take("on", "("):
            on = self._list(self._expr)
        items = self._commas(self._item)
        sources: tuple[Join, ...] = self._sources() if self._take("from") else ()
        where = self._expr() if self._take("where") else None
        group = self._commas(self._expr) if self._take("group", "by") else ()
        having = self._expr() if self._take("having") else None
        union = None
        if self._take("union"):
            self._need("all")
            union = self._select()
        order = self._commas(self._order) if self._take("order", "by") else ()
        limit = self._expr() if self._take("limit") else None
        offset = self._expr() if self._take("offset") else None
        return Select(items, sources, where, group, having, order, limit, offset, distinct, on, self._lock(), union)

    def _lock(self) -> Lock | None:
        if not self._take("for"):
            return None
        self._take("no", "key")
        if not (self._take("update") or self._take("share") or self._take("key", "share")):
            raise self._unknown("no lock")
        of = self._commas(self._name) if self._take("of") else ()
        skip = self._take("skip", "locked")
        if self._take("nowait"):
            raise self._unknown("nowait is not simulated")
        return Lock(of, skip)

    def _item(self) -> Item:
        if self._take("*"):
            return Item(Star(None), None)
        if self._kind() in {"name", "quoted"} and self._peek(1) == "." and self._peek(2) == "*":
            star = Star(self._name())
            self._at += 2
            return Item(star, None)
        expr = self._expr()
        if self._take("as") or (self._kind() in {"name", "quoted"} and self._peek() not in _RESERVED):
            return Item(expr, self._name())
        return Item(expr, None)

    def _order(self) -> Order:
        expr = self._expr()
        descending = self._take("desc")
        if not descending:
            self._take("asc")
        first: bool | None = None
        if self._take("nulls", "first"):
            first = True
        elif self._take("nulls", "last"):
            first = False
        return Order(expr, descending, descending if first is None else first)

    def _sources(self) -> tuple[Join, ...]:
        joins = [Join(self._source(), "inner", None)]
        while True:
            if self._take(",") or self._take("cross", "join"):
                joins.append(Join(self._source(), "inner", None))
            elif self._take("left", "join") or self._take("left", "outer", "join"):
                source = self._source()
                self._need("on")
                joins.append(Join(source, "left", self._expr()))
            elif self._take("join") or self._take("inner", "join"):
                source = self._source()
                self._need("on")
                joins.append(Join(source, "inner", self._expr()))
            else:
                return tuple(joins)

    def _source(self) -> Source:
        self._take("lateral")
        if self._take("("):
            rows = self._commas(self._row) if self._take("values") else None
            query = None if rows is not None else self._statement()
            self._need(")")
            alias, columns = self._alias()
            if rows is not None:
                return Rows(rows, alias or "values", columns)
            if query is None:
                raise self._unknown("no query")
            return SubSelect(query, alias or "sub", columns)
        name = self._name()
        if self._peek() == "(":
            self._need("(")
            args = self._list(self._expr)
            ordinality = self._take("with", "ordinality")
            alias, columns = self._alias()
            return Function(name, args, alias or name, columns, ordinality)
        alias, columns = self._alias()
        return Table(name, alias or name)

    def _alias(self) -> tuple[str | None, tuple[str, ...]]:
        alias: str | None = None
        if self._take("as") or (self._kind() in {"name", "quoted"} and self._peek() not in _RESERVED):
            alias = self._name()
        columns = self._names() if alias is not None and self._peek() == "(" else ()
        return alias, columns

    def _row(self) -> tuple[Expr, ...]:
        self._need("(")
        return self._list(self._expr)

    def _insert(self) -> Insert:
        table = self._name()
        columns = self._names() if self._peek() == "(" else ()
        source: Select | WithQuery | tuple[tuple[Expr, ...], ...]
        if self._take("values"):
            source = self._commas(self._row)
        else:
            statement = self._statement()
            if not isinstance(statement, Select | WithQuery):
                raise self._unknown("an insert from something else than a select")
            source = statement
        conflict = self._conflict() if self._take("on", "conflict") else None
        return Insert(table, columns, source, conflict, self._returning())

    def _conflict(self) -> Conflict:
        target = self._names() if self._peek() == "(" else ()
        self._need("do")
        if self._take("nothing"):
            return Conflict(target, (), None, nothing=True)
        self._need("update", "set")
        sets = self._commas(self._set)
        where = self._expr() if self._take("where") else None
        return Conflict(target, sets, where, nothing=False)

    def _set(self) -> tuple[str, Expr]:
        column = self._name()
        self._need("=")
        return column, self._expr()

    def _returning(self) -> tuple[Item, ...]:
        return self._commas(self._item) if self._take("returning") else ()

    def _update(self) -> Update:
        name = self._name()
        alias, _ = self._alias()
        self._need("set")
        sets = self._commas(self._set)
        sources = self._sources() if self._take("from") else ()
        where = self._expr() if self._take("where") else None
        return Update(Table(name, alias or name), sets, sources, where, self._returning())

    def _delete(self) -> Delete:
        name = self._name()
        alias, _ = self._alias()
        sources = self._sources() if self._take("using") else ()
        where = self._expr() if self._take("where") else None
        return Delete(Table(name, alias or name), sources, where, self._returning())

    # Expressions, loosest first.

    def _expr(self) -> Expr:
        parts = [self._conjunction()]
        while self._take("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Logic("or", tuple(parts))

    def _conjunction(self) -> Expr:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Logic("and", tuple(parts))

    def _negation(self) -> Expr:
        return Not(self._negation()) if self._take("not") else self._comparison()

    def _comparison(self) -> Expr:
        left = self._sum()
        while True:
            if self._take("is"):
                left = self._is(left)
            elif self._take("not", "in"):
                left = Not(self._in(left))
            elif self._take("in"):
                left = self._in(left)
            elif self._take("between"):
                low = self._sum()
                self._need("and")
                left = Logic("and", (Binary(">=", left, low), Binary("<=", left, self._sum())))
            elif self._peek() in {"=", "<>", "!=", "<", ">", "<=", ">="}:
                operator = self._next()
                if self._peek() in {"any", "all"} and self._peek(1) == "(":
                    left = self._any(left, operator)
                else:
                    left = Binary("<>" if operator == "!=" else operator, left, self._sum())
            else:
                return left

    def _is(self, left: Expr) -> Expr:
        negated = self._take("not")
        if self._take("null"):
            test: Expr = IsNull(left)
        elif self._take("true"):
            test = Call("is_true", (left,))
        elif self._take("false"):
            test = Call("is_true", (Not(left),))
        elif self._take("distinct", "from"):
            test = Call("is_distinct", (left, self._sum()))
        else:
            raise self._unknown("is what")
        return Not(test) if negated else test

    def _in(self, left: Expr) -> Expr:
        self._need("(")
        if self._peek() == "select":
            query = self._select()
            self._need(")")
            return AnyOf("=", left, Sub(query), every=False)
        return InList(left, self._list(self._expr))

    def _any(self, left: Expr, operator: str) -> Expr:
        every = self._next() == "all"
        self._need("(")
        if self._peek() == "select":
            inner: Expr = Sub(self._select())
        else:
            inner = self._expr()
        self._need(")")
        return AnyOf("<>" if operator == "!=" else operator, left, inner, every=every)

    def _sum(self) -> Expr:
        left = self._product()
        while self._peek() in {"+", "-", "||"}:
            operator = self._next()
            left = Binary(operator, left, self._product())
        return left

    def _product(self) -> Expr:
        left = self._unary()
        while self._peek() in {"*", "/", "%"}:
            operator = self._next()
            left = Binary(operator, left, self._unary())
        return left

    def _unary(self) -> Expr:
        if self._take("-"):
            return Unary("-", self._unary())
        return self._casts(self._primary())

    def _casts(self, expr: Expr) -> Expr:
        while True:
            if self._take("::"):
                expr = Cast(expr, self._type())
            elif self._peek() in {"->", "->>"}:
                expr = Binary(self._next(), expr, self._casts_none())
            elif self._take("["):
                expr = Call("subscript", (expr, self._expr()))
                self._need("]")
            else:
                return expr

    def _casts_none(self) -> Expr:
        """Read the key of a JSON member: its casts are those of the member."""
        return Unary("-", self._primary()) if self._take("-") else self._primary()

    def _type(self) -> str:
        name = self._name()
        if self._take("("):
            self._next()
            self._need(")")
        return name + "[]" if self._take("[", "]") else name

    def _primary(self) -> Expr:
        kind, text = self._kind(), self._peek()
        if kind == "param":
            return Param(int(self._next()[1:]) - 1)
        if kind == "number":
            self._next()
            return Literal(float(text) if "." in text else int(text))
        if kind == "string":
            self._next()
            return Literal(text[1:-1].replace("''", "'"))
        if self._take("("):
            return self._parenthesis()
        if kind == "name" and text in {"null", "true", "false"}:
            self._next()
            return Literal({"null": None, "true": True, "false": False}[text])
        if self._take("case"):
            return self._case()
        if self._take("exists", "("):
            query = self._select()
            self._need(")")
            return Exists(query)
        if self._take("interval"):
            return Call("interval", (Literal(self._next()[1:-1]),))
        if self._take("array", "("):
            query = self._select()
            self._need(")")
            return SubArray(query)
        if self._take("array", "["):
            found = self._commas(self._expr)
            self._need("]")
            return Call("array", found)
        return self._named()

    def _parenthesis(self) -> Expr:
        if self._peek() == "select":
            query = self._select()
            self._need(")")
            return Sub(query)
        found = self._list(self._expr)
        return found[0] if len(found) == 1 else Call("row", found)

    def _case(self) -> Expr:
        subject = None if self._peek() == "when" else self._expr()
        branches = []
        while self._take("when"):
            test = self._expr()
            self._need("then")
            condition = test if subject is None else Binary("=", subject, test)
            branches.append((condition, self._expr()))
        otherwise = self._expr() if self._take("else") else Literal(None)
        self._need("end")
        return Case(tuple(branches), otherwise)

    def _named(self) -> Expr:
        name = self._name()
        if self._take("."):
            return Column(name, self._name())
        if not self._take("("):
            return Column(None, name)
        if name in _AGGREGATES:
            return self._aggregate(name)
        if self._take(")"):
            return Call(name, ())
        return Call(name, self._list(self._argument))

    def _argument(self) -> Expr:
        """Read an argument; functions that take named ones take one."""
        if self._kind() == "name" and self._peek(1) == "=>":
            self._at += 2
        return self._expr()

    def _aggregate(self, name: str) -> Expr:
        argument: Expr | None = None
        distinct = self._take("distinct")
        if not self._take("*"):
            argument = self._expr()
        self._need(")")
        test = None
        if self._take("filter", "(", "where"):
            test = self._expr()
            self._need(")")
        return Aggregate(name, argument, test, distinct)
