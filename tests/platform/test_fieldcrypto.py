"""Field encryption: what opens, what does not, and what the errors say."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import OperatorError
from node.platform.fieldcrypto import (
    DigestKey,
    FieldCipher,
    FieldSealed,
    MasterKey,
    row_aad,
    unwrap,
    wrap,
    wrapped_under,
)

KEY_1, KEY_2 = bytes(range(32)), bytes(range(1, 33))
PLACE = row_aad("items", "url", b"\x01" * 16)
CIPHER = FieldCipher({1: KEY_1}, 1)


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_what_was_sealed_opens_in_its_place(plain: bytes, row: bytes) -> None:
    place = row_aad("items", "url", row)
    value = CIPHER.encrypt(plain, place)
    assert len(value) == len(plain) + 31
    assert CIPHER.decrypt(value, place) == plain


def test_no_two_values_are_alike() -> None:
    assert len({CIPHER.encrypt(b"same", PLACE) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "place",
    [
        row_aad("items", "url", b"\x02" * 16),
        row_aad("items", "referrer", b"\x01" * 16),
        row_aad("cases", "url", b"\x01" * 16),
    ],
)
def test_a_value_moved_elsewhere_does_not_open(place: bytes) -> None:
    value = CIPHER.encrypt(b"words", PLACE)
    with pytest.raises(FieldSealed) as caught:
        CIPHER.decrypt(value, place)
    assert caught.value.column == place.split(b"\0")[1].decode() + "." + place.split(b"\0")[2].decode()
    assert "words" not in str(caught.value)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_altered_value_does_not_open(at: int, flip: int) -> None:
    value = bytearray(CIPHER.encrypt(b"some words", PLACE))
    value[at % len(value)] ^= flip
    with pytest.raises(FieldSealed) as caught:
        CIPHER.decrypt(bytes(value), PLACE)
    assert caught.value.column == "items.url"


@given(st.integers(min_value=0, max_value=40))
def test_a_cut_value_does_not_open(size: int) -> None:
    value = CIPHER.encrypt(b"some words", PLACE)
    with pytest.raises(FieldSealed):
        CIPHER.decrypt(value[:size], PLACE)


def test_old_keys_open_and_the_active_one_seals() -> None:
    rotated = FieldCipher({1: KEY_1, 2: KEY_2}, 2)
    old = CIPHER.encrypt(b"words", PLACE)
    assert rotated.decrypt(old, PLACE) == b"words"
    fresh = rotated.encrypt(b"words", PLACE)
    assert fresh[1:3] == b"\x00\x02"
    with pytest.raises(FieldSealed, match="its key is not here"):
        CIPHER.decrypt(fresh, PLACE)


def test_the_key_id_is_authenticated() -> None:
    twice = FieldCipher({1: KEY_1, 2: KEY_1}, 1)
    value = bytearray(twice.encrypt(b"words", PLACE))
    value[2] = 2
    with pytest.raises(FieldSealed):
        twice.decrypt(bytes(value), PLACE)


@pytest.mark.parametrize(("keys", "active"), [({1: KEY_1}, 2), ({1: b"short"}, 1), ({65536: KEY_1}, 65536)])
def test_keys_that_make_no_sense_are_refused(keys: dict[int, bytes], active: int) -> None:
    with pytest.raises(ValueError, match="field key"):
        FieldCipher(keys, active)


def test_a_place_of_another_kind_is_named_as_such() -> None:
    with pytest.raises(FieldSealed, match="the value of a field does"):
        CIPHER.decrypt(bytes(40), b"other")


def test_digests_find_equal_texts_within_one_domain() -> None:
    key = DigestKey(KEY_1)
    assert key.digest("url", "x") == key.digest("url", "x")
    assert len(key.digest("url", "x")) == 32
    others = {
        key.digest("url", "y"),
        key.digest("host", "x"),
        key.digest("ur", "lx"),
        DigestKey(KEY_2).digest("url", "x"),
        key.digest("url", "\ud800"),
    }
    assert len(others | {key.digest("url", "x")}) == 6
    with pytest.raises(ValueError, match="32 bytes"):
        DigestKey(b"")


def test_a_wrapped_key_opens_under_its_master_purpose_and_id() -> None:
    master, other = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
    wrapped = wrap(master, "field", 1, KEY_1)
    assert unwrap(master, "field", 1, wrapped) == KEY_1
    assert wrapped_under(wrapped) == master.id
    assert KEY_1 not in wrapped
    for purpose, key_id in (("digest", 1), ("field", 2)):
        with pytest.raises(OperatorError, match="damaged"):
            unwrap(master, purpose, key_id, wrapped)
    with pytest.raises(OperatorError, match=rf"wrapped under master key {master.id}.*is {other.id}"):
        unwrap(other, "field", 1, wrapped)
    for cut in (0, 4, 6, 20, len(wrapped) - 1):
        with pytest.raises(OperatorError):
            unwrap(master, "field", 1, wrapped[:cut])


def test_a_master_key_shows_its_id_only() -> None:
    master = MasterKey(KEY_1)
    assert repr(master) == f"MasterKey({master.id})"
    assert len(master.id) == 8
    assert master.id != MasterKey(KEY_2).id
    with pytest.raises(ValueError, match="32 bytes"):
        MasterKey(b"short")
