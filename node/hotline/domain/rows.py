"""Reads a file of reports, CSV or NDJSON, row by row in constant memory. Never stores, never quotes a row in an error.

A row that is wrong is one RowRejected and disturbs no other; a file that is wrong as a whole is refused before any row.
"""

import base64
import csv
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO, Literal

import msgspec

from node.hotline.domain.csvrecords import LINE_TOO_LONG, BrokenRecord, Line, Lines, csv_records
from node.hotline.domain.intake import Report, check_report
from node.hotline.domain.schema import FieldError, IntakeFault, IntakeRefused, convert_report, decode_report

Format = Literal["csv", "ndjson"]

REQUIRED_COLUMN = "url"
COLUMNS = (
    "url",
    "media_urls",
    "referrer",
    "note",
    "channel",
    "reference",
    "reporter_email",
    "reported_at",
    "received_at",
    "site_type",
    "commerciality",
    "payment_methods",
    "classification",
    "age",
    "gender",
    "virtual",
    "user_generated",
    "child_modelling",
    "law",
)
"""Of a CSV file. `media_urls` are separated by white space, `payment_methods` by white space or `|`."""
OWN_COLUMN_PREFIX = "x_"
"""Columns that begin so are the submitter's own and are not read."""
DELIMITERS = ",;\t|"

_QUALIFICATION = frozenset({"classification", "age", "gender", "law"})
_FLAGS = frozenset({"virtual", "user_generated", "child_modelling"})
_CODES = frozenset({"channel", "site_type", "commerciality", "classification", "age", "gender"})
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_LISTED = re.compile(r"[\s|]+")
_SAFE_NAME = re.compile(r"[a-z_][a-z0-9_ -]{0,39}")
_BOM = b"\xef\xbb\xbf"
_STRANGERS = (
    (b"\xff\xfe", "the file is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "the file is UTF-16; save it as UTF-8"),
    (b"\x1f\x8b", "the file is compressed (gzip); unpack it first"),
    (b"PK\x03\x04", "the file is a spreadsheet or an archive; save it as CSV"),
)


class FileFault(StrEnum):
    """Why a file is refused as a whole."""

    EMPTY = "empty"
    NOT_TEXT = "not-text"
    BAD_HEADER = "bad-header"
    MISSING_COLUMN = "missing-column"
    UNKNOWN_COLUMN = "unknown-column"
    REPEATED_COLUMN = "repeated-column"


class FileRefused(Exception):  # noqa: N818 -- names the fact, as the callers and the documents do
    """No row of the file was read. `sentence` is for the person who called."""

    def __init__(self, reason: FileFault, sentence: str) -> None:
        """Name the fault."""
        super().__init__(f"{reason}: {sentence}")
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """A row that passed every check.

    `number` counts the data rows from 1, blank ones apart; `line` is where it begins in the file.
    `digest_basis` is what was said in the row, in one spelling whatever the delimiter, the quoting and the order.
    """

    number: int
    line: int
    report: Report
    digest_basis: bytes


@dataclass(frozen=True, slots=True)
class RowRejected:
    """A row that is not taken: the field, a token and a sentence of its first fault, never its content."""

    number: int
    line: int
    field: str
    reason: str
    detail: str


def read_rows(stream: BinaryIO, fmt: Format | None, *, now: datetime) -> Iterator[Row | RowRejected]:
    """Read the rows of a file; without a format, a first line that begins with `{` means NDJSON.

    Raises FileRefused before the first row is read, and nothing afterwards but the stream's own errors.
    """
    lines = Lines(stream)
    first = lines.read()
    if first is None:
        raise FileRefused(FileFault.EMPTY, "the file is empty")
    content = first.content or b""
    for magic, sentence in _STRANGERS:
        if content.startswith(magic):
            raise FileRefused(FileFault.NOT_TEXT, sentence)
    first = Line(first.number, None if first.content is None else content.removeprefix(_BOM))
    if fmt is None:
        # Only NDJSON may begin with blank lines: a CSV file begins with its header.
        while first.content is not None and not first.content.strip():
            following = lines.read()
            if following is None:
                raise FileRefused(FileFault.EMPTY, "the file is empty")
            first = following
        fmt = "ndjson" if (first.content or b"").lstrip().startswith(b"{") else "csv"
    if fmt == "ndjson":
        return _ndjson_rows(first, lines, now)
    delimiter, names = _header(first)
    return _csv_rows(lines, delimiter, names, now)


def derived_reference(source_name: str, number: int, digest_basis: bytes) -> str:
    """Name a row that has no reference: the same row of the same source has the same name every time it is read."""
    # A source is a file name, which may hold bytes that are not UTF-8 (PEP 383), but no NUL.
    source = source_name.encode(errors="surrogateescape")
    digest = hashlib.sha256(b"hx/1/row\x00%b\x00%d\x00%b" % (source, number, digest_basis)).digest()
    return "row:" + base64.b32encode(digest).decode().rstrip("=").lower()


def reject_line(rejected: RowRejected) -> bytes:
    """Write a line of the rejects file: one JSON object, without the row's content."""
    return (
        msgspec.json.encode(
            {
                "row": rejected.number,
                "line": rejected.line,
                "field": rejected.field,
                "reason": rejected.reason,
                "detail": rejected.detail,
            }
        )
        + b"\n"
    )


def _ndjson_rows(first: Line, lines: Lines, now: datetime) -> Iterator[Row | RowRejected]:
    number = 0
    line: Line | None = first
    while line is not None:
        raw = line.content
        if raw is None:
            number += 1
            yield RowRejected(number, line.number, "", LINE_TOO_LONG, "the line is longer than the limit")
        elif raw := raw.strip():
            number += 1
            try:
                given = decode_report(raw)
                report = check_report(given, now)
            except IntakeRefused as refused:
                yield _rejected(number, line.number, refused, lambda field: field)
            else:
                yield Row(number, line.number, report, msgspec.json.encode(given))
        line = lines.read()


def _header(line: Line) -> tuple[str, list[str]]:
    """Find the delimiter and the names of the columns; raises FileRefused."""
    if line.content is None:
        raise FileRefused(FileFault.BAD_HEADER, "the first line is longer than any header")
    try:
        text = line.content.decode()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise FileRefused(FileFault.NOT_TEXT, "the first line is not UTF-8 text")
    if "\r" in text.rstrip("\r\n"):
        raise FileRefused(FileFault.BAD_HEADER, "the lines end in CR alone; save the file with LF or CRLF")
    best: tuple[int, str, list[str]] | None = None
    for delimiter in DELIMITERS:
        try:
            names = [name.strip().lower() for name in next(csv.reader([text], delimiter=delimiter, strict=True), [])]
        except csv.Error:
            continue
        known = len(set(names).intersection(COLUMNS))
        if REQUIRED_COLUMN in names and (best is None or known > best[0]):
            best = known, delimiter, names
    if best is None:
        sentence = f"the first line has to name the columns, and `{REQUIRED_COLUMN}` has to be among them"
        raise FileRefused(FileFault.MISSING_COLUMN, sentence)
    _check_names(best[2])
    return best[1], best[2]


def _check_names(names: list[str]) -> None:
    """Refuse columns that would be dropped in silence; raises FileRefused."""
    for position, name in enumerate(names, start=1):
        # A name comes from the file and might be content; it is repeated only when it looks like a name.
        shown = f"`{name}`" if _SAFE_NAME.fullmatch(name) else f"number {position}"
        if name not in COLUMNS and not name.startswith(OWN_COLUMN_PREFIX):
            sentence = f"column {shown} is not known; a column of your own begins with `{OWN_COLUMN_PREFIX}`"
            raise FileRefused(FileFault.UNKNOWN_COLUMN, sentence)
        if name in COLUMNS and names.count(name) > 1:
            raise FileRefused(FileFault.REPEATED_COLUMN, f"column {shown} is there twice")


def _csv_rows(lines: Lines, delimiter: str, names: list[str], now: datetime) -> Iterator[Row | RowRejected]:
    columns = [(names.index(name), name) for name in COLUMNS if name in names]
    for number, record in enumerate(csv_records(lines, delimiter, len(names)), start=1):
        if isinstance(record, BrokenRecord):
            yield RowRejected(number, record.line, "", record.reason, record.detail)
            continue
        cells = record.cells
        said = {name: cells[index] for index, name in columns if cells[index]}
        try:
            report = check_report(convert_report(_fields(said)), now)
        except IntakeRefused as refused:
            yield _rejected(number, record.line, refused, _column)
        else:
            yield Row(number, record.line, report, msgspec.json.encode(said))


def _fields(said: dict[str, str]) -> dict[str, object]:
    """Bring the cells of a row into the shape of a report; raises IntakeRefused for what the schema would not see."""
    fields: dict[str, object] = {}
    qualification: dict[str, object] = {}
    for name, cell in said.items():
        # The URL and the note are kept as they are written; around anything else white space means nothing.
        value = cell if name in {"url", "note"} else cell.strip()
        if not value:
            continue
        if name in _CODES:
            value = value.lower()
        if name == "media_urls":
            fields["media"] = value.split()
        elif name == "payment_methods":
            fields[name] = [method for method in _LISTED.split(value.lower()) if method]
        elif name in _FLAGS:
            qualification[name] = _flag(name, value)
        elif name in _QUALIFICATION:
            qualification[name] = value
        else:
            fields[name] = value
    if qualification:
        fields["qualification"] = qualification
    return fields


def _flag(name: str, value: str) -> bool:
    flag = _BOOLEANS.get(value.lower())
    if flag is None:
        raise IntakeRefused([FieldError(name, IntakeFault.WRONG_TYPE, "it is true or false")])
    return flag


def _column(field: str) -> str:
    """Name the column that a field of the report came from."""
    name = field.removeprefix("qualification.").partition("[")[0]
    return "media_urls" if name == "media" else name


def _rejected(number: int, line: int, refused: IntakeRefused, column: Callable[[str], str]) -> RowRejected:
    """Say the first fault of a row, and how many more there are."""
    first, *others = refused.errors
    more = f" (and {len(others)} more)" if others else ""
    return RowRejected(number, line, column(first.field), first.reason, first.detail + more)
