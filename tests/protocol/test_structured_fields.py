"""The library `http_sf` held to the structured-field vectors (RFC 9651); signatures and digests rest on its parser.

Its deviations are listed here and asserted exactly, so that a new version that adds or loses one is noticed.
"""

import base64
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import http_sf
import pytest
from http_sf import DisplayString, Token

from protocol.digest import verify_content_digest
from protocol.errors import ProtocolError
from protocol.httpsig import FieldError, parse_signature, parse_signature_input
from tests.vectors_dir import vectors

# Both are marked `can_fail`: Python's datetime ends in the year 9999. No field of HX/1 holds a Date, and the
# library refuses the field as a whole, so no signature can differ by it.
DEVIATIONS = {
    ("date.json", "syntactic max date - 999,999,999,999,999"): "refused",
    ("date.json", "syntactic min date - -999,999,999,999,999"): "refused",
}
PARSING_FILES = 20
PARSING_CASES = 1591
SERIALISATION_CASES = 544


def load(path: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    return cases


def typed_expected(value: object) -> tuple[str, object]:
    """A bare item of the vectors with its type, so that True is not 1 and a token is no string."""
    if not isinstance(value, dict):
        return type(value).__name__, value
    kind, inner = value["__type"], value["value"]
    return kind, base64.b32decode(inner) if kind == "binary" else inner


def typed_parsed(value: object) -> tuple[str, object]:
    """As `typed_expected`, for a bare item of the library."""
    match value:
        case Token():
            return "token", str(value)
        case DisplayString():
            return "displaystring", str(value)
        case bytes():
            return "binary", value
        case datetime():
            return "date", int(value.timestamp())
        case _:
            return type(value).__name__, value


def expected_member(member: list[Any]) -> object:
    value, params = member
    typed = [expected_member(item) for item in value] if isinstance(value, list) else typed_expected(value)
    return typed, [(key, typed_expected(param)) for key, param in params]


def parsed_member(member: Any) -> object:
    value, params = member
    typed = [parsed_member(item) for item in value] if isinstance(value, list) else typed_parsed(value)
    return typed, [(key, typed_parsed(param)) for key, param in params.items()]


def flattened(kind: str, structure: Any, *, parsed: bool) -> object:
    one = parsed_member if parsed else expected_member
    if kind == "item":
        return one(structure)
    if kind == "list":
        return [one(member) for member in structure]
    return [(key, one(member)) for key, member in (structure.items() if parsed else structure)]


def outcome(case: dict[str, Any]) -> str:
    """What the library makes of a parsing case: `conforms`, or the way in which it does not."""
    kind = case["header_type"]
    try:
        structure = http_sf.parse(", ".join(case["raw"]).encode(), tltype=kind)
    except ValueError:
        return "conforms" if case.get("must_fail") else "refused"
    if case.get("must_fail"):
        return "accepted"
    if flattened(kind, structure, parsed=True) != flattened(kind, case["expected"], parsed=False):
        return "read differently"
    canonical = case.get("canonical", case["raw"])
    # An empty list or dictionary has no serialisation: the field is not sent.
    if canonical and http_sf.ser(structure) != canonical[0]:
        return "written differently"
    return "conforms"


def test_parsing_conforms_but_for_the_listed_deviations() -> None:
    files = sorted(vectors("structured-fields").glob("*.json"))
    cases = [(path.name, case) for path in files for case in load(path)]
    assert (len(files), len(cases)) == (PARSING_FILES, PARSING_CASES)
    found = {(name, case["name"]): result for name, case in cases if (result := outcome(case)) != "conforms"}
    assert found == DEVIATIONS
    assert all(case.get("can_fail") for name, case in cases if (name, case["name"]) in DEVIATIONS)


def value_to_write(value: object) -> Any:
    kind, inner = typed_expected(value)
    return {"token": Token, "displaystring": DisplayString}.get(kind, lambda same: same)(inner)  # type: ignore[arg-type]


def member_to_write(member: list[Any]) -> Any:
    value, params = member
    written = [member_to_write(item) for item in value] if isinstance(value, list) else value_to_write(value)
    return written, {key: value_to_write(param) for key, param in params}


def structure_to_write(case: dict[str, Any]) -> Any:
    kind, expected = case["header_type"], case["expected"]
    if kind == "item":
        return member_to_write(expected)
    if kind == "list":
        return [member_to_write(member) for member in expected]
    return {key: member_to_write(member) for key, member in expected}


def test_serialisation_conforms() -> None:
    files = sorted(vectors("structured-fields", "serialisation-tests").glob("*.json"))
    cases = [case for path in files for case in load(path)]
    assert len(cases) == SERIALISATION_CASES
    for case in cases:
        if case.get("must_fail"):
            with pytest.raises(ValueError, match=r".") as failure:
                http_sf.ser(structure_to_write(case))
            assert failure.type is not UnicodeEncodeError, case["name"]
        else:
            assert http_sf.ser(structure_to_write(case)) == case["canonical"][0], case["name"]


def test_every_vector_through_our_doors_ends_in_a_value_or_a_named_error() -> None:
    """Whatever the library makes of a field, ours raise their own error and nothing else."""
    for path in sorted(vectors("structured-fields").glob("*.json")):
        for case in load(path):
            value = ", ".join(case["raw"])
            for door in (parse_signature_input, parse_signature):
                try:
                    door(value)
                except FieldError as error:
                    assert str(error)  # noqa: PT017 -- most vectors end here, some are read: both are right
            with pytest.raises(ProtocolError):
                verify_content_digest(value, b"")
