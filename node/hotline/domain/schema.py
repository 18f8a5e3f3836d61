"""What a submission looks like: the one schema that validates and is documented, and its decoding. Never logs.

Errors name the field and the reason, never the value: a value may be a reported URL.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from node.hotline.domain.urls import URL_BYTES_MAX
from protocol.codes import (
    Action,
    ActionReason,
    Age,
    Channel,
    Classification,
    Commerciality,
    Gender,
    HashAlgorithm,
    PaymentMethod,
    SiteType,
)

MEDIA_MAX = 1000
REPORTS_MAX = 1000
NOTE_CHARS_MAX = 4000
SHORT_CHARS_MAX = 200
HASHES_MAX = 16
EMAIL_CHARS_MAX = 254  # RFC 5321 4.5.3.1.3: a path is 256 octets, two of them angle brackets
ERRORS_MAX = 100
"""Errors reported for one submission; more would only make the answer long."""


UrlText = Annotated[
    str,
    Meta(
        min_length=1,
        description=f"An http, https, ipfs or ipns URL of at most {URL_BYTES_MAX} bytes, kept as it is written.",
        examples=["https://host.example/page"],
        extra_json_schema={"format": "uri", "maxLength": URL_BYTES_MAX},
    ),
]
ShortText = Annotated[str, Meta(min_length=1, max_length=SHORT_CHARS_MAX)]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, with its offset from UTC.")]

GivenReason = Literal["reported-in-error", "not-illegal", "legal-order", "other"]
"""Why a person takes a report back; `rerouted` is what a node itself says of a record that was not receipted."""


class _Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything decoded from outside: unknown fields are errors, and the content is not printable.

    Encoded again (as the basis of a derived reference), only what was said appears, so that a field added later
    changes nothing.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class HashIn(_Input, frozen=True):
    """A hash of the file behind a URL."""

    algorithm: HashAlgorithm
    value: Annotated[str, Meta(min_length=1, max_length=128, description="Hexadecimal, in either case.")]


class QualificationIn(_Input, frozen=True):
    """A qualification under national law."""

    classification: Classification
    age: Age | None = None
    gender: Gender | None = None
    virtual: bool | None = None
    user_generated: bool | None = None
    child_modelling: bool | None = None
    law: Annotated[ShortText, Meta(description="The legal basis.")] | None = None
    at: Time | None = None
    by: Annotated[ShortText, Meta(description="The analyst, as the submitter names them.")] | None = None


class AssessmentIn(QualificationIn, frozen=True):
    """A qualification set on an item already known."""


class ActionIn(_Input, frozen=True):
    """What this hotline did about an item, or found it to be; `at` is now, if not said."""

    action: Action
    at: Time | None = None
    by: Annotated[ShortText, Meta(description="Who did it, as the submitter names them.")] | None = None
    reason: Annotated[ActionReason, Meta(description="With `unavailable` and `not-illegal` only.")] | None = None


class CorrectionIn(_Input, frozen=True):
    """What a report should have said; what is left out stays as it is."""

    referrer: UrlText | None = None
    hashes: Annotated[list[HashIn], Meta(max_length=HASHES_MAX)] | None = None
    site_type: SiteType | None = None
    commerciality: Commerciality | None = None
    payment_methods: Annotated[list[PaymentMethod], Meta(max_length=len(PaymentMethod))] | None = None
    reference: (
        Annotated[ShortText, Meta(description="As the competent hotline is to see it; the report is known by the old.")]
        | None
    ) = None


class WithdrawalIn(_Input, frozen=True):
    """Why a report is taken back."""

    reason: GivenReason


class MediaIn(_Input, frozen=True):
    """A media URL with what is known of it."""

    url: UrlText
    hashes: Annotated[list[HashIn], Meta(max_length=HASHES_MAX)] = []
    qualification: (
        Annotated[QualificationIn, Meta(description="This file's own; without it, the report's counts.")] | None
    ) = None


class ReportIn(_Input, frozen=True):
    """A report: a page URL and any number of media URLs, each of which becomes a content item."""

    url: UrlText
    hashes: Annotated[list[HashIn], Meta(max_length=HASHES_MAX)] = []
    media: Annotated[
        list[UrlText | MediaIn],
        Meta(max_length=MEDIA_MAX, description="Media URLs, plain or with what is known of each."),
    ] = []
    referrer: UrlText | None = None
    note: Annotated[str, Meta(max_length=NOTE_CHARS_MAX)] | None = None
    channel: Channel = Channel.PUBLIC
    reference: (
        Annotated[
            ShortText,
            Meta(description="The submitter's own name for the report; the same one again is the same report. No URL."),
        ]
        | None
    ) = None
    reporter_email: (
        Annotated[str, Meta(max_length=EMAIL_CHARS_MAX, description="The reporter's address, for an answer.")] | None
    ) = None
    reported_at: Annotated[Time, Meta(description="When the public reported it to a hotline.")] | None = None
    received_at: Annotated[Time, Meta(description="When this hotline received it; now, if not said.")] | None = None
    site_type: SiteType | None = None
    commerciality: Commerciality | None = None
    payment_methods: Annotated[list[PaymentMethod], Meta(max_length=len(PaymentMethod))] = []
    qualification: (
        Annotated[QualificationIn, Meta(description="Counts for the page, and for each media without its own.")] | None
    ) = None


class BatchIn(_Input, frozen=True):
    """Several reports, taken whole or not at all."""

    reports: Annotated[list[ReportIn], Meta(min_length=1, max_length=REPORTS_MAX)]


class IntakeFault(StrEnum):
    """Why a field is refused; for URLs the reasons of `urls.UrlFault` count too."""

    MALFORMED_JSON = "malformed-json"
    BROKEN_UTF8 = "broken-utf8"
    WRONG_TYPE = "wrong-type"
    UNKNOWN_FIELD = "unknown-field"
    MISSING = "missing"
    UNKNOWN_CODE = "unknown-code"
    EMPTY = "empty"
    TOO_LONG = "too-long"
    TOO_MANY = "too-many"
    CONTROL_CHARACTER = "control-character"
    BAD_TIME = "bad-time"
    IN_THE_FUTURE = "in-the-future"
    BAD_HASH = "bad-hash"
    BAD_EMAIL = "bad-email"
    URL_AS_REFERENCE = "url-as-reference"
    NOT_WITH_THIS = "not-with-this"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong: a path as `media[0].url` (empty: the whole), a token of a fault, a sentence."""

    field: str
    reason: str
    detail: str


class IntakeRefused(Exception):  # noqa: N818 -- names the fact, as the callers and the documents do
    """The submission is refused whole; `errors` says why, at most ERRORS_MAX of them, and holds no content."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        """Keep what is worth showing."""
        self.errors = tuple(errors[:ERRORS_MAX])
        super().__init__("; ".join(f"{error.field}: {error.reason}" for error in self.errors))


class _BatchEnvelope(_Input, frozen=True):
    """A batch whose reports are decoded one by one, so that each gets its own errors."""

    reports: list[msgspec.Raw]


class _Shape(msgspec.Struct):
    """Only whether a body is a batch."""

    reports: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_REPORT = msgspec.json.Decoder(ReportIn)
_ENVELOPE = msgspec.json.Decoder(_BatchEnvelope)
_SHAPE = msgspec.json.Decoder(_Shape)
_ASSESSMENT = msgspec.json.Decoder(AssessmentIn)
_ACTION = msgspec.json.Decoder(ActionIn)
_CORRECTION = msgspec.json.Decoder(CorrectionIn)
_WITHDRAWAL = msgspec.json.Decoder(WithdrawalIn)

_Decoded = TypeVar("_Decoded")


def decode_report(raw: bytes) -> ReportIn:
    """Decode one report from JSON; raises IntakeRefused with one error, the first that the decoder meets."""
    return _decode(_REPORT, raw, "")


def decode_batch(raw: bytes, max_reports: int = REPORTS_MAX) -> list[ReportIn]:
    """Decode `{"reports": […]}`; raises IntakeRefused with an error for each report that does not decode."""
    raws = _decode(_ENVELOPE, raw, "").reports
    if not raws:
        raise IntakeRefused([FieldError("reports", IntakeFault.EMPTY, "the batch holds no report")])
    if len(raws) > max_reports:
        sentence = f"a batch holds at most {max_reports} reports"
        raise IntakeRefused([FieldError("reports", IntakeFault.TOO_MANY, sentence)])
    reports: list[ReportIn] = []
    errors: list[FieldError] = []
    for index, one in enumerate(raws):
        try:
            reports.append(_decode(_REPORT, one, f"reports[{index}]"))
        except IntakeRefused as refused:
            errors.extend(refused.errors)
    if errors:
        raise IntakeRefused(errors)
    return reports


def decode_submission(raw: bytes, max_reports: int = REPORTS_MAX) -> tuple[list[ReportIn], bool]:
    """Decode one report or a batch, and say whether it was a batch; raises IntakeRefused."""
    if _decode(_SHAPE, raw, "").reports is msgspec.UNSET:
        return [decode_report(raw)], False
    return decode_batch(raw, max_reports), True


def decode_assessment(raw: bytes) -> AssessmentIn:
    """Decode the body of an assessment; raises IntakeRefused."""
    return _decode(_ASSESSMENT, raw, "")


def decode_action(raw: bytes) -> ActionIn:
    """Decode the body of an action; raises IntakeRefused."""
    return _decode(_ACTION, raw, "")


def decode_correction(raw: bytes) -> CorrectionIn:
    """Decode the body of a correction; raises IntakeRefused."""
    return _decode(_CORRECTION, raw, "")


def decode_withdrawal(raw: bytes) -> WithdrawalIn:
    """Decode the body of a withdrawal; raises IntakeRefused."""
    return _decode(_WITHDRAWAL, raw, "")


def convert_report(fields: dict[str, object]) -> ReportIn:
    """Validate a report that does not come as JSON (a row, a form) by the same schema; raises IntakeRefused."""
    try:
        return msgspec.convert(fields, ReportIn)
    except msgspec.ValidationError as invalid:
        error = _explain(str(invalid), "")
    raise IntakeRefused([error])


# What follows turns the decoder's messages into field and reason. Its sentences may quote the input (the value of an
# unknown code, the name of an unknown field), so they are read and never passed on.

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MISSING = "Object missing required field `"
_UNKNOWN = "Object contains unknown field `"
_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_STEP = re.compile(r"\.([a-z_]+)|\[(\d+)\]")
_INPUTS: tuple[type[_Input], ...] = (
    HashIn,
    QualificationIn,
    MediaIn,
    ReportIn,
    BatchIn,
    ActionIn,
    CorrectionIn,
    WithdrawalIn,
)
_NAMES = frozenset(name for one in _INPUTS for name in one.__struct_fields__)
_CODES: dict[str, type[StrEnum]] = {
    "channel": Channel,
    "classification": Classification,
    "age": Age,
    "gender": Gender,
    "site_type": SiteType,
    "commerciality": Commerciality,
    "payment_methods": PaymentMethod,
    "algorithm": HashAlgorithm,
    "action": Action,
}


def _decode(decoder: msgspec.json.Decoder[_Decoded], raw: bytes | msgspec.Raw, at: str) -> _Decoded:
    """Decode, or raise IntakeRefused; outside the handlers, so that no exception with content hangs on to it."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as invalid:
        error = _explain(str(invalid), at)
    except UnicodeDecodeError:
        error = FieldError(at, IntakeFault.BROKEN_UTF8, "the text is not UTF-8")
    except (msgspec.DecodeError, RecursionError):
        error = FieldError(at, IntakeFault.MALFORMED_JSON, "the body is not well-formed JSON")
        if _LONE_SURROGATE.search(raw):
            sentence = "the body is not well-formed JSON, or holds half a character (a lone surrogate)"
            error = FieldError(at, IntakeFault.MALFORMED_JSON, sentence)
    raise IntakeRefused([error])


def _explain(message: str, at: str) -> FieldError:
    """Read a message of the decoder as field and reason."""
    what, marker, path = message.rpartition(" - at `$")
    if not marker:
        what, path = message, ""
    steps = _steps(path.removesuffix("`"))
    if what.startswith(_MISSING):
        name = what.removeprefix(_MISSING).removesuffix("`")
        return FieldError(_join(at, f"{steps}.{name}")[0], IntakeFault.MISSING, "the field is required")
    if what.startswith(_UNKNOWN):
        name = what.removeprefix(_UNKNOWN).removesuffix("`")
        if _SAFE_NAME.fullmatch(name):
            return FieldError(_join(at, f"{steps}.{name}")[0], IntakeFault.UNKNOWN_FIELD, "there is no such field")
        return FieldError(_join(at, steps)[0], IntakeFault.UNKNOWN_FIELD, "it holds a field that is not known")
    field, last = _join(at, steps)
    reason, detail = _value_fault(what, last)
    return FieldError(field, reason, detail)


def _value_fault(what: str, name: str) -> tuple[IntakeFault, str]:
    """Read what the decoder says of a value of the field `name` as reason and sentence."""
    if what.startswith("Invalid enum value"):
        listed = ", ".join(_CODES[name]) if name in _CODES else "the listed codes"
        return IntakeFault.UNKNOWN_CODE, f"it is one of: {listed}"
    if "datetime" in what and ", got " not in what:
        return IntakeFault.BAD_TIME, "a time is written as RFC 3339 says, with its offset from UTC"
    if " of length >= " in what:
        return IntakeFault.EMPTY, "it is empty"
    if " of length <= " in what:
        limit = what.rpartition(" ")[2]
        if what.startswith("Expected `array`"):
            return IntakeFault.TOO_MANY, f"at most {limit} entries"
        return IntakeFault.TOO_LONG, f"at most {limit} characters"
    return IntakeFault.WRONG_TYPE, what if what.startswith("Expected `") else "it does not fit"


def _steps(path: str) -> str:
    """Return the path when it is made of our names and indices alone, else nothing."""
    found = _STEP.findall(path)
    if "".join(f".{name}" if name else f"[{index}]" for name, index in found) != path:
        return ""
    return path if all(not name or name in _NAMES for name, _ in found) else ""


def _join(at: str, steps: str) -> tuple[str, str]:
    """Return the field's path and its last name."""
    names = _STEP.findall(steps)
    last = next((name for name, _ in reversed(names) if name), "")
    return f"{at}{steps}" if at else steps.removeprefix("."), last
