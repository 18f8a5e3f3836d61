"""Reads the SQL that the node's store is written in into a tree; knows no table and runs nothing."""

import re

from tests.simulation.sql.terms import Terms
from tests.simulation.sql.tree import (
    Conflict,
    Cte,
    Delete,
    Expr,
    Function,
    Insert,
    Item,
    Join,
    Lock,
    Order,
    Rows,
    Select,
    Source,
    Star,
    Statement,
    SubSelect,
    Table,
    Update,
    WithQuery,
)

#: Words that no alias can be.
_RESERVED = frozenset(
    re.findall(
        "[a-z]+",
        "select from where order group having limit offset for join left inner cross on and or not as union s"
        "et returning values conflict do using is in between like when then else end asc desc nulls with of skip",
    )
)


def parse(query: str) -> Statement:
    """Return the statement's tree; raises UnknownSyntax."""
    return _Parser(query).whole()


def parse_condition(text: str) -> Expr:
    """Return the tree of a condition that stands alone; raises UnknownSyntax."""
    return _Parser(text).condition()


class _Parser(Terms):
    def condition(self) -> Expr:
        expr = self._expr()
        if not self._over():
            raise self._unknown("more than a condition")
        return expr

    def whole(self) -> Statement:
        statement = self._statement()
        if not self._over():
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
        implied = self._expr() if target and self._take("where") else None
        self._need("do")
        if self._take("nothing"):
            return Conflict(target, implied, (), None, nothing=True)
        self._need("update", "set")
        sets = self._commas(self._set)
        where = self._expr() if self._take("where") else None
        return Conflict(target, implied, sets, where, nothing=False)

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
