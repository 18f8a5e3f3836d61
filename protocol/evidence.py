"""Says what a record's `.tlog-proof` file proves to a third party, offline; never shows the reported URL.

Everything but the directory comes from the file. What vouches for the directory, and so whose keys these are, was
checked before by whoever read it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import verify_checkpoint, verify_cosignature
from protocol.directory import Directory, DirectoryKey
from protocol.errors import ProtocolError
from protocol.keys import KeyState, KeyUse, SignatureInvalid
from protocol.merkle import ProofInvalid
from protocol.note import Note, parse_note
from protocol.record import Record, check_addressing, parse_record
from protocol.summary import summary
from protocol.timestamps import format_time
from protocol.tlogproof import TlogProof, parse_tlog_proof

# The last second that `datetime` can hold; a cosignature's timestamp may be larger.
_TIME_S_MAX: Final = 253_402_300_799
# A timestamped cosignature begins with it (tlog-cosignature, "Format").
_TIMESTAMP: Final = struct.Struct(">Q")
# By how much a record may claim to be younger than its receipt before a reader is told: the window of requests.
_CLOCKS_DIFFER_S: Final = 300


class EvidenceInvalid(Exception):  # noqa: N818 -- names the fact, as ProofInvalid does
    """The file proves nothing: `step` is the number in `verify_evidence` that failed, `reason` says how."""

    def __init__(self, step: int, reason: str) -> None:
        """Name the step; the reason never holds what the record says."""
        super().__init__(f"step {step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Finding:
    """What is proven. `iat` is the sender's claim, `received_at` the receiver's signed time.

    `summary` holds what the record says, as pairs of name and value, without URL, referrer, reference or evidence.
    The algorithms are those whose signatures were verified, `late_doubts` the keys that were compromised afterwards.
    """

    record_id: str
    type: str
    case: str
    item: str
    iss: str
    aud: str
    epoch: int
    index: int
    tree_size: int
    iat: datetime
    received_at: datetime
    sender_algorithms: tuple[str, ...]
    receiver_algorithms: tuple[str, ...]
    summary: tuple[tuple[str, str], ...]
    late_doubts: tuple[str, ...]
    directory_version: int
    directory_issued_at: datetime

    def words(self) -> list[str]:
        """Return plain sentences: what is proven, by whom and when, then what is not."""
        said = "; ".join(f"{name} {value}" for name, value in self.summary) or "a body of a type not read here"
        sender, receiver = _listed(self.sender_algorithms), _listed(self.receiver_algorithms)
        received, issued = format_time(self.received_at), format_time(self.directory_issued_at)
        made = format_time(self.iat)
        words = [
            f"Record {self.record_id} is a record of type {self.type} from {self.iss} to {self.aud}.",
            f"It says: {said}.",
            f"{self.iss} signed it ({sender}), as index {self.index} of its stream to {self.aud}, epoch {self.epoch}.",
            f"{self.aud} signed ({receiver}), at {received}, that the stream is stored up to size {self.tree_size}.",
            f"The keys are those of directory version {self.directory_version}, issued {issued}.",
        ]
        words += [f"Later compromised: {doubt}; what it signed before still counts." for doubt in self.late_doubts]
        if (self.iat - self.received_at).total_seconds() > _CLOCKS_DIFFER_S:
            words.append("The record claims to be made after it was received: one of the two clocks was wrong.")
        words += [
            f"Not proven: that it was made at {made}, as {self.iss} says; only that it was there when it was received.",
            "Not proven: that what the record says is true, or still was when it was received.",
            "Not proven: what was done about it, or that no later record corrects or withdraws it.",
            "Not proven: that the directory is the true one; those who sign the directory vouch for that.",
        ]
        return words


def make_proof(record_raw: bytes, index: int, hashes: Sequence[bytes], receipt_note_raw: bytes) -> bytes:
    """Return the `.tlog-proof` file of a record: C2SP tlog-proof whose extra data is the record's bytes.

    `hashes` is the inclusion path in the tree of the receipt's checkpoint. Raises ProtocolError `malformed` for a
    receipt or path that cannot be one; whether they prove anything is for `verify_evidence`.
    """
    return TlogProof(index, tuple(hashes), parse_note(receipt_note_raw), record_raw).to_bytes()


def verify_evidence(proof_raw: bytes, directory: Directory) -> Finding:
    """Return what the file proves, under the keys of this directory; raises EvidenceInvalid with the step's number.

    1. The file is a tlog-proof with a record in it.
    2. The record is strict JSON and keeps its schema.
    3. The checkpoint is that of an HX/1 stream.
    4. The record is from the stream's sender to its receiver.
    5. The record's leaf hash is in the checkpoint's tree, at the index the file says.
    6. The receiver cosigned that checkpoint with every receipt key it had at the time it states.
    7. The sender signed that checkpoint with every stream key it had at that time.
    """
    # 1. to 5.
    record, proof, stream = read_evidence(proof_raw)
    checkpoint = proof.checkpoint()
    # 6. The receipt, and with it the time at which everything else is judged.
    receipt_keys, received_at = _verify_receipt(proof.note, checkpoint, stream, directory)
    # 7. The sender's signatures.
    stream_keys = _verify_sender(proof.note, checkpoint, stream, directory, received_at)
    return _finding(record, proof, stream, directory, receipt_keys, stream_keys, received_at)


def read_evidence(proof_raw: bytes) -> tuple[Record, TlogProof, StreamId]:
    """Return the record that the file holds, and the stream that it is from, without a look at any signature.

    Steps 1 to 5 of `verify_evidence`, for whoever verified the same file before; raises EvidenceInvalid.
    """
    # 1. The file.
    proof, raw = _parse(proof_raw)
    # 2. The record.
    try:
        record = parse_record(raw)
    except ProtocolError as error:
        raise EvidenceInvalid(2, _reason(error)) from None
    # 3. The stream.
    try:
        stream = StreamId.parse(proof.checkpoint().origin)
    except ProtocolError as error:
        raise EvidenceInvalid(3, _reason(error)) from None
    # 4. Sender and receiver.
    try:
        check_addressing(record.envelope, iss=stream.iss, aud=stream.aud)
    except ProtocolError as error:
        raise EvidenceInvalid(4, _reason(error)) from None
    # 5. Inclusion.
    try:
        proof.verify_leaf(record.leaf_hash)
    except ProofInvalid:
        raise EvidenceInvalid(5, "the record is not in the tree of the checkpoint at this index") from None
    return record, proof, stream


def verify_receipt(receipt_raw: bytes, covered: Checkpoint, directory: Directory) -> datetime:
    """Return when the receiver signed that it stored everything up to this checkpoint of a stream.

    Steps 3, 6 and 7 of `verify_evidence`: it raises EvidenceInvalid for a note that is for another checkpoint, or that
    does not bear every signature of both sides.
    """
    try:
        note = parse_note(receipt_raw)
        stream = StreamId.parse(covered.origin)
    except ProtocolError as error:
        raise EvidenceInvalid(3, _reason(error)) from None
    if note.text != covered.text():
        raise EvidenceInvalid(3, "the receipt is for another checkpoint")
    _, received_at = _verify_receipt(note, covered, stream, directory)
    _verify_sender(note, covered, stream, directory, received_at)
    return received_at


def _parse(proof_raw: bytes) -> tuple[TlogProof, bytes]:
    try:
        proof = parse_tlog_proof(proof_raw)
    except ProtocolError as error:
        raise EvidenceInvalid(1, _reason(error)) from None
    if proof.extra is None:
        raise EvidenceInvalid(1, "the file holds no record")
    return proof, proof.extra


def _verify_receipt(
    note: Note,
    checkpoint: Checkpoint,
    stream: StreamId,
    directory: Directory,
) -> tuple[tuple[DirectoryKey, ...], datetime]:
    """Return the receiver's keys and the time they vouch for.

    Which keys must have signed depends on the time, and the time is in the signatures. So each time that a line
    under the receiver's name states is tried with the keys of that time, and counts only once they verify it.
    A receipt key that was compromised never counts: its thief could state any time.
    """
    name = stream.receipt_name()
    reason = "no receipt is signed by every receipt key that its receiver had at the time it states"
    for stated_s in sorted({_stated_s(one.signature) for one in note.signatures if one.name == name}):
        if not 0 < stated_s <= _TIME_S_MAX:
            continue
        at = datetime.fromtimestamp(stated_s, UTC)
        keys = directory.keys_good_at(stream.aud, KeyUse.RECEIPT, at)
        if any(key.state is KeyState.COMPROMISED for key in keys):
            reason = "a receipt key of that time is compromised, so the time it states proves nothing"
            continue
        try:
            signed_s = verify_cosignature(note, checkpoint, name, [key.public for key in keys])
        except SignatureInvalid:
            continue
        if signed_s == stated_s:
            return keys, at
    raise EvidenceInvalid(6, reason)


def _stated_s(signature: bytes) -> int:
    """Return the time a cosignature line states, not verified; 0 when it is too short for one."""
    return _TIMESTAMP.unpack_from(signature)[0] if len(signature) >= _TIMESTAMP.size else 0


def _verify_sender(
    note: Note,
    checkpoint: Checkpoint,
    stream: StreamId,
    directory: Directory,
    at: datetime,
) -> tuple[DirectoryKey, ...]:
    """Return the sender's keys that were good when the receipt was given; all of them have signed.

    One compromised later counts: the receiver's signature shows that this was signed before.
    """
    keys = directory.keys_good_at(stream.iss, KeyUse.STREAM, at)
    if not keys:
        raise EvidenceInvalid(7, "the directory lists no stream key of the sender that was good at that time")
    try:
        verify_checkpoint(note, checkpoint, [key.public for key in keys])
    except SignatureInvalid as error:
        raise EvidenceInvalid(7, f"the sender's signature: {error}") from None
    return keys


def _finding(
    record: Record,
    proof: TlogProof,
    stream: StreamId,
    directory: Directory,
    receipt_keys: Sequence[DirectoryKey],
    stream_keys: Sequence[DirectoryKey],
    received_at: datetime,
) -> Finding:
    envelope = record.envelope
    return Finding(
        record_id=envelope.id,
        type=envelope.type,
        case=envelope.case,
        item=envelope.item,
        iss=stream.iss,
        aud=stream.aud,
        epoch=stream.epoch,
        index=proof.index,
        tree_size=proof.checkpoint().size,
        iat=envelope.iat,
        received_at=received_at,
        sender_algorithms=tuple(key.algorithm.value for key in stream_keys),
        receiver_algorithms=tuple(key.algorithm.value for key in receipt_keys),
        summary=tuple(summary(record)),
        late_doubts=tuple(
            f"the {key.algorithm} stream key of {stream.iss}, since {format_time(key.compromised_since)}"
            for key in stream_keys
            if key.compromised_since is not None
        ),
        directory_version=directory.version,
        directory_issued_at=directory.issued_at,
    )


def _reason(error: ProtocolError) -> str:
    return error.detail if error.field is None else f"{error.field}: {error.detail}"


def _listed(algorithms: Sequence[str]) -> str:
    return " and ".join(algorithms)
