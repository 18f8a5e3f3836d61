"""A small network for tests: keys from fixed seeds, a directory document, one report; never used by the program."""

import base64
import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from protocol.codes import Age, Channel, Classification, Gender, HashAlgorithm, Kind, SiteType
from protocol.directory import Directory, parse_directory
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.record import Flags, Handling, Hash, Hosting, Qualification, ReportBody, encode_report
from protocol.timestamps import format_time

NOW = datetime(2026, 11, 22, 16, 0, 0, 123000, tzinfo=UTC)
BEFORE = NOW - timedelta(days=100)
FR, NL = "fr.hotline.example", "nl.hotline.example"
RECORD_ID = "0193a5f0-0000-7000-8000-000000000001"
CASE = "0193a5f0-0000-7000-8000-000000000002"
ITEM = "0193a5f0-0000-7000-8000-000000000003"
PAGE = "0193a5f0-0000-7000-8000-000000000004"
URL = "https://gallery.host.example/view?id=7"

SIGNING_USES = (
    (KeyUse.HTTP, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ML_DSA_44),
    (KeyUse.RECEIPT, Algorithm.ED25519),
    (KeyUse.RECEIPT, Algorithm.ML_DSA_44),
)


def signing_key(node: str, use: str, algorithm: Algorithm = Algorithm.ED25519, generation: int = 0) -> SigningKey:
    return SigningKey(algorithm, hashlib.sha256(f"{node} {use} {algorithm} {generation}".encode()).digest())


AUTHORITY = signing_key("coordinator.example", KeyUse.AUTHORITY)


def signing_keys(node: str, use: KeyUse, generation: int = 0) -> list[SigningKey]:
    return [signing_key(node, use, algorithm, generation) for one, algorithm in SIGNING_USES if one is use]


def key_member(key: SigningKey, use: KeyUse, **changes: str) -> dict[str, str]:
    return {
        "use": use.value,
        "algorithm": key.algorithm.value,
        "public": base64.b64encode(key.public().raw).decode(),
        "state": "active",
        "not_before": format_time(BEFORE),
        **changes,
    }


def node_member(node: str, countries: list[str]) -> dict[str, Any]:
    return {
        "id": node,
        "countries": countries,
        "name": f"Hotline {node}",
        "base_url": f"https://{node}:8443",
        "versions": ["1.0"],
        "limits": {"records_per_batch": 1000},
        "state": "active",
        "weight": 100,
        "keys": [key_member(signing_key(node, use, algorithm), use) for use, algorithm in SIGNING_USES],
        "contact": f"duty@{node}",
    }


DESK = "coordinator.example"
DESK_USES = (
    (KeyUse.HTTP, Algorithm.ED25519),
    (KeyUse.DESK, Algorithm.ED25519),
    (KeyUse.DESK, Algorithm.ML_DSA_44),
)


def desk_member() -> dict[str, Any]:
    keys = [key_member(signing_key(DESK, use, algorithm), use) for use, algorithm in DESK_USES]
    return {"id": DESK, "base_url": f"https://{DESK}", "keys": keys}


_DOCUMENT = {
    "v": 1,
    "version": 7,
    "issued_at": format_time(NOW),
    "nodes": [node_member(FR, ["FR"]), node_member(NL, ["NL", "CW"])],
    "routing": {"mandated": [NL], "desk": None},
}


def document() -> dict[str, Any]:
    """Return a fresh directory document, to be changed at will."""
    return copy.deepcopy(_DOCUMENT)


def directory_of(members: dict[str, Any]) -> Directory:
    return parse_directory(json.dumps(members, separators=(",", ":")).encode())


def report_body(**changes: Any) -> ReportBody:
    members: dict[str, Any] = {
        "url": URL,
        "kind": Kind.MEDIA,
        "page": PAGE,
        "referrer": "https://board.example/t/1",
        "hashes": (Hash(HashAlgorithm.SHA256, "ab" * 32), Hash(HashAlgorithm.MD5, "cd" * 16)),
        "site_type": SiteType.IMAGE_HOST,
        "channel": Channel.PUBLIC,
        "reference": "FR-2026-17",
        "received_at": NOW,
        "reported_at": NOW - timedelta(hours=2),
        "qualification": Qualification(
            classification=Classification.NATIONAL,
            at=NOW,
            age=Age.PREPUBESCENT,
            gender=Gender.FEMALE,
            flags=Flags(virtual=False),
            by="analyst-7",
        ),
        "hosting": Hosting(
            country="NL",
            registered_country="NL",
            assigned_country="NL",
            confidence=90,
            reasons=("databases-agree",),
            evidence={"addresses": ["192.0.2.10"], "asn": {"number": 64500}},
        ),
        **changes,
    }
    return ReportBody(**members)


HANDLING = Handling("takedown", NOW + timedelta(days=365))


def report(body: ReportBody | None = None, **changes: Any) -> bytes:
    """Return the bytes of a report from France to the Netherlands."""
    members: dict[str, Any] = {
        "record_id": RECORD_ID,
        "case": CASE,
        "item": ITEM,
        "iss": FR,
        "aud": NL,
        "iat": NOW,
        "handling": HANDLING,
        "deliver_by": NOW + timedelta(days=7),
        **changes,
    }
    return encode_report(body or report_body(), **members)
