"""Signatures on checkpoints: the sender's, and cosignatures (C2SP tlog-cosignature); never chooses the keys.

A sender signs its checkpoint under the origin line as key name; a receiver cosigns the same note under its own name.
Ed25519 and ML-DSA-44 stand side by side, and every key asked for must have signed.
"""

import struct
from collections.abc import Sequence
from typing import Final

from protocol.checkpoint import Checkpoint
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, PublicKey, SignatureInvalid, SigningKey
from protocol.note import NOTE_SIGNATURES_MAX, Note, NoteSignature, SignatureType, check_key_name, key_id

# tlog-cosignature, "Format": `timestamp` must not exceed 2^63 - 1.
TIMESTAMP_S_MAX: Final = 2**63 - 1

_TIMESTAMP: Final = struct.Struct(">Q")
_SUBTREE_LABEL: Final = b"subtree/v1\n\x00"
_SENDER_TYPE: Final = {
    Algorithm.ED25519: SignatureType.ED25519,
    Algorithm.ML_DSA_44: SignatureType.ML_DSA_44_COSIGNATURE,
}
_COSIGNER_TYPE: Final = {
    Algorithm.ED25519: SignatureType.ED25519_COSIGNATURE,
    Algorithm.ML_DSA_44: SignatureType.ML_DSA_44_COSIGNATURE,
}


def sign_checkpoint(cp: Checkpoint, keys: Sequence[SigningKey], *, now_s: int) -> Note:
    """Return the checkpoint signed by its log with every key, one line each, in the order of `keys`.

    The key name is the origin (tlog-checkpoint, "Signatures"); Ed25519 is a plain note signature (type 0x01),
    ML-DSA-44 a cosignature (type 0x06) at `now_s`, POSIX seconds. Raises ValueError without keys.
    """
    return Note(cp.text(), _new_lines(cp, cp.origin, keys, _SENDER_TYPE, now_s))


def verify_checkpoint(note: Note, cp: Checkpoint, keys: Sequence[PublicKey]) -> None:
    """Raise SignatureInvalid unless the note is this checkpoint and EVERY key has one valid line on it.

    `keys` are all those the directory lists for the log's signatures; none at all is refused, not vacuously true.
    A timestamp of zero is valid here: the log then says nothing about the time.
    """
    _verify_lines(note, cp, cp.origin, keys, _SENDER_TYPE)


def cosign(note: Note, cp: Checkpoint, name: str, keys: Sequence[SigningKey], *, now_s: int) -> Note:
    """Return the note with a cosignature by each key added, all at `now_s` (POSIX seconds, at least 1).

    Lines already there stay, in their order. Only a line that pretends to be one of the new ones goes: key ids are
    no secret, and two lines of one key would make the cosignature invalid.
    Raises ValueError when the note is another checkpoint's or there is no key; ProtocolError `malformed` when the
    peer's note has so many lines that ours do not fit.
    """
    if note.text != cp.text():
        raise ValueError("the note is not this checkpoint")
    if now_s < 1:
        raise ValueError("a cosignature says its time")
    new = _new_lines(cp, name, keys, _COSIGNER_TYPE, now_s)
    ours = {(one.name, one.key_id) for one in new}
    kept = tuple(one for one in note.signatures if (one.name, one.key_id) not in ours)
    if len(kept) + len(new) > NOTE_SIGNATURES_MAX:
        raise ProtocolError("malformed", "the note leaves no room for a cosignature", field="signature")
    return Note(note.text, kept + new)


def without_strangers(
    note: Note, origin: str, keys: Sequence[PublicKey], receiver: str = "", receipt_keys: Sequence[PublicKey] = ()
) -> Note:
    """Return the note with the lines of these keys alone: the log's, and those of a `receiver` that cosigned it.

    Anybody can add lines to a note that is signed, of any name and length. Raises ProtocolError when none is left.
    """
    wanted = {(origin, key_id(origin, _SENDER_TYPE[key.algorithm], key.raw)) for key in keys}
    wanted |= {(receiver, key_id(receiver, _COSIGNER_TYPE[key.algorithm], key.raw)) for key in receipt_keys}
    return Note(note.text, tuple(one for one in note.signatures if (one.name, one.key_id) in wanted))


def verify_cosignature(note: Note, cp: Checkpoint, name: str, keys: Sequence[PublicKey]) -> int:
    """Return the time (POSIX seconds) at which `name` cosigned this checkpoint with EVERY key.

    Raises SignatureInvalid when the note is another checkpoint, a line is absent or invalid, the lines differ in
    their time, or say none (zero).
    """
    times = _verify_lines(note, cp, name, keys, _COSIGNER_TYPE)
    if len(times) != 1:
        raise SignatureInvalid("the cosignatures of one receipt differ in their time")
    time_s = times.pop()
    if time_s == 0:
        raise SignatureInvalid("the cosignature does not say its time")
    return time_s


def _new_lines(
    cp: Checkpoint,
    name: str,
    keys: Sequence[SigningKey],
    types: dict[Algorithm, SignatureType],
    now_s: int,
) -> tuple[NoteSignature, ...]:
    if not keys:
        raise ValueError("there is no key to sign with")
    if not 0 <= now_s <= TIMESTAMP_S_MAX:
        raise ValueError("a timestamp is between 0 and 2^63 - 1")
    # Before the signature is made: the name is part of what is signed.
    check_key_name(name)
    lines = []
    for key in keys:
        sig_type = types[key.algorithm]
        stamp = b"" if sig_type is SignatureType.ED25519 else _TIMESTAMP.pack(now_s)
        signature = stamp + key.sign(_message(sig_type, name, now_s, cp))
        lines.append(NoteSignature(name, key_id(name, sig_type, key.public().raw), signature))
    return tuple(lines)


def _verify_lines(
    note: Note,
    cp: Checkpoint,
    name: str,
    keys: Sequence[PublicKey],
    types: dict[Algorithm, SignatureType],
) -> set[int]:
    """Verify one line of each key and return the timestamps found; raises SignatureInvalid."""
    # 1. What the signatures are about is what the caller goes on to use.
    if note.text != cp.text():
        raise SignatureInvalid("the note is another checkpoint")
    # 2. No key, no proof.
    if not keys:
        raise SignatureInvalid("there is no key to verify with")
    # 3. Every key has its line; looked up for all before the first costly check.
    lines = [(key, types[key.algorithm]) for key in keys]
    found = [(key, sig_type, note.signature_by(name, sig_type, key)) for key, sig_type in lines]
    # 4. Every line verifies; one that does not rejects the note (signed-note, "Signatures").
    times = set()
    for key, sig_type, signature in found:
        time_s, bare = _split(sig_type, signature)
        key.verify(bare, _message(sig_type, name, time_s, cp))
        if sig_type is not SignatureType.ED25519:
            times.add(time_s)
    return times


def _split(sig_type: SignatureType, signature: bytes) -> tuple[int, bytes]:
    """Return the timestamp (0 where the type has none) and the signature proper."""
    if sig_type is SignatureType.ED25519:
        return 0, signature
    if len(signature) < _TIMESTAMP.size:
        raise SignatureInvalid("the cosignature is shorter than its timestamp")
    (time_s,) = _TIMESTAMP.unpack_from(signature)
    if time_s > TIMESTAMP_S_MAX:
        raise SignatureInvalid("the cosignature's timestamp is over 2^63 - 1")
    return time_s, signature[_TIMESTAMP.size :]


def _message(sig_type: SignatureType, name: str, time_s: int, cp: Checkpoint) -> bytes:
    """Return what is signed: for type 0x01 the note's text, for the others as in tlog-cosignature."""
    if sig_type is SignatureType.ED25519:
        return cp.text().encode()
    if sig_type is SignatureType.ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {time_s}\n{cp.text()}".encode()
    cosigner, origin = name.encode(), cp.origin.encode()
    # `cosigned_message`: a whole checkpoint, so the subtree begins at 0 and ends at its size.
    return b"".join(
        (
            _SUBTREE_LABEL,
            bytes([len(cosigner)]),
            cosigner,
            _TIMESTAMP.pack(time_s),
            bytes([len(origin)]),
            origin,
            struct.pack(">QQ", 0, cp.size),
            cp.root,
        ),
    )
