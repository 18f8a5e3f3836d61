"""Spares a history the arithmetic of signatures, and reading a file of the directory that an earlier one read.

What Ed25519 computes is not what a history can find a mistake in; which bytes are signed, by whom, and what is made
of them, is. So a signature of one of our keys is the hash of its seed and what it signs, noted when it is made, and it
verifies if it is noted for exactly this key and these bytes. All else goes through the real code, which refuses it:
what is garbled, forged, or signed by another key. The directory's files are signed by the real code, and each is read
and verified once in a process. Every `REAL_EVERY`-th seed is spared nothing: those histories are the real code.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, lru_cache
from typing import Any, Final

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata

from node.platform import trust
from protocol.directory import parse_directory
from protocol.keys import Algorithm, PublicKey, SigningKey

#: Odd, so that each half of the histories in the suite has its share.
REAL_EVERY: Final = 25

_SIGNATURE_BYTES: Final = {Algorithm.ED25519: 64, Algorithm.ML_DSA_44: 2420}

_really_verify = PublicKey.verify
_read_directory = lru_cache(maxsize=1000)(parse_directory)
_really_parse = trust._parse
_really_verify_metadata = SSlibKey._verify


class _Read(Metadata[Any]):
    """A file that was read: nobody changes it, so what of it is signed is written out once."""

    signed_bytes = cached_property(Metadata.signed_bytes.fget)  # type: ignore[attr-defined] # it is a property


@lru_cache(maxsize=1000)
def _read_metadata(file: str, raw: bytes, kind: type[Any]) -> Metadata[Any]:
    metadata = _really_parse(file, raw, kind)
    metadata.__class__ = _Read
    return metadata


@contextmanager
def remembered(seed: int) -> Iterator[None]:
    """Look up what is known while the block runs; what our keys signed is known until its end."""
    if seed % REAL_EVERY == 0:
        yield
        return
    made: set[tuple[bytes, bytes, bytes]] = set()

    def sign(self: SigningKey, message: bytes) -> bytes:
        signature = hashlib.shake_256(self.seed + message).digest(_SIGNATURE_BYTES[self.algorithm])
        made.add((self.public().raw, signature, message))
        return signature

    def verify(self: PublicKey, signature: bytes, message: bytes) -> None:
        if (self.raw, signature, message) not in made:
            _really_verify(self, signature, message)

    with ExitStack() as stack:
        replaced(stack, SigningKey, "sign", sign)
        replaced(stack, PublicKey, "verify", verify)
        replaced(stack, SSlibKey, "_verify", _verify_metadata)
        replaced(stack, trust, "_parse", _read_metadata)
        replaced(stack, trust, "parse_directory", _read_directory)
        yield


def replaced(stack: ExitStack, owner: Any, name: str, value: object) -> None:
    """Put `value` in a name's place until the stack ends; mock's way of it takes a hundredth of a history."""
    stack.callback(setattr, owner, name, vars(owner)[name])
    setattr(owner, name, value)


def _verify_metadata(self: SSlibKey, signature: bytes, data: bytes) -> None:
    _metadata_verified(_Public(self), signature, data)


class _Public:
    """A key of the directory's roles by its public part, which is what tells it from another."""

    __slots__ = ("key", "text")

    def __init__(self, key: SSlibKey) -> None:
        self.key = key
        self.text = f"{key.scheme} {key.keyval}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Public) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@lru_cache(maxsize=1000)
def _metadata_verified(public: _Public, signature: bytes, data: bytes) -> None:
    """Verify once; what does not verify raises, and is not remembered."""
    _really_verify_metadata(public.key, signature, data)
