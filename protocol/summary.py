"""Says in a few words what a record says: codes, numbers, times and names of nodes; never what could hold a URL."""

from protocol.bodies import OutcomeBody, Qualification, ReportBody
from protocol.record import Record, UnknownBody
from protocol.steps import (
    ActionBody,
    AssessmentBody,
    Corrected,
    CorrectionBody,
    StatusBody,
    Step,
    TransferBody,
    WithdrawalBody,
)
from protocol.timestamps import format_time


def summary(record: Record) -> list[tuple[str, str]]:
    """Return what a body says in codes, numbers and times: nothing that could hold a URL."""
    body = record.body
    if isinstance(body, OutcomeBody):
        return [
            ("stream", body.stream),
            ("ranges accepted", str(len(body.accepted))),
            ("ranges kept", str(len(body.kept))),
            ("records refused", str(len(body.refused))),
        ]
    if isinstance(body, UnknownBody):
        return []
    if not isinstance(body, ReportBody):
        return [(name, str(value)) for name, value in _step_summary(body) if value is not None]
    said: list[tuple[str, str | None]] = [
        ("kind", body.kind.value),
        ("channel", body.channel.value),
        ("received by the sender", format_time(body.received_at)),
        ("reported", None if body.reported_at is None else format_time(body.reported_at)),
        ("hosting country", body.hosting.country or "not known"),
        ("assigned country", body.hosting.assigned_country),
        ("confidence", f"{body.hosting.confidence} of 100"),
        ("hashes", str(len(body.hashes)) if body.hashes else None),
        ("site type", body.site_type),
        ("commerciality", body.commerciality),
    ]
    if body.qualification is not None:
        said += _qualification(body.qualification)
    return [(name, str(value)) for name, value in said if value is not None]


def _qualification(qualification: Qualification) -> list[tuple[str, str | None]]:
    return [
        ("classification", qualification.classification.value),
        ("age", qualification.age),
        ("gender", qualification.gender),
        ("qualified", format_time(qualification.at)),
    ]


def _step_summary(body: Step) -> list[tuple[str, str | None]]:
    """What a step says; who did it, and any text that a person wrote, is left to the record itself."""
    match body:
        case AssessmentBody():
            return _qualification(body.qualification)
        case ActionBody():
            return [("action", body.action), ("done", format_time(body.at)), ("reason", body.reason)]
        case TransferBody():
            return [
                ("reason", body.reason),
                ("hosting country", body.hosting.country or "not known"),
                ("assigned country", body.hosting.assigned_country),
                ("confidence", f"{body.hosting.confidence} of 100"),
                ("had by", ", ".join(station.node for station in body.trail)),
                *(_qualification(body.qualification) if body.qualification is not None else ()),
            ]
        case CorrectionBody():
            names = [name for name in Corrected.__struct_fields__ if getattr(body.members, name) is not None]
            return [("corrects the report", body.corrects), ("members", ", ".join(names))]
        case WithdrawalBody():
            handed_on = None if body.proof is None else "with the reporter's own withdrawal"
            return [("withdraws the report", body.withdraws), ("reason", body.reason), ("handed on", handed_on)]
        case StatusBody():
            return [
                ("kind", body.kind),
                ("at", format_time(body.at)),
                ("about the record", body.about),
                ("node", body.node),
                ("code", body.code),
                ("stream", body.stream),
                ("size", None if body.size is None else str(body.size)),
                ("since", None if body.since is None else format_time(body.since)),
                ("attempts", None if body.attempts is None else str(body.attempts)),
            ]
