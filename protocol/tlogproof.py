"""The `.tlog-proof` file (C2SP tlog-proof): one record proven offline; never decides whose signatures count."""

from dataclasses import dataclass
from typing import Final

from protocol.checkpoint import Checkpoint, parse_decimal
from protocol.errors import ProtocolError
from protocol.merkle import HASH_BYTES, PROOF_HASHES_MAX, verify_inclusion
from protocol.note import Note, decode_base64, encode_base64, parse_note

# A record has at most 60 KiB (PROTOCOL section 3).
EXTRA_BYTES_MAX: Final = 64 * 1024
# 32 lines with the largest signature a note takes, in base64, and the text.
PROOF_NOTE_BYTES_MAX: Final = 384 * 1024
# The note, the extra data in base64, and 63 hashes of 45 bytes with room to spare.
TLOG_PROOF_BYTES_MAX: Final = PROOF_NOTE_BYTES_MAX + EXTRA_BYTES_MAX * 4 // 3 + 4096

_MAGIC: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A leaf's place in a log: its index, the path to the root, the signed checkpoint, and data beside it.

    `extra` is not authenticated by the format; here it is the record's bytes, whose leaf hash the path proves.
    `parse_tlog_proof(proof.to_bytes()) == proof`. Raises ProtocolError `malformed`; nothing is verified yet.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse a proof that could not be written and read back as the same, or that no tree can have."""
        if not 0 <= self.index < self.checkpoint().size:
            raise ProtocolError("malformed", "the index is not below the checkpoint's size", field="index")
        if len(self.hashes) > PROOF_HASHES_MAX:
            raise ProtocolError("malformed", f"a path has at most {PROOF_HASHES_MAX} hashes", field="hashes")
        if any(len(one) != HASH_BYTES for one in self.hashes):
            raise ProtocolError("malformed", f"a hash has {HASH_BYTES} bytes", field="hashes")
        if self.extra is not None and len(self.extra) > EXTRA_BYTES_MAX:
            raise ProtocolError("malformed", f"the extra data has at most {EXTRA_BYTES_MAX} bytes", field="extra")

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint the note carries; its signatures are checked by `protocol.cosignature`."""
        return Checkpoint.parse(self.note.text)

    def verify_leaf(self, leaf: bytes) -> None:
        """Raise ProofInvalid unless the leaf hash is in the checkpoint's tree (tlog-proof, "Verifying", step 4).

        It says nothing about who signed that checkpoint.
        """
        checkpoint = self.checkpoint()
        verify_inclusion(leaf, self.index, checkpoint.size, self.hashes, checkpoint.root)

    def to_bytes(self) -> bytes:
        """Return the file's bytes (tlog-proof, "Format")."""
        lines = [_MAGIC]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(encode_base64(one) for one in self.hashes)
        return ("\n".join(lines) + "\n\n").encode("ascii") + self.note.to_bytes()


def parse_tlog_proof(raw: bytes) -> TlogProof:
    """Return the proof in a file's bytes, exactly and in whole; nothing is verified.

    Raises ProtocolError `too-large` over TLOG_PROOF_BYTES_MAX, else `malformed`.
    """
    if len(raw) > TLOG_PROOF_BYTES_MAX:
        raise ProtocolError("too-large", f"a proof has at most {TLOG_PROOF_BYTES_MAX} bytes", field="proof")
    # No line of the head is empty, so the first empty line ends it.
    head, divider, note = raw.partition(b"\n\n")
    if not divider or not head.isascii():
        raise ProtocolError("malformed", "the proof has no head of ASCII lines before its checkpoint", field="proof")
    lines = head.decode("ascii").split("\n")
    if lines.pop(0) != _MAGIC:
        raise ProtocolError("malformed", "the proof does not begin with the name of its format", field="proof")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = decode_base64(lines.pop(0).removeprefix("extra "), field="extra")
    if not lines or not lines[0].startswith("index "):
        raise ProtocolError("malformed", "the proof has no index line where it should be", field="index")
    index = parse_decimal(lines.pop(0).removeprefix("index "), field="index")
    if len(lines) > PROOF_HASHES_MAX:
        raise ProtocolError("malformed", f"a path has at most {PROOF_HASHES_MAX} hashes", field="hashes")
    hashes = tuple(decode_base64(line, field="hashes") for line in lines)
    return TlogProof(index, hashes, parse_note(note, bytes_max=PROOF_NOTE_BYTES_MAX), extra)
