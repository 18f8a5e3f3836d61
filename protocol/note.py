"""C2SP signed notes: a text and its signature lines, as exact bytes; never decides which keys are trusted."""

import binascii
import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from protocol.errors import ProtocolError
from protocol.keys import Algorithm, PublicKey, SignatureInvalid, SigningKey

# Checkpoint notes stay under 20 KiB; the rest is room for a directory, whose text holds every member's keys.
NOTE_BYTES_MAX: Final = 1 << 20
# signed-note, "Format": at least 16 must be accepted. Twice that: a receipt keeps the sender's lines and adds its own.
NOTE_SIGNATURES_MAX: Final = 32
# An ML-DSA-44 cosigner name has a one-byte length (tlog-cosignature, "ML-DSA-44 signed message").
KEY_NAME_BYTES_MAX: Final = 255
# Lines of unknown keys are carried along; the largest signature of FIPS 204 has 4,627 bytes, the smallest of
# FIPS 205 7,856.
SIGNATURE_BYTES_MAX: Final = 8192

KEY_ID_BYTES: Final = 4
_KEY_ID_HEX: Final = re.compile("[0-9a-f]{8}")
_SIGNATURE_MARK: Final = "\u2014 "
# signed-note, "Format": no ASCII control character but the newline; and a lone surrogate is no UTF-8.
_FORBIDDEN_IN_NOTE: Final = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_VKEY_PARTS: Final = 3


class SignatureType(IntEnum):
    """The signature types HX/1 uses (signed-note, "Signature types"); each is bound to one algorithm."""

    ED25519 = 0x01
    ED25519_COSIGNATURE = 0x04
    ML_DSA_44_COSIGNATURE = 0x06

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of every key of this type."""
        return Algorithm.ML_DSA_44 if self is SignatureType.ML_DSA_44_COSIGNATURE else Algorithm.ED25519


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: who (`name`, `key_id` of 4 bytes) and the `signature` bytes, type-specific.

    Raises ProtocolError `malformed` for a name or length that no line can carry.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        """Refuse a line that could not be written and read back as the same."""
        check_key_name(self.name)
        if len(self.key_id) != KEY_ID_BYTES:
            raise ProtocolError("malformed", f"a key id has {KEY_ID_BYTES} bytes", field="key_id")
        if not 1 <= len(self.signature) <= SIGNATURE_BYTES_MAX:
            raise ProtocolError("malformed", f"a signature has 1 to {SIGNATURE_BYTES_MAX} bytes", field="signature")

    def line(self) -> str:
        """Return the signature line with its newline."""
        return f"{_SIGNATURE_MARK}{self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    r"""A text that ends in a newline, and 1 to NOTE_SIGNATURES_MAX signature lines; nothing in it is verified yet.

    `parse_note(note.to_bytes()) == note` as long as it is within the limit of bytes given there, and
    `parse_note(raw).to_bytes() == raw`. Raises ProtocolError `malformed`.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        """Refuse a note that could not be written and read back as the same."""
        if not self.text.endswith("\n"):
            raise ProtocolError("malformed", "the note's text does not end in a newline", field="note")
        if _FORBIDDEN_IN_NOTE.search(self.text):
            raise ProtocolError("malformed", "the note's text holds a forbidden character", field="note")
        if not 1 <= len(self.signatures) <= NOTE_SIGNATURES_MAX:
            raise ProtocolError("malformed", f"a note has 1 to {NOTE_SIGNATURES_MAX} signatures", field="note")

    def to_bytes(self) -> bytes:
        """Return the note as it is sent: text, empty line, signature lines; UTF-8."""
        return "".join((self.text, "\n", *(one.line() for one in self.signatures))).encode()

    def signature_by(self, name: str, sig_type: SignatureType, key: PublicKey) -> bytes:
        """Return the bytes of the one line by this key, not verified yet.

        Lines that share only the name or only the id with the key are those of other keys (signed-note,
        "Signatures"). Raises SignatureInvalid when there is none, or more than one: the second could contradict
        the first.
        """
        wanted = key_id(name, sig_type, key.raw)
        found = [one.signature for one in self.signatures if one.key_id == wanted and one.name == name]
        if len(found) != 1:
            count = "no line" if not found else "more than one line"
            raise SignatureInvalid(f"the note has {count} by a required {key.algorithm} key")
        return found[0]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key with the name and signature type it verifies under (signed-note, "Verifier keys").

    Raises ProtocolError `malformed` when name, type and key do not go together.
    """

    name: str
    sig_type: SignatureType
    key: PublicKey

    def __post_init__(self) -> None:
        """Refuse a key of another algorithm than its type's."""
        check_key_name(self.name)
        if self.sig_type.algorithm is not self.key.algorithm:
            raise ProtocolError("malformed", "the key is not of its signature type's algorithm", field="vkey")

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that name this key in a signature line."""
        return key_id(self.name, self.sig_type, self.key.raw)


def parse_note(raw: bytes, *, bytes_max: int = NOTE_BYTES_MAX) -> Note:
    """Return the note in `raw`, exactly and in whole; nothing is verified.

    Raises ProtocolError `too-large` over `bytes_max`, else `malformed`. Source: C2SP signed-note, "Format".
    """
    if len(raw) > bytes_max:
        raise ProtocolError("too-large", f"the note has more than {bytes_max} bytes", field="note")
    try:
        whole = raw.decode()
    except UnicodeDecodeError:
        raise ProtocolError("malformed", "the note is not UTF-8", field="note") from None
    # The last empty line divides, because the text may hold empty lines and signature lines never are.
    text, divider, lines = whole.rpartition("\n\n")
    if not divider or not lines.endswith("\n"):
        raise ProtocolError("malformed", "the note does not end in an empty line and signature lines", field="note")
    if lines.count("\n") > NOTE_SIGNATURES_MAX:
        raise ProtocolError("malformed", f"a note has at most {NOTE_SIGNATURES_MAX} signatures", field="note")
    return Note(text + "\n", tuple(_parse_line(line) for line in lines[:-1].split("\n")))


def sign_note(text: str, name: str, key: SigningKey) -> Note:
    """Return `text` as a note signed by one Ed25519 key (signed-note, "Ed25519 signatures", type 0x01).

    Raises ValueError for a key of another algorithm: type 0x06 signs checkpoints only.
    """
    if key.algorithm is not Algorithm.ED25519:
        raise ValueError("a note that is no checkpoint is signed with Ed25519")
    identity = key_id(name, SignatureType.ED25519, key.public().raw)
    return Note(text, (NoteSignature(name, identity, key.sign(text.encode())),))


def verify_note(note: Note, vkey: VerifierKey) -> None:
    """Raise SignatureInvalid unless the note's text is signed by this key, of type 0x01.

    Lines of other keys are ignored. Raises ValueError for a key of another type, whose message is not the text.
    """
    if vkey.sig_type is not SignatureType.ED25519:
        raise ValueError("a cosignature is verified against its checkpoint")
    vkey.key.verify(note.signature_by(vkey.name, vkey.sig_type, vkey.key), note.text.encode())


def key_id(name: str, sig_type: int, public_raw: bytes) -> bytes:
    """Return SHA-256(name ‖ 0x0A ‖ type ‖ public key)[:4], the id in signature lines (signed-note, "Signatures")."""
    return hashlib.sha256(b"%b\n%c%b" % (name.encode(), sig_type, public_raw)).digest()[:KEY_ID_BYTES]


def encode_vkey(name: str, sig_type: SignatureType, key: PublicKey) -> str:
    """Return the verifier key as one line of text without newline; raises as VerifierKey does."""
    vkey = VerifierKey(name, sig_type, key)
    return f"{name}+{vkey.key_id.hex()}+{encode_base64(bytes([sig_type]) + key.raw)}"


def parse_vkey(text: str) -> VerifierKey:
    """Return the verifier key in `text`; raises ProtocolError `malformed`, also for a type HX/1 does not use.

    The id must be the one of name, type and key: signed-note prescribes it for all three types.
    """
    # The key's base64 may hold a plus, the name cannot.
    parts = text.split("+", _VKEY_PARTS - 1)
    if len(parts) != _VKEY_PARTS or not _KEY_ID_HEX.fullmatch(parts[1]):
        raise ProtocolError("malformed", "a verifier key is a name, an id of 8 hex digits and a key", field="vkey")
    material = decode_base64(parts[2], field="vkey")
    if not material or material[0] not in SignatureType.__members__.values():
        raise ProtocolError("malformed", "the verifier key has an unknown signature type", field="vkey")
    sig_type = SignatureType(material[0])
    vkey = VerifierKey(parts[0], sig_type, PublicKey(sig_type.algorithm, material[1:]))
    if vkey.key_id.hex() != parts[1]:
        raise ProtocolError("malformed", "the verifier key's id is not that of its key", field="vkey")
    return vkey


def check_key_name(name: str) -> None:
    """Raise ProtocolError `malformed` unless `name` can stand in a signature line (signed-note, "Format")."""
    # str.split goes by Unicode's White_Space and the four ASCII separators, which are control characters anyway.
    if name.split() != [name] or "+" in name or _FORBIDDEN_IN_NOTE.search(name):
        raise ProtocolError("malformed", "a key name is not empty and holds no space, plus or control", field="name")
    if len(name.encode()) > KEY_NAME_BYTES_MAX:
        raise ProtocolError("malformed", f"a key name has at most {KEY_NAME_BYTES_MAX} bytes", field="name")


def encode_base64(raw: bytes) -> str:
    """Return standard base64 with padding (RFC 4648, section 4)."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def decode_base64(text: str, *, field: str) -> bytes:
    """Return the bytes of standard base64, in its one canonical form only; raises ProtocolError `malformed`.

    Non-zero bits behind the last byte are refused too (RFC 4648, section 3.5): a signed line has one spelling.
    """
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ProtocolError("malformed", "this is not base64", field=field) from None
    if encode_base64(raw) != text:
        raise ProtocolError("malformed", "this is not canonical base64", field=field)
    return raw


def _parse_line(line: str) -> NoteSignature:
    if not line.startswith(_SIGNATURE_MARK):
        raise ProtocolError("malformed", "a signature line does not begin with an em dash", field="signature")
    name, _, encoded = line.removeprefix(_SIGNATURE_MARK).partition(" ")
    blob = decode_base64(encoded, field="signature")
    return NoteSignature(name, blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:])
