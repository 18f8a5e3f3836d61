"""What a proof says of each type of record: its codes, numbers and times, and never a URL or a person's words."""

from datetime import UTC, datetime

import pytest

from protocol.bodies import Hosting, Qualification
from protocol.codes import (
    Action,
    ActionReason,
    Classification,
    SiteType,
    StatusKind,
    TransferReason,
    WithdrawalReason,
)
from protocol.record import Handling, encode_step, parse_record
from protocol.steps import (
    ActionBody,
    AssessmentBody,
    Corrected,
    CorrectionBody,
    Custody,
    StatusBody,
    Step,
    TransferBody,
    WithdrawalBody,
)
from protocol.summary import summary

AT = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
TIME = "2026-11-22T16:00:00.000Z"
HASH = "ab" * 32
ID = "019abc12-0000-7000-8000-000000000001"
SECRET = "http://secret.example/page"

SAID: list[tuple[Step, dict[str, str]]] = [
    (
        AssessmentBody(qualification=Qualification(classification=Classification.NATIONAL, at=AT, by=SECRET)),
        {"classification": "national", "qualified": TIME},
    ),
    (
        ActionBody(action=Action.UNAVAILABLE, at=AT, by=SECRET, reason=ActionReason.LINK_EXPIRED),
        {"action": "unavailable", "done": TIME, "reason": "link-expired"},
    ),
    (
        TransferBody(
            reason=TransferReason.MOVED,
            hosting=Hosting(country="BE", assigned_country="BE", confidence=90, reasons=(), evidence={"url": SECRET}),
            original="c2sp.org/tlog-proof@v1\n",
            trail=(Custody(node="fr.hotline.example", country="NL", evidence=HASH, at=AT),),
        ),
        {
            "reason": "moved",
            "hosting country": "BE",
            "assigned country": "BE",
            "confidence": "90 of 100",
            "had by": "fr.hotline.example",
        },
    ),
    (
        CorrectionBody(corrects=HASH, members=Corrected(referrer=SECRET, site_type=SiteType.FORUM)),
        {"corrects the report": HASH, "members": "referrer, site_type"},
    ),
    (
        WithdrawalBody(withdraws=HASH, reason=WithdrawalReason.LEGAL_ORDER),
        {"withdraws the report": HASH, "reason": "legal-order"},
    ),
    (
        StatusBody(kind=StatusKind.FINAL, at=AT, about=HASH, code="removed"),
        {"kind": "final", "at": TIME, "about the record": HASH, "code": "removed"},
    ),
]


@pytest.mark.parametrize(("body", "said"), SAID, ids=[type(body).__name__ for body, _ in SAID])
def test_what_is_said_is_summed_up_without_urls(body: Step, said: dict[str, str]) -> None:
    raw = encode_step(
        body,
        record_id=ID,
        case=ID,
        item=ID,
        iss="nl.hotline.example",
        aud="fr.hotline.example",
        iat=AT,
        handling=Handling("takedown", AT),
    )
    found = summary(parse_record(raw))
    assert dict(found) == said
    assert SECRET not in str(found)
