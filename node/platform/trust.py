"""What is trusted of the directory's TUF metadata: bytes and one reference time in, the next trusted state out.

Never reads a file, a network or a clock. The steps and the paragraphs cited are those of the client workflow of the TUF
specification 1.0, section 5. What a directory says is `protocol.directory`'s.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from protocol.directory import DIRECTORY_BYTES_MAX, Directory, DirectoryInvalid, parse_directory

#: The one target of the repository.
TARGET: Final = "directory.json"
TIMESTAMP: Final = "timestamp.json"
#: A root of 32 keys has 10 KB, the others hold names and hashes.
ROOT_BYTES_MAX: Final = 65_536
TIMESTAMP_BYTES_MAX: Final = 16_384
SNAPSHOT_BYTES_MAX: Final = 65_536
TARGETS_BYTES_MAX: Final = 65_536
#: Roots followed in one update (5.3.3); what is newer waits for the next.
ROTATIONS_MAX: Final = 256
#: A timestamp counts for 72 h; for so long after it the node goes on with what it knows, 14 d in all.
STALE_FOR: Final = timedelta(days=11)

_ROLES: Final = (Timestamp.type, Snapshot.type, Targets.type)
S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


class Fault(StrEnum):
    """What is wrong with a metadata file."""

    MISSING = "missing"
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    UNSIGNED = "unsigned"
    PIN = "not-pinned"
    EXPIRED = "expired"
    ROLLBACK = "rollback"
    MISMATCH = "mismatch"
    CONTENT = "content"


_SENTENCES: Final[Mapping[Fault, str]] = {
    Fault.MISSING: "is not there",
    Fault.TOO_LARGE: "has more bytes than it may have",
    Fault.MALFORMED: "is not metadata of its kind",
    Fault.UNSIGNED: "is not signed by as many of its keys as it needs",
    Fault.PIN: "is not the root that is pinned",
    Fault.EXPIRED: "has expired",
    Fault.ROLLBACK: "is older than what was trusted before",
    Fault.MISMATCH: "is not what the metadata before it describes",
    Fault.CONTENT: "is not a valid directory",
}


class MetadataInvalid(Exception):  # noqa: N818 -- names the fact, as DirectoryInvalid does
    """A metadata file may not be trusted; `file` is its name."""

    def __init__(self, file: str, fault: Fault, detail: str = "") -> None:
        """Say which file and why."""
        super().__init__(f"{file} {_SENTENCES[fault]}" + (f" ({detail})" if detail else ""))
        self.file = file
        self.fault = fault


class Freshness(StrEnum):
    """How far the directory can be relied on (PROTOCOL section 2)."""

    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"


class Wanted(NamedTuple):
    """The file that an update needs next, and how many bytes it may have."""

    file: str
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Roots:
    """The chain of roots, from the pinned one to the newest, each with its bytes."""

    raw: Mapping[int, bytes]
    newest: Root

    @classmethod
    def pinned(cls, version: int, raw: bytes, fingerprint: str) -> "Roots":
        """Return the chain of one root, if it is the one of this fingerprint and signed by itself; MetadataInvalid."""
        file = root_file(version)
        metadata = _parse(file, raw, Root)
        if hashlib.sha256(metadata.signed_bytes).hexdigest() != fingerprint:
            raise MetadataInvalid(file, Fault.PIN)
        _check_signed(file, metadata.signed, metadata)
        if metadata.signed.version != version:
            raise MetadataInvalid(file, Fault.MISMATCH, "another version")
        return cls(MappingProxyType({version: raw}), metadata.signed)

    def followed_by(self, raw: bytes) -> "Roots":
        """Return the chain with the next root (5.3.4, 5.3.5): signed by the one before and by itself."""
        file = root_file(self.newest.version + 1)
        metadata = _parse(file, raw, Root)
        _check_signed(file, self.newest, metadata)
        _check_signed(file, metadata.signed, metadata)
        if metadata.signed.version != self.newest.version + 1:
            raise MetadataInvalid(file, Fault.ROLLBACK, f"version {metadata.signed.version}")
        return Roots(MappingProxyType({**self.raw, metadata.signed.version: raw}), metadata.signed)

    def timestamp_version(self, raw: bytes) -> int | None:
        """Return the version of a timestamp that the newest root's key signed; None for anything else."""
        try:
            metadata = _parse(TIMESTAMP, raw, Timestamp)
            _check_signed(TIMESTAMP, self.newest, metadata)
        except MetadataInvalid:
            return None
        return metadata.signed.version

    def keys_digest(self) -> bytes:
        """Return a digest of who signs the directory now: what is remembered of versions holds for these keys."""
        lines = []
        for name in _ROLES:
            role = self.newest.roles[name]
            lines.append(f"{name} {role.threshold} {' '.join(sorted(role.keyids))}\n")
        return hashlib.sha256("".join(lines).encode()).digest()


@dataclass(frozen=True, slots=True)
class InUse:
    """A whole directory: every file from timestamp to target, verified one by the other.

    `superseded`: a root has since taken away a key that signed it.
    """

    directory: Directory
    sha256: bytes
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    files: Mapping[str, bytes] = field(repr=False)
    root_version: int
    fresh_until: datetime
    root_expires: datetime
    superseded: bool = False

    def signed_until(self) -> Mapping[str, datetime]:
        """Return when what people sign expires, by its name; all else is renewed by the coordinator."""
        return {"root": self.root_expires, "directory": self.targets.expires}

    def freshness(self, now: datetime) -> Freshness:
        """Return how far it can be relied on at `now`."""
        if now < self.fresh_until and not self.superseded:
            return Freshness.FRESH
        return Freshness.STALE if now < self.fresh_until + STALE_FOR else Freshness.EXPIRED


@dataclass(frozen=True, slots=True)
class Trusted:
    """Everything that is trusted: roots, the newest timestamp and snapshot seen under them, the directory in use.

    The newest timestamp and snapshot may be ahead of the directory in use, when the files behind them did not come.
    """

    roots: Roots
    timestamp: Timestamp | None = None
    snapshot: Snapshot | None = None
    use: InUse | None = None

    def with_root(self, raw: bytes) -> "Trusted":
        """Return it with the next root; what other keys signed is no measure any more (5.3.11, fast-forward)."""
        roots = self.roots.followed_by(raw)
        if roots.keys_digest() == self.roots.keys_digest():
            return replace(self, roots=roots)
        use = None if self.use is None else replace(self.use, superseded=True)
        return Trusted(roots, use=use)

    def files(self) -> dict[str, bytes]:
        """Return every file that somebody else needs to come to the same trust, by name."""
        roots = {root_file(version): raw for version, raw in self.roots.raw.items()}
        return roots if self.use is None else {**roots, **self.use.files}


def root_file(version: int) -> str:
    """Return the name of a root's file."""
    return f"{version}.root.json"


class Update:
    """One pass of the client workflow: asks for file after file, and holds in `trusted` what came of it so far.

    `now` is the reference time of the whole pass (5.1); None looks at no expiry, for files that were trusted before.
    `advance` raises MetadataInvalid; `trusted` then keeps the steps before.
    """

    def __init__(self, trusted: Trusted, now: datetime | None) -> None:
        """Begin with what is trusted."""
        self.trusted = trusted
        self._now = now
        self._steps = self._run()

    def advance(self, content: bytes | None) -> Wanted | None:
        """Take the content of the file asked for, None where it is not there, and return the next; None at the end.

        The first call takes None.
        """
        try:
            return self._steps.send(content)
        except StopIteration:
            return None

    def _run(self) -> Generator[Wanted, bytes | None, None]:
        # 5.3: the root, one version after the other, until there is no newer one.
        for _ in range(ROTATIONS_MAX):
            file = root_file(self.trusted.roots.newest.version + 1)
            raw = yield Wanted(file, ROOT_BYTES_MAX)
            if raw is None:
                break
            self.trusted = self.trusted.with_root(_bounded(file, raw, ROOT_BYTES_MAX))
        root = self.trusted.roots.newest
        # 5.3.10: only the last root has to be in force.
        self._check_expiry(root_file(root.version), root.expires)
        timestamp, timestamp_raw = yield from self._timestamp(root)
        use = self.trusted.use
        if use is not None and not use.superseded and use.timestamp.version == timestamp.version:
            self._check_expiry(TIMESTAMP, use.fresh_until)
            return
        snapshot, snapshot_file, snapshot_raw = yield from self._snapshot(root, timestamp)
        targets, targets_file, targets_raw = yield from self._targets(root, snapshot)
        directory, sha256, target_file, target_raw = yield from self._directory(targets)
        self.trusted = replace(
            self.trusted,
            use=InUse(
                directory=directory,
                sha256=sha256,
                timestamp=timestamp,
                snapshot=snapshot,
                targets=targets,
                files=MappingProxyType(
                    {
                        TIMESTAMP: timestamp_raw,
                        snapshot_file: snapshot_raw,
                        targets_file: targets_raw,
                        target_file: target_raw,
                    }
                ),
                root_version=root.version,
                fresh_until=min(root.expires, timestamp.expires, snapshot.expires, targets.expires),
                root_expires=root.expires,
            ),
        )

    def _timestamp(self, root: Root) -> Generator[Wanted, bytes | None, tuple[Timestamp, bytes]]:
        raw = _there(TIMESTAMP, (yield Wanted(TIMESTAMP, TIMESTAMP_BYTES_MAX)), TIMESTAMP_BYTES_MAX)
        use = self.trusted.use
        if use is not None and use.timestamp is self.trusted.timestamp and raw == use.files[TIMESTAMP]:
            # Verified before, under this very root: a look that finds nothing new costs nothing.
            return use.timestamp, raw
        metadata = _parse(TIMESTAMP, raw, Timestamp)
        # 5.4.2: signed by the timestamp role.
        _check_signed(TIMESTAMP, root, metadata)
        timestamp, before = metadata.signed, self.trusted.timestamp
        if before is not None:
            # 5.4.3: neither its version nor that of the snapshot it names goes back.
            if timestamp.version < before.version:
                raise MetadataInvalid(TIMESTAMP, Fault.ROLLBACK, f"version {timestamp.version}")
            if timestamp.snapshot_meta.version < before.snapshot_meta.version:
                raise MetadataInvalid(TIMESTAMP, Fault.ROLLBACK, f"snapshot {timestamp.snapshot_meta.version}")
            if timestamp.version == before.version and timestamp != before:
                raise MetadataInvalid(TIMESTAMP, Fault.MISMATCH, "two of one version")
        self.trusted = replace(self.trusted, timestamp=timestamp)
        # 5.4.4: a freeze.
        self._check_expiry(TIMESTAMP, timestamp.expires)
        return timestamp, raw

    def _snapshot(
        self, root: Root, timestamp: Timestamp
    ) -> Generator[Wanted, bytes | None, tuple[Snapshot, str, bytes]]:
        meta = timestamp.snapshot_meta
        file = f"{meta.version}.snapshot.json"
        held = self._held(file, meta.verify_length_and_hashes)
        raw = held or _there(file, (yield Wanted(file, SNAPSHOT_BYTES_MAX)), SNAPSHOT_BYTES_MAX)
        # 5.5.2: the snapshot that the timestamp describes.
        _check_content(file, raw, meta.verify_length_and_hashes)
        metadata = _parse(file, raw, Snapshot)
        _check_signed(file, root, metadata)
        snapshot, before = metadata.signed, self.trusted.snapshot
        if snapshot.version != meta.version:
            raise MetadataInvalid(file, Fault.MISMATCH, f"version {snapshot.version}")
        if before is not None:
            # 5.5.5: no version in it goes back and no file leaves it.
            for name, known in before.meta.items():
                now = snapshot.meta.get(name)
                if now is None or now.version < known.version:
                    raise MetadataInvalid(file, Fault.ROLLBACK, name)
        self.trusted = replace(self.trusted, snapshot=snapshot)
        self._check_expiry(file, snapshot.expires)
        return snapshot, file, raw

    def _targets(self, root: Root, snapshot: Snapshot) -> Generator[Wanted, bytes | None, tuple[Targets, str, bytes]]:
        meta = snapshot.meta.get("targets.json")
        if meta is None:
            raise MetadataInvalid(f"{snapshot.version}.snapshot.json", Fault.MISMATCH, "it names no targets")
        file = f"{meta.version}.targets.json"
        held = self._held(file, meta.verify_length_and_hashes)
        raw = held or _there(file, (yield Wanted(file, TARGETS_BYTES_MAX)), TARGETS_BYTES_MAX)
        # 5.6.2: the targets that the snapshot describes.
        _check_content(file, raw, meta.verify_length_and_hashes)
        metadata = _parse(file, raw, Targets)
        _check_signed(file, root, metadata)
        if metadata.signed.version != meta.version:
            raise MetadataInvalid(file, Fault.MISMATCH, f"version {metadata.signed.version}")
        self._check_expiry(file, metadata.signed.expires)
        return metadata.signed, file, raw

    def _directory(self, targets: Targets) -> Generator[Wanted, bytes | None, tuple[Directory, bytes, str, bytes]]:
        target = targets.targets.get(TARGET)
        sha256 = None if target is None else target.hashes.get("sha256")
        if target is None or sha256 is None:
            raise MetadataInvalid(f"{targets.version}.targets.json", Fault.MISMATCH, "it names no directory.json")
        if target.length > DIRECTORY_BYTES_MAX:
            raise MetadataInvalid(TARGET, Fault.TOO_LARGE)
        file = f"{sha256}.{TARGET}"
        use = self.trusted.use
        held = self._held(file, target.verify_length_and_hashes)
        raw = held or _there(TARGET, (yield Wanted(file, target.length)), target.length)
        # 5.7.2: the target that the targets describe.
        _check_content(TARGET, raw, target.verify_length_and_hashes)
        if use is not None and held is not None and use.directory.version == targets.version:
            return use.directory, use.sha256, file, raw
        try:
            directory = parse_directory(raw)
        except DirectoryInvalid as error:
            raise MetadataInvalid(TARGET, Fault.CONTENT, str(error)) from None
        # Ours: one number says which directory it is, whoever says it.
        if directory.version != targets.version:
            raise MetadataInvalid(TARGET, Fault.MISMATCH, f"version {directory.version}, targets {targets.version}")
        return directory, hashlib.sha256(raw).digest(), file, raw

    def _held(self, file: str, verify: Callable[[bytes], None]) -> bytes | None:
        """Return the file from what is in use if it is the one described."""
        use = self.trusted.use
        raw = None if use is None else use.files.get(file)
        if raw is None:
            return None
        try:
            verify(raw)
        except LengthOrHashMismatchError:
            return None
        return raw

    def _check_expiry(self, file: str, expires: datetime) -> None:
        if self._now is not None and self._now >= expires:
            raise MetadataInvalid(file, Fault.EXPIRED)


def read_set(read: Callable[[Wanted], bytes | None], roots: Roots) -> Trusted:
    """Return what the files that `read` returns prove, whatever their age; `roots` begins with the pinned one.

    Without a whole directory `use` is None. One that an older root's keys signed, and the newest root's did not, is
    `superseded`: it is all there is until a newer one comes. Raises MetadataInvalid for a root that is not the next.
    """
    chain = [Trusted(roots)]
    while (raw := read(Wanted(root_file(chain[-1].roots.newest.version + 1), ROOT_BYTES_MAX))) is not None:
        chain.append(chain[-1].with_root(raw))
    newest = chain[-1]
    for at in reversed(chain):
        found = _read_under(read, at)
        if found is None:
            continue
        if found.roots.keys_digest() == newest.roots.keys_digest() and found.use is not None:
            expires = newest.roots.newest.expires
            use = replace(found.use, fresh_until=min(found.use.fresh_until, expires), root_expires=expires)
            return replace(found, roots=newest.roots, use=use)
        return replace(newest, use=None if found.use is None else replace(found.use, superseded=True))
    return newest


def _read_under(read: Callable[[Wanted], bytes | None], trusted: Trusted) -> Trusted | None:
    update = Update(trusted, None)
    newer_root = root_file(trusted.roots.newest.version + 1)
    try:
        wanted = update.advance(None)
        while wanted is not None:
            wanted = update.advance(None if wanted.file == newer_root else read(wanted))
    except MetadataInvalid:
        return None
    return update.trusted


def _there(file: str, raw: bytes | None, bytes_max: int) -> bytes:
    if raw is None:
        raise MetadataInvalid(file, Fault.MISSING)
    return _bounded(file, raw, bytes_max)


def _bounded(file: str, raw: bytes, bytes_max: int) -> bytes:
    if len(raw) > bytes_max:
        raise MetadataInvalid(file, Fault.TOO_LARGE)
    return raw


def _parse(file: str, raw: bytes, kind: type[S]) -> Metadata[S]:
    try:
        metadata: Metadata[S] = Metadata.from_bytes(raw)
    except (DeserializationError, RepositoryError):
        raise MetadataInvalid(file, Fault.MALFORMED) from None
    if not isinstance(metadata.signed, kind):
        raise MetadataInvalid(file, Fault.MALFORMED, "of another kind")
    return metadata


def _check_signed(file: str, root: Root, metadata: Metadata[S]) -> None:
    try:
        root.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        raise MetadataInvalid(file, Fault.UNSIGNED) from None


def _check_content(file: str, raw: bytes, verify: Callable[[bytes], None]) -> None:
    try:
        verify(raw)
    except LengthOrHashMismatchError:
        raise MetadataInvalid(file, Fault.MISMATCH, "other length or hash") from None
