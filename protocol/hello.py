"""How far two nodes have each other's streams, as `hello` says it (PROTOCOL section 5); never judges who is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import msgspec

from protocol.checkpoint import EPOCH_MAX, Checkpoint, StreamId
from protocol.errors import ProtocolError
from protocol.merkle import TREE_SIZE_MAX
from protocol.note import decode_base64, encode_base64
from protocol.strictjson import loads, typed

VERSION: Final = 1
#: Epochs told of each direction, the newest; every recovery begins one.
EPOCHS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Written:
    """One epoch of the caller's stream to the callee: written up to `size`, receipted up to `receipted`, `root` there.

    `root` is the root of the log at `receipted`, the empty tree's when that is 0.
    """

    epoch: int
    size: int
    receipted: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """One epoch of the callee's stream to the caller, as the caller holds it: `size` records under `root`."""

    epoch: int
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """One epoch of the speaker's own stream that it lost from index `first` on, and asks the other for."""

    epoch: int
    first: int


@dataclass(frozen=True, slots=True)
class Heads:
    """What one side says of both streams, each in ascending order of epochs; `lost` only while it recovers."""

    written: tuple[Written, ...]
    held: tuple[Held, ...]
    lost: tuple[Lost, ...] = ()


class _WrittenWire(msgspec.Struct):
    epoch: int
    size: int
    receipted: int
    root: str


class _HeldWire(msgspec.Struct):
    epoch: int
    size: int
    root: str


class _LostWire(msgspec.Struct):
    epoch: int
    first: int


class _Wire(msgspec.Struct, omit_defaults=True):
    v: int
    written: list[_WrittenWire]
    held: list[_HeldWire]
    lost: list[_LostWire] = []


def encode_heads(heads: Heads) -> bytes:
    """Return the body of a hello, or of its answer."""
    wire = _Wire(
        VERSION,
        [_WrittenWire(one.epoch, one.size, one.receipted, encode_base64(one.root)) for one in heads.written],
        [_HeldWire(one.epoch, one.size, encode_base64(one.root)) for one in heads.held],
        [_LostWire(one.epoch, one.first) for one in heads.lost],
    )
    return msgspec.json.encode(wire)


def parse_heads(raw: bytes, *, caller: str, callee: str) -> Heads:
    """Return what `caller` says to `callee`; unknown members are passed over.

    Raises ProtocolError `malformed` (also for a head that no log can have), `schema-invalid` or `too-large`.
    """
    wire = typed(loads(raw), _Wire)
    if wire.v != VERSION:
        raise ProtocolError("schema-invalid", "this version of a hello is not known here", field="v")
    written = []
    for one in wire.written:
        cut = _checkpoint(StreamId(caller, callee, one.epoch), one.receipted, one.root, "written")
        # A log is receipted at most as far as it is written, and both are sizes of logs.
        Checkpoint(cut.origin, one.size, cut.root if one.size else _root(one.root, "written"))
        if one.receipted > one.size:
            raise ProtocolError("malformed", "more is receipted than written", field="written")
        written.append(Written(one.epoch, one.size, one.receipted, cut.root))
    held = []
    for each in wire.held:
        cut = _checkpoint(StreamId(callee, caller, each.epoch), each.size, each.root, "held")
        held.append(Held(each.epoch, each.size, cut.root))
    _ascending([one.epoch for one in written], "written")
    _ascending([one.epoch for one in held], "held")
    lost = []
    for asked in wire.lost:
        if asked.epoch < 1 or not 0 <= asked.first <= TREE_SIZE_MAX:
            raise ProtocolError("malformed", "no stream has this epoch or index", field="lost")
        lost.append(Lost(asked.epoch, asked.first))
    _ascending([one.epoch for one in lost], "lost")
    return Heads(tuple(written), tuple(held), tuple(lost))


def _checkpoint(stream: StreamId, size: int, root: str, field: str) -> Checkpoint:
    """Return a size and a root that a log can have."""
    return Checkpoint(stream.origin(), size, _root(root, field))


def _root(text: str, field: str) -> bytes:
    return decode_base64(text, field=field)


def _ascending(epochs: Sequence[int], field: str) -> None:
    rises = all(before < after for before, after in pairwise(epochs))
    if len(epochs) > EPOCHS_MAX or not rises or max(epochs, default=0) > EPOCH_MAX:
        raise ProtocolError("malformed", f"these are not at most {EPOCHS_MAX} ascending epochs", field=field)
