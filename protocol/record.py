"""One record (PROTOCOL section 3): bytes made once, then only read; never re-serialises what a peer sent."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Required, TypedDict, Unpack

import msgspec

from protocol.bodies import (
    SCHEMA,
    Flags,
    Hash,
    Hosting,
    OutcomeBody,
    Qualification,
    Refusal,
    ReportBody,
    check_outcome,
    check_report,
    check_token,
    check_uuid,
    invalid,
    report_wire,
)
from protocol.checkpoint import check_node_id
from protocol.codes import RecordType
from protocol.errors import ProtocolError
from protocol.merkle import leaf_hash
from protocol.steps import STEP_TIMES, STEP_TYPES, Step, check_step, step_type
from protocol.strictjson import JSON_BYTES_MAX, check_tree, loads, typed
from protocol.timestamps import format_time, format_times, is_time
from protocol.versions import speaks

__all__ = [
    "Envelope",
    "Flags",
    "Handling",
    "Hash",
    "Hosting",
    "OutcomeBody",
    "Qualification",
    "Record",
    "Refusal",
    "ReportBody",
    "UnknownBody",
    "check_addressing",
    "encode_outcome",
    "encode_report",
    "encode_step",
    "parse_record",
]

VERSION: Final = 1
HOPS_MAX: Final = 5
CRIT_MAX: Final = 32

_LEAF_HASH_HEX: Final = re.compile("[0-9a-f]{64}")
_MEMBER: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}")
# The escape of U+0000: an odd number of backslashes before `u0000`.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Handling(msgspec.Struct, frozen=True):
    """What the receiver may do with the record (`purpose`, a token) and until when it may keep it."""

    purpose: str
    retain_until: datetime


class Envelope(msgspec.Struct, frozen=True):
    """The members that every record has, in their order on the wire.

    `id`, `case` and `item` are UUIDv7 in lower case; `iss`, `aud` and `hops` node ids; `parent` is a leaf hash in
    hex; `deliver_by` is None where nothing falls due. `body` is the object as it was decoded, unknown members
    included; `Record.body` is its typed reading.
    """

    v: int
    type: str
    id: str
    case: str
    item: str
    iss: str
    aud: str
    iat: datetime
    parent: str | None
    hops: tuple[str, ...]
    deliver_by: datetime | None
    handling: Handling
    crit: tuple[str, ...]
    body: dict[str, object]

    def __repr__(self) -> str:
        # The body holds a URL, which must not reach a log through a traceback or an assertion.
        return f"Envelope({self.type}, {self.id})"


class _HandlingWire(msgspec.Struct):
    purpose: str
    retain_until: str


class _Wire(msgspec.Struct):
    """An envelope as the JSON encoder takes it: the same members, times in their one spelling."""

    v: int
    type: str
    id: str
    case: str
    item: str
    iss: str
    aud: str
    iat: str
    parent: str | None
    hops: tuple[str, ...]
    deliver_by: str | None
    handling: _HandlingWire
    crit: tuple[str, ...]
    body: msgspec.Struct | dict[str, object]


@dataclass(frozen=True, slots=True)
class UnknownBody:
    """A body of a type or schema version that is not read here; the record is kept all the same.

    `schema` is None where the body does not say it in an integer.
    """

    schema: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """A record: its bytes, their RFC 6962 leaf hash (PROTOCOL: `record_hash`), and what they say."""

    raw: bytes
    leaf_hash: bytes
    envelope: Envelope
    body: ReportBody | OutcomeBody | Step | UnknownBody

    def __repr__(self) -> str:
        return f"Record({self.envelope.type}, {self.envelope.id})"


# Times have one spelling, which the types alone do not hold them to.
_ENVELOPE_TIMES: Final = (("iat",), ("deliver_by",), ("handling", "retain_until"))
_REPORT_TIMES: Final = (("received_at",), ("reported_at",), ("qualification", "at"))
_ENVELOPE_MEMBERS: Final = frozenset(Envelope.__struct_fields__)
_BODY_MEMBERS: Final[dict[str, frozenset[str]]] = {
    name: frozenset(f"body.{member}" for member in body.__struct_fields__)
    for name, body in {RecordType.REPORT: ReportBody, RecordType.OUTCOME: OutcomeBody, **STEP_TYPES}.items()
}
_ENCODER: Final = msgspec.json.Encoder()


def parse_record(raw: bytes) -> Record:
    """Return what a record's bytes say, or refuse it for good.

    Checked in this order, each step with its code of the error registry: size (`too-large`), strict JSON
    (`malformed`), envelope (`schema-invalid`), critical members (`unknown-critical`), body (`schema-invalid`).
    Whether it may come from this peer to this node is `check_addressing`. Errors name the member, never its value.
    """
    # 1. Size.
    if len(raw) > JSON_BYTES_MAX:
        raise ProtocolError("too-large", f"a record has at most {JSON_BYTES_MAX} bytes")
    # 2. Strict JSON, on one line, because a batch holds one record a line.
    if b"\n" in raw:
        raise ProtocolError("malformed", "the record holds a line break")
    tree = loads(raw)
    if not isinstance(tree, dict):
        raise ProtocolError("malformed", "the record is no JSON object")
    _refuse_nul(raw)
    # 3. Envelope.
    envelope = typed(tree, Envelope)
    _check_spelling(tree, _ENVELOPE_TIMES, "")
    _check_envelope(envelope)
    # 4. Critical members, before a body is refused that says something this version could not know.
    reader = _reader(envelope)
    _check_critical(envelope.crit, reader)
    # 5. Body.
    return Record(raw, leaf_hash(raw), envelope, _read_body(envelope, reader))


def check_addressing(envelope: Envelope, *, iss: str, aud: str) -> None:
    """Raise unless the record is said by `iss`, whose stream it stands in, to `aud`.

    Raises ProtocolError `wrong-audience` for another addressee, `schema-invalid` for another sender.
    """
    if envelope.aud != aud:
        raise ProtocolError("wrong-audience", "the record is addressed to another node", field="aud")
    if envelope.iss != iss:
        invalid("iss", "the record is not issued by the node whose stream it stands in")


class Sent(TypedDict, total=False):
    """What the sender says in the envelope of a report or a step, beside its type: arguments of the encoders."""

    record_id: Required[str]
    case: Required[str]
    item: Required[str]
    iss: Required[str]
    aud: Required[str]
    iat: Required[datetime]
    handling: Required[Handling]
    deliver_by: datetime | None
    parent: str | None
    hops: Sequence[str]
    crit: Sequence[str]


def encode_report(body: ReportBody, **envelope: Unpack[Sent]) -> bytes:
    """Return the bytes of a report, made once: compact JSON, the envelope's members in their order.

    `parse_record` gives back the same, times cut to the millisecond. Raises ProtocolError as it does, so that no
    record leaves that the receiver would refuse; ValueError for a time without a zone.
    """
    check_report(body)
    # Free JSON of our own that was never parsed strictly; it lies in record, body and hosting.
    check_tree(body.hosting.evidence, depth=3)
    return _encode(RecordType.REPORT, report_wire(body), **envelope)


def encode_outcome(
    body: OutcomeBody,
    *,
    record_id: str,
    iss: str,
    aud: str,
    iat: datetime,
    handling: Handling,
) -> bytes:
    """Return the bytes of an outcome, made once; as `encode_report`.

    An outcome speaks of a stream and belongs to no case: its `case` and `item` are its own id. Nothing falls due.
    """
    check_outcome(body)
    return _encode(
        RecordType.OUTCOME,
        body,
        record_id=record_id,
        case=record_id,
        item=record_id,
        iss=iss,
        aud=aud,
        iat=iat,
        handling=handling,
    )


def encode_step(body: Step, **envelope: Unpack[Sent]) -> bytes:
    """Return the bytes of any record but a report or an outcome, made once; as `encode_report`."""
    check_step(body)
    said = {"schema": body.schema, **format_times(msgspec.to_builtins(body, builtin_types=(datetime,)))}
    check_tree(said, depth=1)
    return _encode(step_type(body), said, **envelope)


def _encode(kind: RecordType, body: msgspec.Struct | dict[str, object], **envelope: Unpack[Sent]) -> bytes:
    handling, deliver_by = envelope["handling"], envelope.get("deliver_by")
    wire = _Wire(
        VERSION,
        kind,
        envelope["record_id"],
        envelope["case"],
        envelope["item"],
        envelope["iss"],
        envelope["aud"],
        format_time(envelope["iat"]),
        envelope.get("parent"),
        tuple(envelope.get("hops", ())),
        None if deliver_by is None else format_time(deliver_by),
        _HandlingWire(handling.purpose, format_time(handling.retain_until)),
        tuple(envelope.get("crit", ())),
        body,
    )
    _check_envelope(wire)
    _check_critical(wire.crit, kind)
    try:
        raw = _ENCODER.encode(wire)
    except UnicodeEncodeError:
        raise ProtocolError("schema-invalid", "a string is not Unicode text") from None
    say = speaks().say
    if say is not None:
        raw = say(raw)
    if len(raw) > JSON_BYTES_MAX:
        raise ProtocolError("too-large", f"a record has at most {JSON_BYTES_MAX} bytes")
    _refuse_nul(raw)
    return raw


def _refuse_nul(raw: bytes) -> None:
    # Allowed in JSON, but no text of a database can hold it.
    # Few records hold a backslash, and one byte is found fast.
    if b"\\" in raw and _NUL.search(raw):
        raise ProtocolError("schema-invalid", "a string holds U+0000")


def _check_envelope(envelope: Envelope | _Wire) -> None:
    if envelope.v != VERSION:
        invalid("v", "this version of the record is not known here")
    check_token(envelope.type, "type")
    check_uuid(envelope.id, "id")
    check_uuid(envelope.case, "case")
    check_uuid(envelope.item, "item")
    _check_node(envelope.iss, "iss")
    _check_node(envelope.aud, "aud")
    if envelope.parent is not None and not _LEAF_HASH_HEX.fullmatch(envelope.parent):
        invalid("parent", "this is not a leaf hash in lower-case hex")
    if len(envelope.hops) > HOPS_MAX:
        invalid("hops", f"there are more than {HOPS_MAX} hops")
    for number, hop in enumerate(envelope.hops):
        _check_node(hop, f"hops[{number}]")
    check_token(envelope.handling.purpose, "handling.purpose")
    if len(envelope.crit) > CRIT_MAX or not all(_MEMBER.fullmatch(name) for name in envelope.crit):
        invalid("crit", f"this is not a list of at most {CRIT_MAX} members")


def _check_node(node_id: str, field: str) -> None:
    try:
        check_node_id(node_id, field=field)
    except ProtocolError as error:
        raise ProtocolError("schema-invalid", error.detail, field=field) from None


def _reader(envelope: Envelope) -> RecordType | None:
    """Return the type to read the body as, or None when type or schema version are not known here."""
    if envelope.type not in _BODY_MEMBERS:
        return None
    # Our own structs fill it in; in a record it must stand.
    if "schema" not in envelope.body:
        invalid("body.schema", "this member is missing")
    schema = _schema(envelope)
    return None if schema is not None and schema > SCHEMA else RecordType(envelope.type)


def _schema(envelope: Envelope) -> int | None:
    schema = envelope.body.get("schema")
    # A JSON `true` is an int to Python.
    return schema if type(schema) is int else None


def _check_critical(crit: tuple[str, ...], reader: RecordType | None) -> None:
    """Refuse a critical member that is not understood: an envelope's by its name, a body's as `body.<name>`."""
    if not crit:
        return
    dialect = speaks()
    understood = _ENVELOPE_MEMBERS | dialect.members
    if reader is not None:
        understood |= _BODY_MEMBERS[reader] | {f"body.{name}" for name in dialect.body_members}
    for number, name in enumerate(crit):
        if name not in understood:
            raise ProtocolError("unknown-critical", "a critical member is not understood", field=f"crit[{number}]")


def _read_body(envelope: Envelope, reader: RecordType | None) -> ReportBody | OutcomeBody | Step | UnknownBody:
    if reader is None:
        return UnknownBody(_schema(envelope))
    if reader is RecordType.REPORT:
        report = typed(envelope.body, ReportBody, field="body")
        _check_spelling(envelope.body, _REPORT_TIMES, "body")
        check_report(report)
        return report
    if reader is RecordType.OUTCOME:
        outcome = typed(envelope.body, OutcomeBody, field="body")
        check_outcome(outcome)
        return outcome
    step: Step = typed(envelope.body, STEP_TYPES[reader], field="body")
    _check_spelling(envelope.body, STEP_TIMES[type(step)], "body")
    check_step(step)
    return step


def _check_spelling(node: Mapping[str, object], paths: Sequence[Sequence[str]], prefix: str) -> None:
    """Require the one spelling of the times at these paths, whose types are checked already."""
    for path in paths:
        value: object = node
        for name in path:
            if isinstance(value, list) and name.isdigit():
                value = value[int(name)] if int(name) < len(value) else None
            else:
                value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str) and not is_time(value):
            field = ".".join(part for part in (prefix, *path) if part)
            invalid(field, "this is not a time as 2026-11-22T16:00:00.000Z")
