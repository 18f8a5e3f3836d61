"""Records out of damaged CSV: one stray quote costs one line, and nothing costs memory or time without bound."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain import csvrecords
from node.hotline.domain.csvrecords import BrokenRecord, Lines, csv_records


def _read(raw: bytes, width: int = 2, delimiter: str = ",") -> list[list[str] | tuple[int, str]]:
    records = csv_records(Lines(io.BytesIO(raw)), delimiter, width)
    return [(one.line, one.reason) if isinstance(one, BrokenRecord) else one.cells for one in records]


class _Counted(io.BytesIO):
    """Counts the longest piece ever asked for."""

    longest = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        line = super().readline(size)
        self.longest = max(self.longest, len(line))
        return line


def test_quotes_delimiters_and_line_ends_inside_a_field() -> None:
    assert _read(b'a,"b,""c""\r\nd"\r\n"",e\n') == [["a", 'b,"c"\r\nd'], ["", "e"]]


def test_the_last_line_needs_no_end() -> None:
    assert _read(b"a,b") == [["a", "b"]]


def test_blank_lines_and_empty_cells_are_no_records() -> None:
    assert _read(b'\n\r\n,\n"",""\na,b\n\n') == [["a", "b"]]


def test_a_quote_inside_an_unquoted_field_is_a_character() -> None:
    assert _read(b'a,5" tall\nc,d\n') == [["a", '5" tall'], ["c", "d"]]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'1,"a\n2,b\n3,c\n', [(1, "bad-quotes"), ["2", "b"], ["3", "c"]]),
        (b'1,a\n2,"b\n', [["1", "a"], (2, "bad-quotes")]),
        (b'1,"a"x\n2,b\n', [(1, "bad-quotes"), ["2", "b"]]),
        (b'1,"a\n2,b\n3,"c"\n4,d\n', [(1, "bad-quotes"), ["2", "b"], ["3", "c"], ["4", "d"]]),
        (b'1,"a\n2,b\n3,"c\nd"\n4,e\n', [(1, "bad-quotes"), ["2", "b"], ["3", "c\nd"], ["4", "e"]]),
        (b'1,"a\n2,"b\n3,c\n', [(1, "bad-quotes"), (2, "bad-quotes"), ["3", "c"]]),
        (b'1,"a\n2,b"\n3,c\n', [["1", "a\n2,b"], ["3", "c"]]),
        (b'1,"a\n2,b",c\n3,d\n', [(1, "field-count"), (2, "field-count"), ["3", "d"]]),
        (b"1\n2,b\n3,c,d\n4,e\n", [(1, "field-count"), ["2", "b"], (3, "field-count"), ["4", "e"]]),
        (b"1,\xff\n2,b\n", [(1, "broken-utf8"), ["2", "b"]]),
        (b'1,"\xc3\n\xa9"\n3,b\n', [(1, "broken-utf8"), ["3", "b"]]),
        (b"1,\xed\xb3\xbf\n2,b\n", [(1, "broken-utf8"), ["2", "b"]]),
        (b"1,a\x00\n2,b\n", [(1, "control-character"), ["2", "b"]]),
        (b"1,a\rb\n2,b\n", [(1, "bad-quotes"), ["2", "b"]]),
    ],
)
def test_a_broken_record_costs_its_own_line(raw: bytes, expected: list[object]) -> None:
    assert _read(raw) == expected


def test_a_field_over_the_limit_of_the_reader_is_broken() -> None:
    assert _read(b'1,"' + b"x" * (csv.field_size_limit() + 1) + b'"\n2,b\n') == [(1, "bad-quotes"), ["2", "b"]]


def test_a_line_over_the_limit_is_skipped_in_pieces() -> None:
    stream = _Counted(b"1," + b"x" * (5 * csvrecords.LINE_BYTES_MAX) + b"\n2,b\n")
    found = list(csv_records(Lines(stream), ",", 2))
    assert [one.line for one in found] == [1, 2]
    assert isinstance(found[0], BrokenRecord)
    assert found[0].reason == "line-too-long"
    assert stream.longest <= csvrecords.LINE_BYTES_MAX + 1


def test_a_line_over_the_limit_inside_a_quoted_field() -> None:
    raw = b'1,"a\n' + b"x" * (2 * csvrecords.LINE_BYTES_MAX) + b"\n3,b\n"
    assert _read(raw) == [(1, "bad-quotes"), (2, "line-too-long"), ["3", "b"]]


def test_an_unclosed_quote_ends_at_the_limit_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvrecords, "RECORD_LINES_MAX", 3)
    raw = b'1,"a\n' + b"".join(b"%d,b\n" % line for line in range(2, 9))
    assert _read(raw) == [(1, "bad-quotes"), *([str(line), "b"] for line in range(2, 9))]


def test_an_unclosed_quote_ends_at_the_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvrecords, "RECORD_BYTES_MAX", 12)
    assert _read(b'1,"a\n2,b\n3,c\n4,d\n') == [(1, "bad-quotes"), ["2", "b"], ["3", "c"], ["4", "d"]]


def test_quotes_made_to_be_searched_for_again_and_again_are_searched_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = 0
    hand = csvrecords._Feed.__next__

    def counted(feed: csvrecords._Feed) -> str:
        nonlocal handed
        handed += 1
        return hand(feed)

    monkeypatch.setattr(csvrecords._Feed, "__next__", counted)
    lines = 3 * csvrecords.RECORD_LINES_MAX
    # From outside a field this line opens one, from inside it closes one and opens the next.
    found = _read(b'a","x\n' * lines)
    assert found == [(line, "bad-quotes") for line in range(1, lines + 1)]
    assert handed < 4 * lines


_CELL = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(_CELL, _CELL)), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]))
def test_what_was_written_is_read(rows: list[tuple[str, str]], delimiter: str, end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    assert _read(text.getvalue().encode(), 2, delimiter) == [list(row) for row in rows if any(row)]


@given(st.binary(max_size=60))
def test_any_bytes_end_and_every_line_is_looked_at_once(raw: bytes) -> None:
    for candidate in (raw, raw.replace(b"\x00", b'"').replace(b"\x01", b"\n").replace(b"\x02", b",")):
        found = list(csv_records(Lines(io.BytesIO(candidate)), ",", 2))
        starts = [one.line for one in found]
        assert starts == sorted(set(starts))


@given(st.lists(st.sampled_from(['a,"b', "c,d", 'e,"f"', '"g,h', 'i"', 'j","k', "", '""']), max_size=30))
def test_a_good_line_at_the_end_is_never_lost_to_a_quote_before_it(lines: list[str]) -> None:
    raw = "\n".join([*lines, "good,row", "good,row"]).encode()
    assert _read(raw)[-1] == ["good", "row"]
