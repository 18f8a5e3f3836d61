"""The error registry, its bodies, and what a hostile peer's error body can do: nothing."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.problems import PROBLEM_BYTES_MAX, REGISTRY, TYPE_PREFIX, UNRECOGNISED, Scope, parse_problem, problem_body
from protocol.strictjson import INTEGER_MAX

# PROTOCOL section 8.
CODES = (
    "bad-signature unknown-key key-revoked replay clock-skew digest-mismatch malformed schema-invalid unknown-critical "
    "wrong-audience not-competent stream-gap root-mismatch equivocation id-conflict too-large over-quota maintenance "
    "directory-stale handling-violation"
)


def test_registry_is_the_one_of_the_specification() -> None:
    assert set(REGISTRY) == set(CODES.split())
    assert all(problem.code == code and 400 <= problem.status <= 599 for code, problem in REGISTRY.items())


def test_what_a_later_attempt_can_cure_is_retryable_and_nothing_else() -> None:
    retryable = {code for code, problem in REGISTRY.items() if problem.retryable}
    assert retryable == {
        *("unknown-key", "replay", "clock-skew", "digest-mismatch", "stream-gap", "root-mismatch"),
        *("too-large", "over-quota", "maintenance", "directory-stale"),
    }


@pytest.mark.parametrize("code", sorted(REGISTRY))
def test_every_problem_survives_the_way_to_the_peer(code: str) -> None:
    body = problem_body(ProtocolError(code, "the reason", field="body.kind", extra={"expected": 7}))
    problem = REGISTRY[code]
    assert body["type"] == TYPE_PREFIX + code
    assert body["status"] == problem.status
    remote = parse_problem(msgspec.json.encode(body))
    assert (remote.code, remote.detail) == (code, "the reason")
    assert (remote.retryable, remote.scope) == (problem.retryable, problem.scope)
    assert remote.extra == {"field": "body.kind", "expected": 7}


def test_extra_members_never_replace_registered_ones() -> None:
    lies = {"code": "x", "status": 200, "field": "x", "credit": 5}
    body = problem_body(ProtocolError("stream-gap", "the reason", field="first_index", extra=lies))
    assert body["code"] == "stream-gap"
    assert body["status"] == 409
    assert body["field"] == "first_index"
    assert body["credit"] == 5


def test_code_outside_the_registry_cannot_be_answered() -> None:
    with pytest.raises(KeyError):
        problem_body(ProtocolError("made-up", "the reason"))


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(body: bytes) -> None:
    assert parse_problem(body).code in {UNRECOGNISED, *REGISTRY}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.sampled_from(["detail", "retryable", "scope", "expected", "credit", "field", "server_time", "status"])


@given(st.sampled_from(sorted(REGISTRY)), st.dictionaries(MEMBERS, JSON, max_size=6))
def test_members_of_any_type_are_survived(code: str, members: dict[str, object]) -> None:
    remote = parse_problem(json.dumps({**members, "code": code}).encode("utf-8", "replace"))
    assert remote.code == code
    assert isinstance(remote.retryable, bool)
    assert remote.scope in Scope
    assert 0 < len(remote.detail) <= 300
    assert remote.detail.isprintable()
    for value in remote.extra.values():
        assert (0 <= value <= INTEGER_MAX) if isinstance(value, int) else len(value) <= 80


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"stream-gap"',
        b"{}",
        b'{"code":"made-up"}',
        b'{"code":["stream-gap"]}',
        b'{"code":1}',
        b"\xff",
        b"[" * 16_000,
        b'{"code":"stream-gap","detail":"' + b"x" * PROBLEM_BYTES_MAX + b'"}',
    ],
)
def test_answer_that_says_nothing_is_no_reason_to_give_up(body: bytes) -> None:
    remote = parse_problem(body)
    assert (remote.code, remote.retryable, remote.extra) == (UNRECOGNISED, True, {})


@pytest.mark.parametrize("text", ["see https://host.example/a", "hxxps://host.example", "a\\b //host.example"])
def test_text_that_may_hold_a_url_is_not_repeated(text: str) -> None:
    remote = parse_problem(msgspec.json.encode({"code": "malformed", "detail": text, "field": text}))
    assert remote.detail == REGISTRY["malformed"].title
    assert remote.extra == {}


def test_controls_in_a_peers_text_do_not_reach_a_terminal() -> None:
    remote = parse_problem(msgspec.json.encode({"code": "malformed", "detail": "a\x1b[31m\r\nb\u202ec"}))
    assert remote.detail == "a [31m  b c"


def test_numbers_out_of_range_and_booleans_are_no_numbers() -> None:
    members = {"code": "stream-gap", "expected": -1, "credit": True, "index": 2**53, "retry_after": 1.5}
    assert parse_problem(msgspec.json.encode(members)).extra == {}


def test_peer_may_say_otherwise_whether_to_retry() -> None:
    members = {"code": "malformed", "retryable": True, "scope": "batch", "server_time": "2026-11-22T16:00:00.000Z"}
    remote = parse_problem(msgspec.json.encode(members))
    assert (remote.retryable, remote.scope) == (True, Scope.BATCH)
    assert remote.extra == {"server_time": "2026-11-22T16:00:00.000Z"}
