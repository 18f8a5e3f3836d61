"""Strict JSON: what is refused, and that the fast way and a slow reference never disagree."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.strictjson import INTEGER_MAX, JSON_BYTES_MAX, JSON_DEPTH_MAX, check_tree, loads

INTEGERS = st.integers(-INTEGER_MAX, INTEGER_MAX)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TREES = st.recursive(
    st.none() | st.booleans() | INTEGERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


class RefusedByReferenceError(Exception):
    """The reference refuses the bytes."""


def reference(raw: bytes) -> object:
    """What strict JSON is, said a second time and without speed."""
    try:
        tree: object = json.loads(raw.decode(), object_pairs_hook=unique, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise RefusedByReferenceError from None
    walk(tree, 0)
    return tree


def unique(members: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in members}) != len(members):
        raise RefusedByReferenceError
    return dict(members)


def refuse(_: str) -> None:
    raise RefusedByReferenceError


def walk(node: object, depth: int) -> None:
    if isinstance(node, dict | list):
        if depth == JSON_DEPTH_MAX:
            raise RefusedByReferenceError
        for value in [*node, *node.values()] if isinstance(node, dict) else node:
            walk(value, depth + 1)
    elif isinstance(node, str):
        if any(0xD800 <= ord(char) <= 0xDFFF for char in node):
            raise RefusedByReferenceError
    elif isinstance(node, int) and abs(node) > INTEGER_MAX:
        raise RefusedByReferenceError


def same_verdict(raw: bytes) -> None:
    try:
        expected = reference(raw)
    except RefusedByReferenceError:
        with pytest.raises(ProtocolError) as caught:
            loads(raw)
        assert caught.value.code == "malformed"
    else:
        # By representation too, since Python holds True equal to 1.
        assert repr(loads(raw)) == repr(expected)


def spellings(tree: object) -> list[bytes]:
    return [
        json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode(),
        json.dumps(tree).encode(),
        json.dumps(tree, indent=1, ensure_ascii=False).encode(),
    ]


def nested(levels: int, inside: str = "") -> bytes:
    return ("[" * levels + inside + "]" * levels).encode()


@given(TREES)
def test_every_spelling_of_a_tree_gives_the_tree(tree: object) -> None:
    for raw in spellings(tree):
        assert repr(loads(raw)) == repr(tree)


# Pieces that meet in surprising ways: escapes, near-duplicates, numbers of every kind, stray structure.
PIECES = st.sampled_from(
    [
        *'{}[]:,"\\ \n',
        *('"a"', '"\\u0061"', '"b":', '"\\ud800"', '"\\ud83d\\ude00"', '"\\/"', "\u00e9"),
        *("true", "null", "0", "-0", "00", "1.5", "1e2", "NaN"),
        *("9007199254740991", "9007199254740992", "-9007199254740992"),
    ]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_fast_way_agrees_with_reference_on_broken_text(text: str) -> None:
    same_verdict(text.encode())


@given(st.binary(max_size=40))
def test_fast_way_agrees_with_reference_on_any_bytes(raw: bytes) -> None:
    same_verdict(raw)


@given(TREES, st.integers(0, 200), st.binary(max_size=2))
def test_fast_way_agrees_with_reference_on_damaged_json(tree: object, at: int, patch: bytes) -> None:
    for raw in spellings(tree):
        same_verdict(raw[:at] + patch + raw[at + len(patch) :])


@given(TREES, st.integers(0, 13), TEXT)
def test_duplicate_is_found_at_any_depth(value: object, levels: int, name: str) -> None:
    member = json.dumps(name) + ":" + json.dumps(value)
    raw = "[" * levels + "{" + member + "," + member + "}" + "]" * levels
    same_verdict(raw.encode())
    with pytest.raises(ProtocolError):
        loads(raw.encode())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"a":1}', "a member occurs twice"),
        (b'{"a":1,"\\u0061":2}', "a member occurs twice"),
        (b'{"x":[{"a":1, "a":2}]}', "a member occurs twice"),
        (b"1.0", "fraction"),
        (b'{"a":1e2}', "fraction"),
        (b"NaN", "fraction"),
        (b"-Infinity", "fraction"),
        (b"9007199254740992", "beyond 2^53 - 1"),
        (b"[-9007199254740992]", "beyond 2^53 - 1"),
        (b" " + b"9" * 5000, "beyond 2^53 - 1"),
        (nested(JSON_DEPTH_MAX + 1), "deeper than 16"),
        (nested(20_000), "deeper than 16"),
        (b"[" * 20_000, "deeper than 16"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'["\\ude00\\ud83d"]', "surrogate"),
        (b'"\xed\xa0\x80"', "byte 1 is not UTF-8"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "character 0"),
        (b'{"a":}', "character 5"),
        (b'["a\nb"]', "character 3"),
        (b"", "character 0"),
        (b"{} {}", "character 3"),
        (b"'a'", "character 0"),
        (b"01", "character 1"),
    ],
)
def test_refusal_names_its_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        loads(raw)
    assert caught.value.code == "malformed"
    assert reason in caught.value.detail


@pytest.mark.parametrize("raw", [b'{"secret":1,"secret":2}', b'{"secret":1.5}', b'{"secret"', b'"secret\\ud800"'])
def test_refusal_never_repeats_content(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        loads(raw)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (nested(JSON_DEPTH_MAX, "1"), None),
        (b"9007199254740991", INTEGER_MAX),
        (b"[-9007199254740991]", [-INTEGER_MAX]),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        (b"-0", 0),
        (b' {"a" : [ ] } ', {"a": []}),
        (b"null", None),
    ],
)
def test_limits_themselves_are_allowed(raw: bytes, value: object) -> None:
    assert loads(raw) == (value if value is not None else json.loads(raw))


def test_size_limit_is_inclusive_and_can_be_set() -> None:
    raw = b'"' + b"a" * (JSON_BYTES_MAX - 2) + b'"'
    assert loads(raw) == "a" * (JSON_BYTES_MAX - 2)
    with pytest.raises(ProtocolError, match=f"more than {JSON_BYTES_MAX} bytes"):
        loads(raw + b" ")
    assert loads(raw + b" ", bytes_max=JSON_BYTES_MAX + 1) == loads(raw)
    with pytest.raises(ProtocolError, match="more than 1 bytes"):
        loads(b"[]", bytes_max=1)


@given(TREES)
def test_tree_that_was_read_may_be_written(tree: object) -> None:
    check_tree(tree)


def test_what_json_cannot_say_strictly_is_not_written() -> None:
    deep: Any = 1
    for _ in range(JSON_DEPTH_MAX):
        deep = [deep]
    check_tree(deep)
    for tree, depth in [(deep, 1), ([deep], 0), ({"a": 1.5}, 0), ({1: 2}, 0), ([2**53], 0), ({"a": b"x"}, 0)]:
        with pytest.raises(ProtocolError):
            check_tree(tree, depth=depth)
