"""What a report must be: the one schema that validates and is documented, and its checks. Never stores, never logs.

Errors name the field and the reason, never the value: a value may be a reported URL.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from node.hotline.domain.assessment import Assessment
from node.hotline.domain.urls import URL_BYTES_MAX, ReportedUrl, UrlRefused, parse_reported_url
from protocol.codes import Age, Channel, Classification, Commerciality, Gender, Kind, PaymentMethod, SiteType

MEDIA_MAX = 1000
REPORTS_MAX = 1000
NOTE_CHARS_MAX = 4000
SHORT_CHARS_MAX = 200
HASHES_MAX = 16
EMAIL_CHARS_MAX = 254  # RFC 5321 4.5.3.1.3: a path is 256 octets, two of them angle brackets
ERRORS_MAX = 100
"""Errors reported for one submission; more would only make the answer long."""
CLOCK_LEAD = timedelta(minutes=5)
"""How far the submitter's clock may be ahead of ours."""
_YEAR_MIN = 1995  # the first hotlines opened then; an earlier date is a slip, and stays clear of the calendar's end

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # line ends and tabs may stand
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class HashAlgorithm(StrEnum):
    """Hashes that a media URL may be accompanied by, all written in hexadecimal."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"
    PDQ = "pdq"


_HASH_DIGITS = {
    HashAlgorithm.MD5: 32,
    HashAlgorithm.SHA1: 40,
    HashAlgorithm.SHA256: 64,
    HashAlgorithm.SHA512: 128,
    HashAlgorithm.PDQ: 64,
}
_HEX = re.compile(r"[0-9a-f]+")

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


class _Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything decoded from outside: unknown fields are errors, and the content is not printable."""

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


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong: a path as `media[0].url` (empty: the whole), a token of a fault, a sentence."""

    field: str
    reason: str
    detail: str


class IntakeRefused(Exception):
    """The submission is refused whole; `errors` says why, at most ERRORS_MAX of them, and holds no content."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        """Keep what is worth showing."""
        self.errors = tuple(errors[:ERRORS_MAX])
        super().__init__("; ".join(f"{error.field}: {error.reason}" for error in self.errors))


@dataclass(frozen=True, slots=True)
class Hash:
    """A hash in lower-case hexadecimal."""

    algorithm: HashAlgorithm
    value: str


@dataclass(frozen=True, slots=True, repr=False)
class ReportedItem:
    """One URL of a report: what is located, qualified and routed."""

    kind: Kind
    url: ReportedUrl
    hashes: tuple[Hash, ...]
    assessment: Assessment | None


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """A report that passed every check; times in UTC.

    `items` begins with the page and names no URL twice; `repeated` counts what was named again.
    """

    items: tuple[ReportedItem, ...]
    repeated: int
    referrer: ReportedUrl | None
    note: str | None
    channel: Channel
    reference: str | None
    reporter_email: str | None
    reported_at: datetime
    received_at: datetime
    site_type: SiteType | None
    commerciality: Commerciality | None
    payment_methods: tuple[PaymentMethod, ...]


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


def decode_assessment(raw: bytes, now: datetime) -> Assessment:
    """Decode and check the body of an assessment; raises IntakeRefused."""
    errors: list[FieldError] = []
    assessment = _assessment(_decode(_ASSESSMENT, raw, ""), now, "", errors)
    if errors or assessment is None:
        raise IntakeRefused(errors)
    return assessment


def convert_report(fields: dict[str, object]) -> ReportIn:
    """Validate a report that does not come as JSON (a row, a form) by the same schema; raises IntakeRefused."""
    try:
        return msgspec.convert(fields, ReportIn)
    except msgspec.ValidationError as invalid:
        error = _explain(str(invalid), "")
    raise IntakeRefused([error])


def check_batch(reports: Iterable[ReportIn], now: datetime) -> list[Report]:
    """Check each report of a batch; raises IntakeRefused with the errors of all of them."""
    checked: list[Report] = []
    errors: list[FieldError] = []
    for index, report in enumerate(reports):
        try:
            checked.append(check_report(report, now, at=f"reports[{index}]."))
        except IntakeRefused as refused:
            errors.extend(refused.errors)
    if errors:
        raise IntakeRefused(errors)
    return checked


def check_report(report: ReportIn, now: datetime, *, at: str = "") -> Report:
    """Parse the URLs and check what a schema cannot say; `at` stands before each field in errors.

    Raises IntakeRefused with every error found.
    """
    errors: list[FieldError] = []
    shared = report.qualification and _assessment(report.qualification, now, f"{at}qualification.", errors)
    items, repeated = _items(report, shared, now, at, errors)
    referrer = None if report.referrer is None else _url(report.referrer, f"{at}referrer", errors)
    if report.note is not None and _CONTROL_IN_TEXT.search(report.note):
        errors.append(FieldError(f"{at}note", IntakeFault.CONTROL_CHARACTER, "the note holds a control character"))
    if report.reference is not None:
        _check_reference(report.reference, f"{at}reference", errors)
    if report.reporter_email is not None:
        _check_email(report.reporter_email, f"{at}reporter_email", errors)
    received_at = now if report.received_at is None else _time(report.received_at, now, f"{at}received_at", errors)
    reported_at = received_at
    if report.reported_at is not None:
        reported_at = _time(report.reported_at, now, f"{at}reported_at", errors)
    if errors:
        raise IntakeRefused(errors)
    return Report(
        items=items,
        repeated=repeated,
        referrer=referrer,
        note=report.note or None,
        channel=report.channel,
        reference=report.reference,
        reporter_email=report.reporter_email,
        reported_at=reported_at,
        received_at=received_at,
        site_type=report.site_type,
        commerciality=report.commerciality,
        payment_methods=tuple(dict.fromkeys(report.payment_methods)),
    )


def _items(
    report: ReportIn, shared: Assessment | None, now: datetime, at: str, errors: list[FieldError]
) -> tuple[tuple[ReportedItem, ...], int]:
    """Return the items of a report, the page first and each URL once, and how many were named again."""
    page = _url(report.url, f"{at}url", errors)
    hashes = _hashes(report.hashes, f"{at}hashes", errors) if report.hashes else ()
    if not report.media:
        return () if page is None else (ReportedItem(Kind.PAGE, page, hashes, shared),), 0
    items: dict[str, ReportedItem] = {}
    if page is not None:
        items[page.normal] = ReportedItem(Kind.PAGE, page, hashes, shared)
    for index, media in enumerate(report.media):
        where = f"{at}media[{index}]"
        assessment = shared
        hashes = ()
        if isinstance(media, str):
            url = _url(media, where, errors)
        else:
            url = _url(media.url, f"{where}.url", errors)
            hashes = _hashes(media.hashes, f"{where}.hashes", errors)
            if media.qualification is not None:
                assessment = _assessment(media.qualification, now, f"{where}.qualification.", errors)
        if url is None:
            continue
        first = items.get(url.normal)
        if first is None:
            items[url.normal] = ReportedItem(Kind.MEDIA, url, hashes, assessment)
        elif hashes:
            known = tuple(dict.fromkeys(first.hashes + hashes))
            items[url.normal] = ReportedItem(first.kind, first.url, known, first.assessment)
    return tuple(items.values()), 1 + len(report.media) - len(items)


def _url(text: str, field: str, errors: list[FieldError]) -> ReportedUrl | None:
    try:
        return parse_reported_url(text)
    except UrlRefused as refused:
        errors.append(FieldError(field, refused.reason, refused.sentence))
        return None


def _hashes(hashes: list[HashIn], field: str, errors: list[FieldError]) -> tuple[Hash, ...]:
    known: dict[Hash, None] = {}
    for index, one in enumerate(hashes):
        value = one.value.lower()
        digits = _HASH_DIGITS[one.algorithm]
        if len(value) != digits or not _HEX.fullmatch(value):
            sentence = f"a hash of {one.algorithm} is {digits} hexadecimal digits"
            errors.append(FieldError(f"{field}[{index}].value", IntakeFault.BAD_HASH, sentence))
        known[Hash(one.algorithm, value)] = None
    return tuple(known)


def _assessment(given: QualificationIn, now: datetime, at: str, errors: list[FieldError]) -> Assessment:
    for name, text in (("law", given.law), ("by", given.by)):
        if text is not None and _CONTROL.search(text):
            errors.append(FieldError(f"{at}{name}", IntakeFault.CONTROL_CHARACTER, "it holds a control character"))
    return Assessment(
        classification=given.classification,
        age=given.age,
        gender=given.gender,
        virtual=given.virtual,
        user_generated=given.user_generated,
        child_modelling=given.child_modelling,
        law=given.law,
        at=None if given.at is None else _time(given.at, now, f"{at}at", errors),
        by=given.by,
    )


def _time(given: datetime, now: datetime, field: str, errors: list[FieldError]) -> datetime:
    """Return the time in UTC, or `now` after noting the error."""
    if given.tzinfo is None or given.year < _YEAR_MIN:
        sentence = f"a time has an offset from UTC and lies after {_YEAR_MIN}"
        errors.append(FieldError(field, IntakeFault.BAD_TIME, sentence))
    elif given > now + CLOCK_LEAD:
        sentence = "the time lies in the future by this node's clock"
        errors.append(FieldError(field, IntakeFault.IN_THE_FUTURE, sentence))
    else:
        return given.astimezone(UTC)
    return now


def _check_reference(reference: str, field: str, errors: list[FieldError]) -> None:
    # References stand in log lines and addresses of ours, where a reported URL never may.
    if "://" in reference:
        sentence = "a reference is a name, never a URL"
        errors.append(FieldError(field, IntakeFault.URL_AS_REFERENCE, sentence))
    elif _CONTROL.search(reference):
        errors.append(FieldError(field, IntakeFault.CONTROL_CHARACTER, "the reference holds a control character"))


def _check_email(address: str, field: str, errors: list[FieldError]) -> None:
    if not _EMAIL.fullmatch(address) or _CONTROL.search(address):
        errors.append(FieldError(field, IntakeFault.BAD_EMAIL, "an address has one @ with something on both sides"))


# What follows turns the decoder's messages into field and reason. Its sentences may quote the input (the value of an
# unknown code, the name of an unknown field), so they are read and never passed on.

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_STEP = re.compile(r"\.([a-z_]+)|\[(\d+)\]")
_INPUTS: tuple[type[_Input], ...] = (HashIn, QualificationIn, MediaIn, ReportIn, BatchIn)
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
    field, last = _join(at, steps)
    if what.startswith("Object missing required field `"):
        name = what.split("`")[1]
        return FieldError(_join(at, f"{steps}.{name}")[0], IntakeFault.MISSING, "the field is required")
    if what.startswith("Object contains unknown field `"):
        name = what.removeprefix("Object contains unknown field `").removesuffix("`")
        if _SAFE_NAME.fullmatch(name):
            return FieldError(_join(at, f"{steps}.{name}")[0], IntakeFault.UNKNOWN_FIELD, "there is no such field")
        return FieldError(field, IntakeFault.UNKNOWN_FIELD, "it holds a field that is not known")
    if what.startswith("Invalid enum value"):
        listed = ", ".join(_CODES[last]) if last in _CODES else "the listed codes"
        return FieldError(field, IntakeFault.UNKNOWN_CODE, f"it is one of: {listed}")
    if "datetime" in what and "got" not in what:
        return FieldError(field, IntakeFault.BAD_TIME, "a time is written as RFC 3339 says, with its offset from UTC")
    if " of length >= " in what:
        return FieldError(field, IntakeFault.EMPTY, "it is empty")
    if " of length <= " in what:
        many = what.startswith("Expected `array`")
        limit = what.rpartition(" ")[2]
        sentence = f"at most {limit} entries" if many else f"at most {limit} characters"
        return FieldError(field, IntakeFault.TOO_MANY if many else IntakeFault.TOO_LONG, sentence)
    return FieldError(field, IntakeFault.WRONG_TYPE, what if what.startswith("Expected `") else "it does not fit")


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
