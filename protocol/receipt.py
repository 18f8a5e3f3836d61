"""Judges a receipt as whoever reads the proof later will (PROTOCOL section 6); decides nothing else."""

from datetime import UTC, datetime
from typing import Final

from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import verify_checkpoint, verify_cosignature, without_strangers
from protocol.directory import Directory
from protocol.keys import KeyUse, SignatureInvalid
from protocol.note import Note, parse_note
from protocol.tlogproof import PROOF_NOTE_BYTES_MAX

# A cosignature line begins with its time in seconds (C2SP tlog-cosignature); a datetime holds no later one than this.
_TIME_BYTES: Final = 8
_TIME_S_MAX: Final = 253_402_300_799


#: A receipt is as long as what a proof holds of it at most: what is longer would prove nothing to anybody.
RECEIPT_BYTES_MAX: Final = PROOF_NOTE_BYTES_MAX


def open_receipt(raw: bytes, directory: Directory) -> tuple[Checkpoint, StreamId]:
    """Return what a receipt covers, once sender and receiver are both shown to have signed it.

    It is judged by the keys that both sides had at the time it states, exactly as a proof with it will be
    (protocol.evidence): one that was given before a key was changed, and comes with a repeat, is as good as ever, also
    where a stream key was stolen since.
    Raises ProtocolError `malformed` for what is no receipt, `too-large` over RECEIPT_BYTES_MAX, SignatureInvalid for
    one that proves nothing.
    """
    covered, stream, _ = _opened(parse_note(raw, bytes_max=RECEIPT_BYTES_MAX), directory)
    return covered, stream


def bare_receipt(note: Note, directory: Directory) -> Note:
    """Return a receipt as it was given, without the lines that others added since; raises as `open_receipt`."""
    _, stream, at = _opened(note, directory)
    sender = [key.public for key in directory.keys_good_at(stream.iss, KeyUse.STREAM, at)]
    receiver = directory.verification_keys(stream.aud, KeyUse.RECEIPT, at)
    return without_strangers(note, stream.origin(), sender, stream.receipt_name(), receiver)


def _opened(note: Note, directory: Directory) -> tuple[Checkpoint, StreamId, datetime]:
    covered = Checkpoint.parse(note.text)
    stream = StreamId.parse(covered.origin)
    at = cosigned_at(note, covered, stream, directory)
    keys = directory.keys_good_at(stream.iss, KeyUse.STREAM, at)
    verify_checkpoint(note, covered, [key.public for key in keys])
    return covered, stream, at


def cosigned_at(note: Note, covered: Checkpoint, stream: StreamId, directory: Directory) -> datetime:
    """Return when the receiver cosigned with every receipt key it had then; raises SignatureInvalid."""
    name = stream.receipt_name()
    stated = {int.from_bytes(one.signature[:_TIME_BYTES]) for one in note.signatures if one.name == name}
    for time_s in sorted(stated):
        at = datetime.fromtimestamp(min(time_s, _TIME_S_MAX), UTC)
        keys = directory.verification_keys(stream.aud, KeyUse.RECEIPT, at)
        try:
            if verify_cosignature(note, covered, name, keys) == time_s:
                return at
        except SignatureInvalid:
            continue
    raise SignatureInvalid("no receipt is signed by every receipt key that the receiver had at the time it states")
