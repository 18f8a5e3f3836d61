"""What a report is once it passed every check: URLs parsed, times in UTC, each URL once. Never stores, never logs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from node.hotline.domain.assessment import Assessment, merge
from node.hotline.domain.schema import (
    HASHES_MAX,
    FieldError,
    HashIn,
    IntakeFault,
    IntakeRefused,
    QualificationIn,
    ReportIn,
)
from node.hotline.domain.urls import ReportedUrl, UrlRefused, parse_reported_url
from protocol.codes import HASH_HEX_DIGITS, Channel, Commerciality, HashAlgorithm, Kind, PaymentMethod, SiteType

CLOCK_LEAD = timedelta(minutes=5)
"""How far the submitter's clock may be ahead of ours."""
_YEAR_MIN = 1995  # the first hotlines opened then; an earlier date is a slip, and stays clear of the calendar's end

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # line ends and tabs may stand
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Hash:
    """A hash in lower-case hexadecimal."""

    algorithm: HashAlgorithm
    value: str


class ReportedItem(msgspec.Struct, frozen=True):
    """One URL of a report: what is located, qualified and routed."""

    kind: Kind
    url: ReportedUrl
    hashes: tuple[Hash, ...]
    assessment: Assessment | None

    def __repr__(self) -> str:
        """Show the kind only: a repr ends in log lines and tracebacks."""
        return f"<ReportedItem {self.kind}>"


class Report(msgspec.Struct, frozen=True):
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

    def __repr__(self) -> str:
        """Show the count only: a repr ends in log lines and tracebacks."""
        return f"<Report of {len(self.items)} items>"


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
    shared = None
    if report.qualification is not None:
        shared = _assessment(report.qualification, now, f"{at}qualification.", errors)
    items, repeated = _items(report, shared, now, at, errors)
    referrer = None if report.referrer is None else read_url(report.referrer, f"{at}referrer", errors)
    if report.note is not None and _CONTROL_IN_TEXT.search(report.note):
        errors.append(FieldError(f"{at}note", IntakeFault.CONTROL_CHARACTER, "the note holds a control character"))
    if report.reference is not None:
        check_reference(report.reference, f"{at}reference", errors)
    if report.reporter_email is not None:
        _check_email(report.reporter_email, f"{at}reporter_email", errors)
    received_at = now if report.received_at is None else read_time(report.received_at, now, f"{at}received_at", errors)
    reported_at = received_at
    if report.reported_at is not None:
        reported_at = read_time(report.reported_at, now, f"{at}reported_at", errors)
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


def check_assessment(given: QualificationIn, now: datetime) -> Assessment:
    """Check a qualification set on an item already known; raises IntakeRefused."""
    errors: list[FieldError] = []
    assessment = _assessment(given, now, "", errors)
    if errors:
        raise IntakeRefused(errors)
    return assessment


def _items(
    report: ReportIn, shared: Assessment | None, now: datetime, at: str, errors: list[FieldError]
) -> tuple[tuple[ReportedItem, ...], int]:
    """Return the items of a report, the page first and each URL once, and how many were named again."""
    page = read_url(report.url, f"{at}url", errors)
    hashes = read_hashes(report.hashes, f"{at}hashes", errors) if report.hashes else ()
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
            url = read_url(media, where, errors)
        else:
            url = read_url(media.url, f"{where}.url", errors)
            hashes = read_hashes(media.hashes, f"{where}.hashes", errors)
            if media.qualification is not None:
                assessment = _assessment(media.qualification, now, f"{where}.qualification.", errors)
        if url is None:
            continue
        first = items.get(url.normal)
        if first is None:
            items[url.normal] = ReportedItem(Kind.MEDIA, url, hashes, assessment)
        else:
            known = tuple(dict.fromkeys(first.hashes + hashes))
            if len(known) > HASHES_MAX:
                sentence = f"at most {HASHES_MAX} hashes for one URL, however often it is named"
                errors.append(FieldError(f"{where}.hashes", IntakeFault.TOO_MANY, sentence))
                known = first.hashes
            items[url.normal] = ReportedItem(first.kind, first.url, known, merge(first.assessment, assessment)[0])
    return tuple(items.values()), 1 + len(report.media) - len(items)


def read_url(text: str, field: str, errors: list[FieldError]) -> ReportedUrl | None:
    """Return the URL, or None after noting the error."""
    try:
        return parse_reported_url(text)
    except UrlRefused as refused:
        errors.append(FieldError(field, refused.reason, refused.sentence))
        return None


def read_hashes(hashes: list[HashIn], field: str, errors: list[FieldError]) -> tuple[Hash, ...]:
    """Return the hashes, each once; what is none of its algorithm is noted as an error."""
    known: dict[Hash, None] = {}
    for index, one in enumerate(hashes):
        value = one.value.lower()
        digits = HASH_HEX_DIGITS[one.algorithm]
        if len(value) != digits or not _HEX.fullmatch(value):
            sentence = f"a hash of {one.algorithm} is {digits} hexadecimal digits"
            errors.append(FieldError(f"{field}[{index}].value", IntakeFault.BAD_HASH, sentence))
        known[Hash(one.algorithm, value)] = None
    return tuple(known)


def check_text(text: str | None, field: str, errors: list[FieldError]) -> None:
    """Note an error for a control character."""
    if text is not None and _CONTROL.search(text):
        errors.append(FieldError(field, IntakeFault.CONTROL_CHARACTER, "it holds a control character"))


def _assessment(given: QualificationIn, now: datetime, at: str, errors: list[FieldError]) -> Assessment:
    for name, text in (("law", given.law), ("by", given.by)):
        check_text(text, f"{at}{name}", errors)
    return Assessment(
        classification=given.classification,
        age=given.age,
        gender=given.gender,
        virtual=given.virtual,
        user_generated=given.user_generated,
        child_modelling=given.child_modelling,
        law=given.law,
        at=now if given.at is None else read_time(given.at, now, f"{at}at", errors),
        by=given.by,
    )


def read_time(given: datetime, now: datetime, field: str, errors: list[FieldError]) -> datetime:
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


def check_reference(reference: str, field: str, errors: list[FieldError]) -> None:
    """Note what is wrong with a reference."""
    # References stand in log lines and addresses of ours, where a reported URL never may.
    if "://" in reference:
        sentence = "a reference is a name, never a URL"
        errors.append(FieldError(field, IntakeFault.URL_AS_REFERENCE, sentence))
    elif _CONTROL.search(reference):
        errors.append(FieldError(field, IntakeFault.CONTROL_CHARACTER, "the reference holds a control character"))


def _check_email(address: str, field: str, errors: list[FieldError]) -> None:
    if not _EMAIL.fullmatch(address) or _CONTROL.search(address):
        errors.append(FieldError(field, IntakeFault.BAD_EMAIL, "an address has one @ with something on both sides"))
