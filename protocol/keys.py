"""Signing and verifying keys of a node: Ed25519 and ML-DSA-44; never reads, writes, makes or logs a secret."""

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from protocol.errors import ProtocolError

# Both algorithms derive their private key from 32 bytes (RFC 8032, section 5.1.5; FIPS 204, algorithm 6).
SEED_BYTES: Final = 32

_ED25519_PRIME: Final = 2**255 - 19
_ED25519_SIGN_BIT: Final = 1 << 255
# The y coordinates of the eight points whose order divides 8. Under such a key one signature fits many messages,
# so its owner could disown what was signed: a record would prove nothing to a third party.
_ED25519_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _ED25519_PRIME - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    },
)


class Algorithm(StrEnum):
    """A signature algorithm; it comes from the key's directory entry, never from a message."""

    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"


class KeyUse(StrEnum):
    """What a key may sign or open; a key serves one use only."""

    HTTP = "http"
    STREAM = "stream"
    RECEIPT = "receipt"
    WITNESS = "witness"
    DESK = "desk"
    ENC = "enc"
    AUTHORITY = "authority"


class KeyState(StrEnum):
    """Where a key stands in its life: `next → active → retired | compromised`."""

    NEXT = "next"
    ACTIVE = "active"
    RETIRED = "retired"
    COMPROMISED = "compromised"


# RFC 8032, section 5.1; FIPS 204, table 2.
PUBLIC_KEY_BYTES: Final = {Algorithm.ED25519: 32, Algorithm.ML_DSA_44: 1312}


class SignatureInvalid(Exception):  # noqa: N818 -- names the fact, and is the name the wire contract uses
    """A required signature is absent or does not verify; the text never holds signed content."""


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A verification key: `raw` is 32 bytes (Ed25519, RFC 8032) or 1312 bytes (ML-DSA-44, FIPS 204).

    Raises ProtocolError `malformed` for another length, and for an Ed25519 key of small order or in a
    non-canonical encoding (RFC 8032, section 5.1.3, forbids the latter).
    """

    algorithm: Algorithm
    raw: bytes
    _key: Ed25519PublicKey | MLDSA44PublicKey = field(init=False, compare=False)
    #: Made when first asked for: it names the key in every message that it signs.
    _thumbprint: str | None = field(init=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Check the bytes and load them once; every later `verify` uses the loaded key."""
        expected = PUBLIC_KEY_BYTES[self.algorithm]
        if len(self.raw) != expected:
            raise ProtocolError("malformed", f"a public {self.algorithm} key has {expected} bytes", field="public")
        if self.algorithm is Algorithm.ED25519:
            _refuse_weak_ed25519(self.raw)
            object.__setattr__(self, "_key", Ed25519PublicKey.from_public_bytes(self.raw))
        else:
            object.__setattr__(self, "_key", MLDSA44PublicKey.from_public_bytes(self.raw))

    def __repr__(self) -> str:
        return f"PublicKey({self.algorithm.value}, {self.thumbprint()})"

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise SignatureInvalid unless `signature` was made over exactly `message` with this key.

        Ed25519 is RFC 8032 without the cofactor and with canonical R and S; ML-DSA-44 is FIPS 204, algorithm 3,
        with an empty context.
        """
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            # The cause carries no text of its own.
            raise SignatureInvalid(f"the {self.algorithm} signature does not verify") from None

    def thumbprint(self) -> str:
        """Return the key's name in RFC 9421 `keyid`: RFC 7638 over SHA-256, base64url without padding.

        The JWK is `OKP` for Ed25519 (RFC 8037, section 2), `AKP` for ML-DSA-44 (RFC 9964).
        """
        known = self._thumbprint
        if known is None:
            known = self._hashed()
            object.__setattr__(self, "_thumbprint", known)
        return known

    def _hashed(self) -> str:
        public = _base64url(self.raw)
        # RFC 7638, section 3.3: required members only, in lexicographic order, no white space.
        if self.algorithm is Algorithm.ED25519:
            jwk = f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'
        else:
            jwk = f'{{"alg":"ML-DSA-44","kty":"AKP","pub":"{public}"}}'
        return _base64url(hashlib.sha256(jwk.encode("ascii")).digest())


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """A private key, kept as its 32-byte seed; neither `repr` nor an error ever shows the seed.

    Raises ValueError for a seed of another length: a seed is ours, never a peer's.
    """

    algorithm: Algorithm
    seed: bytes
    _key: Ed25519PrivateKey | MLDSA44PrivateKey = field(init=False, compare=False)
    _public: PublicKey = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Expand the seed once; ML-DSA's expansion costs a good part of a signature."""
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"a private key's seed has {SEED_BYTES} bytes")
        key = (
            Ed25519PrivateKey.from_private_bytes(self.seed)
            if self.algorithm is Algorithm.ED25519
            else MLDSA44PrivateKey.from_seed_bytes(self.seed)
        )
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_public", PublicKey(self.algorithm, key.public_key().public_bytes_raw()))

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm.value}, {self._public.thumbprint()})"

    def public(self) -> PublicKey:
        """Return the verification key, the same object each time."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`: 64 bytes (Ed25519) or 2420 bytes (ML-DSA-44, empty context).

        Ed25519 gives the same bytes each time. ML-DSA-44 is hedged by the library (FIPS 204, algorithm 2):
        signing twice gives two signatures, so one that must stay byte-stable is stored, not made again.
        """
        return self._key.sign(message)


def _refuse_weak_ed25519(raw: bytes) -> None:
    y = int.from_bytes(raw, "little") & ~_ED25519_SIGN_BIT
    if y >= _ED25519_PRIME:
        raise ProtocolError("malformed", "the public ed25519 key is not canonically encoded", field="public")
    if y in _ED25519_SMALL_ORDER_Y:
        raise ProtocolError("malformed", "the public ed25519 key has a small order", field="public")


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
