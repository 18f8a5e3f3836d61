"""Records of the other types, as the nodes of the examples would make them; none is random."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

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
from protocol.custody import evidence_hash
from protocol.merkle import leaf_hash
from protocol.note import encode_base64
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
from tests.vectors.network import CASE, DE, FR, HANDLING, MEDIA_ITEM, NL, NOW

_MOVED: Final = {"addresses": [{"ip": "203.0.113.9", "countries": [{"country": "DE"}]}]}


def _step(body: Step, number: int, iss: str, aud: str, **envelope: Any) -> bytes:
    made = {
        "record_id": f"019abc12-0000-7000-8000-0000000001{number:02}",
        "case": CASE,
        "item": MEDIA_ITEM,
        "iss": iss,
        "aud": aud,
        "iat": NOW + timedelta(minutes=number),
        "handling": HANDLING,
        **envelope,
    }
    return encode_step(body, **made)


def steps(report: bytes) -> dict[str, bytes]:
    """Return one record of each type, and a status of each kind, that follow `report` and need no proof."""
    about, at = leaf_hash(report).hex(), NOW + timedelta(hours=1)
    qualification = Qualification(classification=Classification.BASELINE, at=at, law="240b Sr", by="analyst-2")
    return {
        "assessment": _step(AssessmentBody(qualification=qualification), 1, NL, FR, parent=about),
        "action": _step(ActionBody(action=Action.HOSTER_NOTIFIED, at=at, by="analyst-2"), 2, NL, FR, parent=about),
        "action-final": _step(
            ActionBody(action=Action.UNAVAILABLE, at=at, reason=ActionReason.LINK_EXPIRED), 3, NL, FR, parent=about
        ),
        "correction": _step(
            CorrectionBody(corrects=about, members=Corrected(site_type=SiteType.FORUM, reference="2026-000124")),
            4,
            FR,
            NL,
            parent=about,
        ),
        "withdrawal": _step(
            WithdrawalBody(withdraws=about, reason=WithdrawalReason.REPORTED_IN_ERROR), 5, FR, NL, parent=about
        ),
        "status-final": _step(
            StatusBody(kind=StatusKind.FINAL, at=at, about=about, code="unavailable"), 6, NL, FR, parent=about
        ),
        "status-relay-failure": _step(
            StatusBody(
                kind=StatusKind.RELAY_FAILURE,
                at=at,
                about=about,
                node=DE,
                code="unreachable",
                since=NOW,
                attempts=12,
            ),
            7,
            NL,
            FR,
        ),
        "status-disputed": _step(
            StatusBody(kind=StatusKind.DISPUTED, at=at, about=about, code="same-evidence"), 8, NL, FR
        ),
        "status-epoch": _step(
            StatusBody(
                kind=StatusKind.EPOCH,
                at=at,
                stream=f"hx/1/{FR}/{NL}/1",
                size=2,
                root=encode_base64(leaf_hash(report)),
            ),
            9,
            FR,
            NL,
        ),
    }


def transfer(report: bytes, proof: str) -> bytes:
    """Return the transfer of the report from the Netherlands, which received it, to Germany, where it moved."""
    hosting: Any = parse_record(report).envelope.body["hosting"]
    body = TransferBody(
        reason=TransferReason.MOVED,
        hosting=Hosting(country="DE", assigned_country="DE", confidence=90, reasons=(), evidence=dict(_MOVED)),
        original=proof,
        trail=(
            Custody(node=FR, country=hosting["country"], evidence=evidence_hash(hosting["evidence"]), at=NOW),
            Custody(node=NL, country="DE", evidence=evidence_hash(_MOVED), at=NOW + timedelta(minutes=20)),
        ),
    )
    return _step(body, 20, NL, DE, hops=[NL], parent=leaf_hash(report).hex(), deliver_by=NOW + timedelta(days=1))


def delivered(report: bytes, proof: str) -> bytes:
    """Return what Germany tells France, which sent the item first: it has it now."""
    body = StatusBody(
        kind=StatusKind.DELIVERED,
        at=NOW + timedelta(minutes=21),
        about=leaf_hash(report).hex(),
        node=DE,
        proof=proof,
    )
    return _step(body, 21, DE, FR, handling=Handling("takedown", NOW + timedelta(days=365)))


def unknown(report: bytes) -> dict[str, bytes]:
    """Return what a later version would say: a type nobody knows, a later schema, members besides."""
    tree = json.loads(report)

    def said(number: int, **members: object) -> bytes:
        # An item of its own, for a second report of one is refused.
        ids = {name: f"019abc12-0000-7000-8000-00000000{number}{at}" for at, name in enumerate(("id", "item"), 10)}
        return _dumped({**tree, **ids, **members})

    body: dict[str, object] = tree["body"]
    return {
        "unknown-type": said(30, type="note", body={"schema": 1, "words": "of a later version"}),
        "later-schema": said(31, body={**body, "schema": 2, "kind": "stream"}),
        "unknown-members": said(32, urgency="high", body={**body, "summary": ["of a later version"]}),
    }


def _dumped(tree: Mapping[str, object]) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()
