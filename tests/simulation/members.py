"""Who takes part in a history: keys made from names, entries of the directory, and the directory's signed versions."""

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

from node.hotline.domain.lifecycle import State
from node.platform.keyfiles import NodeKeys, StoredKey
from node.platform.repository import (
    ONLINE,
    ROOT,
    TARGETS,
    RoleKeys,
    fingerprint,
    make_root,
    make_snapshot,
    make_targets,
    make_timestamp,
    published,
    sign,
)
from node.platform.trust import root_file
from node.settings import Settings, settings_from
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.timestamps import format_time
from tests.simulation.services import START

#: Ed25519 alone: an ML-DSA signature is different each time it is made, and a history has to be the same each time.
USES: Final = (KeyUse.HTTP, KeyUse.STREAM, KeyUse.RECEIPT)
#: The network's desk, which is no member; its rulings are signed in both algorithms.
DESK: Final = "desk.example"
DESK_KEYS: Final = ((KeyUse.HTTP, Algorithm.ED25519), *((KeyUse.DESK, one) for one in Algorithm))
KEYS_SINCE: Final = datetime(2026, 1, 1, tzinfo=START.tzinfo)
LEFT: Final = frozenset({State.SENT, State.REFUSED})


def node_id(country: str) -> str:
    """Return the id of a country's hotline."""
    return f"{country.lower()}.hotline.example"


@cache
def signing_key(name: str, generation: int = 0, algorithm: Algorithm = Algorithm.ED25519) -> SigningKey:
    """Return the key whose seed is the hash of a name."""
    return SigningKey(algorithm, hashlib.sha256(f"hx simulation {name} {generation}".encode()).digest())


AUTHORITY: Final = signing_key("authority")
EXPIRES: Final = START.replace(microsecond=0) + timedelta(days=3650)
ROOT_FILE: Final = sign(
    make_root(1, dict.fromkeys((ROOT, TARGETS, *ONLINE), RoleKeys([AUTHORITY.public()], 1)), EXPIRES), AUTHORITY
)


@cache
def keys_of(node: str, generation: int = 0) -> NodeKeys:
    """Return a node's keys."""
    return NodeKeys(tuple(StoredKey(use, signing_key(f"{node} {use}", generation), KEYS_SINCE) for use in USES))


@cache
def _settings(country: str) -> Settings:
    values: dict[str, object] = {
        "node_id": node_id(country),
        "countries": [country],
        "base_url": f"https://{node_id(country)}",
        "database_url": "postgresql://simulated.invalid/hotline",
        "directory_root": fingerprint(ROOT_FILE),
        "directory_sources": ["/repository"],
        "locate_retry_base_s": 1.0,
        "backoff_base_s": 0.5,
        "backoff_cap_s": 30.0,
        "peer_timeout_s": 8.0,
        "poll_s": 10.0,
    }
    return settings_from(values, Path("/simulated"))


def settings_of(country: str) -> Settings:
    """Return a node's settings, to be varied by the history."""
    return _settings(country)


def entry(country: str, **changes: Any) -> dict[str, Any]:
    """Return a member as the directory lists it."""
    node = node_id(country)
    return {
        "id": node,
        "countries": [country],
        "name": node,
        "base_url": f"https://{node}",
        "versions": ["1.0"],
        "limits": {},
        "state": "active",
        "weight": 1,
        "keys": [key_entry(node, use) for use in USES],
        "contact": "desk",
        **changes,
    }


def key_entry(node: str, use: KeyUse, generation: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a key as the directory lists it."""
    return {**_listed(node, use, Algorithm.ED25519, generation), **changes}


def _listed(node: str, use: KeyUse, algorithm: Algorithm, generation: int = 0) -> dict[str, Any]:
    return {
        "use": use.value,
        "algorithm": algorithm.value,
        "public": base64.b64encode(signing_key(f"{node} {use}", generation, algorithm).public().raw).decode(),
        "state": "active",
        "not_before": format_time(KEYS_SINCE),
        "retired_at": None,
        "compromised_since": None,
    }


@dataclass(frozen=True, slots=True)
class Stamps:
    """Versions of snapshot and timestamp, and until when each counts."""

    snapshot: int
    snapshot_until: datetime
    timestamp: int
    timestamp_until: datetime


def desk_entry() -> dict[str, Any]:
    """Return the network's desk as the directory lists it."""
    return {"id": DESK, "base_url": f"https://{DESK}", "keys": [_listed(DESK, *key) for key in DESK_KEYS]}


def directory(
    version: int,
    entries: list[dict[str, Any]],
    mandated: str | None = None,
    stamps: Stamps | None = None,
    *,
    desk: bool = False,
) -> dict[str, bytes]:
    """Return the metadata of a version of the directory; `mandated` is whose hotline takes what nobody else does.

    Without `stamps` they outlast every history.
    """
    document = {
        "v": 1,
        "version": version,
        "issued_at": format_time(KEYS_SINCE),
        "nodes": entries,
        "routing": {
            "mandated": [] if mandated is None else [node_id(mandated)],
            "desk": desk_entry() if desk else None,
        },
    }
    return _signed(json.dumps(document), stamps or Stamps(version, EXPIRES, version, EXPIRES))


@lru_cache(maxsize=256)
def _signed(document: str, stamps: Stamps) -> dict[str, bytes]:
    targets, snapshot = _described(document, stamps.snapshot, stamps.snapshot_until)
    timestamp = make_timestamp(snapshot, stamps.timestamp, stamps.timestamp_until, AUTHORITY)
    return {root_file(1): ROOT_FILE, **published(targets, document.encode(), snapshot, timestamp)}


@lru_cache(maxsize=256)
def _described(document: str, number: int, until: datetime) -> tuple[bytes, bytes]:
    targets = sign(make_targets(document.encode(), EXPIRES), AUTHORITY)
    return targets, make_snapshot(targets, number, until, AUTHORITY)
