"""The framing of a batch: any records come back byte for byte, and a body that was cut never passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.batch import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, decode_batch, encode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import sign_checkpoint
from protocol.errors import ProtocolError
from protocol.keys import KeyUse
from protocol.merkle import Edge, leaf_hash
from tests.protocol.sample_network import FR, NL, NOW, signing_keys

RECORDS = st.lists(
    st.binary(min_size=1, max_size=60).map(lambda raw: raw.replace(b"\n", b"\r")), min_size=1, max_size=20
)


def note_over(records: list[bytes]) -> bytes:
    root = Edge.EMPTY.extend([leaf_hash(one) for one in records]).root()
    checkpoint = Checkpoint(StreamId(FR, NL, 1).origin(), len(records), root)
    keys = signing_keys(FR, KeyUse.STREAM)
    return sign_checkpoint(checkpoint, keys, now_s=int(NOW.timestamp())).to_bytes()


NOTE = note_over([b"{}"])
BODY = encode_batch(NOTE, [b"{}", b'{"a":1}'])


@given(RECORDS)
def test_any_records_come_back(records: list[bytes]) -> None:
    assert decode_batch(encode_batch(NOTE, records)) == (NOTE, records)


def test_records_that_look_like_framing_come_back() -> None:
    tricky = ["\u2014 a b".encode(), b"\r", b" ", "\u2014".encode(), b"hx/1/a/b/1", b"\x00", b"\xff\xfe"]
    assert decode_batch(encode_batch(NOTE, tricky)) == (NOTE, tricky)


def test_body_is_note_empty_line_records() -> None:
    assert BODY == NOTE + b'\n{}\n{"a":1}\n'


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 9, 10, 11, 12, 13, 14, 100, len(BODY) - 30])
def test_cut_body_is_malformed(cut: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_batch(BODY[:-cut])
    assert caught.value.code == "malformed"


def test_body_cut_between_two_records_is_a_shorter_batch_which_the_signed_root_shows() -> None:
    assert decode_batch(BODY[: -len(b'{"a":1}\n')]) == (NOTE, [b"{}"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"\n\n\n\n",
        b"{}\n",
        NOTE,
        NOTE + b"\n",
        NOTE + b"{}\n",
        NOTE + b"\n\n{}\n",
        NOTE + b"\n{}",
        NOTE + b"\n{}\n\n",
        NOTE + b"\n{}\n\n{}\n",
        NOTE.replace("\u2014".encode(), b"-") + b"\n{}\n",
        b"text\n\nno signature\n\n{}\n",
        b"text\n\n\n{}\n",
    ],
)
def test_broken_framing_is_malformed(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_batch(body)
    assert (caught.value.code, caught.value.field) == ("malformed", "body")


def test_too_many_records_or_bytes_are_too_large() -> None:
    most = [b"{}"] * BATCH_RECORDS_MAX
    assert decode_batch(encode_batch(NOTE, most))[1] == most
    room = BATCH_BYTES_MAX - len(NOTE) - 2
    assert len(encode_batch(NOTE, [b"x" * room])) == BATCH_BYTES_MAX
    for body in (NOTE + b"\n" + b"{}\n" * (BATCH_RECORDS_MAX + 1), NOTE + b"\n" + b"x" * (room + 1) + b"\n"):
        with pytest.raises(ProtocolError) as caught:
            decode_batch(body)
        assert caught.value.code == "too-large"


@pytest.mark.parametrize("records", [[], [b""], [b"{}", b""], [b"{\n}"], [b"{}"] * (BATCH_RECORDS_MAX + 1)])
def test_batch_that_nobody_could_read_is_not_made(records: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_batch(NOTE, records)


def test_note_that_is_none_is_not_sent() -> None:
    with pytest.raises(ValueError, match="does not begin with a signed note"):
        encode_batch(b"text\n", [b"{}"])
