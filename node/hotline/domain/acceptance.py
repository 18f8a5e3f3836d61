"""Whether a record of a peer's stream is taken: steps 9 to 13 of the checking order. Pure; stores nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from node.hotline.domain.urls import ReportedUrl, UrlRefused, parse_reported_url
from protocol.bodies import Hosting, ReportBody
from protocol.codes import RecordType, StatusKind
from protocol.custody import Given, check_delivered, check_transfer_chain
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.evidence import EvidenceInvalid, read_evidence, verify_evidence
from protocol.record import Record, check_addressing, parse_record
from protocol.steps import StatusBody, TransferBody, WithdrawalBody

#: What a peer may ask us to do with a record; another purpose is refused, not guessed at.
PURPOSES = frozenset({"takedown", "law-enforcement", "statistics"})

#: What is said of an outcome about records that were never written here, which a restored node may only have lost.
NEVER_SENT: Final = "the outcome speaks of records never sent"

#: What a sender takes a report or a transfer to be refused with that its receiver keeps unread.
NOT_READ: Final = "unknown-critical"


@dataclass(frozen=True, slots=True)
class Proven:
    """What the proof in a withdrawal proves: of `iss`, that it withdrew (`withdraws`, a record hash) what of `item`.

    `withdraws` is None for the proof of another record.
    """

    iss: str
    item: str
    withdraws: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Judged:
    """A record that may be applied; `url` and `referrer` are parsed where it carries a report.

    `given` is what a transfer carries, and `transfer` the one that a `status` proves to be delivered. `proven` is what
    the proof of a withdrawal comes to, which counts where the withdrawal needs one.
    """

    idx: int
    record: Record
    url: ReportedUrl | None
    referrer: str | None
    given: Given | None = None
    transfer: Record | None = None
    proven: Proven | ProtocolError | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A record refused for good, and why; `record_id` where it could be read.

    `told` is whether its sender hears of it: never of an outcome, or two nodes that cannot read each other's outcomes
    would answer each other for ever. `unknown` is whether it is the item that is wanting here: not there, or not one
    that its sender has to do with.
    """

    idx: int
    record_id: str | None
    code: str
    field: str | None
    detail: str
    told: bool = True
    unknown: bool = False


class _Embedding(msgspec.Struct):
    original: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    proof: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Carrier(msgspec.Struct):
    body: _Embedding


_CARRIER = msgspec.json.Decoder(_Carrier)


def carries_proof(raw: bytes) -> bool:
    """Tell, without a check of anything, whether a record holds another one whose signatures are to be verified."""
    try:
        body = _CARRIER.decode(raw).body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return body.original is not msgspec.UNSET or body.proof is not msgspec.UNSET


def judge(idx: int, raw: bytes, *, iss: str, aud: str, directory: Directory | None, now: datetime) -> Judged | Refused:
    """Return whether the record at `idx` of the stream from `iss` may be applied at node `aud`.

    Without a directory: it was taken before, and is applied again after a restore. What depends on the directory and
    on the time was right then, whatever has become of keys, countries and terms since.
    The numbers continue those of `node.hotline.flows.receive`.
    """
    record_id: str | None = None
    try:
        # 9. Strict JSON. 10. Schema. (both in parse_record)
        record = parse_record(raw)
        record_id = record.envelope.id
        # 11. iss and aud; of a record within a record, its proof.
        check_addressing(record.envelope, iss=iss, aud=aud)
        given, transfer = _embedded(record, directory)
        # 12. Handling rules.
        if directory is not None:
            _check_handling(record, now)
        # 13. Lifecycle rules: that it is ours to handle (whether it is new, the store says).
        if transfer is not None:
            return Judged(idx, record, None, None, given, transfer)
        if isinstance(record.body, TransferBody) and given is not None:
            if record.body.ruling is None:
                _check_competence(record.body.hosting, aud, directory)
            return Judged(idx, record, _url(given.report.url, "body.original"), given.report.referrer, given)
        if isinstance(record.body, ReportBody):
            _check_competence(record.body.hosting, aud, directory)
            return Judged(idx, record, _url(record.body.url, "body.url"), record.body.referrer)
        return Judged(idx, record, None, None, proven=_proven(record, directory))
    except ProtocolError as error:
        return Refused(idx, record_id, error.code, error.field, error.detail, told=not _claims_outcome(raw))


class _Type(msgspec.Struct):
    type: str


def _claims_outcome(raw: bytes) -> bool:
    """Whether a record that may break any rule calls itself an outcome."""
    try:
        return msgspec.json.decode(raw, type=_Type).type == RecordType.OUTCOME
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _embedded(record: Record, directory: Directory | None) -> tuple[Given | None, Record | None]:
    """Return what a transfer carries, and the transfer that a status proves; both are verified."""
    if isinstance(record.body, TransferBody):
        return check_transfer_chain(record, directory), None
    if isinstance(record.body, StatusBody) and record.body.kind is StatusKind.DELIVERED:
        transfer, given = check_delivered(record, directory)
        return given, transfer
    return None, None


def _proven(record: Record, directory: Directory | None) -> Proven | ProtocolError | None:
    """Return what the proof that a withdrawal carries proves, or what is wrong with it; None without a proof."""
    body = record.body
    if not isinstance(body, WithdrawalBody) or body.proof is None:
        return None
    raw = body.proof.encode()
    try:
        proven, _, stream = read_evidence(raw)
        if directory is not None:
            verify_evidence(raw, directory)
    except EvidenceInvalid as invalid:
        return ProtocolError("handling-violation", f"the proof fails at {invalid}", field="body.proof")
    said = proven.body
    return Proven(stream.iss, proven.envelope.item, said.withdraws if isinstance(said, WithdrawalBody) else None)


def _check_handling(record: Record, now: datetime) -> None:
    if record.envelope.handling.purpose not in PURPOSES:
        raise ProtocolError("handling-violation", "this purpose is not known here", field="handling.purpose")
    if record.envelope.handling.retain_until <= now:
        raise ProtocolError(
            "handling-violation", "the record was to be erased before it came", field="handling.retain_until"
        )


def _check_competence(hosting: Hosting, aud: str, directory: Directory | None) -> None:
    """An item is ours when it is assigned to a country of ours, and hosted there or we hold a mandate for others."""
    own = None if directory is None else directory.nodes.get(aud)
    if directory is None or own is None:
        return
    if hosting.assigned_country not in own.countries:
        raise ProtocolError(
            "not-competent", "the assigned country is not this hotline's", field="body.hosting.assigned_country"
        )
    if hosting.country is not None and hosting.country not in own.countries and aud not in directory.mandated:
        raise ProtocolError("not-competent", "it is hosted in another country", field="body.hosting.country")


def _url(text: str, field: str) -> ReportedUrl:
    try:
        return parse_reported_url(text)
    except UrlRefused as refused:
        raise ProtocolError("schema-invalid", f"the URL cannot be taken: {refused.sentence}", field=field) from None


def ranges(indices: list[int]) -> tuple[tuple[int, int], ...]:
    """Return ascending indices as inclusive ranges."""
    found: list[tuple[int, int]] = []
    for idx in indices:
        if found and found[-1][1] == idx - 1:
            found[-1] = (found[-1][0], idx)
        else:
            found.append((idx, idx))
    return tuple(found)
