"""What a report and an outcome say: their members, rules and wire form; never the envelope around them.

The rules are the same for what we make and for what a peer sent, and each error names the member, not its value.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from string import ascii_uppercase
from typing import Final, NoReturn

import msgspec

from protocol import codes
from protocol.checkpoint import StreamId
from protocol.errors import ProtocolError
from protocol.timestamps import format_time

SCHEMA: Final = 1

# As long as a request line that servers commonly take.
URL_BYTES_MAX: Final = 8192
TEXT_BYTES_MAX: Final = 256
# References and legal bases of 200 characters, whatever the script.
SHORT_TEXT_BYTES_MAX: Final = 800
HASHES_MAX: Final = 64
REASONS_MAX: Final = 32
# An outcome with all its ranges and refusals then stays under the bytes of a record.
RANGES_MAX: Final = 400
REFUSALS_MAX: Final = 100

_COUNTRY_REASON: Final = "this is not a country code of two capital letters"
_CONFIDENCE_MAX: Final = 100
_UUID7: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TOKEN: Final = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
_HEX: Final = re.compile("[0-9a-f]+")
_COUNTRIES: Final = frozenset(first + second for first in ascii_uppercase for second in ascii_uppercase)
_PATH: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")


class Hash(msgspec.Struct, frozen=True):
    """A hash of the media file, in lower-case hex."""

    alg: codes.HashAlgorithm
    value: str


class Flags(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Marks of a qualification; None where nobody has looked."""

    virtual: bool | None = None
    user_generated: bool | None = None
    child_modelling: bool | None = None


class Qualification(msgspec.Struct, frozen=True, kw_only=True):
    """How a hotline qualified the item: the finding, the `law` it rests on, when, and `by` whom."""

    classification: codes.Classification
    at: datetime
    age: codes.Age | None = None
    gender: codes.Gender | None = None
    flags: Flags | None = None
    law: str | None = None
    by: str | None = None


class Hosting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the item is hosted, as far as is known, and to whom that leads.

    `country` and `registered_country` are two capital letters as a database gave them (some use codes ISO 3166 has
    not assigned), `assigned_country` is the country whose hotline is asked. `confidence` is 0 to 100, `reasons` are
    tokens, `evidence` is any object of strict JSON.
    """

    # Unlike other members it says something when it is null: that nobody could tell.
    country: str | None
    registered_country: str | None = None
    assigned_country: str
    confidence: int
    reasons: tuple[str, ...]
    evidence: dict[str, object]

    def __repr__(self) -> str:
        # Evidence holds host names.
        return f"Hosting({self.country} to {self.assigned_country})"


class ReportBody(msgspec.Struct, frozen=True, kw_only=True):
    """A content item, told to the hotline that is competent for it.

    `url` is the string as it was received. `page` is the item of the page that a media URL stands on.
    `received_at` is the hotline's clock, `reported_at` the public's. None means "not said" and is not sent.
    """

    url: str
    kind: codes.Kind
    channel: codes.Channel
    received_at: datetime
    hosting: Hosting
    schema: int = SCHEMA
    page: str | None = None
    referrer: str | None = None
    hashes: tuple[Hash, ...] = ()
    site_type: codes.SiteType | None = None
    commerciality: codes.Commerciality | None = None
    payment_methods: tuple[codes.PaymentMethod, ...] = ()
    reference: str | None = None
    reported_at: datetime | None = None
    qualification: Qualification | None = None

    def __repr__(self) -> str:
        # A reported URL must not reach a log through a traceback or an assertion.
        return f"ReportBody(kind={self.kind}, channel={self.channel})"


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record refused for good: its `index`, its `id` where that could be read, a code of the error registry."""

    index: int
    id: str | None
    code: str
    field: str | None = None
    detail: str


#: The first and the last index of some records in a row.
Range = tuple[int, int]


class OutcomeBody(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the records of `stream`, named by its origin line.

    `accepted` and `kept` (stored, of a type not understood) are inclusive index ranges, ascending and disjoint; no
    index is spoken of twice.
    """

    schema: int = SCHEMA
    stream: str
    accepted: tuple[Range, ...]
    kept: tuple[Range, ...]
    refused: tuple[Refusal, ...]


def invalid(field: str, reason: str) -> NoReturn:
    """Raise ProtocolError `schema-invalid` for a member; the reason never holds the value."""
    raise ProtocolError("schema-invalid", reason, field=field)


def check_uuid(value: str, field: str) -> None:
    """Raise ProtocolError `schema-invalid` unless this is a UUIDv7 (RFC 9562, section 5.7) in lower case."""
    if not _UUID7.fullmatch(value):
        invalid(field, "this is not a UUIDv7 in lower case")


def check_token(value: str, field: str) -> None:
    """Raise ProtocolError `schema-invalid` unless this is a token: `[a-z0-9_-]`, at most 64 characters."""
    if not _TOKEN.fullmatch(value):
        invalid(field, "this is not a token")


def check_report(body: ReportBody) -> None:
    """Raise ProtocolError `schema-invalid` for what the types alone do not rule out."""
    check_schema(body.schema)
    check_text(body.url, "body.url", URL_BYTES_MAX)
    if body.referrer is not None:
        check_text(body.referrer, "body.referrer", URL_BYTES_MAX)
    if body.reference is not None:
        check_text(body.reference, "body.reference", SHORT_TEXT_BYTES_MAX)
    if (body.page is None) is not (body.kind is codes.Kind.PAGE):
        invalid("body.page", "a media item names its page, and a page none")
    if body.page is not None:
        check_uuid(body.page, "body.page")
    check_hashes(body.hashes, "body.hashes")
    check_payment_methods(body.payment_methods, "body.payment_methods")
    if body.qualification is not None:
        check_qualification(body.qualification)
    check_hosting(body.hosting)


def check_schema(schema: int) -> None:
    """Raise ProtocolError `schema-invalid` unless this is the version of the bodies known here."""
    if schema != SCHEMA:
        invalid("body.schema", "this is not a version of the schema known here")


def check_qualification(qualification: Qualification) -> None:
    """Raise ProtocolError `schema-invalid` for texts of `body.qualification` that are none."""
    if qualification.law is not None:
        check_text(qualification.law, "body.qualification.law", SHORT_TEXT_BYTES_MAX)
    if qualification.by is not None:
        check_text(qualification.by, "body.qualification.by", SHORT_TEXT_BYTES_MAX)


def check_hosting(hosting: Hosting) -> None:
    """Raise ProtocolError `schema-invalid` for what the types of `body.hosting` do not rule out."""
    if hosting.country is not None:
        check_country(hosting.country, "body.hosting.country")
    if hosting.registered_country is not None:
        check_country(hosting.registered_country, "body.hosting.registered_country")
    check_country(hosting.assigned_country, "body.hosting.assigned_country")
    if not 0 <= hosting.confidence <= _CONFIDENCE_MAX:
        invalid("body.hosting.confidence", f"the confidence is from 0 to {_CONFIDENCE_MAX}")
    if len(hosting.reasons) > REASONS_MAX or not all(map(_TOKEN.fullmatch, hosting.reasons)):
        invalid("body.hosting.reasons", f"this is not a list of at most {REASONS_MAX} tokens")


def check_country(country: str, field: str) -> None:
    """Raise ProtocolError `schema-invalid` unless this is a country code, assigned or not."""
    if country not in _COUNTRIES:
        invalid(field, _COUNTRY_REASON)


def check_hashes(hashes: tuple[Hash, ...], field: str) -> None:
    """Raise ProtocolError `schema-invalid` for too many hashes, or one that is none of its algorithm."""
    if len(hashes) > HASHES_MAX:
        invalid(field, f"there are more than {HASHES_MAX} hashes")
    for number, one in enumerate(hashes):
        if len(one.value) != codes.HASH_HEX_DIGITS[one.alg] or not _HEX.fullmatch(one.value):
            invalid(f"{field}[{number}].value", "this is not a hash of its algorithm in lower-case hex")


def check_payment_methods(methods: tuple[codes.PaymentMethod, ...], field: str) -> None:
    """Raise ProtocolError `schema-invalid` for a method that occurs twice."""
    if len(set(methods)) != len(methods):
        invalid(field, "a payment method occurs twice")


def check_url(text: str, field: str) -> None:
    """Raise ProtocolError `schema-invalid` for what cannot be a URL as it was received."""
    check_text(text, field, URL_BYTES_MAX)


def check_text(text: str, field: str, bytes_max: int = TEXT_BYTES_MAX) -> None:
    """Raise ProtocolError `schema-invalid` unless this is one line of Unicode, not empty, of `bytes_max` at most."""
    if text.isascii() and text.isprintable() and 0 < len(text) <= bytes_max:
        # Nearly all text ends here; the rest says exactly what is wrong with the other.
        return
    if not text or _CONTROL.search(text):
        invalid(field, "this is empty or holds a control character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ProtocolError("schema-invalid", "this is not Unicode text", field=field) from None
    if size > bytes_max:
        invalid(field, f"this has more than {bytes_max} bytes")


def check_outcome(body: OutcomeBody) -> None:
    """Raise ProtocolError `schema-invalid` for what the types alone do not rule out."""
    check_schema(body.schema)
    try:
        StreamId.parse(body.stream)
    except ProtocolError:
        invalid("body.stream", "this is not the origin of an HX/1 stream")
    if len(body.accepted) + len(body.kept) > RANGES_MAX:
        invalid("body.accepted", f"accepted and kept have more than {RANGES_MAX} ranges")
    if len(body.refused) > REFUSALS_MAX:
        invalid("body.refused", f"there are more than {REFUSALS_MAX} refusals")
    _check_ranges(body.accepted, "body.accepted")
    _check_ranges(body.kept, "body.kept")
    _check_ranges(tuple((one.index, one.index) for one in body.refused), "body.refused")
    spoken = sorted([*body.accepted, *body.kept, *((one.index, one.index) for one in body.refused)])
    if any(after[0] <= before[1] for before, after in pairwise(spoken)):
        invalid("body", "the outcome speaks twice of one index")
    for number, one in enumerate(body.refused):
        _check_refusal(one, f"body.refused[{number}]")


def _check_ranges(ranges: tuple[Range, ...], field: str) -> None:
    end = -1
    for first, last in ranges:
        if not end < first <= last:
            invalid(field, "the indices are not ascending and disjoint")
        end = last


def _check_refusal(refusal: Refusal, field: str) -> None:
    if refusal.id is not None:
        check_uuid(refusal.id, f"{field}.id")
    check_token(refusal.code, f"{field}.code")
    check_text(refusal.detail, f"{field}.detail")
    if refusal.field is not None and not _PATH.fullmatch(refusal.field):
        invalid(f"{field}.field", "this is not the path of a member")


def split_outcome(body: OutcomeBody) -> Iterator[OutcomeBody]:
    """Yield outcomes that together say what `body` says, each within RANGES_MAX and REFUSALS_MAX.

    They go up the stream: none speaks of an index below one that an earlier one speaks of.
    """
    said: list[tuple[int, Range | Refusal]] = [(one.index, one) for one in body.refused]
    accepted = [(one[0], one) for one in body.accepted]
    said = sorted([*said, *accepted, *((one[0], one) for one in body.kept)], key=lambda one: one[0])
    taken, at = {one for _, one in accepted}, 0
    while True:
        ranges: list[Range] = []
        refused: list[Refusal] = []
        for _, one in said[at:]:
            if isinstance(one, Refusal):
                if len(refused) == REFUSALS_MAX:
                    break
                refused.append(one)
            else:
                if len(ranges) == RANGES_MAX:
                    break
                ranges.append(one)
        at += len(ranges) + len(refused)
        yield OutcomeBody(
            stream=body.stream,
            accepted=tuple(one for one in ranges if one in taken),
            kept=tuple(one for one in ranges if one not in taken),
            refused=tuple(refused),
        )
        if at == len(said):
            return


class _QualificationWire(msgspec.Struct, kw_only=True, omit_defaults=True):
    classification: codes.Classification
    age: codes.Age | None = None
    gender: codes.Gender | None = None
    flags: Flags | None = None
    law: str | None = None
    at: str
    by: str | None = None


class _ReportWire(msgspec.Struct, kw_only=True, omit_defaults=True):
    schema: int
    url: str
    kind: codes.Kind
    page: str | None = None
    referrer: str | None = None
    hashes: tuple[Hash, ...]
    site_type: codes.SiteType | None = None
    commerciality: codes.Commerciality | None = None
    payment_methods: tuple[codes.PaymentMethod, ...] = ()
    channel: codes.Channel
    reference: str | None = None
    received_at: str
    reported_at: str | None = None
    qualification: _QualificationWire | None = None
    hosting: Hosting


def report_wire(body: ReportBody) -> msgspec.Struct:
    """Return what the JSON encoder makes the body of: members in their order, times in their one spelling.

    Members that say nothing are left out.
    """
    qualification = body.qualification
    return _ReportWire(
        schema=body.schema,
        url=body.url,
        kind=body.kind,
        page=body.page,
        referrer=body.referrer,
        hashes=body.hashes,
        site_type=body.site_type,
        commerciality=body.commerciality,
        payment_methods=body.payment_methods,
        channel=body.channel,
        reference=body.reference,
        received_at=format_time(body.received_at),
        reported_at=None if body.reported_at is None else format_time(body.reported_at),
        qualification=None
        if qualification is None
        else _QualificationWire(
            classification=qualification.classification,
            age=qualification.age,
            gender=qualification.gender,
            flags=qualification.flags,
            law=qualification.law,
            at=format_time(qualification.at),
            by=qualification.by,
        ),
        hosting=body.hosting,
    )
