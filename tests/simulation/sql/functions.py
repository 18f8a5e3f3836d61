"""What SQL's operators, casts and functions do to values, none of them NULL unless it is said."""

import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tests.simulation.sql.tokens import UnknownSyntax


def _member(tree_: Any, key: Any) -> Any:
    try:
        return tree_[key]
    except (KeyError, IndexError, TypeError):
        return None


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _without(tree_: Any, key: Any) -> Any:
    rest = tree_.copy()
    try:
        del rest[key]
    except (KeyError, IndexError):
        return rest
    return rest


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        return int(left / right)
    return left / right


#: Operators that Python has under another name, and those that it has not.
SAME = {"=": "==", "<>": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "+": "+", "*": "*", "%": "%", "||": "+"}
OTHER: dict[str, Callable[[Any, Any], Any]] = {
    "-": lambda left, right: _without(left, right) if isinstance(left, list | dict) else left - right,
    "->": _member,
    "->>": lambda left, right: _as_text(_member(left, right)),
    "/": _divide,
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def among(value: Any, others: Sequence[Any]) -> bool | None:
    """Tell whether a value is one of a list of which some may be NULL (IN)."""
    return None if value is None else True if value in others else None if None in others else False


def compared(name: str, *, every: bool) -> Callable[[Any, Iterable[Any] | None], bool | None]:
    """Return what compares a value, which may be NULL, with each of an array (ANY, ALL)."""
    compare = _COMPARE[name]

    def run(value: Any, others: Iterable[Any] | None) -> bool | None:
        if value is None or others is None:
            return None
        return all(compare(value, one) for one in others) if every else any(compare(value, one) for one in others)

    return run


CASTS: dict[str, Callable[[Any], Any]] = {
    "jsonb": lambda value: json.loads(value) if isinstance(value, str) else value,
    "bytea": lambda value: b"" if value == "" else bytes(value),
    "inet": str,
    "uuid": lambda value: UUID(value) if isinstance(value, str) else value,
    "text": str,
    "int": int,
    "integer": int,
    "bigint": int,
    "smallint": int,
    "numeric": lambda value: value,
    "float8": float,
    "bool": bool,
    "boolean": bool,
    "timestamptz": lambda value: datetime.fromisoformat(value) if isinstance(value, str) else value,
    "date": lambda value: value.date() if isinstance(value, datetime) else value,
    "interval": lambda value: _interval(value) if isinstance(value, str) else value,
}


_UNITS = {"second": 1, "seconds": 1, "minute": 60, "minutes": 60, "hour": 3600, "hours": 3600, "day": 86400}


def _interval(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+) ([a-z]+)", text)
    if match is None:
        raise UnknownSyntax(f"the interval {text}")
    unit = match[2] if match[2] in _UNITS else match[2].removesuffix("s")
    return timedelta(seconds=int(match[1]) * _UNITS[unit])


def _split(text: str | None, mark: str) -> list[str] | None:
    return None if text is None else text.split(mark) if text else []


#: Functions that give NULL for a NULL among their arguments.
STRICT: dict[str, Callable[..., Any]] = {
    "string_to_array": _split,
    "length": len,
    "octet_length": len,
    "cardinality": len,
    "lower": str.lower,
    "upper": str.upper,
    "abs": abs,
    "power": lambda base, exponent: float(base) ** exponent,
    "host": str,
    "make_interval": lambda seconds: timedelta(seconds=seconds),
    "interval": _interval,
    "subscript": lambda values, at: values[at - 1] if 0 < at <= len(values) else None,
}

#: Functions that see NULL.
OPEN: dict[str, Callable[..., Any]] = {
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "greatest": lambda *values: max((value for value in values if value is not None), default=None),
    "least": lambda *values: min((value for value in values if value is not None), default=None),
    "nullif": lambda one, other: None if one == other else one,
    "row": lambda *values: values,
    "array": lambda *values: list(values),
    "is_true": lambda value: value is True,
    "is_distinct": operator.ne,
    "jsonb_build_object": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
}
