"""C2SP httpsig-pq v1.0.0: RFC 9421 with ML-DSA, its vectors and its list of negative tests."""

import base64
import hashlib
import json
from dataclasses import dataclass

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa

from protocol.errors import ProtocolError
from protocol.httpsig import RequestContext, format_signatures, parse_signature, parse_signature_input, signature_base
from protocol.keys import Algorithm, PublicKey, SignatureInvalid, SigningKey
from tests.vectors_dir import vectors

# The message of the vectors, as the specification prints its base; `example.com` is reserved by RFC 2606.
MESSAGE = RequestContext(
    {"host": ("example.com",), "date": ("Mon, 06 Jul 2026 20:00:00 GMT",)},
    "GET",
    "https://example.com/foo?param=Value&Pet=dog",
)


@dataclass(frozen=True, slots=True)
class Vector:
    algorithm: str
    seed: bytes
    public: bytes
    base: bytes
    signature_input: str
    signature: bytes


def vector(algorithm: str) -> Vector:
    document = json.loads(vectors("c2sp", "httpsig-pq-0.json").read_text(encoding="utf-8"))
    (found,) = (one for one in document["vectors"] if one["algorithm"] == algorithm)
    base = base64.b64decode(found["signature_base_base64"])
    assert (len(base), hashlib.sha256(base).hexdigest()) == (
        found["signature_base_length"],
        found["signature_base_sha256"],
    )
    return Vector(
        algorithm,
        bytes.fromhex(found["private_key_seed_hex"]),
        base64.b64decode(found["public_key_base64"]),
        base,
        found["serialized_signature_input"].removeprefix("Signature-Input: "),
        base64.b64decode(found["deterministic_signature_base64"]),
    )


@pytest.fixture(scope="module")
def ml_dsa_44() -> Vector:
    return vector("ml-dsa-44")


def test_the_file_holds_one_vector_an_algorithm() -> None:
    document = json.loads(vectors("c2sp", "httpsig-pq-0.json").read_text(encoding="utf-8"))
    assert [one["algorithm"] for one in document["vectors"]] == ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]


@pytest.mark.parametrize("algorithm", ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_bases_are_rebuilt_from_the_message(algorithm: str) -> None:
    one = vector(algorithm)
    signed = parse_signature_input(one.signature_input)["sig1"]
    assert signature_base(signed, MESSAGE) == one.base
    assert dict(signed.params)["alg"] == algorithm


def test_ml_dsa_44_key_and_signature(ml_dsa_44: Vector) -> None:
    key = SigningKey(Algorithm.ML_DSA_44, ml_dsa_44.seed)
    assert key.public() == PublicKey(Algorithm.ML_DSA_44, ml_dsa_44.public)
    field = format_signatures({"sig1": ml_dsa_44.signature})
    assert field == f"sig1=:{base64.b64encode(ml_dsa_44.signature).decode('ascii')}:"
    key.public().verify(parse_signature(field)["sig1"], ml_dsa_44.base)
    hedged = key.sign(ml_dsa_44.base)
    assert hedged != ml_dsa_44.signature
    key.public().verify(hedged, ml_dsa_44.base)


def test_ml_dsa_65_and_87_bases_verify() -> None:
    """No key of this project; they show the same bases to be right in two further ways."""
    v65, v87 = vector("ml-dsa-65"), vector("ml-dsa-87")
    mldsa.MLDSA65PublicKey.from_public_bytes(v65.public).verify(v65.signature, v65.base)
    mldsa.MLDSA87PublicKey.from_public_bytes(v87.public).verify(v87.signature, v87.base)


def changed_bases(base: bytes) -> list[bytes]:
    lines = base.split(b"\n")
    return [
        base.replace(b"GET", b"PUT"),
        base.replace(b"Value", b"Other"),
        base.replace(b'"host": example.com', b'"host": example.org'),
        base.replace(b"20:00:00", b"20:00:01"),
        *(b"\n".join(lines[:gone] + lines[gone + 1 :]) for gone in range(len(lines))),
        base.replace(b"\n", b"\r\n"),
        base + b"\n",
        base.replace(b'alg="ml-dsa-44"', b'alg="ml-dsa-65"'),
        hashlib.sha256(base).digest(),
    ]


def test_changed_bases_are_refused(ml_dsa_44: Vector) -> None:
    public = PublicKey(Algorithm.ML_DSA_44, ml_dsa_44.public)
    for base in changed_bases(ml_dsa_44.base):
        assert base != ml_dsa_44.base
        with pytest.raises(SignatureInvalid):
            public.verify(ml_dsa_44.signature, base)


def test_changed_signatures_are_refused(ml_dsa_44: Vector) -> None:
    public = PublicKey(Algorithm.ML_DSA_44, ml_dsa_44.public)
    good = ml_dsa_44.signature
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (0, 31, 32, len(good) // 2, len(good) - 1)]
    for signature in (*flipped, good[:-1], good[1:], good + b"\0", b""):
        with pytest.raises(SignatureInvalid):
            public.verify(signature, ml_dsa_44.base)


def test_other_keys_are_refused(ml_dsa_44: Vector) -> None:
    other = SigningKey(Algorithm.ML_DSA_44, bytes(32)).public()
    with pytest.raises(SignatureInvalid):
        other.verify(ml_dsa_44.signature, ml_dsa_44.base)
    for raw in (ml_dsa_44.public[:-1], ml_dsa_44.public + b"\0", vector("ml-dsa-65").public):
        with pytest.raises(ProtocolError):
            PublicKey(Algorithm.ML_DSA_44, raw)


def test_a_context_makes_another_signature(ml_dsa_44: Vector) -> None:
    public = mldsa.MLDSA44PublicKey.from_public_bytes(ml_dsa_44.public)
    public.verify(ml_dsa_44.signature, ml_dsa_44.base)
    with pytest.raises(InvalidSignature):
        public.verify(ml_dsa_44.signature, ml_dsa_44.base, b"httpsig")
