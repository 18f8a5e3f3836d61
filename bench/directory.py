"""A directory of 200 nodes with six keys each, verified from nothing, beside one signature and one hash of its bytes.

`python -m bench.directory`. From nothing: the pinned root, timestamp, snapshot, targets, the directory with every key,
and the index that requests are looked up in.
"""

import argparse
import base64
import hashlib
import json
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from node.clock import rfc3339
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
from node.platform.trust import Roots, Trusted, Update, root_file
from protocol.codes import COUNTRIES
from protocol.keys import Algorithm, KeyUse, SigningKey

_ROUNDS: Final = 7
_LIMIT_S: Final = 1.0
_KEYS: Final = (
    (KeyUse.HTTP, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ML_DSA_44),
    (KeyUse.RECEIPT, Algorithm.ED25519),
    (KeyUse.RECEIPT, Algorithm.ML_DSA_44),
    (KeyUse.WITNESS, Algorithm.ED25519),
)


def _key(name: str, algorithm: Algorithm = Algorithm.ED25519) -> SigningKey:
    return SigningKey(algorithm, hashlib.sha256(name.encode()).digest())


def document(nodes: int, now: datetime) -> bytes:
    """Return a directory of so many nodes."""
    countries = sorted(COUNTRIES)
    entries = []
    for number in range(nodes):
        node_id = f"n{number}.hotline.example"
        keys = [
            {
                "use": use.value,
                "algorithm": algorithm.value,
                "public": base64.b64encode(_key(f"{node_id} {use}", algorithm).public().raw).decode(),
                "state": "active",
                "not_before": rfc3339(now),
                "retired_at": None,
                "compromised_since": None,
            }
            for use, algorithm in _KEYS
        ]
        entries.append(
            {
                "id": node_id,
                "countries": [countries[number % len(countries)]],
                "name": f"Hotline number {number}",
                "base_url": f"https://{node_id}",
                "versions": ["1.0"],
                "limits": {"batch_records_max": 1000, "batch_bytes_max": 1048576},
                "state": "active",
                "weight": 1,
                "keys": keys,
                "contact": "duty@hotline.example",
            }
        )
    routing: dict[str, object] = {"mandated": [], "desk": None}
    members = {"v": 1, "version": 1, "issued_at": rfc3339(now), "nodes": entries, "routing": routing}
    return json.dumps(members, separators=(",", ":")).encode()


def repository(raw: bytes, now: datetime) -> dict[str, bytes]:
    """Return the files of a repository with three signers of which two are needed."""
    signers = [_key(f"signer {number}") for number in range(3)]
    people, machine = RoleKeys([one.public() for one in signers], 2), RoleKeys([_key("machine").public()], 1)
    expires = now.replace(microsecond=0) + timedelta(days=365)
    root = make_root(1, {ROOT: people, TARGETS: people, **dict.fromkeys(ONLINE, machine)}, expires)
    targets = make_targets(raw, expires)
    for signer in signers[:2]:
        root, targets = sign(root, signer), sign(targets, signer)
    snapshot = make_snapshot(targets, 1, expires, _key("machine"))
    timestamp = make_timestamp(snapshot, 1, expires, _key("machine"))
    return {root_file(1): root, **published(targets, raw, snapshot, timestamp)}


def verified(files: dict[str, bytes], pin: str, now: datetime) -> Trusted:
    """Go the whole way from the pinned root."""
    update = Update(Trusted(Roots.pinned(1, files[root_file(1)], pin)), now)
    wanted = update.advance(None)
    while wanted is not None:
        wanted = update.advance(files.get(wanted.file))
    return update.trusted


def main() -> None:
    """Measure, and fail when it takes a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    nodes = parser.parse_args().nodes
    now = datetime.now(UTC)
    raw = document(nodes, now)
    files = repository(raw, now)
    pin = fingerprint(files[root_file(1)])
    signer = _key("plain")
    public, signature = signer.public(), signer.sign(raw)
    whole, plain = [], []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        use = verified(files, pin, now).use
        whole.append(time.perf_counter() - begun)
        assert use is not None
        assert len(use.directory.nodes) == nodes
        begun = time.perf_counter()
        hashlib.sha256(raw).digest()
        public.verify(signature, raw)
        plain.append(time.perf_counter() - begun)
    took, beside = statistics.median(whole), statistics.median(plain)
    print(f"{nodes} nodes with {len(_KEYS)} keys each, {len(raw) / 1e6:.2f} MB:")
    print(f"  verified from nothing         {took * 1e3:8.1f} ms (worst of {_ROUNDS}: {max(whole) * 1e3:.1f} ms)")
    print(f"  a signature and a hash of it  {beside * 1e3:8.1f} ms, so {took / beside:.0f} times that")
    if nodes <= 200 and took >= _LIMIT_S:
        raise SystemExit("it takes a second or more")


if __name__ == "__main__":
    main()
