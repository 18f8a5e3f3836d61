"""What the desk is told and what it says: signed by both algorithms, and without room for a URL."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, sign_checkpoint
from protocol.desk import (
    Equivocation,
    Ruling,
    encode,
    log_name,
    open_ruling,
    parse_equivocation,
    parse_statement,
    read_equivocation,
    read_ruling,
    read_statement,
    sign_ruling,
)
from protocol.directory import Directory
from protocol.epoch import encode_epoch
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note, NoteSignature
from protocol.record import Handling
from protocol.steps import RULING_BYTES_MAX
from protocol.timestamps import format_time
from protocol.tlogproof import TlogProof, parse_tlog_proof
from tests.protocol.sample_network import (
    CASE,
    DESK,
    FR,
    ITEM,
    NL,
    NOW,
    desk_member,
    directory_of,
    document,
    key_member,
    signing_key,
    signing_keys,
)

DISPUTE = "0193a5f0-0000-7000-8000-000000000009"
RULING = Ruling(desk=DESK, dispute=DISPUTE, case=CASE, item=ITEM, custodian=NL, country="NL", at=NOW)
KEYS = [signing_key(DESK, KeyUse.DESK, algorithm) for algorithm in Algorithm]
STREAM = StreamId(FR, NL, 1)
REPORTED = "https://gallery.host.example/view?id=7"


def network(**keys: Any) -> Directory:
    """Return a directory with a desk; `keys` change its key of that algorithm."""
    desk = desk_member()
    desk["keys"] = [
        {**key, **keys.get(key["algorithm"].replace("-", "_"), {})} if key["use"] == "desk" else key
        for key in desk["keys"]
    ]
    return directory_of({**document(), "routing": {"mandated": [], "desk": desk}})


def refusal(raw: bytes, directory: Directory) -> str:
    with pytest.raises(ProtocolError) as caught:
        open_ruling(raw, directory)
    return caught.value.code


def test_a_ruling_is_read_as_it_was_signed() -> None:
    signed = sign_ruling(RULING, KEYS)
    assert len(signed) < RULING_BYTES_MAX
    assert open_ruling(signed, network()) == read_ruling(signed) == RULING
    assert parse_tlog_proof(signed).checkpoint().origin == log_name(DESK, DISPUTE)


def test_the_longest_names_leave_room() -> None:
    longest = replace_in(RULING, desk="d" * 100, custodian="c" * 100)
    assert len(sign_ruling(longest, KEYS)) < RULING_BYTES_MAX


def test_a_ruling_of_a_later_version_is_followed_and_keeps_its_bytes() -> None:
    """1.x may add optional members (PROTOCOL section 12); whoever is not the desk still cannot change one."""
    said = json.loads(parse_tlog_proof(sign_ruling(RULING, KEYS)).extra or b"")
    raw = json.dumps({**said, "later": {"why": [1, "évidence"]}}, ensure_ascii=False).encode()
    root = Edge.EMPTY.extend([leaf_hash(raw)]).root()
    note = sign_checkpoint(Checkpoint(log_name(DESK, RULING.dispute), 1, root), KEYS, now_s=int(NOW.timestamp()))
    signed = TlogProof(0, (), note, raw).to_bytes()
    assert open_ruling(signed, network()) == read_ruling(signed) == RULING
    assert parse_tlog_proof(signed).extra == raw
    changed = TlogProof(0, (), note, raw.replace(b"later", b"other")).to_bytes()
    assert refusal(changed, network()) == "handling-violation"
    newer = TlogProof(0, (), note, json.dumps({**said, "v": 2}).encode()).to_bytes()
    assert refusal(newer, network()) == "schema-invalid"
    # Who signed it reads it.
    assert read_ruling(newer).custodian == RULING.custodian


def replace_in(ruling: Ruling, **changes: Any) -> Ruling:
    return msgspec.structs.replace(ruling, **changes)


@pytest.mark.parametrize("missing", [0, 1])
def test_each_algorithm_has_to_sign(missing: int) -> None:
    assert refusal(sign_ruling(RULING, [KEYS[1 - missing]]), network()) == "handling-violation"
    strange = [SigningKey(key.algorithm, bytes(32)) if at == missing else key for at, key in enumerate(KEYS)]
    assert refusal(sign_ruling(RULING, strange), network()) == "handling-violation"


def test_no_stream_key_rules_and_no_other_desk() -> None:
    assert refusal(sign_ruling(RULING, signing_keys(NL, KeyUse.STREAM)), network()) == "handling-violation"
    assert refusal(sign_ruling(replace_in(RULING, desk=FR), KEYS), network()) == "handling-violation"
    assert refusal(sign_ruling(RULING, KEYS), directory_of(document())) == "handling-violation"


def test_the_signature_is_about_this_ruling_of_this_dispute() -> None:
    proof = parse_tlog_proof(sign_ruling(RULING, KEYS))
    other = json.dumps({**json.loads(proof.extra or b""), "custodian": FR}).encode()
    assert refusal(replace(proof, extra=other).to_bytes(), network()) == "handling-violation"
    moved = Checkpoint(log_name(DESK, CASE), 1, proof.checkpoint().root)
    note = sign_checkpoint(moved, KEYS, now_s=1)
    assert refusal(replace(proof, note=note).to_bytes(), network()) == "handling-violation"
    assert refusal(replace(proof, extra=None).to_bytes(), network()) == "malformed"
    assert refusal(b"x" * (RULING_BYTES_MAX + 1), network()) == "too-large"


def test_a_key_counts_in_its_time_and_never_once_it_is_stolen() -> None:
    signed = sign_ruling(RULING, KEYS)
    before, after = (format_time(NOW + sign * timedelta(hours=1)) for sign in (-1, 1))
    successor = SigningKey(Algorithm.ML_DSA_44, bytes(32))

    def retired(at: str) -> Directory:
        desk = desk_member()
        desk["keys"][2] |= {"state": "retired", "retired_at": at}
        desk["keys"].append(key_member(successor, KeyUse.DESK, not_before=at))
        return directory_of({**document(), "routing": {"mandated": [], "desk": desk}})

    assert open_ruling(signed, retired(after)) == RULING
    assert refusal(signed, retired(before)) == "handling-violation"
    desk = desk_member()
    desk["keys"][1] |= {"state": "compromised", "compromised_since": after}
    desk["keys"].append(key_member(SigningKey(Algorithm.ED25519, bytes(32)), KeyUse.DESK, not_before=after))
    stolen = directory_of({**document(), "routing": {"mandated": [], "desk": desk}})
    assert refusal(signed, stolen) == "handling-violation"


STATEMENT: dict[str, Any] = {
    "v": 1,
    "dispute": DISPUTE,
    "case": CASE,
    "item": ITEM,
    "holder": NL,
    "other": FR,
    "code": "same-evidence",
    "received": "0" * 64,
    "trail": [{"node": NL, "country": "NL", "evidence": "1" * 64, "at": format_time(NOW)}],
    "databases": [{"type": "Example-Country", "built": "2026-11-01"}],
    "at": format_time(NOW),
}


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every text, and of a member more in every object."""
    if isinstance(tree, dict):
        inner = [place for name, value in tree.items() for place in _places(value, (*path, name))]
        return [*inner, (*path, "later")]
    if isinstance(tree, list):
        return [place for at, value in enumerate(tree) for place in _places(value, (*path, at))]
    return [path]


@pytest.mark.parametrize("place", _places(STATEMENT), ids=lambda place: ".".join(map(str, place)))
def test_no_part_of_a_dispute_takes_a_url(place: tuple[Any, ...]) -> None:
    assert parse_statement(json.dumps(STATEMENT).encode()).dispute == DISPUTE
    said = json.loads(json.dumps(STATEMENT))
    at = said
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = REPORTED
    with pytest.raises(ProtocolError) as caught:
        parse_statement(json.dumps(said).encode())
    assert REPORTED not in str(caught.value)


def note_of(stream: StreamId, records: list[bytes]) -> Note:
    edge = Edge.EMPTY.extend([leaf_hash(record) for record in records])
    return sign_checkpoint(
        Checkpoint(stream.origin(), edge.size, edge.root()), signing_keys(stream.iss, KeyUse.STREAM), now_s=1
    )


def with_line(note: Note, name: str) -> Note:
    return Note(note.text, (*note.signatures, NoteSignature(name, b"1234", b"signature")))


def test_a_contradiction_takes_no_lines_of_others() -> None:
    directory = network()
    held, offered = note_of(STREAM, [b"1"]), note_of(STREAM, [b"2"])
    checkpoint = Checkpoint.parse(held.text)
    receipt = cosign(held, checkpoint, STREAM.receipt_name(), signing_keys(NL, KeyUse.RECEIPT), now_s=2)
    strange = with_line(receipt, REPORTED)
    said = Equivocation(held=strange.to_bytes().decode(), offered=offered.to_bytes().decode(), seen_at=NOW)
    told = encode(said)
    assert REPORTED.encode() not in told
    kept, shown = parse_equivocation(told, directory)
    assert (shown.stream, shown.proven, kept.held) == (STREAM, True, receipt.to_bytes().decode())
    raw = json.loads(told)
    raw["held"] = strange.to_bytes().decode()
    with pytest.raises(ProtocolError, match="neither the sender's nor the receiver's"):
        parse_equivocation(json.dumps(raw).encode(), directory)


@pytest.mark.parametrize(
    "place", [("later",), ("body", "later"), ("body", "code"), ("handling", "later"), ("handling", "purpose")]
)
def test_the_record_that_ends_an_epoch_says_nothing_else(place: tuple[str, ...]) -> None:
    directory = network()
    ended = note_of(STREAM, [b"1", b"2"])
    record = encode_epoch(
        Checkpoint.parse(note_of(STREAM, [b"1"]).text),
        record_id=CASE,
        iss=FR,
        aud=NL,
        now=datetime(2026, 11, 22, tzinfo=UTC),
        handling=Handling("takedown", NOW),
    )

    def told(raw: bytes) -> bytes:
        later = note_of(StreamId(FR, NL, 2), [raw])
        ending = TlogProof(0, (), later, raw).to_bytes().decode()
        said = Equivocation(
            held=ended.to_bytes().decode(), offered=later.to_bytes().decode(), ending=ending, seen_at=NOW
        )
        return encode(said)

    assert parse_equivocation(told(record), directory)[1].proven
    tree = json.loads(record)
    at = tree
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = "gallery" if place[-1] == "purpose" else REPORTED
    with pytest.raises(ProtocolError) as caught:
        parse_equivocation(told(json.dumps(tree, separators=(",", ":")).encode()), directory)
    assert REPORTED not in str(caught.value)


def contradiction(held: Note, offered: Note) -> bytes:
    return encode(Equivocation(held=held.to_bytes().decode(), offered=offered.to_bytes().decode(), seen_at=NOW))


def receipted(note: Note) -> Note:
    keys = signing_keys(NL, KeyUse.RECEIPT)
    return cosign(note, Checkpoint.parse(note.text), STREAM.receipt_name(), keys, now_s=int(NOW.timestamp()))


def with_keys(**changes: str) -> Directory:
    """Return the directory with the French stream keys changed."""
    members = document()
    (entry,) = [node for node in members["nodes"] if node["id"] == FR]
    entry["state"] = "maintenance"
    entry["keys"] = [{**key, **changes} if key["use"] == "stream" else key for key in entry["keys"]]
    return directory_of(members)


def test_a_stolen_key_counts_only_under_a_receipt_of_before() -> None:
    """The time at which a contradiction was seen is the receiver's word, who could have the key."""
    held, offered = receipted(note_of(STREAM, [b"1"])), note_of(STREAM, [b"2"])
    since = format_time(NOW + timedelta(hours=1))
    stolen = with_keys(state="compromised", compromised_since=since)
    with pytest.raises(ProtocolError) as caught:
        parse_equivocation(contradiction(held, offered), stolen)
    assert (caught.value.code, caught.value.field) == ("bad-signature", "offered")
    assert parse_equivocation(contradiction(held, receipted(offered)), stolen)[1].proven
    earlier = with_keys(state="compromised", compromised_since=format_time(NOW - timedelta(hours=1)))
    with pytest.raises(ProtocolError, match="bad-signature"):
        parse_equivocation(contradiction(held, receipted(offered)), earlier)


def test_a_contradiction_is_of_a_member() -> None:
    stream = StreamId("gallery.host.example", NL, 1)
    notes = [
        sign_checkpoint(Checkpoint(stream.origin(), 1, root), signing_keys(FR, KeyUse.STREAM), now_s=1)
        for root in (b"1" * 32, b"2" * 32)
    ]
    with pytest.raises(ProtocolError) as caught:
        parse_equivocation(contradiction(*notes), network())
    assert (caught.value.code, caught.value.field) == ("schema-invalid", "held.iss")


def test_what_was_taken_from_a_newer_version_is_read() -> None:
    said = {**STATEMENT, "v": 2, "later": [1], "databases": [{**STATEMENT["databases"][0], "later": 1}]}
    assert read_statement(json.dumps(said).encode()).databases[0].type == "Example-Country"
    notes = json.loads(contradiction(note_of(STREAM, [b"1"]), note_of(STREAM, [b"2"])))
    assert read_equivocation(json.dumps({**notes, "later": 1}).encode()).seen_at == NOW
