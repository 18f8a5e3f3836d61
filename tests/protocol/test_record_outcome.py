"""Outcomes: ranges that say each index once, refusals by code, and cutting what is too much for one record."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.bodies import RANGES_MAX, REFUSALS_MAX, split_outcome
from protocol.errors import ProtocolError
from protocol.record import OutcomeBody, Refusal, encode_outcome, parse_record
from tests.protocol.sample_network import FR, HANDLING, NL, NOW, RECORD_ID

ORIGIN = f"hx/1/{FR}/{NL}/1"
REFUSED = Refusal(index=7, id=RECORD_ID, code="schema-invalid", detail="this is not a token", field="body.kind")
BODY = OutcomeBody(stream=ORIGIN, accepted=((0, 4), (6, 6)), kept=((5, 5), (9, 12)), refused=(REFUSED,))


def outcome(body: OutcomeBody) -> bytes:
    return encode_outcome(body, record_id=RECORD_ID, iss=NL, aud=FR, iat=NOW, handling=HANDLING)


RAW = outcome(BODY)


def changed(**changes: object) -> bytes:
    tree: dict[str, Any] = json.loads(RAW)
    tree["body"].update(changes)
    return json.dumps(tree).encode()


def refusal_member(**changes: object) -> dict[str, object]:
    return {"index": 20, "id": None, "code": "malformed", "detail": "no JSON", **changes}


def test_outcome_is_read_as_it_was_made() -> None:
    record = parse_record(RAW)
    assert record.body == BODY
    assert (record.envelope.type, record.envelope.iss, record.envelope.aud) == ("outcome", NL, FR)


def test_outcome_belongs_to_no_case() -> None:
    envelope = parse_record(RAW).envelope
    assert envelope.id == envelope.case == envelope.item == RECORD_ID
    assert (envelope.parent, envelope.hops, envelope.deliver_by) == (None, (), None)


def test_wire_form_is_the_one_of_the_specification() -> None:
    assert json.loads(RAW)["body"] == {
        "schema": 1,
        "stream": ORIGIN,
        "accepted": [[0, 4], [6, 6]],
        "kept": [[5, 5], [9, 12]],
        "refused": [
            {
                "index": 7,
                "id": RECORD_ID,
                "code": "schema-invalid",
                "field": "body.kind",
                "detail": "this is not a token",
            }
        ],
    }
    assert list(json.loads(RAW)["body"]["refused"][0]) == ["index", "id", "code", "field", "detail"]


def test_record_that_could_not_be_read_is_refused_without_id_and_field() -> None:
    refused = Refusal(index=0, id=None, code="malformed", detail="no JSON")
    raw = outcome(OutcomeBody(stream=ORIGIN, accepted=(), kept=(), refused=(refused,)))
    assert json.loads(raw)["body"]["refused"] == [{"index": 0, "id": None, "code": "malformed", "detail": "no JSON"}]
    body = parse_record(raw).body
    assert isinstance(body, OutcomeBody)
    assert body.refused == (refused,)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema": 0}, "body.schema"),
        ({"stream": "hx/2/a/b/1"}, "body.stream"),
        ({"stream": f"hx/1/{FR}/{NL}/0"}, "body.stream"),
        ({"stream": 1}, "body.stream"),
        ({"accepted": None}, "body.accepted"),
        ({"accepted": [[1]]}, "body.accepted[0]"),
        ({"accepted": [[1, 2, 3]]}, "body.accepted[0]"),
        ({"accepted": [[True, 2]]}, "body.accepted[0][0]"),
        ({"accepted": [[2, 1]]}, "body.accepted"),
        ({"accepted": [[-1, 1]]}, "body.accepted"),
        ({"accepted": [[0, 1], [1, 2]]}, "body.accepted"),
        ({"accepted": [[3, 4], [0, 1]]}, "body.accepted"),
        ({"accepted": [[0, 5]]}, "body"),
        ({"accepted": [[7, 7]]}, "body"),
        ({"kept": [[9, 8]]}, "body.kept"),
        ({"accepted": [[2 * n, 2 * n] for n in range(RANGES_MAX + 1)], "kept": []}, "body.accepted"),
        ({"refused": [refusal_member(index=n + 20) for n in range(REFUSALS_MAX + 1)]}, "body.refused"),
        ({"refused": [refusal_member(), refusal_member()]}, "body.refused"),
        ({"refused": [refusal_member(index=21), refusal_member(index=20)]}, "body.refused"),
        ({"refused": [refusal_member(index=-1)]}, "body.refused"),
        ({"refused": [refusal_member(id="x")]}, "body.refused[0].id"),
        ({"refused": [refusal_member(code="Not A Code")]}, "body.refused[0].code"),
        ({"refused": [refusal_member(code=None)]}, "body.refused[0].code"),
        ({"refused": [refusal_member(detail="")]}, "body.refused[0].detail"),
        ({"refused": [refusal_member(detail="a\nb")]}, "body.refused[0].detail"),
        ({"refused": [refusal_member(detail="a" * 257)]}, "body.refused[0].detail"),
        ({"refused": [refusal_member(field="https://a.example")]}, "body.refused[0].field"),
    ],
)
def test_outcome_that_breaks_its_schema_is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_record(changed(**changes))
    assert (caught.value.code, caught.value.field) == ("schema-invalid", field)


def test_outcome_that_a_peer_would_refuse_is_not_made() -> None:
    with pytest.raises(ProtocolError) as caught:
        outcome(OutcomeBody(stream=ORIGIN, accepted=((0, 4),), kept=((4, 5),), refused=()))
    assert caught.value.field == "body"


@given(st.lists(st.sampled_from(["accepted", "kept", "refused", "not said"]), max_size=1500))
def test_split_outcome_says_the_same_in_records_that_fit(fates: list[str]) -> None:
    ranges = {name: tuple((n, n) for n, fate in enumerate(fates) if fate == name) for name in ("accepted", "kept")}
    refused = tuple(
        Refusal(index=n, id=RECORD_ID, code="handling-violation", detail="d" * 256, field="f" * 80)
        for n, fate in enumerate(fates)
        if fate == "refused"
    )
    whole = OutcomeBody(stream=ORIGIN, accepted=ranges["accepted"], kept=ranges["kept"], refused=refused)
    parts = list(split_outcome(whole))
    assert parts
    bodies = [parse_record(outcome(part)).body for part in parts]
    assert bodies == parts
    for name in ("accepted", "kept", "refused"):
        assert [one for part in parts for one in getattr(part, name)] == list(getattr(whole, name))
    spoken = [
        [
            *(n for ranges in (part.accepted, part.kept) for pair in ranges for n in pair),
            *(r.index for r in part.refused),
        ]
        for part in parts
    ]
    assert all(max(before) < min(after) for before, after in pairwise(spoken))
