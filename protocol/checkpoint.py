"""Checkpoints (C2SP tlog-checkpoint) and the streams they are of; never signs or verifies."""

import re
from dataclasses import dataclass
from typing import Final

from protocol.errors import ProtocolError
from protocol.merkle import EMPTY_ROOT, HASH_BYTES, TREE_SIZE_MAX
from protocol.note import decode_base64, encode_base64

# `log_origin` has a one-byte length in what ML-DSA-44 signs (tlog-cosignature, "ML-DSA-44 signed message").
ORIGIN_BYTES_MAX: Final = 255
# Two ids, a version and an epoch of 19 digits then fit an origin line.
NODE_ID_BYTES_MAX: Final = 100
#: The last epoch that a stream can have: each recovery begins one, and a database counts them in four bytes.
EPOCH_MAX: Final = 2**31 - 1
# The version line of HX/1 in an origin.
_ORIGIN_PREFIX: Final = "hx/1/"
_ORIGIN_PARTS: Final = 3
_CHECKPOINT_LINES: Final = 3
# Begins and ends with a letter or digit, so that an id in a path is never `.` or `..`.
_NODE_ID: Final = re.compile("[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
# At most the 19 digits of 2^63 - 1, so that a long line is refused before it is converted.
_DECIMAL: Final = re.compile("0|[1-9][0-9]{0,18}")
_FORBIDDEN_IN_LINE: Final = re.compile("[\x00-\x1f\ud800-\udfff]")


def check_node_id(node_id: str, *, field: str) -> None:
    """Raise ProtocolError `malformed` unless this is a node id: `[a-z0-9.-]`, at most NODE_ID_BYTES_MAX."""
    if len(node_id) > NODE_ID_BYTES_MAX or not _NODE_ID.fullmatch(node_id):
        raise ProtocolError("malformed", "this is not a node id", field=field)


def parse_decimal(text: str, *, field: str) -> int:
    """Return a number from 0 to 2^63 - 1 in ASCII digits without leading zeroes; raises ProtocolError `malformed`."""
    value = int(text) if _DECIMAL.fullmatch(text) else -1
    if not 0 <= value <= TREE_SIZE_MAX:
        raise ProtocolError("malformed", "this is not a decimal number from 0 to 2^63 - 1", field=field)
    return value


@dataclass(frozen=True, slots=True)
class StreamId:
    """What `iss` has to say to `aud`: the name of one append-only log; `epoch` counts from 1.

    Raises ProtocolError `malformed` for ids or an epoch that no origin line can carry.
    """

    iss: str
    aud: str
    epoch: int

    def __post_init__(self) -> None:
        """Refuse what could not be written as an origin and read back as the same."""
        check_node_id(self.iss, field="iss")
        check_node_id(self.aud, field="aud")
        if not 1 <= self.epoch <= EPOCH_MAX:
            raise ProtocolError("malformed", f"an epoch is a number from 1 to {EPOCH_MAX}", field="epoch")

    def origin(self) -> str:
        """Return the origin line `hx/1/<iss>/<aud>/<epoch>`, which is also the key name of the sender's lines."""
        return f"{_ORIGIN_PREFIX}{self.iss}/{self.aud}/{self.epoch}"

    def receipt_name(self) -> str:
        """Return `<aud>/receipt`, the key name of the receiver's cosignatures: stored for good."""
        return f"{self.aud}/receipt"

    @classmethod
    def parse(cls, origin: str) -> "StreamId":
        """Return the stream an origin line names; raises ProtocolError `malformed` for any other line."""
        parts = origin.removeprefix(_ORIGIN_PREFIX).split("/")
        if not origin.startswith(_ORIGIN_PREFIX) or len(parts) != _ORIGIN_PARTS:
            raise ProtocolError("malformed", "the origin is not that of an HX/1 stream", field="origin")
        return cls(parts[0], parts[1], parse_decimal(parts[2], field="epoch"))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a log has come: `size` leaves (below 2^63), whose `root` (32 bytes) is this.

    Raises ProtocolError `malformed`, also for an empty log with another root than the empty tree's.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        """Refuse what could not be written and read back as the same, or cannot be true."""
        if not self.origin or _FORBIDDEN_IN_LINE.search(self.origin):
            raise ProtocolError("malformed", "the origin is one line, not empty, without controls", field="origin")
        if len(self.origin.encode()) > ORIGIN_BYTES_MAX:
            raise ProtocolError("malformed", f"the origin has at most {ORIGIN_BYTES_MAX} bytes", field="origin")
        if not 0 <= self.size <= TREE_SIZE_MAX:
            raise ProtocolError("malformed", "the size is between 0 and 2^63 - 1", field="size")
        if len(self.root) != HASH_BYTES:
            raise ProtocolError("malformed", f"the root has {HASH_BYTES} bytes", field="root")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise ProtocolError("malformed", "an empty log has the root of the empty tree", field="root")

    def text(self) -> str:
        """Return the note text: origin, size and root, each with its newline (tlog-checkpoint, "Note text")."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Return the checkpoint in a note's text; raises ProtocolError `malformed`.

        Extension lines are refused, although the format has them: ML-DSA-44 signatures do not cover them
        (tlog-cosignature), so they would be text that only one of two required signatures vouches for.
        """
        lines = text.split("\n")
        # The text ends in a newline, so the last piece is empty.
        if len(lines) != _CHECKPOINT_LINES + 1 or lines[-1]:
            raise ProtocolError("malformed", "a checkpoint is three lines: origin, size and root", field="checkpoint")
        return cls(lines[0], parse_decimal(lines[1], field="size"), decode_base64(lines[2], field="root"))
