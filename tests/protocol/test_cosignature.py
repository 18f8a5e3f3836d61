"""Signatures on checkpoints: what exactly is signed, that every key must sign, and what a liar may try."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import TIMESTAMP_S_MAX, cosign, sign_checkpoint, verify_checkpoint, verify_cosignature
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, PublicKey, SignatureInvalid, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import NOTE_SIGNATURES_MAX, Note, NoteSignature, key_id, parse_note

STREAM = StreamId("fr.hotline.example", "nl.hotline.example", 1)
LEAVES = [leaf_hash(b"record %d" % number) for number in range(5)]
CP = Checkpoint(STREAM.origin(), 5, Edge.EMPTY.extend(LEAVES).root())
NAME = STREAM.receipt_name()
NOW_S = 1_795_363_200


def pair(number: int) -> list[SigningKey]:
    seed = bytes([number]) * 32
    return [SigningKey(Algorithm.ED25519, seed), SigningKey(Algorithm.ML_DSA_44, seed)]


SENDER, RECEIVER, STRANGER = pair(1), pair(2), pair(3)


def public(keys: list[SigningKey]) -> list[PublicKey]:
    return [key.public() for key in keys]


SENT = sign_checkpoint(CP, SENDER, now_s=NOW_S)
RECEIPT = cosign(SENT, CP, NAME, RECEIVER, now_s=NOW_S + 9)


def with_line(note: Note, at: int, signature: bytes) -> Note:
    lines = list(note.signatures)
    lines[at] = NoteSignature(lines[at].name, lines[at].key_id, signature)
    return Note(note.text, tuple(lines))


def verify_side(note: Note, at: int) -> None:
    """Verify the side that line `at` of RECEIPT belongs to: the first two are the sender's."""
    if at < len(SENDER):
        verify_checkpoint(note, CP, public(SENDER))
    else:
        verify_cosignature(note, CP, NAME, public(RECEIVER))


def test_round_trip() -> None:
    received = parse_note(SENT.to_bytes())
    cp = Checkpoint.parse(received.text)
    assert cp == CP
    verify_checkpoint(received, cp, public(SENDER))
    receipt = parse_note(cosign(received, cp, NAME, RECEIVER, now_s=NOW_S + 9).to_bytes())
    assert verify_cosignature(receipt, cp, NAME, public(RECEIVER)) == NOW_S + 9
    # The receipt is still the sender's checkpoint: one file proves both sides.
    verify_checkpoint(receipt, cp, public(SENDER))
    assert receipt.signatures[:2] == SENT.signatures


def test_names_and_ids_of_the_lines() -> None:
    assert [one.name for one in RECEIPT.signatures] == [CP.origin, CP.origin, NAME, NAME]
    expected = [
        key_id(CP.origin, 0x01, SENDER[0].public().raw),
        key_id(CP.origin, 0x06, SENDER[1].public().raw),
        key_id(NAME, 0x04, RECEIVER[0].public().raw),
        key_id(NAME, 0x06, RECEIVER[1].public().raw),
    ]
    assert [one.key_id for one in RECEIPT.signatures] == expected
    assert [len(one.signature) for one in RECEIPT.signatures] == [64, 8 + 2420, 8 + 64, 8 + 2420]


def test_what_the_sender_signs() -> None:
    plain, stamped = (one.signature for one in SENT.signatures)
    SENDER[0].public().verify(plain, CP.text().encode())
    assert stamped[:8] == struct.pack(">Q", NOW_S)
    SENDER[1].public().verify(stamped[8:], cosigned_message(CP.origin, NOW_S, CP))


def test_what_the_receiver_signs() -> None:
    ed25519, ml_dsa = (one.signature for one in RECEIPT.signatures[2:])
    assert ed25519[:8] == ml_dsa[:8] == struct.pack(">Q", NOW_S + 9)
    # tlog-cosignature, "Ed25519 signed message".
    root = CP.text().split("\n")[2]
    message = f"cosignature/v1\ntime 1795363209\nhx/1/fr.hotline.example/nl.hotline.example/1\n5\n{root}\n"
    RECEIVER[0].public().verify(ed25519[8:], message.encode())
    RECEIVER[1].public().verify(ml_dsa[8:], cosigned_message(NAME, NOW_S + 9, CP))


def cosigned_message(name: str, time_s: int, cp: Checkpoint) -> bytes:
    """tlog-cosignature, "ML-DSA-44 signed message", field by field."""
    fields = [
        b"subtree/v1\n\0",
        bytes([len(name.encode())]),
        name.encode(),
        time_s.to_bytes(8, "big"),
        bytes([len(cp.origin.encode())]),
        cp.origin.encode(),
        (0).to_bytes(8, "big"),
        cp.size.to_bytes(8, "big"),
        cp.root,
    ]
    assert len(fields[0]) == 12
    return b"".join(fields)


@pytest.mark.parametrize("missing", [0, 1])
def test_every_key_must_have_signed(missing: int) -> None:
    lines = [one for at, one in enumerate(SENT.signatures) if at != missing]
    note = Note(SENT.text, tuple(lines))
    verify_checkpoint(note, CP, [public(SENDER)[1 - missing]])
    with pytest.raises(SignatureInvalid, match="no line"):
        verify_checkpoint(note, CP, public(SENDER))
    half = cosign(SENT, CP, NAME, [RECEIVER[1 - missing]], now_s=NOW_S)
    assert verify_cosignature(half, CP, NAME, [public(RECEIVER)[1 - missing]]) == NOW_S
    with pytest.raises(SignatureInvalid, match="no line"):
        verify_cosignature(half, CP, NAME, public(RECEIVER))


def test_no_key_proves_nothing() -> None:
    with pytest.raises(SignatureInvalid, match="no key"):
        verify_checkpoint(SENT, CP, [])
    with pytest.raises(SignatureInvalid, match="no key"):
        verify_cosignature(RECEIPT, CP, NAME, [])
    with pytest.raises(ValueError, match="no key"):
        sign_checkpoint(CP, [], now_s=NOW_S)
    with pytest.raises(ValueError, match="no key"):
        cosign(SENT, CP, NAME, [], now_s=NOW_S)


def test_two_keys_of_one_algorithm_must_both_have_signed() -> None:
    keys = [SENDER[0], STRANGER[0], SENDER[1]]
    verify_checkpoint(sign_checkpoint(CP, keys, now_s=NOW_S), CP, public(keys))
    with pytest.raises(SignatureInvalid, match="no line"):
        verify_checkpoint(SENT, CP, public(keys))


def test_lines_of_unknown_keys_are_ignored() -> None:
    noise = (
        NoteSignature(CP.origin, b"\x00\x00\x00\x00", b"junk"),
        NoteSignature("elsewhere.example", SENT.signatures[0].key_id, b"junk"),
        NoteSignature("elsewhere.example", SENT.signatures[1].key_id, b"junk"),
    )
    verify_checkpoint(Note(SENT.text, noise + SENT.signatures + noise), CP, public(SENDER))


def test_a_line_under_another_name_does_not_count() -> None:
    lines = tuple(NoteSignature("elsewhere.example", one.key_id, one.signature) for one in SENT.signatures)
    with pytest.raises(SignatureInvalid, match="no line"):
        verify_checkpoint(Note(SENT.text, lines), CP, public(SENDER))
    with pytest.raises(SignatureInvalid, match="no line"):
        verify_cosignature(RECEIPT, CP, "elsewhere.example/receipt", public(RECEIVER))


@pytest.mark.parametrize("at", range(4))
def test_a_second_line_of_one_key_rejects_the_note(at: int) -> None:
    doubled = Note(RECEIPT.text, (*RECEIPT.signatures, RECEIPT.signatures[at]))
    with pytest.raises(SignatureInvalid, match="more than one"):
        verify_side(doubled, at)


@given(data=st.data(), at=st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_one_changed_bit_in_a_line_is_noticed(data: st.DataObject, at: int) -> None:
    # Timestamps included: they are under the signature, but for the one that an Ed25519 note signature has not.
    signature = RECEIPT.signatures[at].signature
    bit = data.draw(st.integers(0, len(signature) * 8 - 1))
    changed = (int.from_bytes(signature, "big") ^ (1 << bit)).to_bytes(len(signature), "big")
    note = with_line(RECEIPT, at, changed)
    with pytest.raises(SignatureInvalid):
        verify_side(note, at)


@pytest.mark.parametrize(
    "other",
    [
        Checkpoint(STREAM.origin(), 6, CP.root),
        Checkpoint(STREAM.origin(), 5, LEAVES[0]),
        Checkpoint(StreamId(STREAM.iss, STREAM.aud, 2).origin(), 5, CP.root),
        Checkpoint(StreamId(STREAM.aud, STREAM.iss, 1).origin(), 5, CP.root),
    ],
    ids=["size", "root", "epoch", "direction"],
)
def test_signatures_do_not_move_to_another_checkpoint(other: Checkpoint) -> None:
    # The note is what it was, but the caller means another checkpoint.
    with pytest.raises(SignatureInvalid, match="another checkpoint"):
        verify_checkpoint(SENT, other, public(SENDER))
    with pytest.raises(SignatureInvalid, match="another checkpoint"):
        verify_cosignature(RECEIPT, other, NAME, public(RECEIVER))
    # The lines are carried over to the other checkpoint, with name and id made to fit.
    names = (other.origin, other.origin, NAME, NAME)
    types = (0x01, 0x06, 0x04, 0x06)
    keys = public(SENDER) + public(RECEIVER)
    lines = tuple(
        NoteSignature(name, key_id(name, sig_type, key.raw), one.signature)
        for name, sig_type, key, one in zip(names, types, keys, RECEIPT.signatures, strict=True)
    )
    moved = Note(other.text(), lines)
    for key in public(SENDER):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            verify_checkpoint(moved, other, [key])
    for key in public(RECEIVER):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            verify_cosignature(moved, other, NAME, [key])


def test_a_post_quantum_receipt_does_not_move_to_another_name() -> None:
    # A receipt must never become a witness's word: the ML-DSA-44 message holds the cosigner's name.
    line = RECEIPT.signatures[3]
    witness = "nl.hotline.example/witness"
    moved = NoteSignature(witness, key_id(witness, 0x06, RECEIVER[1].public().raw), line.signature)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        verify_cosignature(Note(RECEIPT.text, (moved,)), CP, witness, [RECEIVER[1].public()])


def test_a_sender_s_line_is_no_receipt_and_a_receipt_no_sender_s_line() -> None:
    with pytest.raises(SignatureInvalid):
        verify_cosignature(SENT, CP, CP.origin, [SENDER[0].public()])
    plain = cosign(SENT, CP, CP.origin, [RECEIVER[0]], now_s=NOW_S)
    with pytest.raises(SignatureInvalid):
        verify_checkpoint(plain, CP, [RECEIVER[0].public()])


def test_the_two_times_of_a_receipt_must_agree() -> None:
    early = cosign(SENT, CP, NAME, [RECEIVER[0]], now_s=NOW_S)
    both = cosign(early, CP, NAME, [RECEIVER[1]], now_s=NOW_S + 1)
    for key, time_s in zip(public(RECEIVER), (NOW_S, NOW_S + 1), strict=True):
        assert verify_cosignature(both, CP, NAME, [key]) == time_s
    with pytest.raises(SignatureInvalid, match="differ in their time"):
        verify_cosignature(both, CP, NAME, public(RECEIVER))


def test_a_receipt_says_its_time_and_a_sender_need_not() -> None:
    verify_checkpoint(sign_checkpoint(CP, SENDER, now_s=0), CP, public(SENDER))
    with pytest.raises(ValueError, match="time"):
        cosign(SENT, CP, NAME, RECEIVER, now_s=0)
    silent = RECEIVER[1].sign(cosigned_message(NAME, 0, CP))
    line = NoteSignature(NAME, key_id(NAME, 0x06, RECEIVER[1].public().raw), bytes(8) + silent)
    with pytest.raises(SignatureInvalid, match="does not say its time"):
        verify_cosignature(Note(CP.text(), (line,)), CP, NAME, [RECEIVER[1].public()])


def test_times_beyond_63_bits() -> None:
    late = cosign(SENT, CP, NAME, RECEIVER, now_s=TIMESTAMP_S_MAX)
    assert verify_cosignature(late, CP, NAME, public(RECEIVER)) == TIMESTAMP_S_MAX
    for wrong in (-1, TIMESTAMP_S_MAX + 1):
        with pytest.raises(ValueError, match="time"):
            sign_checkpoint(CP, SENDER, now_s=wrong)
        with pytest.raises(ValueError, match="time"):
            cosign(SENT, CP, NAME, RECEIVER, now_s=wrong)
    over = 2**63
    signature = RECEIVER[1].sign(cosigned_message(NAME, over, CP))
    line = NoteSignature(NAME, key_id(NAME, 0x06, RECEIVER[1].public().raw), over.to_bytes(8, "big") + signature)
    with pytest.raises(SignatureInvalid, match=r"2\^63"):
        verify_cosignature(Note(CP.text(), (line,)), CP, NAME, [RECEIVER[1].public()])


@pytest.mark.parametrize("length", [1, 7, 8, 71, 73])
def test_a_line_too_short_or_too_long_is_invalid(length: int) -> None:
    note = with_line(RECEIPT, 2, (RECEIPT.signatures[2].signature * 2)[:length])
    with pytest.raises(SignatureInvalid):
        verify_cosignature(note, CP, NAME, public(RECEIVER))


def test_cosigning_another_checkpoint_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="not this checkpoint"):
        cosign(SENT, Checkpoint(CP.origin, 6, CP.root), NAME, RECEIVER, now_s=NOW_S)


def test_a_sender_cannot_spoil_the_receipt_with_lines_in_our_name() -> None:
    # Key ids are public, so a sender can put lines under the receiver's name into its own note.
    fakes = tuple(NoteSignature(one.name, one.key_id, b"fake") for one in RECEIPT.signatures[2:])
    spoiled = Note(SENT.text, fakes + SENT.signatures)
    receipt = cosign(spoiled, CP, NAME, RECEIVER, now_s=NOW_S)
    assert verify_cosignature(receipt, CP, NAME, public(RECEIVER)) == NOW_S
    verify_checkpoint(receipt, CP, public(SENDER))
    assert len(receipt.signatures) == 4


def test_a_note_full_of_lines_leaves_no_room() -> None:
    filler = NoteSignature("elsewhere.example", b"\x00\x00\x00\x00", b"x")
    room = Note(SENT.text, SENT.signatures + (filler,) * (NOTE_SIGNATURES_MAX - 4))
    assert len(cosign(room, CP, NAME, RECEIVER, now_s=NOW_S).signatures) == NOTE_SIGNATURES_MAX
    full = Note(SENT.text, (*room.signatures, filler))
    with pytest.raises(ProtocolError) as caught:
        cosign(full, CP, NAME, RECEIVER, now_s=NOW_S)
    assert caught.value.code == "malformed"


def test_an_origin_that_is_no_key_name_cannot_be_signed() -> None:
    for origin in ("two words", "a+b"):
        with pytest.raises(ProtocolError) as caught:
            sign_checkpoint(Checkpoint(origin, 5, CP.root), SENDER, now_s=NOW_S)
        assert caught.value.field == "name"


@given(size=st.integers(1, 2**63 - 1), root=st.binary(min_size=32, max_size=32), now_s=st.integers(1, TIMESTAMP_S_MAX))
@settings(max_examples=20, deadline=None)
def test_any_checkpoint_is_signed_and_receipted(size: int, root: bytes, now_s: int) -> None:
    cp = Checkpoint(STREAM.origin(), size, root)
    note = parse_note(sign_checkpoint(cp, SENDER, now_s=now_s).to_bytes())
    verify_checkpoint(note, Checkpoint.parse(note.text), public(SENDER))
    receipt = parse_note(cosign(note, cp, NAME, RECEIVER, now_s=now_s).to_bytes())
    assert verify_cosignature(receipt, cp, NAME, public(RECEIVER)) == now_s
    with pytest.raises(SignatureInvalid):
        verify_cosignature(receipt, cp, NAME, public(STRANGER))
