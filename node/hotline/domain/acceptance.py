"""Whether a record of a peer's stream is taken: steps 9 to 13 of the checking order. Pure; stores nothing."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from node.hotline.domain.urls import ReportedUrl, UrlRefused, parse_reported_url
from protocol.bodies import ReportBody
from protocol.codes import RecordType
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.record import Record, check_addressing, parse_record

#: What a peer may ask us to do with a record; another purpose is refused, not guessed at.
PURPOSES = frozenset({"takedown", "law-enforcement", "statistics"})


@dataclass(frozen=True, slots=True, repr=False)
class Judged:
    """A record that may be applied; `url` and `referrer` are parsed where it is a report."""

    idx: int
    record: Record
    url: ReportedUrl | None
    referrer: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A record refused for good, and why; `record_id` where it could be read.

    `told` is whether its sender hears of it: never of an outcome, or two nodes that cannot read each other's outcomes
    would answer each other for ever.
    """

    idx: int
    record_id: str | None
    code: str
    field: str | None
    detail: str
    told: bool = True


def judge(idx: int, raw: bytes, *, iss: str, aud: str, directory: Directory, now: datetime) -> Judged | Refused:
    """Return whether the record at `idx` of the stream from `iss` may be applied at node `aud`.

    The numbers continue those of `node.hotline.flows.receive`.
    """
    record_id: str | None = None
    try:
        # 9. Strict JSON. 10. Schema. (both in parse_record)
        record = parse_record(raw)
        record_id = record.envelope.id
        # 11. iss and aud, or an embedded proof (transfers: a later version).
        check_addressing(record.envelope, iss=iss, aud=aud)
        # 12. Handling rules.
        _check_handling(record, now)
        if not isinstance(record.body, ReportBody):
            return Judged(idx, record, None, None)
        # 13. Lifecycle rules: for a report, that it is ours to handle (whether it is new, the store says).
        _check_competence(record.body, aud, directory)
        return Judged(idx, record, _url(record.body.url, "body.url"), record.body.referrer)
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


def _check_handling(record: Record, now: datetime) -> None:
    if record.envelope.handling.purpose not in PURPOSES:
        raise ProtocolError("handling-violation", "this purpose is not known here", field="handling.purpose")
    if record.envelope.handling.retain_until <= now:
        raise ProtocolError(
            "handling-violation", "the record was to be erased before it came", field="handling.retain_until"
        )


def _check_competence(body: ReportBody, aud: str, directory: Directory) -> None:
    """A report is ours when it is assigned to a country of ours, and hosted there or we hold a mandate for others."""
    own = directory.nodes.get(aud)
    if own is None:
        return
    hosting = body.hosting
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
