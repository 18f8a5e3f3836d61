"""The proof file: exact bytes both ways, every malformed form, and the whole proof of one record."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, sign_checkpoint, verify_checkpoint, verify_cosignature
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, SigningKey
from protocol.merkle import EMPTY_ROOT, Edge, ProofInvalid, inclusion_proof, leaf_hash
from protocol.note import (
    KEY_NAME_BYTES_MAX,
    NOTE_SIGNATURES_MAX,
    SIGNATURE_BYTES_MAX,
    Note,
    NoteSignature,
    encode_base64,
)
from protocol.tlogproof import EXTRA_BYTES_MAX, PROOF_NOTE_BYTES_MAX, TLOG_PROOF_BYTES_MAX, TlogProof, parse_tlog_proof

STREAM = StreamId("fr.hotline.example", "nl.hotline.example", 1)
RECORDS = [b'{"number":%d}' % number for number in range(11)]
LEAVES = [leaf_hash(record) for record in RECORDS]
CP = Checkpoint(STREAM.origin(), len(LEAVES), Edge.EMPTY.extend(LEAVES).root())
SENDER = [SigningKey(Algorithm.ED25519, b"\x01" * 32), SigningKey(Algorithm.ML_DSA_44, b"\x01" * 32)]
RECEIVER = [SigningKey(Algorithm.ED25519, b"\x02" * 32), SigningKey(Algorithm.ML_DSA_44, b"\x02" * 32)]
NOTE = cosign(sign_checkpoint(CP, SENDER, now_s=10), CP, STREAM.receipt_name(), RECEIVER, now_s=20)
SHORT_NOTE = Note(CP.text(), (NoteSignature("log.example", b"\x01\x02\x03\x04", b"x"),))
PROOF = TlogProof(3, inclusion_proof(3, LEAVES), SHORT_NOTE, RECORDS[3])
RAW = PROOF.to_bytes()


@pytest.mark.parametrize("index", range(len(RECORDS)))
def test_one_record_is_proven_from_the_file_alone(index: int) -> None:
    written = TlogProof(index, inclusion_proof(index, LEAVES), NOTE, RECORDS[index]).to_bytes()
    proof = parse_tlog_proof(written)
    assert proof.to_bytes() == written
    # What it says.
    assert proof.extra == RECORDS[index]
    # That it stands at this place in the log of that checkpoint.
    proof.verify_leaf(leaf_hash(proof.extra))
    # Who signed the checkpoint, who receipted it, and when.
    cp = proof.checkpoint()
    stream = StreamId.parse(cp.origin)
    verify_checkpoint(proof.note, cp, [key.public() for key in SENDER])
    assert verify_cosignature(proof.note, cp, stream.receipt_name(), [key.public() for key in RECEIVER]) == 20


def test_another_record_or_place_is_not_proven() -> None:
    with pytest.raises(ProofInvalid):
        PROOF.verify_leaf(LEAVES[4])
    with pytest.raises(ProofInvalid):
        TlogProof(4, PROOF.hashes, PROOF.note).verify_leaf(LEAVES[3])
    with pytest.raises(ProofInvalid):
        TlogProof(3, PROOF.hashes[:-1], PROOF.note).verify_leaf(LEAVES[3])


def test_layout_of_the_file() -> None:
    lines = RAW.decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", f"extra {encode_base64(RECORDS[3])}", "index 3"]
    assert lines[3:7] == [encode_base64(one) for one in PROOF.hashes]
    assert lines[7] == ""
    assert "\n".join(lines[8:]).encode() == SHORT_NOTE.to_bytes()


def test_without_extra_data_there_is_no_line() -> None:
    proof = TlogProof(3, PROOF.hashes, SHORT_NOTE)
    assert proof.to_bytes().startswith(b"c2sp.org/tlog-proof@v1\nindex 3\n")
    assert parse_tlog_proof(proof.to_bytes()).extra is None


def test_empty_extra_data_is_not_none() -> None:
    proof = TlogProof(3, PROOF.hashes, SHORT_NOTE, b"")
    assert parse_tlog_proof(proof.to_bytes()) == proof
    assert proof != TlogProof(3, PROOF.hashes, SHORT_NOTE)


def test_a_log_of_one_record_needs_no_hash() -> None:
    cp = Checkpoint(STREAM.origin(), 1, LEAVES[0])
    proof = TlogProof(0, (), Note(cp.text(), SHORT_NOTE.signatures), RECORDS[0])
    again = parse_tlog_proof(proof.to_bytes())
    assert again == proof
    again.verify_leaf(LEAVES[0])


@given(
    index=st.integers(0, 2**63 - 2),
    hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    extra=st.none() | st.binary(max_size=200),
)
def test_a_proof_is_read_back_as_it_was_written(index: int, hashes: list[bytes], extra: bytes | None) -> None:
    cp = Checkpoint("log.example", 2**63 - 1, CP.root)
    proof = TlogProof(index, tuple(hashes), Note(cp.text(), SHORT_NOTE.signatures), extra)
    assert parse_tlog_proof(proof.to_bytes()) == proof


def rewritten(raw: bytes) -> bytes | None:
    try:
        return parse_tlog_proof(raw).to_bytes()
    except ProtocolError:
        return None


@given(data=st.data())
@settings(max_examples=300)
def test_whatever_is_read_is_written_back_the_same(data: st.DataObject) -> None:
    raw = bytearray(RAW)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from([b"", b"\n", b"\n\n", b" ", b"0", b"\xff"]))
    assert rewritten(bytes(raw)) in {None, bytes(raw)}


def test_the_largest_proof_fits() -> None:
    line = NoteSignature("n" * KEY_NAME_BYTES_MAX, bytes(4), bytes(SIGNATURE_BYTES_MAX))
    cp = Checkpoint("o" * 255, 2**63 - 1, CP.root)
    note = Note(cp.text(), (line,) * NOTE_SIGNATURES_MAX)
    assert len(note.to_bytes()) <= PROOF_NOTE_BYTES_MAX
    proof = TlogProof(2**63 - 2, (CP.root,) * 63, note, bytes(EXTRA_BYTES_MAX))
    assert parse_tlog_proof(proof.to_bytes()) == proof


def test_a_file_too_large_is_not_read() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_tlog_proof(bytes(TLOG_PROOF_BYTES_MAX + 1))
    assert caught.value.code == "too-large"


HASH_LINE = encode_base64(PROOF.hashes[0]).encode()
MALFORMED = {
    "nothing": b"",
    "only a note": SHORT_NOTE.to_bytes(),
    "another version": RAW.replace(b"@v1", b"@v2"),
    "space after the format": RAW.replace(b"@v1", b"@v1 "),
    "carriage returns": RAW.replace(b"\n", b"\r\n"),
    "empty line first": b"\n" + RAW,
    "no index": RAW.replace(b"index 3\n", b""),
    "index twice": RAW.replace(b"index 3\n", b"index 3\nindex 3\n"),
    "index before extra": RAW.replace(b"index 3\n", b"").replace(b"extra ", b"index 3\nextra "),
    "extra twice": RAW.replace(b"extra ", b"extra AAAA\nextra "),
    "extra without a space": RAW.replace(b"extra ", b"extra"),
    "extra in upper case": RAW.replace(b"extra ", b"Extra "),
    "extra with two spaces": RAW.replace(b"extra ", b"extra  "),
    "extra not base64": RAW.replace(b"extra ", b"extra !"),
    "extra without padding": RAW.replace(encode_base64(RECORDS[3]).encode(), b"QQ"),
    "extra with bits behind": RAW.replace(encode_base64(RECORDS[3]).encode(), b"QR=="),
    "extra too long": RAW.replace(
        encode_base64(RECORDS[3]).encode(),
        encode_base64(bytes(EXTRA_BYTES_MAX + 1)).encode(),
    ),
    "leading zero": RAW.replace(b"index 3", b"index 03"),
    "negative": RAW.replace(b"index 3", b"index -3"),
    "no number": RAW.replace(b"index 3", b"index "),
    "two spaces": RAW.replace(b"index 3", b"index  3"),
    "digit of another script": RAW.replace(b"index 3", "index \N{ARABIC-INDIC DIGIT THREE}".encode()),
    "beyond the log": RAW.replace(b"index 3", b"index 11"),
    "index of 2^63": RAW.replace(b"index 3", b"index 9223372036854775808"),
    "hash too short": RAW.replace(HASH_LINE, encode_base64(bytes(31)).encode()),
    "hash too long": RAW.replace(HASH_LINE, encode_base64(bytes(33)).encode()),
    "hash not base64": RAW.replace(HASH_LINE, b"?" * 44),
    "space after a hash": RAW.replace(HASH_LINE, HASH_LINE + b" "),
    "too many hashes": RAW.replace(HASH_LINE, b"\n".join([HASH_LINE] * 61)),
    "no empty line": RAW.replace(b"\n\nhx/1", b"\nhx/1"),
    "two empty lines": RAW.replace(b"\n\nhx/1", b"\n\n\nhx/1"),
    "no checkpoint": RAW.split(b"\n\n")[0] + b"\n\n",
    "no signature": RAW.rsplit(b"\n\n", 1)[0] + b"\n",
    "something after the note": RAW + b"more\n",
    "a note that is no checkpoint": RAW.replace(b"\n11\n", b"\neleven\n"),
    "extension line": RAW.replace(b"=\n\n\xe2\x80\x94", b"=\nmore\n\n\xe2\x80\x94"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    assert MALFORMED[name] != RAW
    with pytest.raises(ProtocolError) as caught:
        parse_tlog_proof(MALFORMED[name])
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TlogProof(-1, PROOF.hashes, SHORT_NOTE), "index"),
        (lambda: TlogProof(11, PROOF.hashes, SHORT_NOTE), "index"),
        (lambda: TlogProof(0, (), Note(f"o\n0\n{encode_base64(EMPTY_ROOT)}\n", SHORT_NOTE.signatures)), "index"),
        (lambda: TlogProof(3, (CP.root,) * 64, SHORT_NOTE), "hashes"),
        (lambda: TlogProof(3, (b"short",), SHORT_NOTE), "hashes"),
        (lambda: TlogProof(3, PROOF.hashes, SHORT_NOTE, bytes(EXTRA_BYTES_MAX + 1)), "extra"),
        (lambda: TlogProof(3, PROOF.hashes, Note("no checkpoint\n", SHORT_NOTE.signatures)), "checkpoint"),
    ],
)
def test_what_could_not_be_written_cannot_exist(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        make()
    assert (caught.value.code, caught.value.field) == ("malformed", field)
