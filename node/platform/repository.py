"""Makes and signs the directory's TUF metadata: documents, keys and times in, bytes out. Never reads or writes a file.

Root and targets are signed by people, in ceremonies; snapshot and timestamp by a machine that is online.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from node.errors import OperatorError
from node.platform.trust import TARGET, TIMESTAMP, root_file
from protocol.directory import parse_directory
from protocol.keys import Algorithm, PublicKey, SigningKey

#: The roles of TUF; the first two are signed offline.
ROOT: Final = Root.type
TARGETS: Final = Targets.type
ONLINE: Final = (Snapshot.type, Timestamp.type)
TIMESTAMP_VALID: Final = timedelta(hours=72)
#: A snapshot is renewed with the timestamp when half of this has passed.
SNAPSHOT_VALID: Final = timedelta(days=30)
OFFLINE_VALID: Final = timedelta(days=365)

_SERIALIZER: Final = JSONSerializer(compact=False)


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Whose signatures a role needs: any `threshold` of `keys`."""

    keys: Sequence[PublicKey]
    threshold: int


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """What the machine signs with."""

    snapshot: SigningKey
    timestamp: SigningKey


def tuf_key(key: PublicKey) -> SSlibKey:
    """Return the key as metadata lists it; OperatorError for another algorithm than Ed25519."""
    if key.algorithm is not Algorithm.ED25519:
        raise OperatorError("The directory's own keys are Ed25519 keys.")
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(key.raw))


def public_of(key: Any) -> PublicKey:
    """Return a key that metadata lists, as ours; OperatorError for another kind."""
    try:
        return PublicKey(Algorithm.ED25519, bytes.fromhex(key.keyval["public"]))
    except (KeyError, TypeError, ValueError):
        raise OperatorError("The root lists a key that is no Ed25519 key.") from None


def fingerprint(root: bytes) -> str:
    """Return the SHA-256, in hex, of what is signed of a root (its canonical form): what nodes pin."""
    return hashlib.sha256(opened(root, Root).signed_bytes).hexdigest()


def opened(raw: bytes, kind: type[Any]) -> Metadata[Any]:
    """Return the metadata in a file, its signatures unchecked; OperatorError when it is none of this kind."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
    except (DeserializationError, RepositoryError):
        raise OperatorError("The file is not TUF metadata.") from None
    if not isinstance(metadata.signed, kind):
        raise OperatorError(f"The file is not the metadata of {kind.type}.")
    return metadata


def make_root(version: int, roles: Mapping[str, RoleKeys], expires: datetime) -> bytes:
    """Return an unsigned root that names the keys of all four roles; OperatorError for a threshold nobody can meet."""
    root = Root(version=version, expires=expires, consistent_snapshot=True)
    for name, role in roles.items():
        if not 1 <= role.threshold <= len({key.raw for key in role.keys}):
            raise OperatorError(f"The threshold of {name} is from 1 to the number of its keys.")
        for key in role.keys:
            root.add_key(tuf_key(key), name)
        root.roles[name].threshold = role.threshold
    return _bytes(Metadata(root))


def roles_of(root: Root) -> dict[str, RoleKeys]:
    """Return the keys of all four roles of a root."""
    return {
        name: RoleKeys([public_of(root.keys[keyid]) for keyid in root.roles[name].keyids], root.roles[name].threshold)
        for name in (ROOT, TARGETS, *ONLINE)
    }


def make_targets(document: bytes, expires: datetime) -> bytes:
    """Return unsigned targets for a directory document, of the same version. Raises DirectoryInvalid."""
    version = parse_directory(document).version
    target = TargetFile.from_data(TARGET, document, ["sha256"])
    return _bytes(Metadata(Targets(version=version, expires=expires, targets={TARGET: target})))


def make_snapshot(targets: bytes, version: int, expires: datetime, key: SigningKey) -> bytes:
    """Return a signed snapshot of these targets."""
    meta = MetaFile.from_data(opened(targets, Targets).signed.version, targets, ["sha256"])
    return sign(_bytes(Metadata(Snapshot(version=version, expires=expires, meta={"targets.json": meta}))), key)


def make_timestamp(snapshot: bytes, version: int, expires: datetime, key: SigningKey) -> bytes:
    """Return a signed timestamp of this snapshot."""
    meta = MetaFile.from_data(opened(snapshot, Snapshot).signed.version, snapshot, ["sha256"])
    return sign(_bytes(Metadata(Timestamp(version=version, expires=expires, snapshot_meta=meta))), key)


def sign(raw: bytes, key: SigningKey) -> bytes:
    """Return the metadata with one more signature, or with a new one in place of the key's old one."""
    metadata: Metadata[Any] = Metadata.from_bytes(raw)
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    metadata.sign(CryptoSigner(private, tuf_key(key.public())), append=True)
    return _bytes(metadata)


def next_version(before: int, now: datetime) -> int:
    """Return the version of a snapshot or timestamp made now.

    Seconds, not a count: a coordinator that was restored from a backup goes on above what nodes have seen.
    """
    return max(before + 1, int(now.timestamp()))


def published(targets: bytes, document: bytes, snapshot: bytes, timestamp: bytes) -> dict[str, bytes]:
    """Return the files of one publication but for the roots, by the names that consistent snapshots give them."""
    sha256 = hashlib.sha256(document).hexdigest()
    return {
        f"{sha256}.{TARGET}": document,
        f"{opened(targets, Targets).signed.version}.targets.json": targets,
        f"{opened(snapshot, Snapshot).signed.version}.snapshot.json": snapshot,
        TIMESTAMP: timestamp,
    }


def name_of_root(root: bytes) -> str:
    """Return the name of a root's file."""
    return root_file(opened(root, Root).signed.version)


def _bytes(metadata: Metadata[Any]) -> bytes:
    raw: bytes = metadata.to_bytes(_SERIALIZER)
    return raw
