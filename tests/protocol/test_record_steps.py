"""The records after a report: each says what it was made to say, and each rule of a body refuses by its member."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from protocol import codes
from protocol.bodies import Hosting, Qualification
from protocol.errors import ProtocolError
from protocol.record import Handling, encode_step, parse_record
from protocol.steps import (
    STATUS_MEMBERS,
    STEP_TYPES,
    ActionBody,
    AssessmentBody,
    Corrected,
    CorrectionBody,
    Custody,
    StatusBody,
    Step,
    TransferBody,
    WithdrawalBody,
    step_type,
)

ID = "019abc12-0000-7000-8000-000000000001"
NOW = datetime(2026, 11, 22, 16, 0, 0, 123000, tzinfo=UTC)
HASH = "ab" * 32
HOSTING = Hosting(country="DE", assigned_country="DE", confidence=90, reasons=(), evidence={"at": "x"})
QUALIFICATION = Qualification(classification=codes.Classification.NATIONAL, at=NOW)
PROOF = "c2sp.org/tlog-proof@v1\nextra eyJ9\nindex 1\n\n— line"
STATUS: dict[codes.StatusKind, dict[str, Any]] = {
    codes.StatusKind.DELIVERED: {"about": HASH, "node": "de.hotline.example", "proof": PROOF},
    codes.StatusKind.FINAL: {"about": HASH, "code": "removed"},
    codes.StatusKind.RELAY_FAILURE: {
        "about": HASH,
        "node": "de.hotline.example",
        "code": "unreachable",
        "since": NOW,
        "attempts": 7,
    },
    codes.StatusKind.DISPUTED: {"about": HASH, "code": "ping-pong"},
    codes.StatusKind.EPOCH: {
        "stream": "hx/1/fr.hotline.example/nl.hotline.example/1",
        "size": 3,
        "root": "RbBjLN50JZKMGbVsg00gX1cGghjEfHys+uxT7b9d+uo=",
    },
}
STEPS: list[Step] = [
    AssessmentBody(qualification=QUALIFICATION),
    ActionBody(action=codes.Action.HOSTER_NOTIFIED, at=NOW, by="analyst-7"),
    ActionBody(action=codes.Action.UNAVAILABLE, at=NOW, reason=codes.ActionReason.SITE_DOWN),
    TransferBody(
        reason=codes.TransferReason.MOVED,
        hosting=HOSTING,
        original=PROOF,
        trail=(Custody(node="fr.hotline.example", country="NL", evidence=HASH, at=NOW),),
        qualification=QUALIFICATION,
    ),
    CorrectionBody(corrects=HASH, members=Corrected(site_type=codes.SiteType.FORUM)),
    WithdrawalBody(withdraws=HASH, reason=codes.WithdrawalReason.REPORTED_IN_ERROR),
    *(StatusBody(kind=kind, at=NOW, **members) for kind, members in STATUS.items()),
]


def encode(body: Step) -> bytes:
    return encode_step(
        body,
        record_id=ID,
        case=ID,
        item=ID,
        iss="nl.hotline.example",
        aud="fr.hotline.example",
        iat=NOW,
        handling=Handling("takedown", NOW),
        parent=HASH,
    )


@pytest.mark.parametrize("body", STEPS, ids=lambda body: step_type(body).value)
def test_a_step_is_read_as_it_was_made(body: Step) -> None:
    record = parse_record(encode(body))
    assert record.body == body
    assert record.envelope.type == step_type(body)
    assert record.envelope.body["schema"] == 1


def test_every_type_has_its_body_and_every_kind_of_status_its_members() -> None:
    assert {step_type(body) for body in STEPS} == set(STEP_TYPES)
    assert set(STATUS_MEMBERS) == set(codes.StatusKind)


def _at(tree: dict[str, Any], path: str) -> tuple[Any, Any]:
    node: Any = tree
    *above, last = path.split(".")
    for name in above:
        node = node[int(name)] if name.isdigit() else node[name]
    return node, int(last) if last.isdigit() else last


@pytest.mark.parametrize(
    ("number", "path", "value", "field"),
    [
        (0, "body.qualification.at", "2026-11-22T16:00:00Z", "body.qualification.at"),
        (1, "body.action", "burnt", "body.action"),
        (1, "body.at", "2026-11-22T17:00:00.123+01:00", "body.at"),
        (1, "body.reason", "other", "body.reason"),
        (3, "body.trail", [], "body.trail"),
        (3, "body.trail.0.at", "2026-11-22T16:00:00Z", "body.trail.0.at"),
        (3, "body.trail.0.evidence", "AB" * 32, "body.trail[0].evidence"),
        (3, "body.trail.0.node", "Not A Node", "body.trail[0].node"),
        (3, "body.original", "", "body.original"),
        (3, "body.hosting.assigned_country", "nl", "body.hosting.assigned_country"),
        (4, "body.members", {}, "body.members"),
        (4, "body.corrects", "xyz", "body.corrects"),
        (5, "body.reason", "", "body.reason"),
        (6, "body.node", None, "body.node"),
        (6, "body.code", "x", "body.code"),
        (8, "body.attempts", -1, "body.attempts"),
        (10, "body.root", "short", "body.root"),
        (10, "body.stream", "hx/2/x", "body.stream"),
    ],
)
def test_a_broken_member_is_refused_by_its_name(number: int, path: str, value: object, field: str) -> None:
    tree = json.loads(encode(STEPS[number]))
    node, last = _at(tree, path)
    if value is None:
        del node[last]
    else:
        node[last] = value
    with pytest.raises(ProtocolError) as refused:
        parse_record(json.dumps(tree).encode())
    assert refused.value.code == "schema-invalid"
    assert refused.value.field == field


def test_nothing_of_a_url_shows_in_the_text_of_a_body() -> None:
    for body in STEPS:
        assert "proof" not in repr(body)
        assert "eyJ9" not in repr(body) or not isinstance(body, TransferBody | WithdrawalBody | StatusBody)
