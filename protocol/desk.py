"""What is said to the desk and by it: disputes without a URL, contradicting checkpoints, signed rulings (PROTOCOL 6).

Pure: makes, reads and verifies; never decides, and takes no member that could hold free text.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NoReturn, TypeVar

import msgspec

from protocol.bodies import check_country, check_token, check_uuid, invalid
from protocol.checkpoint import Checkpoint, StreamId, check_node_id
from protocol.codes import Purpose
from protocol.cosignature import sign_checkpoint, verify_checkpoint, without_strangers
from protocol.directory import Directory
from protocol.epoch import ended_epoch, says_only_its_end
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, KeyState, KeyUse, PublicKey, SignatureInvalid, SigningKey
from protocol.merkle import Edge, ProofInvalid, leaf_hash
from protocol.note import Note, parse_note
from protocol.receipt import open_receipt
from protocol.record import parse_record
from protocol.steps import RULING_BYTES_MAX, TRAIL_MAX, Custody
from protocol.strictjson import loads, typed
from protocol.timestamps import format_times
from protocol.tlogproof import TlogProof, parse_tlog_proof

VERSION: Final = 1
STATEMENT_BYTES_MAX: Final = 16_384
#: Two notes of a few signatures each, one of them perhaps twice.
EQUIVOCATION_BYTES_MAX: Final = 61_440
DATABASES_MAX: Final = 32

_DATABASE: Final = re.compile("[A-Za-z0-9 _-]{1,64}")
_DAY: Final = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HASH: Final = re.compile("[0-9a-f]{64}")
_Said = TypeVar("_Said", "Statement", "Ruling", "Equivocation")


class DatabaseUsed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A geolocation file that a verdict rests on: its type and the day it was built."""

    type: str
    built: str

    def keeps_form(self) -> bool:
        """Whether a dispute may name it: a short name without signs of a URL, and a day."""
        return bool(_DATABASE.fullmatch(self.type) and _DAY.fullmatch(self.built))


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dispute: `holder` has the item and says that it belongs to `other`, and why it may not simply go there.

    `received` is the record hash of what gave it the item; `trail` holds countries and hashes of evidence, the
    holder's own station last. No member can hold a URL.
    """

    v: int = VERSION
    dispute: str
    case: str
    item: str
    holder: str
    other: str
    code: str
    received: str
    trail: tuple[Custody, ...]
    databases: tuple[DatabaseUsed, ...]
    at: datetime


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What the desk decided: whose the item is, and where it counts as hosted.

    It is the desk's own signed word, kept and handed on as it was signed: members not known here are passed over.
    """

    v: int = VERSION
    desk: str
    dispute: str
    case: str
    item: str
    custodian: str
    country: str
    at: datetime


class Equivocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two signed checkpoints of one stream that contradict each other, as their receiver kept them.

    Of two epochs, `ending` is the tlog-proof of the record that begins the later one and says where the earlier ended.
    """

    v: int = VERSION
    held: str
    offered: str
    ending: str | None = None
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What two checkpoints show: whose stream it is, and whether they alone prove that two stories were told."""

    stream: StreamId
    proven: bool
    checkpoints: tuple[Checkpoint, Checkpoint]

    def digest(self) -> bytes:
        """Return a hash that is the same whichever of the two came first, and whenever they were seen and signed."""
        return hashlib.sha256("\n".join(sorted(one.text() for one in self.checkpoints)).encode()).digest()


class _Trail(msgspec.Struct, frozen=True):
    trail: tuple[dict[str, object], ...]


class _Databases(msgspec.Struct, frozen=True):
    databases: tuple[dict[str, object], ...]


def encode(said: Statement | Equivocation, directory: Directory | None = None) -> bytes:
    """Return the body in which it is handed in, times in their one spelling; raises ProtocolError as the readers do.

    Of a contradiction's notes it keeps the lines of the keys that `directory` lists for the two, whatever their state:
    others can bear the same names, and fill the body.
    """
    if isinstance(said, Equivocation):
        said = _without_strangers(said, directory)
        members = msgspec.to_builtins(said, builtin_types=(datetime,))
        return _json({name: value for name, value in members.items() if value is not None})
    members = msgspec.to_builtins(said, builtin_types=(datetime,))
    raw = _json(members)
    parse_statement(raw)
    return raw


def parse_statement(raw: bytes) -> Statement:
    """Return a dispute; raises ProtocolError `too-large`, `malformed` or `schema-invalid`."""
    said = _parse(raw, Statement, STATEMENT_BYTES_MAX)
    for name in ("dispute", "case", "item"):
        check_uuid(getattr(said, name), name)
    for name in ("holder", "other"):
        _check_node(getattr(said, name), name)
    check_token(said.code, "code")
    _check_hash(said.received, "received")
    _check_trail(said, raw)
    if len(said.databases) > DATABASES_MAX:
        invalid("databases", f"there are more than {DATABASES_MAX}")
    for number, one in enumerate(said.databases):
        if not one.keeps_form():
            invalid(f"databases[{number}]", "this is not the type and the day of a geolocation file")
    return said


def read_statement(raw: bytes) -> Statement:
    """Return a dispute that was taken before, perhaps by a newer version: members not known here are passed over.

    Raises ProtocolError where one that is known is missing or of another form.
    """
    members = _known(raw, Statement)
    databases = typed(members, _Databases).databases
    names = DatabaseUsed.__struct_fields__
    members["databases"] = [{name: one[name] for name in names if name in one} for one in databases]
    return typed(members, Statement)


def read_equivocation(raw: bytes) -> Equivocation:
    """Return a contradiction that was taken before; raises ProtocolError as `read_statement` does."""
    return typed(_known(raw, Equivocation), Equivocation)


def _known(raw: bytes, kind: type[msgspec.Struct]) -> dict[str, object]:
    members = msgspec.convert(loads(raw), dict[str, object])
    return {name: members[name] for name in kind.__struct_fields__ if name in members}


def _check_trail(said: Statement, raw: bytes) -> None:
    for number, members in enumerate(typed(loads(raw), _Trail).trail):
        # In a record what is not known is passed over; here it would be kept.
        if not members.keys() <= set(Custody.__struct_fields__):
            invalid(f"trail[{number}]", "there is a member that has no place here")
    if not 1 <= len(said.trail) <= TRAIL_MAX + 1:
        invalid("trail", f"the trail has 1 to {TRAIL_MAX + 1} stations")
    for number, station in enumerate(said.trail):
        _check_node(station.node, f"trail[{number}].node")
        if station.country is not None:
            check_country(station.country, f"trail[{number}].country")
        _check_hash(station.evidence, f"trail[{number}].evidence")
    if said.trail[-1].node != said.holder:
        invalid("trail", "the trail does not end at the holder")


def sign_ruling(ruling: Ruling, keys: Sequence[SigningKey]) -> bytes:
    """Return the ruling as a C2SP tlog-proof: the only leaf of a log of its own, signed by every `desk` key.

    So both algorithms sign it as they sign every checkpoint. Raises ValueError without keys.
    """
    said = _json(msgspec.to_builtins(ruling, builtin_types=(datetime,)))
    checkpoint = Checkpoint(log_name(ruling.desk, ruling.dispute), 1, Edge.EMPTY.extend([leaf_hash(said)]).root())
    note = sign_checkpoint(checkpoint, keys, now_s=int(ruling.at.timestamp()))
    return TlogProof(0, (), note, said).to_bytes()


def log_name(desk: str, dispute: str) -> str:
    """Return the origin of the log of one dispute; no stream has such a one."""
    return f"hx/1/ruling/{desk}/{dispute}"


def read_ruling(raw: bytes) -> Ruling:
    """Return what a ruling says that was signed before, perhaps by a newer version; its signatures are not looked at.

    Raises ProtocolError `too-large`, `malformed`, or `schema-invalid` as `read_statement` does.
    """
    return typed(loads(_opened(raw).extra or b""), Ruling)


def open_ruling(raw: bytes, directory: Directory) -> Ruling:
    """Return a ruling of the desk that the directory names.

    Raises ProtocolError: `malformed` or `schema-invalid` for its form, `handling-violation` when it is not that desk's.
    A compromised key never counts: its thief could state any time.

    1. It is a tlog-proof with the ruling in it, and the ruling keeps its schema.
    2. The desk is the one that the directory names.
    3. The checkpoint is that of the dispute's log, with the ruling as its only leaf.
    4. A `desk` key of each algorithm that was good at `at` signed the checkpoint.
    """
    # 1. Form.
    proof = _opened(raw)
    ruling = _ruled(proof)
    # 2. Whose.
    if directory.desk is None or ruling.desk != directory.desk.id:
        _refuse("this is not a ruling of the network's desk")
    # 3. What is signed is what is said.
    checkpoint = proof.checkpoint()
    try:
        proof.verify_leaf(leaf_hash(proof.extra or b""))
    except ProofInvalid:
        _refuse("the desk's signature is about something else")
    if (checkpoint.origin, checkpoint.size) != (log_name(ruling.desk, ruling.dispute), 1):
        _refuse("the desk's signature is about something else")
    # 4. Signatures.
    keys = _desk_keys(directory, ruling)
    if {key.algorithm for key in keys} != set(Algorithm):
        _refuse("the desk had no key of each algorithm then that counts")
    try:
        verify_checkpoint(proof.note, checkpoint, keys)
    except SignatureInvalid:
        _refuse("the desk's signature does not verify")
    return ruling


def _opened(raw: bytes) -> TlogProof:
    if len(raw) > RULING_BYTES_MAX:
        raise ProtocolError("too-large", f"a ruling has at most {RULING_BYTES_MAX} bytes", field="ruling")
    proof = parse_tlog_proof(raw)
    if proof.extra is None:
        raise ProtocolError("malformed", "there is no ruling in it", field="ruling")
    return proof


def _ruled(proof: TlogProof) -> Ruling:
    ruling = _parse(proof.extra or b"", Ruling, RULING_BYTES_MAX)
    for name in ("dispute", "case", "item"):
        check_uuid(getattr(ruling, name), name)
    for name in ("desk", "custodian"):
        _check_node(getattr(ruling, name), name)
    check_country(ruling.country, "country")
    return ruling


def _desk_keys(directory: Directory, ruling: Ruling) -> list[PublicKey]:
    return [
        key.public
        for key in directory.keys_good_at(ruling.desk, KeyUse.DESK, ruling.at)
        if key.state is not KeyState.COMPROMISED
    ]


def parse_equivocation(raw: bytes, directory: Directory) -> tuple[Equivocation, Contradiction]:
    """Return two checkpoints that contradict each other, both signed by the stream's sender.

    Nothing in it can hold a URL: signature lines are named for the stream and its receiver alone, and the record that
    ends an epoch says nothing else. Raises ProtocolError: `too-large`, `malformed`, `schema-invalid`, `bad-signature`.
    """
    said = _parse(raw, Equivocation, EQUIVOCATION_BYTES_MAX)
    notes = [parse_note(text.encode()) for text in (said.held, said.offered)]
    checkpoints = [Checkpoint.parse(note.text) for note in notes]
    for note, name in zip(notes, ("held", "offered"), strict=True):
        if _without_other_lines(note) != note:
            invalid(name, "a line is neither the sender's nor the receiver's")
    stream = StreamId.parse(checkpoints[0].origin)
    epochs = checkpoints[0].origin != checkpoints[1].origin
    if epochs:
        stream = _denied(checkpoints, said.ending)
    elif checkpoints[0] == checkpoints[1]:
        invalid("offered", "the two checkpoints say the same")
    if stream.iss not in directory.nodes:
        invalid("held.iss", "the directory lists no such sender")
    for note, checkpoint, name in zip(notes, checkpoints, ("held", "offered"), strict=True):
        if not _signed(note, checkpoint, said.seen_at, directory):
            raise ProtocolError("bad-signature", "the sender has not signed this", field=name)
    held, offered = checkpoints
    return said, Contradiction(stream, epochs or held.size == offered.size, (held, offered))


def _signed(note: Note, checkpoint: Checkpoint, seen_at: datetime, directory: Directory) -> bool:
    """Say whether the stream's sender is shown to have signed it (PROTOCOL section 1).

    Under a receipt the keys of its time count, one compromised later included. Without one `seen_at` is only said: a
    compromised key proves nothing then, for its thief and the receiver could be one.
    """
    try:
        open_receipt(note.to_bytes(), directory)
    except SignatureInvalid:
        stream = StreamId.parse(checkpoint.origin)
        try:
            verify_checkpoint(note, checkpoint, directory.verification_keys(stream.iss, KeyUse.STREAM, seen_at))
        except SignatureInvalid:
            return False
    return True


def _denied(checkpoints: Sequence[Checkpoint], ending: str | None) -> StreamId:
    """Return the earlier of two epochs, which goes beyond the end that the later one names, or has another root."""
    before, after = sorted(checkpoints, key=lambda one: StreamId.parse(one.origin).epoch)
    earlier, later = StreamId.parse(before.origin), StreamId.parse(after.origin)
    if (earlier.iss, earlier.aud, earlier.epoch + 1) != (later.iss, later.aud, later.epoch):
        invalid("offered", "the two checkpoints are of two streams")
    if ending is None:
        invalid("ending", "the record that ends an epoch is missing")
    proof = parse_tlog_proof(ending.encode())
    if proof.checkpoint() != after or proof.index or proof.extra is None:
        invalid("ending", "this is not the first record of the later epoch")
    if _without_other_lines(proof.note) != proof.note or not says_only_its_end(proof.extra):
        invalid("ending", "this says more than where an epoch ended")
    envelope = parse_record(proof.extra).envelope
    if (envelope.iss, envelope.aud) != (later.iss, later.aud):
        invalid("ending", "the record is not between the stream's sender and receiver")
    if envelope.handling.purpose not in set(Purpose):
        # A token of the sender's choice says more than where the epoch ended.
        invalid("ending.handling.purpose", "this purpose is not known here")
    try:
        proof.verify_leaf(leaf_hash(proof.extra))
    except ProofInvalid:
        invalid("ending", "the record is not in the later epoch's tree")
    named = ended_epoch(proof.extra, before.origin)
    if before.size < named.size or before == named:
        invalid("offered", "the later epoch denies nothing of the earlier one")
    return earlier


def _without_strangers(said: Equivocation, directory: Directory | None) -> Equivocation:
    """Return it without signature lines of others, whose names could be anything."""
    held, offered = [_of_the_two(parse_note(note.encode()), directory) for note in (said.held, said.offered)]
    ending = said.ending
    if ending is not None:
        proof = parse_tlog_proof(ending.encode())
        ending = replace(proof, note=_of_the_two(proof.note, directory)).to_bytes().decode()
    return msgspec.structs.replace(
        said, held=held.to_bytes().decode(), offered=offered.to_bytes().decode(), ending=ending
    )


def _of_the_two(note: Note, directory: Directory | None) -> Note:
    """Return a stream's note with the lines of its sender and its receiver, by their keys where they are listed."""
    named = _without_other_lines(note)
    stream = StreamId.parse(Checkpoint.parse(note.text).origin)
    if directory is None or not {stream.iss, stream.aud} <= directory.nodes.keys():
        return named
    signing, receipt = [
        [key.public for key in directory.nodes[node].keys if key.use is use]
        for node, use in ((stream.iss, KeyUse.STREAM), (stream.aud, KeyUse.RECEIPT))
    ]
    return without_strangers(named, stream.origin(), signing, stream.receipt_name(), receipt)


def _without_other_lines(note: Note) -> Note:
    """Return a stream's note with the lines of its sender and its receiver alone; ProtocolError `malformed`."""
    stream = StreamId.parse(Checkpoint.parse(note.text).origin)
    names = {stream.origin(), stream.receipt_name()}
    return Note(note.text, tuple(line for line in note.signatures if line.name in names))


def _parse(raw: bytes, kind: type[_Said], bytes_max: int) -> _Said:
    if len(raw) > bytes_max:
        raise ProtocolError("too-large", f"this has at most {bytes_max} bytes")
    said = typed(loads(raw), kind)
    if said.v != VERSION:
        invalid("v", "this version is not known here")
    return said


def _json(tree: object) -> bytes:
    return msgspec.json.encode(format_times(tree))


def _check_node(node_id: str, field: str) -> None:
    try:
        check_node_id(node_id, field=field)
    except ProtocolError as error:
        invalid(field, error.detail)


def _check_hash(text: str, field: str) -> None:
    if not _HASH.fullmatch(text):
        invalid(field, "this is not a SHA-256 hash in lower-case hex")


def _refuse(sentence: str) -> NoReturn:
    raise ProtocolError("handling-violation", sentence, field="ruling")
