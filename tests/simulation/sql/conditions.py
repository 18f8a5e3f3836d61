"""Reads the conditions of partial indexes into functions of a row; reads no statement."""

from collections.abc import Callable
from typing import Any

from tests.simulation.sql import tree
from tests.simulation.sql.expressions import Query, Scope, condition
from tests.simulation.sql.syntax import parse_condition
from tests.simulation.sql.tokens import UnknownSyntax


def row_condition(text: str, columns: tuple[str, ...]) -> tuple[tree.Expr, Callable[[dict[str, Any]], bool]]:
    """Return the tree of a condition, and what tells whether a row with these columns meets it."""
    expr = parse_condition(text)
    scope = Scope(_no_query, {})
    number = scope.add("", columns)
    written, _ = condition(expr, scope)
    holds: Callable[[dict[str, Any]], bool] = scope.python.function(
        f"def f(row):\n    env = {{{number}: row}}\n    return bool({written})\n"
    )
    return expr, holds


def _no_query(_query: tree.Select, _scope: Scope) -> Query:
    raise UnknownSyntax("a query in the condition of an index")
