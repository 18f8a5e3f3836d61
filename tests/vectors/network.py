"""The fixed network that the examples are about: three nodes, their keys, one report with a page and a picture.

Nothing here is random and nothing is secret: every seed is the SHA-256 of a name.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from protocol.codes import (
    Age,
    Channel,
    Classification,
    Commerciality,
    Gender,
    HashAlgorithm,
    Kind,
    PaymentMethod,
    SiteType,
)
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.record import (
    Flags,
    Handling,
    Hash,
    Hosting,
    OutcomeBody,
    Qualification,
    Refusal,
    ReportBody,
    encode_outcome,
    encode_report,
)
from protocol.timestamps import format_time

FR: Final = "fr.hotline.example"
NL: Final = "nl.hotline.example"
DE: Final = "de.hotline.example"
DESK: Final = "coordinator.example"
NOW: Final = datetime(2026, 11, 22, 16, 0, 0, 123000, tzinfo=UTC)
NOW_S: Final = int(NOW.timestamp())
#: When the sender signed its checkpoint, and when the receiver stored it.
RECEIPT_S: Final = NOW_S + 2
KEYS_SINCE: Final = datetime(2026, 1, 1, tzinfo=UTC)
NODE_KEYS: Final = (
    (KeyUse.HTTP, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ML_DSA_44),
    (KeyUse.RECEIPT, Algorithm.ED25519),
    (KeyUse.RECEIPT, Algorithm.ML_DSA_44),
)
DESK_KEYS: Final = (
    (KeyUse.HTTP, Algorithm.ED25519),
    (KeyUse.DESK, Algorithm.ED25519),
    (KeyUse.DESK, Algorithm.ML_DSA_44),
)
PAGE_RECORD: Final = "019abc12-0000-7000-8000-000000000001"
MEDIA_RECORD: Final = "019abc12-0000-7000-8000-000000000002"
OUTCOME_RECORD: Final = "019abc12-0000-7000-8000-000000000003"
CASE: Final = "019abc11-0000-7000-8000-000000000001"
PAGE_ITEM: Final = "019abc11-0000-7000-8000-000000000002"
MEDIA_ITEM: Final = "019abc11-0000-7000-8000-000000000003"
HANDLING: Final = Handling("takedown", NOW + timedelta(days=365))

_EVIDENCE: Final = {
    "at": "2026-11-22T15:59:58.000Z",
    "dns": {"outcome": "answer", "server": "192.0.2.53", "ttl": 300, "chain": ["web7.hosting.example"]},
    "addresses": [
        {
            "ip": "198.51.100.7",
            "kind": "documentation",
            "countries": [{"db": 0, "country": "NL", "registered": "NL"}],
            "networks": [{"db": 1, "asn": 64498, "org": "Example Hosting"}],
        }
    ],
    "databases": [
        {"type": "Example-Country", "built": "2026-11-01"},
        {"type": "Example-ASN", "built": "2026-11-01"},
    ],
}


def signing_key(node: str, use: KeyUse, algorithm: Algorithm) -> SigningKey:
    """Return the key whose seed is the SHA-256 of `hx example <node> <use> <algorithm>`."""
    return SigningKey(algorithm, hashlib.sha256(f"hx example {node} {use} {algorithm}".encode()).digest())


def signing_keys(node: str, use: KeyUse) -> list[SigningKey]:
    return [signing_key(node, use, algorithm) for one, algorithm in (*NODE_KEYS, *DESK_KEYS[1:]) if one is use]


AUTHORITY: Final = signing_key("authority.example", KeyUse.AUTHORITY, Algorithm.ED25519)


def directory_document() -> bytes:
    """Return the directory of the three nodes: one line of JSON."""
    document = {
        "v": 1,
        "version": 7,
        "issued_at": "2026-11-20T12:00:00.000Z",
        "nodes": [
            _member(FR, "FR", "Hotline France"),
            _member(NL, "NL", "Hotline Netherlands"),
            _member(DE, "DE", "Hotline Germany"),
        ],
        "routing": {
            "mandated": [FR],
            "desk": {"id": DESK, "base_url": f"https://{DESK}", "keys": _listed(DESK, DESK_KEYS)},
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _member(node: str, country: str, name: str) -> dict[str, Any]:
    return {
        "id": node,
        "countries": [country],
        "name": name,
        "base_url": f"https://{node}",
        "versions": ["1.0"],
        "limits": {"batch_records_max": 1000, "batch_bytes_max": 1048576, "body_bytes_max": 4194304},
        "state": "active",
        "weight": 1,
        "keys": _listed(node, NODE_KEYS),
        "contact": f"duty@{node}",
    }


def _listed(node: str, uses: Sequence[tuple[KeyUse, Algorithm]]) -> list[dict[str, Any]]:
    return [
        {
            "use": use.value,
            "algorithm": algorithm.value,
            "public": base64.b64encode(signing_key(node, use, algorithm).public().raw).decode(),
            "state": "active",
            "not_before": format_time(KEYS_SINCE),
            "retired_at": None,
            "compromised_since": None,
        }
        for use, algorithm in uses
    ]


def _hosting() -> Hosting:
    return Hosting(
        country="NL",
        registered_country="NL",
        assigned_country="NL",
        confidence=95,
        reasons=(),
        evidence=dict(_EVIDENCE),
    )


def page_report() -> bytes:
    """Return a report with little more than what every report says."""
    body = ReportBody(
        url="https://gallery.host.example/albums/7",
        kind=Kind.PAGE,
        channel=Channel.PUBLIC,
        received_at=NOW - timedelta(hours=1),
        qualification=Qualification(classification=Classification.BASELINE, at=NOW - timedelta(minutes=5)),
        hosting=_hosting(),
    )
    return _report(body, PAGE_RECORD, PAGE_ITEM)


def media_report() -> bytes:
    """Return a report that says everything a report can say."""
    body = ReportBody(
        url="https://gallery.host.example/albums/7/1.jpg",
        kind=Kind.MEDIA,
        page=PAGE_ITEM,
        referrer="https://board.example/thread/4711",
        hashes=(Hash(HashAlgorithm.SHA256, "0f" * 32), Hash(HashAlgorithm.MD5, "f0" * 16)),
        site_type=SiteType.IMAGE_HOST,
        commerciality=Commerciality.COMMERCIAL,
        payment_methods=(PaymentMethod.BITCOIN, PaymentMethod.VISA),
        channel=Channel.PUBLIC,
        reference="2026-000123",
        received_at=NOW - timedelta(hours=1),
        reported_at=NOW - timedelta(hours=3),
        qualification=Qualification(
            classification=Classification.BASELINE,
            at=NOW - timedelta(minutes=5),
            age=Age.PREPUBESCENT,
            gender=Gender.NOT_DETERMINED,
            flags=Flags(virtual=False, user_generated=False, child_modelling=False),
            law="CP 227-23",
            by="analyst-7",
        ),
        hosting=_hosting(),
    )
    return _report(body, MEDIA_RECORD, MEDIA_ITEM)


def _report(body: ReportBody, record_id: str, item: str) -> bytes:
    return encode_report(
        body,
        record_id=record_id,
        case=CASE,
        item=item,
        iss=FR,
        aud=NL,
        iat=NOW,
        handling=HANDLING,
        deliver_by=NOW + timedelta(days=30),
    )


def outcome() -> bytes:
    """Return what the Dutch node says became of both, had it refused the second."""
    body = OutcomeBody(
        stream=f"hx/1/{FR}/{NL}/1",
        accepted=((0, 0),),
        kept=(),
        refused=(
            Refusal(
                index=1,
                id=MEDIA_RECORD,
                code="id-conflict",
                field="item",
                detail="an item of this id was received before",
            ),
        ),
    )
    return encode_outcome(
        body,
        record_id=OUTCOME_RECORD,
        iss=NL,
        aud=FR,
        iat=NOW + timedelta(seconds=3),
        handling=Handling("takedown", NOW + timedelta(days=365)),
    )
