"""A repository that really signs, with every key of its own, and that a test may make lie in any way."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from node.platform.membership import Seen
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
from protocol.keys import Algorithm, SigningKey
from tests.vectors.network import directory_document

NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
HOUR = timedelta(hours=1)


def key(name: str) -> SigningKey:
    return SigningKey(Algorithm.ED25519, sha256(name.encode()).digest())


def document(version: int, **members: Any) -> bytes:
    return json.dumps({**json.loads(directory_document()), "version": version, **members}).encode()


@dataclass
class Repository:
    """Files as they are served. Attributes say what the next publication is signed with and how long it counts."""

    files: dict[str, bytes] = field(default_factory=dict)
    root_keys: tuple[str, ...] = ("root a", "root b", "root c")
    root_threshold: int = 2
    targets_keys: tuple[str, ...] = ("targets a", "targets b")
    targets_threshold: int = 2
    snapshot_key: str = "snapshot"
    timestamp_key: str = "timestamp"
    root_version: int = 0
    version: int = 0
    snapshot_version: int = 0
    timestamp_version: int = 0
    root_expires: datetime = NOW + 365 * 24 * HOUR
    targets_expires: datetime = NOW + 365 * 24 * HOUR
    snapshot_expires: datetime = NOW + 30 * 24 * HOUR
    timestamp_expires: datetime = NOW + 72 * HOUR
    targets: bytes = b""
    document: bytes = b""
    snapshot: bytes = b""

    @classmethod
    def begun(cls) -> "Repository":
        """Return one with a root and a first directory."""
        made = cls()
        made.rotate()
        made.publish()
        return made

    @property
    def pin(self) -> str:
        return fingerprint(self.files[root_file(1)])

    def rotate(self, *, signers: Iterable[str] | None = None, version: int | None = None) -> None:
        """Publish the next root; signed by enough of the keys before and of the new ones unless `signers` says so."""
        self.root_version += 1
        roles = {
            ROOT: RoleKeys([key(name).public() for name in self.root_keys], self.root_threshold),
            TARGETS: RoleKeys([key(name).public() for name in self.targets_keys], self.targets_threshold),
            ONLINE[0]: RoleKeys([key(self.snapshot_key).public()], 1),
            ONLINE[1]: RoleKeys([key(self.timestamp_key).public()], 1),
        }
        raw = make_root(version or self.root_version, roles, self.root_expires)
        for name in self.root_keys if signers is None else signers:
            raw = sign(raw, key(name))
        self.files[root_file(self.root_version)] = raw

    def publish(self, *, signers: Iterable[str] | None = None, **members: Any) -> None:
        """Publish the next version of the directory."""
        self.version += 1
        self.document = document(self.version, **members)
        targets = make_targets(self.document, self.targets_expires)
        for name in self.targets_keys if signers is None else signers:
            targets = sign(targets, key(name))
        self.targets = targets
        self.take_snapshot()

    def take_snapshot(self, targets: bytes | None = None) -> None:
        self.snapshot_version += 1
        self.snapshot = make_snapshot(
            targets or self.targets, self.snapshot_version, self.snapshot_expires, key(self.snapshot_key)
        )
        self.stamp()

    def stamp(self, snapshot: bytes | None = None) -> None:
        self.timestamp_version += 1
        snapshot = snapshot or self.snapshot
        made = make_timestamp(snapshot, self.timestamp_version, self.timestamp_expires, key(self.timestamp_key))
        self.files |= published(self.targets, self.document, snapshot, made)

    def copy(self) -> "Repository":
        return replace(self, files=dict(self.files))


def begin(repository: Repository) -> Trusted:
    """Return the pinned root alone."""
    return Trusted(Roots.pinned(1, repository.files[root_file(1)], repository.pin))


def update(trusted: Trusted, files: Mapping[str, bytes], now: datetime | None = NOW) -> Trusted:
    """Go through one update over these files."""
    pass_ = Update(trusted, now)
    go_through(pass_, files)
    return pass_.trusted


def go_through(pass_: Update, files: Mapping[str, bytes]) -> None:
    """Give an update the files it asks for."""
    wanted = pass_.advance(None)
    while wanted is not None:
        wanted = pass_.advance(files.get(wanted.file))


class Notebook:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def check(self, seen: Seen) -> None:
        """Take everything."""

    async def record(self, seen: Seen) -> None:
        self.seen.append(seen)
