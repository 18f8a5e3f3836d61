"""Splits a byte stream into lines and CSV records in bounded memory, whatever is wrong with it. Knows no columns.

The standard reader follows an opening quote to its end, and a quote that is never closed swallows the rest of the file.
Here a record that is broken in its structure costs its first line only: reading goes on at the next line, so that one
stray quote loses one row. Lines already searched for the missing quote are then read one by one, up to the last,
which keeps the work linear in the size of the file.
"""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

LINE_BYTES_MAX = 1 << 20
RECORD_BYTES_MAX = 1 << 20
"""Bytes of a record over all its lines; a report of a thousand media URLs takes about a tenth."""
RECORD_LINES_MAX = 2000
"""A record has at most one line a media URL, and a note of as many lines."""

LINE_TOO_LONG = "line-too-long"
BAD_QUOTES = "bad-quotes"
FIELD_COUNT = "field-count"
BROKEN_UTF8 = "broken-utf8"
CONTROL_CHARACTER = "control-character"


@dataclass(frozen=True, slots=True, repr=False)
class Line:
    """A physical line with its end, numbered from 1; `content` is None when it is longer than LINE_BYTES_MAX."""

    number: int
    content: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """The cells of a record that begins at `line`."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A record that cannot be read, and why; never its content."""

    line: int
    reason: str
    detail: str


class Lines:
    """The lines of a binary stream; holds one at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read nothing yet."""
        self._stream = stream
        self._number = 0

    def read(self) -> Line | None:
        """Return the next line, or None at the end; what is over the limit is skipped, not kept."""
        content = self._stream.readline(LINE_BYTES_MAX + 1)
        if not content:
            return None
        self._number += 1
        if len(content) <= LINE_BYTES_MAX:
            return Line(self._number, content)
        while content and not content.endswith(b"\n"):
            content = self._stream.readline(LINE_BYTES_MAX)
        return Line(self._number, None)


class _StructureError(Exception):
    """Raised through the standard reader when a record cannot go on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


_UNCLOSED = "a quoted field does not end where it should: a quote is missing, doubled or stray, or a cell is too long"


class _Feed:
    """Hands lines to the standard reader, remembers those of the record under way, and can take them back."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._pending: deque[Line] = deque()
        self._taken: list[Line] = []
        self._bytes = 0
        self._alone_before = 0
        self.not_utf8 = False
        self.has_nul = False

    def begin(self) -> None:
        """Start a record."""
        self._taken.clear()
        self._bytes = 0
        self.not_utf8 = False
        self.has_nul = False

    @property
    def first_line(self) -> int:
        return self._taken[0].number

    def give_up(self) -> None:
        """Drop the first line of the record and read the others again, one by one up to the last of them."""
        self._alone_before = max(self._alone_before, self._taken[-1].number)
        self._pending.extendleft(reversed(self._taken[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._taken and self._taken[0].number < self._alone_before:
            raise _StructureError(BAD_QUOTES, _UNCLOSED)
        line = self._pending.popleft() if self._pending else self._lines.read()
        if line is None:
            raise StopIteration
        self._taken.append(line)
        content = line.content
        if content is None:
            if len(self._taken) > 1:
                raise _StructureError(BAD_QUOTES, _UNCLOSED)
            raise _StructureError(LINE_TOO_LONG, f"the line is longer than {LINE_BYTES_MAX} bytes")
        self._bytes += len(content)
        if self._bytes > RECORD_BYTES_MAX or len(self._taken) > RECORD_LINES_MAX:
            raise _StructureError(BAD_QUOTES, _UNCLOSED)
        if b"\x00" in content:
            self.has_nul = True
        try:
            return content.decode()
        except UnicodeDecodeError:
            self.not_utf8 = True
            # All that matters to the structure is ASCII, and no byte of a broken sequence can be taken for it.
            return content.decode(errors="surrogateescape")


def csv_records(lines: Lines, delimiter: str, width: int) -> Iterator[Record | BrokenRecord]:
    """Read records of `width` cells; blank lines and records of empty cells are no records.

    A broken record is told and never ends the reading. Broken UTF-8 and NUL spoil their record alone.
    """
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _StructureError as broken:
            yield BrokenRecord(feed.first_line, broken.reason, broken.detail)
            feed.give_up()
            continue
        except csv.Error:
            yield BrokenRecord(feed.first_line, BAD_QUOTES, _UNCLOSED)
            feed.give_up()
            continue
        if not any(cells):
            continue
        if len(cells) != width:
            detail = f"the row has {len(cells)} fields, the header names {width}"
            yield BrokenRecord(feed.first_line, FIELD_COUNT, detail)
            feed.give_up()
        elif feed.not_utf8:
            yield BrokenRecord(feed.first_line, BROKEN_UTF8, "the row is not UTF-8")
        elif feed.has_nul:
            yield BrokenRecord(feed.first_line, CONTROL_CHARACTER, "the row holds a NUL byte")
        else:
            yield Record(feed.first_line, cells)
