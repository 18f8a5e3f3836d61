"""Keys: what they promise, and what a wrong one does; never touches a key file."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.keys import Algorithm, KeyState, KeyUse, PublicKey, SignatureInvalid, SigningKey

ED25519 = SigningKey(Algorithm.ED25519, bytes(range(32)))
ML_DSA = SigningKey(Algorithm.ML_DSA_44, bytes(range(32)))
BOTH = pytest.mark.parametrize("key", [ED25519, ML_DSA], ids=["ed25519", "ml-dsa-44"])

PRIME = 2**255 - 19


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def flip(raw: bytes, bit: int) -> bytes:
    return (int.from_bytes(raw, "big") ^ (1 << bit)).to_bytes(len(raw), "big")


def test_words_on_the_wire() -> None:
    assert [one.value for one in Algorithm] == ["ed25519", "ml-dsa-44"]
    assert [one.value for one in KeyUse] == ["http", "stream", "receipt", "witness", "desk", "enc", "authority"]
    assert [one.value for one in KeyState] == ["next", "active", "retired", "compromised"]


def test_rfc_8037_key_thumbprint_and_signature() -> None:
    # RFC 8037, appendix A.1 (private key), A.3 (thumbprint), A.4 (signature).
    key = SigningKey(Algorithm.ED25519, unpadded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    assert key.public().raw == unpadded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert key.public().thumbprint() == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert key.sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc") == unpadded(
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    )


def test_rfc_9964_thumbprint() -> None:
    # RFC 9964, the all-zero ML-DSA-44 key: its `kid` is its thumbprint.
    key = SigningKey(Algorithm.ML_DSA_44, bytes(32))
    assert key.public().thumbprint() == "T4xl70S7MT6Zeq6r9V9fPJGVn76wfnXJ21-gyo0Gu6o"


@BOTH
def test_signs_and_verifies(key: SigningKey) -> None:
    signature = key.sign(b"a message")
    key.public().verify(signature, b"a message")
    PublicKey(key.algorithm, key.public().raw).verify(signature, b"a message")
    key.public().verify(key.sign(b""), b"")


def test_ed25519_repeats_and_ml_dsa_does_not() -> None:
    assert ED25519.sign(b"a message") == ED25519.sign(b"a message")
    assert ML_DSA.sign(b"a message") != ML_DSA.sign(b"a message")


@BOTH
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_one_changed_bit_is_noticed(key: SigningKey, data: st.DataObject) -> None:
    message = b"what was said"
    signature = key.sign(message)
    with pytest.raises(SignatureInvalid):
        key.public().verify(flip(signature, data.draw(st.integers(0, len(signature) * 8 - 1))), message)
    with pytest.raises(SignatureInvalid):
        key.public().verify(signature, flip(message, data.draw(st.integers(0, len(message) * 8 - 1))))


@BOTH
def test_a_signature_of_another_length_is_invalid(key: SigningKey) -> None:
    signature = key.sign(b"a message")
    for wrong in (b"", signature[:-1], signature + b"\x00", signature * 2):
        with pytest.raises(SignatureInvalid):
            key.public().verify(wrong, b"a message")


def test_another_key_does_not_verify() -> None:
    signature = ED25519.sign(b"a message")
    with pytest.raises(SignatureInvalid):
        SigningKey(Algorithm.ED25519, bytes(32)).public().verify(signature, b"a message")
    with pytest.raises(SignatureInvalid):
        ML_DSA.public().verify(signature, b"a message")


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("length", [0, 31, 33, 1311, 1313])
def test_a_public_key_of_another_length_cannot_exist(algorithm: Algorithm, length: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        PublicKey(algorithm, bytes(length))
    assert (caught.value.code, caught.value.field) == ("malformed", "public")


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_cannot_exist(algorithm: Algorithm, length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(algorithm, bytes(length))


def small_order_y() -> list[int]:
    """Return y of every point whose order divides 8, from the curve's equation and not from a table.

    Order 1: (0, 1). Order 2: (0, -1). Order 4: y = 0. Order 8: doubling gives y = 0, so d·y⁴ + 2·y² - 1 = 0.
    """
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    minus_one_root = pow(2, (PRIME - 1) // 4, PRIME)

    def root(square: int) -> int | None:
        found = pow(square, (PRIME + 3) // 8, PRIME)
        for one in (found, found * minus_one_root % PRIME):
            if one * one % PRIME == square:
                return one
        return None

    discriminant = root((1 + d) % PRIME)
    assert discriminant is not None
    ys = [0, 1, PRIME - 1]
    for sign in (1, -1):
        y = root((-1 + sign * discriminant) * pow(d, -1, PRIME) % PRIME)
        if y is not None:
            ys += [y, PRIME - y]
    return ys


def test_a_small_order_key_cannot_exist() -> None:
    ys = small_order_y()
    assert len(ys) == 5
    for y in ys:
        for sign in (0, 1 << 255):
            with pytest.raises(ProtocolError, match="small order"):
                PublicKey(Algorithm.ED25519, (y | sign).to_bytes(32, "little"))


def test_a_key_that_is_not_canonical_cannot_exist() -> None:
    for y in range(PRIME, 2**255):
        for sign in (0, 1 << 255):
            with pytest.raises(ProtocolError, match="canonical"):
                PublicKey(Algorithm.ED25519, (y | sign).to_bytes(32, "little"))


@BOTH
def test_neither_repr_nor_error_shows_the_seed(key: SigningKey) -> None:
    shown = repr(key) + str(key) + f"{key!s}"
    for secret in (key.seed.hex(), repr(key.seed), base64.b64encode(key.seed).decode()):
        assert secret not in shown
    assert key.public().thumbprint() in shown
    with pytest.raises(ValueError, match="seed") as caught:
        SigningKey(key.algorithm, b"not a seed, but still a secret")
    assert "secret" not in str(caught.value)


@BOTH
def test_keys_are_values(key: SigningKey) -> None:
    again = PublicKey(key.algorithm, key.public().raw)
    assert again == key.public()
    assert len({again, key.public()}) == 1
    assert SigningKey(key.algorithm, key.seed) == key
    assert repr(again) == f"PublicKey({key.algorithm}, {again.thumbprint()})"
