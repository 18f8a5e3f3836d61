"""Evidence: what one proof file shows with a directory alone, and at which step each forgery fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, sign_checkpoint
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.evidence import EvidenceInvalid, make_proof, verify_evidence
from protocol.keys import KeyUse, SigningKey
from protocol.merkle import Edge, inclusion_proof, leaf_hash
from protocol.note import Note, NoteSignature
from protocol.record import OutcomeBody, encode_outcome
from protocol.timestamps import format_time
from protocol.tlogproof import TlogProof, parse_tlog_proof
from tests.protocol.sample_network import (
    BEFORE,
    CASE,
    FR,
    HANDLING,
    ITEM,
    NL,
    NOW,
    RECORD_ID,
    URL,
    directory_of,
    document,
    key_member,
    report,
    signing_keys,
)

RECORD = report()
INDEX = 5
RECEIVED = NOW.replace(microsecond=0) + timedelta(seconds=9)
DIRECTORY = directory_of(document())


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A proof in which one thing may be otherwise; by default all is as it should be."""

    record: bytes = RECORD
    stream: str = StreamId(FR, NL, 3).origin()
    stream_keys: Sequence[SigningKey] = tuple(signing_keys(FR, KeyUse.STREAM))
    receipt_keys: Sequence[SigningKey] = tuple(signing_keys(NL, KeyUse.RECEIPT))
    receipt_name: str = f"{NL}/receipt"
    received_s: int = int(RECEIVED.timestamp())
    proven_index: int = INDEX

    def note(self) -> Note:
        leaves = self.leaves()
        checkpoint = Checkpoint(self.stream, len(leaves), Edge.EMPTY.extend(leaves).root())
        sent = sign_checkpoint(checkpoint, self.stream_keys, now_s=int(NOW.timestamp()))
        return cosign(sent, checkpoint, self.receipt_name, self.receipt_keys, now_s=self.received_s)

    def leaves(self) -> list[bytes]:
        leaves = [leaf_hash(b"record %d" % number) for number in range(11)]
        leaves[INDEX] = leaf_hash(self.record)
        return leaves

    def proof(self) -> bytes:
        path = inclusion_proof(self.proven_index, self.leaves())
        return make_proof(self.record, self.proven_index, path, self.note().to_bytes())


GOOD = Forgery().proof()


def failed_step(raw: bytes, directory: Directory = DIRECTORY) -> int:
    with pytest.raises(EvidenceInvalid) as caught:
        verify_evidence(raw, directory)
    assert URL not in str(caught.value)
    assert str(caught.value).startswith(f"step {caught.value.step}: ")
    return caught.value.step


def test_good_proof_says_who_signed_what_and_when() -> None:
    finding = verify_evidence(GOOD, DIRECTORY)
    assert (finding.record_id, finding.type, finding.case, finding.item) == (RECORD_ID, "report", CASE, ITEM)
    assert (finding.iss, finding.aud, finding.epoch, finding.index, finding.tree_size) == (FR, NL, 3, INDEX, 11)
    assert (finding.iat, finding.received_at) == (NOW, RECEIVED)
    assert finding.sender_algorithms == finding.receiver_algorithms == ("ed25519", "ml-dsa-44")
    assert (finding.directory_version, finding.directory_issued_at, finding.late_doubts) == (7, NOW, ())


def test_summary_tells_what_the_record_says_and_no_url() -> None:
    finding = verify_evidence(GOOD, DIRECTORY)
    said = dict(finding.summary)
    assert (said["kind"], said["channel"], said["classification"]) == ("media", "public", "national")
    assert (said["hosting country"], said["assigned country"], said["confidence"]) == ("NL", "NL", "90 of 100")
    everything = repr(finding) + "".join(finding.words())
    for private in (URL, "host.example", "board.example", "FR-2026-17", "192.0.2.10", "analyst-7"):
        assert private not in everything


def test_words_say_what_is_proven_and_what_is_not() -> None:
    words = verify_evidence(GOOD, DIRECTORY).words()
    text = "\n".join(words)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in words)
    assert f"from {FR} to {NL}" in text
    assert f"{FR} signed it (ed25519 and ml-dsa-44), as index 5" in text
    assert f"{NL} signed (ed25519 and ml-dsa-44), at {format_time(RECEIVED)}" in text
    assert "classification national" in text
    assert sum(sentence.startswith("Not proven: ") for sentence in words) == 4
    assert "clocks" not in text


def test_record_younger_than_its_receipt_is_remarked() -> None:
    record = report(iat=RECEIVED + timedelta(seconds=301))
    assert "clocks" in "".join(verify_evidence(Forgery(record=record).proof(), DIRECTORY).words())


def test_outcome_and_unknown_records_are_proven_too() -> None:
    body = OutcomeBody(stream=f"hx/1/{NL}/{FR}/1", accepted=((0, 4),), kept=(), refused=())
    record = encode_outcome(body, record_id=RECORD_ID, iss=FR, aud=NL, iat=NOW, handling=HANDLING)
    finding = verify_evidence(Forgery(record=record).proof(), DIRECTORY)
    assert dict(finding.summary) == {
        "stream": f"hx/1/{NL}/{FR}/1",
        "ranges accepted": "1",
        "ranges kept": "0",
        "records refused": "0",
    }
    unknown = RECORD.replace(b'"type":"report"', b'"type":"note"')
    finding = verify_evidence(Forgery(record=unknown).proof(), DIRECTORY)
    assert (finding.type, finding.summary) == ("note", ())
    assert "not read here" in "".join(finding.words())


def test_first_and_only_record_of_a_stream_is_proven() -> None:
    checkpoint = Checkpoint(StreamId(FR, NL, 1).origin(), 1, leaf_hash(RECORD))
    sent = sign_checkpoint(checkpoint, signing_keys(FR, KeyUse.STREAM), now_s=1)
    receipt = cosign(sent, checkpoint, f"{NL}/receipt", signing_keys(NL, KeyUse.RECEIPT), now_s=int(NOW.timestamp()))
    assert verify_evidence(make_proof(RECORD, 0, (), receipt.to_bytes()), DIRECTORY).tree_size == 1


def proof_of(changed: Forgery, **parts: Any) -> bytes:
    good = parse_tlog_proof(changed.proof())
    members: dict[str, Any] = {"index": good.index, "hashes": good.hashes, "note": good.note, "extra": good.extra}
    return TlogProof(**{**members, **parts}).to_bytes()


def without_lines_of(name: str, kept: int = 0) -> Note:
    note = Forgery().note()
    lines = [one for one in note.signatures if one.name == name]
    return Note(note.text, tuple(one for one in note.signatures if one not in lines[kept:]))


def damaged(number: int) -> Note:
    note = Forgery().note()
    lines = list(note.signatures)
    line = lines[number]
    # The last byte: a timestamp, where there is one, stands at the front.
    signature = line.signature[:-1] + bytes([line.signature[-1] ^ 1])
    lines[number] = NoteSignature(line.name, line.key_id, signature)
    return Note(note.text, tuple(lines))


OTHER_RECORD = report(record_id=RECORD_ID.replace("1", "2"))
STRANGE_STREAM = tuple(signing_keys("de.hotline.example", KeyUse.STREAM))
STRANGE_RECEIPT = tuple(signing_keys("de.hotline.example", KeyUse.RECEIPT))

FORGERIES: list[tuple[str, bytes, int]] = [
    ("no proof", b"", 1),
    ("cut", GOOD[:-1], 1),
    ("another format", GOOD.replace(b"tlog-proof@v1", b"tlog-proof@v2"), 1),
    ("too long", GOOD + b" " * 1_000_000, 1),
    ("no record", proof_of(Forgery(), extra=None), 1),
    ("record is no JSON", Forgery(record=b"{").proof(), 2),
    ("record says a member twice", Forgery(record=RECORD[:-1] + b',"v":1}').proof(), 2),
    ("record breaks its schema", Forgery(record=RECORD.replace(b'"confidence":90', b'"confidence":101')).proof(), 2),
    ("another log", Forgery(stream="log.example/1").proof(), 3),
    ("epoch zero", Forgery(stream=f"hx/1/{FR}/{NL}/0").proof(), 3),
    ("stream of another sender", Forgery(stream=StreamId("de.hotline.example", NL, 3).origin()).proof(), 4),
    ("stream to another receiver", Forgery(stream=StreamId(FR, "de.hotline.example", 3).origin()).proof(), 4),
    ("stream in the other direction", Forgery(stream=StreamId(NL, FR, 3).origin()).proof(), 4),
    ("another record", proof_of(Forgery(), extra=OTHER_RECORD), 5),
    ("record with a space more", proof_of(Forgery(), extra=RECORD + b" "), 5),
    ("another index", proof_of(Forgery(), index=INDEX + 1), 5),
    ("path of another record", Forgery(proven_index=INDEX + 1).proof(), 5),
    ("no path", proof_of(Forgery(), hashes=()), 5),
    ("no receipt", proof_of(Forgery(), note=without_lines_of(f"{NL}/receipt")), 6),
    ("half a receipt", proof_of(Forgery(), note=without_lines_of(f"{NL}/receipt", kept=1)), 6),
    ("receipt with keys of another node", Forgery(receipt_keys=STRANGE_RECEIPT).proof(), 6),
    ("receipt by the sender", Forgery(receipt_keys=tuple(signing_keys(FR, KeyUse.RECEIPT))).proof(), 6),
    ("receipt with stream keys", Forgery(receipt_keys=tuple(signing_keys(NL, KeyUse.STREAM))).proof(), 6),
    ("receipt under another name", Forgery(receipt_name=f"{NL}/witness").proof(), 6),
    ("receipt before its keys counted", Forgery(received_s=int(BEFORE.timestamp()) - 1).proof(), 6),
    ("receipt after the last day there is", Forgery(received_s=2**62).proof(), 6),
    ("damaged ed25519 receipt", proof_of(Forgery(), note=damaged(2)), 6),
    ("damaged ml-dsa-44 receipt", proof_of(Forgery(), note=damaged(3)), 6),
    ("stream keys of another node", Forgery(stream_keys=STRANGE_STREAM).proof(), 7),
    ("one of two stream keys", Forgery(stream_keys=signing_keys(FR, KeyUse.STREAM)[:1]).proof(), 7),
    ("stream signed with receipt keys", Forgery(stream_keys=signing_keys(FR, KeyUse.RECEIPT)).proof(), 7),
    ("damaged ed25519 signature", proof_of(Forgery(), note=damaged(0)), 7),
    ("damaged ml-dsa-44 signature", proof_of(Forgery(), note=damaged(1)), 7),
]


@pytest.mark.parametrize(("raw", "step"), [one[1:] for one in FORGERIES], ids=[one[0] for one in FORGERIES])
def test_forgery_fails_at_its_step(raw: bytes, step: int) -> None:
    assert failed_step(raw) == step


def test_a_receipt_line_of_no_known_key_does_not_hide_the_receipt() -> None:
    note = Forgery().note()
    strange = NoteSignature(f"{NL}/receipt", b"\x00\x00\x00\x01", b"short")
    earlier = NoteSignature(f"{NL}/receipt", b"\x00\x00\x00\x02", int(NOW.timestamp()).to_bytes(8, "big") + bytes(64))
    noisy = Note(note.text, (strange, earlier, *note.signatures))
    assert verify_evidence(proof_of(Forgery(), note=noisy), DIRECTORY).received_at == RECEIVED


# Keys that changed since.


def with_changed_keys(node: int, use: KeyUse, numbers: Sequence[int], **changes: str) -> Directory:
    """Return the directory after the keys of a use (by their number) were changed and replaced."""
    members = document()
    keys = members["nodes"][node]["keys"]
    listed = [key for key in keys if key["use"] == use.value]
    for number in numbers:
        listed[number].update(changes)
        end = changes.get("retired_at", changes.get("compromised_since", ""))
        fresh = signing_keys(members["nodes"][node]["id"], use, 1)[number]
        keys.append(key_member(fresh, use, not_before=end))
    return directory_of(members)


LATER = format_time(RECEIVED + timedelta(seconds=1))
AT_ONCE = format_time(RECEIVED)


def test_keys_retired_after_the_receipt_still_prove() -> None:
    for node, use in ((0, KeyUse.STREAM), (1, KeyUse.RECEIPT)):
        directory = with_changed_keys(node, use, (0, 1), state="retired", retired_at=LATER)
        finding = verify_evidence(GOOD, directory)
        assert finding.late_doubts == ()


@pytest.mark.parametrize(("node", "use", "step"), [(0, KeyUse.STREAM, 7), (1, KeyUse.RECEIPT, 6)])
def test_keys_retired_before_the_receipt_do_not_prove(node: int, use: KeyUse, step: int) -> None:
    assert failed_step(GOOD, with_changed_keys(node, use, (0,), state="retired", retired_at=AT_ONCE)) == step


def test_stream_key_compromised_after_the_receipt_still_proves_and_is_told() -> None:
    directory = with_changed_keys(0, KeyUse.STREAM, (0,), state="compromised", compromised_since=LATER)
    finding = verify_evidence(GOOD, directory)
    assert finding.late_doubts == (f"the ed25519 stream key of {FR}, since {LATER}",)
    assert f"since {LATER}" in "".join(finding.words())


def test_stream_key_compromised_before_the_receipt_proves_nothing() -> None:
    directory = with_changed_keys(0, KeyUse.STREAM, (0, 1), state="compromised", compromised_since=AT_ONCE)
    assert failed_step(GOOD, directory) == 7


@pytest.mark.parametrize("numbers", [(0,), (1,), (0, 1)])
def test_compromised_receipt_key_proves_nothing_whatever_time_it_states(numbers: Sequence[int]) -> None:
    directory = with_changed_keys(1, KeyUse.RECEIPT, numbers, state="compromised", compromised_since=LATER)
    with pytest.raises(EvidenceInvalid, match="compromised") as caught:
        verify_evidence(GOOD, directory)
    assert caught.value.step == 6


def test_nodes_that_are_not_listed_prove_nothing() -> None:
    members = document()
    members["nodes"].pop(1)
    members["routing"]["mandated"] = []
    assert failed_step(GOOD, directory_of(members)) == 6
    members = document()
    members["nodes"].pop(0)
    assert failed_step(GOOD, directory_of(members)) == 7


# Making a proof.


def test_proof_carries_record_and_receipt_byte_for_byte() -> None:
    receipt = Forgery().note().to_bytes()
    proof = parse_tlog_proof(make_proof(RECORD, INDEX, inclusion_proof(INDEX, Forgery().leaves()), receipt))
    assert (proof.extra, proof.note.to_bytes()) == (RECORD, receipt)


def test_proof_of_what_is_no_receipt_is_not_made() -> None:
    with pytest.raises(ProtocolError):
        make_proof(RECORD, 0, (), b"no note")
    with pytest.raises(ProtocolError):
        make_proof(RECORD, 11, (), Forgery().note().to_bytes())
