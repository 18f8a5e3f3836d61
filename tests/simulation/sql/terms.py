"""Reads SQL's expressions into trees, from what binds loosest to what binds tightest; reads no query itself."""

from abc import ABC, abstractmethod

from tests.simulation.sql.tokens import Tokens
from tests.simulation.sql.tree import (
    Aggregate,
    AnyOf,
    Binary,
    Call,
    Case,
    Cast,
    Column,
    Exists,
    Expr,
    InList,
    IsNull,
    Literal,
    Logic,
    Not,
    Param,
    Select,
    Sub,
    SubArray,
    Unary,
)

_AGGREGATES = frozenset({"count", "sum", "max", "min", "bool_or", "bool_and", "array_agg"})


class Terms(Tokens, ABC):
    """Reads expressions."""

    @abstractmethod
    def _select(self) -> Select:
        """Read a query that stands in an expression."""

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
