"""Encrypts single values for the database and digests them for equality search; never holds a key in clear on disk.

AES-256-GCM (NIST SP 800-38D). **Why no nonce repeats:** each value gets 96 fresh random bits from the operating
system, the "RBG-based construction" of section 8.2.2. Several processes share a field key without talking to each
other, which rules out a counter. Section 8.3 allows 2^32 values under one key, for then the chance that any two share
a nonce stays below 2^-32; `VALUES_PER_KEY_MAX` says so, and a new field key (`active`) starts a new count. At three
fields an item that is some 1,400,000,000 items a key.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from node.errors import OperatorError
from node.platform.keyfiles import read_master_key
from node.settings import Settings

KEY_BYTES: Final = 32
VALUES_PER_KEY_MAX: Final = 2**32
FIELD_KEY_ID_MAX: Final = 0xFFFF
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_NONCES_DRAWN: Final = 256
_VERSION: Final = b"\x01"
_HEADER_BYTES: Final = 3
_ROW_LABEL: Final = b"hx-field-1\x00"
_MASTER_ID_BYTES: Final = 4


class FieldSealed(Exception):  # noqa: N818 -- names the fact: the value stays closed
    """A stored value does not open: altered, moved from another row or column, or under a key that is not here.

    `column` is `table.column`; neither the value nor the row is in the text.
    """

    def __init__(self, column: str, reason: str = "altered or moved") -> None:
        """Name the column."""
        super().__init__(f"the value of {column} does not open: {reason}")
        self.column = column


def row_aad(table: str, column: str, row_id: bytes) -> bytes:
    """Return the associated data that ties a value to its place, so that it opens nowhere else.

    Names hold no NUL byte, so no two places give the same bytes.
    """
    return b"%b%b\x00%b\x00%b" % (_ROW_LABEL, table.encode(), column.encode(), row_id)


def _column_of(aad: bytes) -> str:
    parts = aad.removeprefix(_ROW_LABEL).split(b"\x00", 2)
    return b".".join(parts[:2]).decode("ascii", "replace") if aad.startswith(_ROW_LABEL) else "a field"


class FieldCipher:
    """Seals and opens values under numbered field keys; `active` is the one new values are sealed under.

    A value is 0x01, key id (2 bytes, big-endian), nonce (12), ciphertext and tag (16): 31 bytes more than the plain
    text. The first three bytes are authenticated with the place.
    """

    __slots__ = ("_active", "_header", "_keys", "_nonces")

    def __init__(self, field_keys: Mapping[int, bytes], active: int) -> None:
        """Take 32-byte keys by id (0 to 65535); ValueError for another length or id, or when `active` is missing."""
        if active not in field_keys:
            raise ValueError("the active field key is not among the field keys")
        for key_id, key in field_keys.items():
            if not 0 <= key_id <= FIELD_KEY_ID_MAX or len(key) != KEY_BYTES:
                raise ValueError(f"a field key has {KEY_BYTES} bytes and an id from 0 to {FIELD_KEY_ID_MAX}")
        self._keys = {_VERSION + key_id.to_bytes(2, "big"): AESGCM(key) for key_id, key in field_keys.items()}
        self._header = _VERSION + active.to_bytes(2, "big")
        self._active = self._keys[self._header]
        self._nonces: list[bytes] = []
        # A forked process would draw the same ones from its copy of the list.
        os.register_at_fork(after_in_child=self._nonces.clear)

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return `plaintext` sealed under the active key for the place `aad` (see `row_aad`)."""
        header = self._header
        try:
            # One value, one nonce, whichever thread asks: list.pop is one step of the interpreter.
            nonce = self._nonces.pop()
        except IndexError:
            nonce = self._draw()
        return header + nonce + self._active.encrypt(nonce, plaintext, header + aad)

    def _draw(self) -> bytes:
        """Draw nonces in advance and return one: to ask the system for each value was a tenth of an import."""
        pool = os.urandom(_NONCE_BYTES * _NONCES_DRAWN)
        nonces = [pool[at : at + _NONCE_BYTES] for at in range(0, len(pool), _NONCE_BYTES)]
        nonce = nonces.pop()
        self._nonces.extend(nonces)
        return nonce

    def decrypt(self, value: bytes, aad: bytes) -> bytes:
        """Return the plain text of `value`; FieldSealed when it is not one sealed for exactly this place."""
        header = bytes(value[:_HEADER_BYTES])
        key = self._keys.get(header)
        if key is None or len(value) < _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES:
            reason = "its key is not here" if header[:1] == _VERSION and key is None else "altered or moved"
            raise FieldSealed(_column_of(aad), reason)
        body = _HEADER_BYTES + _NONCE_BYTES
        try:
            return key.decrypt(value[_HEADER_BYTES:body], value[body:], header + aad)
        except InvalidTag:
            raise FieldSealed(_column_of(aad)) from None


class DigestKey:
    """Digests values under a key, so that equal ones are found while the database alone reveals none of them."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take 32 bytes that serve nothing else; ValueError for another length."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a digest key has {KEY_BYTES} bytes")
        self._key = key

    def digest(self, domain: str, text: str) -> bytes:
        """Return the 32-byte HMAC-SHA-256 of `text` in `domain`; equal texts in two domains differ.

        `domain` holds no NUL, so no domain and text can pass for another pair. Lone surrogates are digested too:
        what was received must be findable whatever it is.
        """
        return hmac.digest(self._key, f"{domain}\x00{text}".encode("utf-8", "surrogatepass"), "sha256")


@dataclass(frozen=True, slots=True, repr=False)
class MasterKey:
    """The key that wraps the field and digest keys and nothing else; `repr` shows its id only."""

    key: bytes
    id: str = field(init=False)

    def __post_init__(self) -> None:
        """Derive the id: eight hex digits of a keyed hash, which tell nothing of the key."""
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes")
        label = hmac.digest(self.key, b"hx master key id", hashlib.sha256)
        object.__setattr__(self, "id", label[:_MASTER_ID_BYTES].hex())

    def __repr__(self) -> str:
        return f"MasterKey({self.id})"

    @classmethod
    def load(cls, settings: Settings) -> "MasterKey":
        """Return the master key that the settings name; OperatorError when it is missing or exposed."""
        return cls(read_master_key(settings))


def wrap(master: MasterKey, purpose: str, key_id: int, key: bytes) -> bytes:
    """Return `key` sealed under `master`: 0x01, master id (4 bytes), nonce (12), ciphertext and tag.

    It opens for this purpose and key id alone.
    """
    header = _VERSION + bytes.fromhex(master.id)
    nonce = os.urandom(_NONCE_BYTES)
    return header + nonce + AESGCM(master.key).encrypt(nonce, key, header + _wrap_aad(purpose, key_id))


def wrapped_under(wrapped: bytes) -> str:
    """Return the id of the master key that `wrapped` was sealed under."""
    return wrapped[1 : 1 + _MASTER_ID_BYTES].hex()


def unwrap(master: MasterKey, purpose: str, key_id: int, wrapped: bytes) -> bytes:
    """Return the key in `wrapped`; OperatorError when it was wrapped by another master key, or altered."""
    header = _VERSION + bytes.fromhex(master.id)
    name = f"{purpose} key {key_id}"
    if wrapped[: len(header)] != header:
        raise OperatorError(
            f"The {name} is wrapped under master key {wrapped_under(wrapped)}, and the one configured is {master.id}."
        )
    body = len(header) + _NONCE_BYTES
    try:
        return AESGCM(master.key).decrypt(
            wrapped[len(header) : body], wrapped[body:], header + _wrap_aad(purpose, key_id)
        )
    except (InvalidTag, ValueError):
        raise OperatorError(f"The {name} in the database is damaged and does not open.") from None


def _wrap_aad(purpose: str, key_id: int) -> bytes:
    return b"hx-wrap-1\x00%b\x00%d" % (purpose.encode(), key_id)
