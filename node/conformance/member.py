"""The member of the directory that a conformance run speaks as: its folder, its keys, its log of each stream.

A folder belongs to one test member alone: a node whose keys are used here would tell its peers two stories.
"""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import msgspec

from node.clock import rfc3339
from node.errors import OperatorError
from node.platform.cli.files import read_bounded, write_whole
from node.platform.keyfiles import NodeKeys, StoredKey, create_key, create_node_keys, read_key
from protocol.directory import DirectoryInvalid, parse_directory
from protocol.keys import Algorithm, KeyState, KeyUse, SigningKey
from protocol.versions import speaks

DESCRIPTOR: Final = "descriptor.json"
#: Keys of ours that must not count, so that a node can be asked what it says to them.
SPARE: Final = (KeyState.NEXT, KeyState.RETIRED, KeyState.COMPROMISED)
#: Nobody calls a member that fetches; this stands where the directory wants an address.
NO_ADDRESS: Final = "https://conformance.invalid"
_DESCRIPTOR_BYTES_MAX: Final = 262_144
_LOG_BYTES_MAX: Final = 268_435_456
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Member:
    """A test member: its id, the keys it signs with, and those that must not count, by their state."""

    folder: Path
    id: str
    base_url: str
    pull: bool
    keys: NodeKeys
    spare: dict[KeyState, SigningKey]

    @classmethod
    def load(cls, folder: Path) -> "Member":
        """Return the member in `folder`; raises OperatorError."""
        raw = read_bounded(folder / DESCRIPTOR, _DESCRIPTOR_BYTES_MAX, f"The descriptor {folder / DESCRIPTOR}")
        try:
            said = msgspec.json.decode(raw, type=_Descriptor)
        except msgspec.MsgspecError:
            raise OperatorError(f"{folder / DESCRIPTOR} is not the descriptor of a test member.") from None
        spare = {state: read_key(_spare_file(folder, state)).key for state in SPARE}
        return cls(folder, said.id, said.base_url, said.delivery == "pull", NodeKeys.load(folder / "keys"), spare)

    def log(self, node_id: str) -> "Log":
        """Return our log of the stream to a node."""
        return Log(self.folder / "streams" / f"{node_id}.records")


class _Descriptor(msgspec.Struct):
    id: str
    base_url: str
    delivery: str = "push"


class Log:
    """The records of one stream, one a line, written durably before they are sent."""

    def __init__(self, path: Path) -> None:
        """Read what is there; raises OperatorError."""
        self._path = path
        self.records: list[bytes] = []
        if path.exists():
            raw = read_bounded(path, _LOG_BYTES_MAX, f"The log {path}")
            # A line that is not ended was being written when the machine stopped, and was never sent.
            self.records = raw.split(b"\n")[:-1]

    def keep(self, taken: Sequence[bytes]) -> None:
        """Say how the log goes on: these are all its records, and no others."""
        pairs = zip(self.records, taken, strict=False)
        held = [ours for ours, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.truncate(sum(len(one) + 1 for one in held))
            file.seek(0, os.SEEK_END)
            file.write(b"".join(one + b"\n" for one in taken[len(held) :]))
            file.flush()
            os.fsync(file.fileno())
        self.records = list(taken)


def create_member(folder: Path, *, node_id: str, base_url: str | None, contact: str, now: datetime) -> bytes:
    """Make the keys and the descriptor of a test member in a new folder; returns the descriptor.

    Without `base_url` it is a member that fetches. It lists no country, so nothing is ever routed to it. Raises
    OperatorError, and leaves what exists as it is.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OperatorError(f"The folder {folder} is not empty; a new test member gets a new folder.")
    entry: dict[str, Any] = {
        "id": node_id,
        "countries": [],
        "name": "Conformance client",
        "base_url": base_url or NO_ADDRESS,
        "versions": list(speaks().spoken),
        "limits": {},
        "state": "active",
        "delivery": "push" if base_url else "pull",
        "weight": 0,
        "keys": [],
        "contact": contact,
    }
    # Before anything is written; a member without keys is one in maintenance.
    _check({**entry, "state": "maintenance"}, now)
    keys = create_node_keys(folder / "keys", now)
    spare = {}
    for state in SPARE:
        made = create_key(folder / "spare", KeyUse.HTTP, Algorithm.ED25519, now)
        (folder / "spare" / _name(made)).rename(_spare_file(folder, state))
        spare[state] = made
    entry["keys"] = [
        *(_entry(one, now - 2 * _DAY) for one in keys.stored),
        *(_entry(one, now - 2 * _DAY, state, now - _DAY) for state, one in spare.items()),
    ]
    _check(entry, now)
    raw = json.dumps(entry, indent=2).encode() + b"\n"
    write_whole(folder / DESCRIPTOR, raw)
    return raw


def _name(key: StoredKey) -> str:
    return f"{key.use}-{key.key.algorithm}-{key.key.public().thumbprint()[:12]}.key"


def _spare_file(folder: Path, state: KeyState) -> Path:
    return folder / "spare" / f"{state.value}.key"


def _entry(
    key: StoredKey, since: datetime, state: KeyState = KeyState.ACTIVE, until: datetime | None = None
) -> dict[str, Any]:
    ended = None if until is None else rfc3339(until)
    return {
        "use": key.use.value,
        "algorithm": key.key.algorithm.value,
        "public": base64.b64encode(key.key.public().raw).decode("ascii"),
        "state": state.value,
        "not_before": rfc3339(since),
        "retired_at": ended if state is KeyState.RETIRED else None,
        "compromised_since": ended if state is KeyState.COMPROMISED else None,
    }


def _check(entry: dict[str, Any], now: datetime) -> None:
    """Refuse, with OperatorError, what no directory could list."""
    document = {
        "v": 1,
        "version": 1,
        "issued_at": rfc3339(now),
        "nodes": [entry],
        "routing": {"mandated": [], "desk": None},
    }
    try:
        parse_directory(json.dumps(document).encode())
    except DirectoryInvalid as error:
        raise OperatorError(
            f"No directory could list this member: {error.field.rpartition('.')[2]}, {error.reason}."
        ) from None
