"""Strict JSON (I-JSON, RFC 7493) from bytes; never repairs, guesses or repeats what it read in an error.

Two parsers that disagree about the same bytes would let a signed record say two things. So whatever RFC 8259 leaves
open is refused: a member twice, numbers that are not exact everywhere, text that is no Unicode.
"""

import json
import re
from typing import Final, NoReturn, TypeVar

import msgspec

from protocol.errors import ProtocolError

# PROTOCOL section 3.
JSON_BYTES_MAX: Final = 60 * 1024
# Containers inside one another, the outermost counted.
JSON_DEPTH_MAX: Final = 16
# RFC 7493, section 2.2: what a double holds exactly.
INTEGER_MAX: Final = 2**53 - 1
_NUMBER_REASON: Final = "a number has a fraction, an exponent or is none"
_INTEGER_REASON: Final = "an integer is beyond 2^53 - 1"
_DEPTH_REASON: Final = f"it is nested deeper than {JSON_DEPTH_MAX}"
_INTEGER_DIGITS_MAX: Final = len(str(INTEGER_MAX)) + 1  # with its sign
# Where msgspec says the fault is. Names in it are those of our own structs, any other is `[...]`.
_FAULT_PATH: Final = re.compile(r" - at `\$\.?([a-z0-9_.\[\]]*)`$")
_MISSING: Final = re.compile("Object missing required field `([a-z0-9_]+)`")
_Typed = TypeVar("_Typed")
_NAMES: Final = frozenset((str,))


def loads(raw: bytes, *, bytes_max: int = JSON_BYTES_MAX) -> object:
    """Return the value in `raw`: dict, list, str, int, bool or None.

    Raises ProtocolError `malformed` for what is no JSON or no UTF-8, a member that occurs twice at any depth, a
    number with fraction or exponent, an integer beyond ±(2^53 - 1), a lone surrogate, more than JSON_DEPTH_MAX
    levels, or more than `bytes_max` bytes. The text names the reason and at most a position, never the content.
    """
    if len(raw) > bytes_max:
        raise _malformed(f"it has more than {bytes_max} bytes")
    try:
        tree: object = _DECODER.decode(raw)
    except (ValueError, RecursionError):
        return _loads_exactly(raw)
    # Encoding writes each member of each object once, so bytes that come back equal held none twice.
    # Other spacing or escapes are legal as well and take the slow way.
    if _ENCODER.encode(tree) != raw:
        return _loads_exactly(raw)
    _check_shape(tree)
    return tree


def typed(tree: object, wanted: type[_Typed], *, field: str = "") -> _Typed:
    """Return a decoded value as a msgspec struct; members the struct does not name are passed over.

    Raises ProtocolError `schema-invalid` whose field is the path of the member at fault, below `field`. The reason
    never holds a value.
    """
    try:
        return msgspec.convert(tree, wanted)
    except msgspec.ValidationError as error:
        # Its text may quote the value: only the place and the kind of fault are taken from it.
        text = str(error)
    fault, missing = _FAULT_PATH.search(text), _MISSING.match(text)
    path = (field, fault.group(1) if fault else "", missing.group(1) if missing else "")
    reason = "this member is missing" if missing else "this is not a value of the member's type"
    # Raised outside the handler, so that no traceback shows the text that quotes.
    raise ProtocolError("schema-invalid", reason, field=".".join(part for part in path if part) or None)


def _loads_exactly(raw: bytes) -> object:
    """Return the value, or raise ProtocolError with the exact reason; ten times slower, and what decides."""
    try:
        tree: object = json.loads(
            raw.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"it is no JSON from character {error.pos} on") from None
    except RecursionError:
        raise _malformed(_DEPTH_REASON) from None
    _check_shape(tree)
    try:
        _ENCODER.encode(tree)
    except UnicodeEncodeError:
        # JSON can escape a lone surrogate, UTF-8 cannot hold it (RFC 7493, section 2.1).
        raise _malformed("a string holds a lone surrogate") from None
    return tree


def check_tree(tree: object, *, depth: int = 0) -> None:
    """Raise ProtocolError `malformed` unless `loads` would give this value back from its JSON.

    For what we are about to encode inside `depth` containers. Text is left to the encoder, which refuses a lone
    surrogate itself.
    """
    _check_shape(tree, depth=depth, check_names=True)


def _check_shape(tree: object, *, depth: int = 0, check_names: bool = False) -> None:
    """Refuse depth, numbers and types beyond the limits; level by level, so that it never recurses itself."""
    level: list[dict[str, object] | list[object]] = [[tree]]
    while level:
        below: list[dict[str, object] | list[object]] = []
        for node in level:
            if check_names and type(node) is dict and not _NAMES.issuperset(map(type, node)):
                raise _malformed("the name of a member is no string")
            for value in node.values() if type(node) is dict else node:
                kind = type(value)
                # Most values are strings; they are settled first.
                if kind is str:
                    continue
                if kind is dict or kind is list:
                    below.append(value)  # type: ignore[arg-type]  # `kind` says which it is
                elif value is not None and kind is not bool:
                    _check_number(value)
        depth += 1
        if below and depth > JSON_DEPTH_MAX:
            raise _malformed(_DEPTH_REASON)
        level = below


def _check_number(value: object) -> None:
    if type(value) is not int:
        raise _malformed(_NUMBER_REASON)
    if not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise _malformed(_INTEGER_REASON)


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    node = dict(members)
    if len(node) != len(members):
        raise _malformed("a member occurs twice")
    return node


def _integer(digits: str) -> int:
    # Counted before it is converted: conversion of a long number takes quadratic time.
    if len(digits) > _INTEGER_DIGITS_MAX:
        raise _malformed(_INTEGER_REASON)
    return int(digits)


def _no_float(_: str) -> NoReturn:
    raise _malformed(_NUMBER_REASON)


def _malformed(reason: str) -> ProtocolError:
    return ProtocolError("malformed", f"this is not strict JSON: {reason}")


_DECODER: Final = msgspec.json.Decoder(float_hook=_no_float)
_ENCODER: Final = msgspec.json.Encoder()
