"""Makes what is published out of a checked proposal and the keys that are online; nothing leaves that nodes refuse.

Reads and writes no file and no table: bytes in, bytes out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from tuf.api.metadata import Root, Snapshot, Timestamp

from node.coordinator.ceremony import Base, Proposal
from node.errors import OperatorError
from node.platform.repository import (
    SNAPSHOT_VALID,
    TIMESTAMP_VALID,
    OnlineKeys,
    fingerprint,
    make_snapshot,
    make_timestamp,
    name_of_root,
    next_version,
    opened,
    public_of,
    published,
)
from node.platform.trust import (
    TARGET,
    InUse,
    MetadataInvalid,
    Roots,
    Trusted,
    Wanted,
    read_set,
    root_file,
)
from protocol.directory import Directory


@dataclass(frozen=True, slots=True)
class Valid:
    """For how long what is signed online counts."""

    timestamp: timedelta = TIMESTAMP_VALID
    snapshot: timedelta = SNAPSHOT_VALID


@dataclass(frozen=True, slots=True)
class Published:
    """Everything that is published, verified from the first root on."""

    trusted: Trusted
    use: InUse

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> "Published | None":
        """Return what these files are; None when nothing was published. Raises OperatorError for a broken set."""
        first = files.get(root_file(1))
        if first is None:
            return None

        def read(wanted: Wanted) -> bytes | None:
            return files.get(wanted.file)

        try:
            trusted = read_set(read, Roots.pinned(1, first, fingerprint(first)))
        except MetadataInvalid as error:
            raise OperatorError(f"What is published does not verify: {error}.") from None
        if trusted.use is None or trusted.use.superseded:
            raise OperatorError("What is published does not verify: no directory that its newest root vouches for.")
        return cls(trusted, trusted.use)

    @property
    def directory(self) -> Directory:
        """The directory."""
        return self.use.directory

    @property
    def files(self) -> Mapping[str, bytes]:
        """Every file, by name."""
        return MappingProxyType(self.trusted.files())

    @property
    def root(self) -> Root:
        """The newest root."""
        return self.trusted.roots.newest

    @property
    def fingerprint(self) -> str:
        """What nodes pin: the first root."""
        return fingerprint(self.files[root_file(1)])

    def base(self) -> Base:
        """Return what a proposal follows."""
        return Base(self.files[root_file(self.root.version)], self._targets(), self.document())

    def _targets(self) -> bytes:
        return self.files[f"{self.use.targets.version}.targets.json"]

    def document(self) -> bytes:
        """Return the directory's file."""
        return self.files[f"{self.use.sha256.hex()}.{TARGET}"]

    def snapshot_file(self) -> bytes:
        """Return the snapshot's file."""
        return self.files[f"{self.use.snapshot.version}.snapshot.json"]


def publish(
    before: Published | None, proposal: Proposal, online: OnlineKeys, now: datetime, valid: Valid | None = None
) -> Published:
    """Return what is published when the proposal is; raises OperatorError when it may not be."""
    proposal.check(None if before is None else before.base(), now)
    base = proposal.base if proposal.base is not None else Base(proposal.root or b"")
    targets = proposal.targets if proposal.targets is not None else base.targets
    document = proposal.document if proposal.document is not None else base.document
    if targets is None or document is None:
        raise OperatorError("The proposal holds no directory, and none is published yet.")
    check_online(proposal.new_root(), online)
    roots = {} if before is None else {root_file(at): raw for at, raw in before.trusted.roots.raw.items()}
    if proposal.root is not None:
        roots[name_of_root(proposal.root)] = proposal.root
    return _signed(roots, targets, document, None, before, online, now, valid or Valid())


def renewed(before: Published, online: OnlineKeys, now: datetime, valid: Valid | None = None) -> Published:
    """Return it with a new timestamp, and a new snapshot once half of the old one's time is over."""
    check_online(before.root, online)
    valid = valid or Valid()
    half = before.use.snapshot.expires - now < valid.snapshot / 2
    base = before.base()
    roots = {root_file(at): raw for at, raw in before.trusted.roots.raw.items()}
    kept = None if half else before.snapshot_file()
    if base.targets is None or base.document is None:
        raise OperatorError("Nothing is published yet.")
    return _signed(roots, base.targets, base.document, kept, before, online, now, valid)


def check_online(root: Root, online: OnlineKeys) -> None:
    """Refuse, with OperatorError, keys that the root does not name: no node would believe them."""
    for role, key in ((Snapshot.type, online.snapshot), (Timestamp.type, online.timestamp)):
        named = [public_of(root.keys[keyid]) for keyid in root.roles[role].keyids]
        if key.public() not in named:
            raise OperatorError(f"The {role} key of this machine is not the one that the root names.")


def _signed(
    roots: Mapping[str, bytes],
    targets: bytes,
    document: bytes,
    snapshot: bytes | None,
    before: Published | None,
    online: OnlineKeys,
    now: datetime,
    valid: Valid,
) -> Published:
    whole = now.replace(microsecond=0)
    if snapshot is None:
        version = next_version(0 if before is None else before.use.snapshot.version, now)
        snapshot = make_snapshot(targets, version, whole + valid.snapshot, online.snapshot)
    version = next_version(0 if before is None else before.use.timestamp.version, now)
    timestamp = make_timestamp(snapshot, version, whole + valid.timestamp, online.timestamp)
    made = Published.of({**roots, **published(targets, document, snapshot, timestamp)})
    if made is None or made.use.timestamp.version != version or opened(snapshot, Snapshot).signed != made.use.snapshot:
        raise OperatorError("What would be published does not verify.")
    return made
