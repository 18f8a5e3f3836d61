"""Makes and reads the files that hold secrets; never prints one, and never touches a file that is there already."""

import base64
import binascii
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from node.clock import parse_rfc3339, rfc3339
from node.errors import OperatorError
from node.setting_rules import exposure
from node.settings import COORDINATOR, Settings
from protocol.codes import Delivery
from protocol.keys import SEED_BYTES, Algorithm, KeyState, KeyUse, SigningKey
from protocol.versions import speaks

MASTER_KEY_BYTES: Final = 32
_SECRET_FILE_BYTES_MAX: Final = 4096
_NAME_THUMBPRINT_CHARS: Final = 12
#: The keys a node signs with (PROTOCOL section 1); both algorithms where a signature is to last.
NODE_KEYS: Final = (
    (KeyUse.HTTP, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ED25519),
    (KeyUse.STREAM, Algorithm.ML_DSA_44),
    (KeyUse.RECEIPT, Algorithm.ED25519),
    (KeyUse.RECEIPT, Algorithm.ML_DSA_44),
)
#: What the network's desk answers and rules with (PROTOCOL section 1).
DESK_KEYS: Final = (
    (KeyUse.HTTP, Algorithm.ED25519),
    (KeyUse.DESK, Algorithm.ED25519),
    (KeyUse.DESK, Algorithm.ML_DSA_44),
)
Slots = Sequence[tuple[KeyUse, Algorithm]]


def own_slots(settings: Settings) -> Slots:
    """Return what whoever has these settings signs with."""
    return DESK_KEYS if settings.role == COORDINATOR else NODE_KEYS


def descriptor_path(settings: Settings) -> Path:
    """Return the file of the entry that the directory is to have: a node's, or the desk's."""
    return settings.data_dir / ("desk.json" if settings.role == COORDINATOR else "descriptor.json")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key, what it may sign and when it was made."""

    use: KeyUse
    key: SigningKey
    created: datetime


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """Every signing key of a node, or of the desk: exactly one of each use and algorithm in `slots`."""

    stored: tuple[StoredKey, ...]

    def signing(self, use: KeyUse) -> tuple[SigningKey, ...]:
        """Return the keys that sign for `use`, Ed25519 first; all of them must sign."""
        return tuple(each.key for each in self.stored if each.use is use)

    @property
    def http(self) -> SigningKey:
        """The key that signs requests and responses."""
        return self.signing(KeyUse.HTTP)[0]

    @classmethod
    def load(cls, folder: Path, slots: Slots = NODE_KEYS) -> "NodeKeys":
        """Return the keys in `folder`.

        OperatorError when one is missing, exposed, unreadable, or there are two for one use and algorithm: which of
        the two signs only the directory says (`node.platform.keyring`).
        """
        found: dict[tuple[KeyUse, Algorithm], StoredKey] = {}
        for stored in load_keys(folder, slots):
            slot = (stored.use, stored.key.algorithm)
            if slot in found:
                raise OperatorError(f"{folder} holds two {slot[1]} keys for {slot[0]}; move one away.")
            found[slot] = stored
        return cls(tuple(found[slot] for slot in slots))


def load_keys(folder: Path, slots: Slots = NODE_KEYS) -> tuple[StoredKey, ...]:
    """Return every key in `folder`, several of one use and algorithm included (a rotation under way).

    OperatorError when one is exposed, unreadable or not one of `slots`, or when one of those has none.
    """
    found = []
    for path in sorted(folder.glob("*.key")):
        stored = _read_key(path)
        if (stored.use, stored.key.algorithm) not in slots:
            raise OperatorError(
                f"The key file {path} is for {stored.use} with {stored.key.algorithm}, which has no use here."
            )
        found.append(stored)
    held = {(stored.use, stored.key.algorithm) for stored in found}
    for use, algorithm in slots:
        if (use, algorithm) not in held:
            raise OperatorError(f"{folder} holds no {algorithm} key for {use}; `hotline init` makes the keys.")
    return tuple(found)


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    use: KeyUse
    algorithm: Algorithm
    seed: str
    created: str


def create_node_keys(folder: Path, now: datetime, slots: Slots = NODE_KEYS) -> NodeKeys:
    """Make every key of `slots`, one file (0600) each, in `folder` (0700 when it is made here), durably.

    OperatorError when the folder holds a key already: a key that peers know is not replaced by accident.
    """
    _make_folder(folder)
    if any(folder.glob("*.key")):
        raise OperatorError(f"{folder} holds keys already; they are left as they are.")
    for use, algorithm in slots:
        create_key(folder, use, algorithm, now)
    return NodeKeys.load(folder, slots)


def create_key(folder: Path, use: KeyUse, algorithm: Algorithm, now: datetime) -> StoredKey:
    """Make one key, write it durably to `folder` as `<use>-<algorithm>-<short thumbprint>.key` (0600), return it."""
    _make_folder(folder)
    key = SigningKey(algorithm, os.urandom(SEED_BYTES))
    created = rfc3339(now)
    body = {"use": use.value, "algorithm": algorithm.value, "seed": _encode(key.seed), "created": created}
    name = f"{use}-{algorithm}-{key.public().thumbprint()[:_NAME_THUMBPRINT_CHARS]}.key"
    write_secret(folder / name, json.dumps(body).encode() + b"\n")
    return StoredKey(use, key, parse_rfc3339(created))


def read_key(path: Path) -> StoredKey:
    """Return the signing key in one file, whatever its use (the directory authority's, for instance)."""
    return _read_key(path)


def create_master_key(path: Path) -> None:
    """Write a new master key, 32 random bytes in base64, durably to `path` (0600); OperatorError when it exists."""
    _make_folder(path.parent)
    write_secret(path, _encode(os.urandom(MASTER_KEY_BYTES)).encode() + b"\n")


def read_master_key(settings: Settings) -> bytes:
    """Return the 32 bytes of the master key, from HOTLINE_MASTER_KEY or else from `master_key_file`."""
    if settings.master_key:
        return base64.b64decode(settings.master_key, validate=True)
    path = settings.master_key_file
    try:
        key = base64.b64decode(read_secret(path).strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        raise OperatorError(f"The master key file {path} does not hold {MASTER_KEY_BYTES} bytes in base64.")
    return key


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file with mode 0600 whose content is on the disk before this returns.

    OperatorError when the path exists, be it as a dangling link: O_EXCL follows none.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise OperatorError(f"{path} exists already and is left as it is.") from None
    except OSError as error:
        raise OperatorError(f"{path} cannot be written ({error.strerror}).") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_secret(path: Path) -> bytes:
    """Return the content of a file that only its owner may read.

    The descriptor that is read is the one that was checked, so nobody can swap the file in between.
    OperatorError when it is missing, a symbolic link, open to others, or larger than a key can be.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise OperatorError(f"The key file {path} is missing.") from None
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise OperatorError(f"The key file {path} {reason}.") from None
    try:
        fault = exposure(os.fstat(descriptor).st_mode)
        if fault is not None:
            raise OperatorError(f"The key file {path} {fault}.")
        # One read: of an ordinary file this small it returns all there is.
        content = os.read(descriptor, _SECRET_FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(content) > _SECRET_FILE_BYTES_MAX:
        raise OperatorError(f"The key file {path} is larger than {_SECRET_FILE_BYTES_MAX} bytes.")
    return content


def descriptor(
    settings: Settings,
    keys: NodeKeys,
    *,
    name: str,
    contact: str,
    weight: int = 1,
    delivery: Delivery = Delivery.PUSH,
) -> bytes:
    """Return this node's entry for the membership directory, one JSON object, as its authority takes it in.

    It holds public keys only. `name` is the organisation's, `contact` how its operators are reached; `delivery` PULL
    says that the node cannot be called.
    """
    entry = {
        "id": settings.node_id,
        "countries": list(settings.countries),
        "name": name,
        "base_url": settings.base_url,
        "versions": list(speaks().spoken),
        "limits": {
            "batch_records_max": settings.batch_records_max,
            "batch_bytes_max": settings.batch_bytes_max,
            "body_bytes_max": settings.body_bytes_max,
        },
        "state": "active",
        "delivery": delivery.value,
        "weight": weight,
        "keys": _listed(keys),
        "contact": contact,
    }
    return json.dumps(entry, ensure_ascii=False, indent=2).encode() + b"\n"


def desk_descriptor(settings: Settings, keys: NodeKeys) -> bytes:
    """Return the desk's entry for the membership directory, one JSON object; it holds public keys only."""
    entry = {"id": settings.node_id, "base_url": settings.base_url, "keys": _listed(keys)}
    return json.dumps(entry, indent=2).encode() + b"\n"


def _listed(keys: NodeKeys) -> list[dict[str, str | None]]:
    return [
        {
            "use": each.use.value,
            "algorithm": each.key.algorithm.value,
            "public": _encode(each.key.public().raw),
            "state": KeyState.ACTIVE.value,
            # Checkpoints and receipts are signed by the keys of a whole second: the one they were made in is theirs.
            "not_before": rfc3339(each.created.replace(microsecond=0)),
            "retired_at": None,
            "compromised_since": None,
        }
        for each in keys.stored
    ]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"The folder {folder} cannot be made ({error.strerror}).") from None


def _read_key(path: Path) -> StoredKey:
    # The cause is dropped on purpose: an error of the decoder could quote the seed.
    try:
        file = msgspec.json.decode(read_secret(path), type=_KeyFile)
        key = SigningKey(file.algorithm, base64.b64decode(file.seed, validate=True))
        return StoredKey(file.use, key, parse_rfc3339(file.created))
    except (ValueError, msgspec.MsgspecError):
        raise OperatorError(f"The key file {path} does not hold a key.") from None


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
