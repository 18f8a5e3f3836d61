"""Vectors of the network's desk: a dispute, a contradiction and a ruling, and what is refused of each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import sign_checkpoint
from protocol.desk import Equivocation, Ruling, Statement, encode, log_name, open_ruling, sign_ruling
from protocol.directory import parse_directory
from protocol.epoch import encode_epoch
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note, NoteSignature, parse_note
from protocol.record import Handling
from protocol.steps import Custody
from protocol.tlogproof import TlogProof, parse_tlog_proof
from tests.vectors.network import (
    CASE,
    DE,
    DESK,
    FR,
    HANDLING,
    MEDIA_ITEM,
    NL,
    NOW,
    NOW_S,
    directory_document,
    signing_keys,
)

Case = dict[str, Any]

DISPUTE: Final = "019abc13-0000-7000-8000-000000000001"
_BEGINS: Final = "019abc13-0000-7000-8000-000000000002"
#: A reported address, as nothing that is handed in can hold one.
_ADDRESS: Final = "https://gallery.host.example/view?id=7"


def desk(batch: Mapping[str, Any], stored: Mapping[str, Any]) -> Case:
    """Return the file's content; signatures that cannot be made again are taken from `stored` where they verify."""
    dispute = encode(_statement())
    offered = _note(stored.get("contradiction", ""), b"another story")
    contradiction = encode(Equivocation(held=batch["receipt"], offered=offered.to_bytes().decode(), seen_at=NOW))
    ruling = _ruling(stored.get("ruling", ""))
    epochs = _of_epochs(batch["receipt"], stored.get("contradiction_of_epochs", ""))
    return {
        "dispute": dispute.decode(),
        "disputes_refused": list(_disputes(json.loads(dispute))),
        "contradiction": contradiction.decode(),
        "contradiction_of_epochs": epochs.decode(),
        "contradictions_refused": [
            *_contradictions(json.loads(contradiction), offered),
            *_epochs_refused(batch["receipt"], json.loads(epochs)),
        ],
        "ruling": ruling.decode(),
        "rulings_refused": list(_rulings(parse_tlog_proof(ruling))),
    }


def _statement() -> Statement:
    evidence = "9f" * 32
    return Statement(
        dispute=DISPUTE,
        case=CASE,
        item=MEDIA_ITEM,
        holder=NL,
        other=DE,
        code="same-evidence",
        received="3c" * 32,
        trail=(
            Custody(node=FR, country="NL", evidence=evidence, at=NOW),
            Custody(node=NL, country="DE", evidence=evidence, at=NOW),
        ),
        databases=(),
        at=NOW,
    )


def _note(stored: str, record: bytes) -> Note:
    """Return the note of another stream of one size more, the stored one if it is still that."""
    checkpoint = Checkpoint(StreamId(FR, NL, 1).origin(), 2, Edge.EMPTY.extend([leaf_hash(record)] * 2).root())
    keys = signing_keys(FR, KeyUse.STREAM)
    if stored:
        text = json.loads(stored)["offered"]
        note = parse_note(text.encode())
        if note.text == checkpoint.text():
            return note
    return sign_checkpoint(checkpoint, keys, now_s=NOW_S)


def _beginning(named: Checkpoint, *, iss: str = FR, purpose: str = "takedown") -> bytes:
    """Return the record that begins an epoch after the one that ended so."""
    handling = Handling(purpose, HANDLING.retain_until)
    return encode_epoch(named, record_id=_BEGINS, iss=iss, aud=NL, now=NOW, handling=handling)


def _later(record: bytes, keys: Sequence[SigningKey]) -> Note:
    """Return the note of the next epoch, with this record alone in it."""
    root = Edge.EMPTY.extend([leaf_hash(record)]).root()
    return sign_checkpoint(Checkpoint(StreamId(FR, NL, 2).origin(), 1, root), keys, now_s=NOW_S)


def _denying(held: str) -> Checkpoint:
    """Return an end of the epoch that `held` goes beyond."""
    return Checkpoint(Checkpoint.parse(parse_note(held.encode()).text).origin, 1, leaf_hash(b"another story"))


def _told(held: str, later: Note, record: bytes) -> bytes:
    ending = TlogProof(0, (), later, record).to_bytes().decode()
    return encode(Equivocation(held=held, offered=later.to_bytes().decode(), ending=ending, seen_at=NOW))


def _of_epochs(held: str, stored: str) -> bytes:
    """Return a contradiction of two epochs, with the stored note of the later one if it is still that."""
    record = _beginning(_denying(held))
    made = _later(record, signing_keys(FR, KeyUse.STREAM))
    kept = parse_note(json.loads(stored)["offered"].encode()) if stored else made
    return _told(held, kept if kept.text == made.text else made, record)


def _said() -> Ruling:
    return Ruling(desk=DESK, dispute=DISPUTE, case=CASE, item=MEDIA_ITEM, custodian=DE, country="DE", at=NOW)


def _ruling(stored: str) -> bytes:
    directory = parse_directory(directory_document())
    try:
        if open_ruling(stored.encode(), directory) == _said():
            return stored.encode()
    except ProtocolError:
        pass
    return sign_ruling(_said(), signing_keys(DESK, KeyUse.DESK))


def _disputes(good: Case) -> Iterator[Case]:
    for what, change, field in (
        ("a member more", {"url": _ADDRESS}, None),
        (
            "a member more in the trail",
            {"trail": [{**good["trail"][0], "url": _ADDRESS}, good["trail"][1]]},
            "trail[0]",
        ),
        ("an address for a code", {"code": _ADDRESS}, "code"),
        ("an address for a file's type", {"databases": [{"type": _ADDRESS, "built": "2026-11-01"}]}, "databases[0]"),
        ("a trail that does not end at the holder", {"trail": good["trail"][:1]}, "trail"),
        ("a hash in capitals", {"received": "3C" * 32}, "received"),
    ):
        yield {"what": what, "body": json.dumps({**good, **change}), "code": "schema-invalid", "field": field}


def _contradictions(good: Case, offered: Note) -> Iterator[Case]:
    line = NoteSignature(_ADDRESS, b"1234", b"signature")
    strange = Note(offered.text, (*offered.signatures, line)).to_bytes().decode()
    unsigned = Note(offered.text, offered.signatures[:1]).to_bytes().decode()
    for what, change, code, field in (
        ("a line of somebody else", {"offered": strange}, "schema-invalid", "offered"),
        ("signed with one key", {"offered": unsigned}, "bad-signature", "offered"),
        ("twice the same", {"offered": good["held"]}, "schema-invalid", "offered"),
    ):
        yield {"what": what, "body": json.dumps({**good, **change}), "code": code, "field": field}


def _epochs_refused(held: str, good: Case) -> Iterator[Case]:
    """What is wrong here is found before signatures are looked at: one that can be made again is enough."""
    keys = signing_keys(FR, KeyUse.STREAM)[:1]
    denying, agreeing = _denying(held), Checkpoint.parse(parse_note(held.encode()).text)
    bare = {name: value for name, value in good.items() if name != "ending"}
    yield _refused("no record that ends the epoch", json.dumps(bare), "ending")
    for what, record, field in (
        ("an epoch that ended where it is held", _beginning(agreeing), "offered"),
        ("a record between two others", _beginning(denying, iss=DE), "ending"),
        ("a record that says more", _beginning(denying)[:-1] + b',"url":"' + _ADDRESS.encode() + b'"}', "ending"),
        (
            "a purpose of its own",
            _beginning(denying, purpose="gallery"),
            "ending.handling.purpose",
        ),
    ):
        yield _refused(what, _told(held, _later(record, keys), record).decode(), field)
    stranger = StreamId("stranger.example", NL, 1).origin()
    notes = [sign_checkpoint(Checkpoint(stranger, 1, leaf_hash(one)), keys, now_s=NOW_S) for one in (b"1", b"2")]
    strange, other = (note.to_bytes().decode() for note in notes)
    said = encode(Equivocation(held=strange, offered=other, seen_at=NOW)).decode()
    yield _refused("a sender that is not listed", said, "held.iss")
    yield _refused("two streams", json.dumps({**bare, "held": strange}), "offered")


def _refused(what: str, body: str, field: str) -> Case:
    return {"what": what, "body": body, "code": "schema-invalid", "field": field}


def _rulings(good: TlogProof) -> Iterator[Case]:
    said = _said()
    keys = signing_keys(DESK, KeyUse.DESK)
    elsewhere = Checkpoint(log_name(DESK, CASE), 1, good.checkpoint().root)
    other = (good.extra or b"").replace(DE.encode(), NL.encode())
    for what, step, raw in (
        ("no ruling in it", 1, replace(good, extra=None).to_bytes()),
        ("another desk", 2, sign_ruling(msgspec.structs.replace(said, desk=NL), keys[:1])),
        ("another ruling than the one signed", 3, replace(good, extra=other).to_bytes()),
        ("another dispute's log", 3, replace(good, note=sign_checkpoint(elsewhere, keys[:1], now_s=NOW_S)).to_bytes()),
        ("signed with Ed25519 alone", 4, sign_ruling(said, keys[:1])),
        ("signed with a node's key", 4, sign_ruling(said, signing_keys(NL, KeyUse.STREAM)[:1])),
    ):
        yield {"what": what, "ruling": raw.decode(), "step": step}
