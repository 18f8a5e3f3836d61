"""Files of reports: what is read, what is rejected by row and by file, and that reading twice names rows the same."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.rows import (
    COLUMNS,
    FileFault,
    FileRefused,
    Format,
    Row,
    RowRejected,
    derived_reference,
    read_rows,
    reject_line,
)

NOW = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
CANARY = "canary.example"
URL = f"http://{CANARY}/"


def _read(raw: bytes | str, fmt: Format | None = None) -> list[Row | RowRejected]:
    return list(read_rows(io.BytesIO(raw.encode() if isinstance(raw, str) else raw), fmt, now=NOW))


def _row(raw: bytes | str) -> Row:
    (row,) = _read(raw)
    assert isinstance(row, Row), row
    return row


def _rejected(raw: bytes | str) -> list[tuple[int, int, str, str]]:
    rows = [row for row in _read(raw) if isinstance(row, RowRejected)]
    assert all(CANARY.encode() not in reject_line(row) for row in rows)
    return [(row.number, row.line, row.field, row.reason) for row in rows]


def _refused(raw: bytes | str, fmt: Format | None = None) -> FileFault:
    with pytest.raises(FileRefused) as refused:
        read_rows(io.BytesIO(raw.encode() if isinstance(raw, str) else raw), fmt, now=NOW)
    assert CANARY not in str(refused.value)
    return refused.value.reason


def test_every_column_arrives() -> None:
    cells = {
        "url": URL,
        "media_urls": f"{URL}1 \n{URL}2",
        "referrer": f"{URL}r",
        "note": "two\nlines",
        "channel": "Own",
        "reference": " A-1 ",
        "reporter_email": "someone@mail.example",
        "reported_at": "2026-01-01T00:00:00Z",
        "received_at": "2026-01-02T00:00:00+01:00",
        "site_type": "forum",
        "commerciality": "non-commercial",
        "payment_methods": "visa|bitcoin | none",
        "classification": "Baseline",
        "age": "pubescent",
        "gender": "male",
        "virtual": "yes",
        "user_generated": "0",
        "child_modelling": "",
        "law": "art. 1",
    }
    assert tuple(cells) == COLUMNS
    report = _row(";".join(COLUMNS) + "\r\n" + ";".join(f'"{cell}"' for cell in cells.values()) + "\r\n").report
    assert [item.url.normal for item in report.items] == [URL, f"{URL}1", f"{URL}2"]
    assert report.referrer is not None
    assert (report.note, report.channel, report.reference) == ("two\nlines", "own", "A-1")
    assert report.received_at == datetime(2026, 1, 1, 23, tzinfo=UTC)
    assert (report.site_type, report.commerciality) == ("forum", "non-commercial")
    assert report.payment_methods == ("visa", "bitcoin", "none")
    assessment = report.items[2].assessment
    assert assessment is not None
    assert (assessment.classification, assessment.age, assessment.gender) == ("baseline", "pubescent", "male")
    assert (assessment.virtual, assessment.user_generated, assessment.child_modelling) == (True, False, None)
    assert assessment.law == "art. 1"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiter_bom_and_line_ends_are_found_out(delimiter: str, bom: str, end: str) -> None:
    row = _row(f'{bom}URL{delimiter}"x_own"{delimiter} Note {end}{URL}{delimiter}1{delimiter}"a{delimiter}b"{end}')
    assert row.report.items[0].url.normal == URL
    assert row.report.note == f"a{delimiter}b"
    assert (row.number, row.line) == (1, 2)


def test_one_column_is_enough() -> None:
    assert _row(f"url\n{URL}?a=1,2;3|4\n".replace(",", "%2C")).report.items[0].url.original == f"{URL}?a=1%2C2;3|4"


def test_rows_and_lines_are_counted_apart() -> None:
    raw = f'url,note\n\n{URL},"a\nb"\n,\nbad,x\n{URL},y\n'
    rows = _read(raw)
    assert [(row.number, row.line) for row in rows] == [(1, 3), (2, 6), (3, 7)]
    assert [type(row) for row in rows] == [Row, RowRejected, Row]


@pytest.mark.parametrize(
    ("header", "row", "field", "reason"),
    [
        ("url,note", ",a", "url", "missing"),
        ("url,note", " ,a", "url", "empty"),
        ("url,note", "canary.example,a", "url", "not-a-url"),
        ("url,note", "javascript:canary.example,a", "url", "unsupported-scheme"),
        ("url,note", f"{URL}", "", "field-count"),
        ("url,note", f"{URL},a,b", "", "field-count"),
        ("url,note", f'{URL},"a', "", "bad-quotes"),
        ("url,note", f"{URL},{'x' * 4001}", "note", "too-long"),
        ("url,note", f"{URL}{'x' * 8192},a", "url", "too-long"),
        ("url,note", f"{URL},a\x07", "note", "control-character"),
        ("url,note", f"{URL},a\x00", "", "control-character"),
        ("url,media_urls", f"{URL},{URL}1 canary.example", "media_urls", "not-a-url"),
        ("url,media_urls", f"{URL},{' '.join([URL] * 1001)}", "media_urls", "too-many"),
        ("url,channel", f"{URL},canary.example", "channel", "unknown-code"),
        ("url,payment_methods", f"{URL},visa canary.example", "payment_methods", "unknown-code"),
        ("url,received_at", f"{URL},2026-01-01", "received_at", "bad-time"),
        ("url,received_at", f"{URL},1767225600", "received_at", "bad-time"),
        ("url,received_at", f"{URL},2027-01-01T00:00:00Z", "received_at", "in-the-future"),
        ("url,reference", f"{URL},{URL}", "reference", "url-as-reference"),
        ("url,classification", f"{URL},canary.example", "classification", "unknown-code"),
        ("url,age", f"{URL},infant", "classification", "missing"),
        ("url,virtual", f"{URL},canary.example", "virtual", "wrong-type"),
        ("url,classification,law", f"{URL},national,a\x07", "law", "control-character"),
    ],
)
def test_a_wrong_row_is_rejected_by_column(header: str, row: str, field: str, reason: str) -> None:
    raw = f"{header}\n{URL}{',' * header.count(',')}\n{row}\n{URL}{',' * header.count(',')}\n"
    assert _rejected(raw) == [(2, 3, field, reason)]
    assert [row.number for row in _read(raw)] == [1, 2, 3]


def test_broken_utf8_rejects_its_row_alone() -> None:
    assert _rejected(b"url,note\nhttp://canary.example/,\xff\nhttp://canary.example/,a\n") == [
        (1, 2, "", "broken-utf8")
    ]


def test_the_first_fault_is_said_and_the_others_counted() -> None:
    (row,) = _read("url,referrer\nx,y\n")
    assert isinstance(row, RowRejected)
    assert row.detail.endswith("(and 1 more)")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", FileFault.EMPTY),
        (b"\n\n", FileFault.EMPTY),
        (b"\xff\xfeu\x00r\x00l\x00", FileFault.NOT_TEXT),
        (b"\xfe\xff\x00u\x00r\x00l", FileFault.NOT_TEXT),
        (b"\x1f\x8b\x08\x00", FileFault.NOT_TEXT),
        (b"PK\x03\x04", FileFault.NOT_TEXT),
        (b"url,\xff\n", FileFault.NOT_TEXT),
        (b"\xef\xbb\xbf", FileFault.EMPTY),
        (b"url,note\rhttp://canary.example/,a\r", FileFault.BAD_HEADER),
        (b"url," * 300_000, FileFault.BAD_HEADER),
        (b"link,note\nhttp://canary.example/,a\n", FileFault.MISSING_COLUMN),
        (b"http://canary.example/\n", FileFault.MISSING_COLUMN),
        (b'[{"url":"http://canary.example/"}]', FileFault.MISSING_COLUMN),
        (b'url,"note\n', FileFault.MISSING_COLUMN),
        (b"url,comment\n", FileFault.UNKNOWN_COLUMN),
        (b"url,http://canary.example/\n", FileFault.UNKNOWN_COLUMN),
        (b"url,canary.example\n", FileFault.UNKNOWN_COLUMN),
        (b"url,,note\n", FileFault.UNKNOWN_COLUMN),
        (b"url,note,note\n", FileFault.REPEATED_COLUMN),
        (b"url,URL\n", FileFault.REPEATED_COLUMN),
    ],
)
def test_a_wrong_file_is_refused_before_its_first_row(raw: bytes, reason: FileFault) -> None:
    assert _refused(raw) is reason


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(FileRefused, match="`comment`"):
        read_rows(io.BytesIO(b"url,comment\n"), None, now=NOW)
    with pytest.raises(FileRefused, match="number 2"):
        read_rows(io.BytesIO(b"url,http://canary.example/\n"), None, now=NOW)


def test_a_header_alone_is_no_row() -> None:
    assert _read("url\n") == []


def test_ndjson_row_by_row() -> None:
    good = json.dumps({"url": URL, "reference": "A", "media": [f"{URL}1"]})
    raw = b"\n".join(
        [good.encode(), b"", b"{", b'{"url":5}', b'{"url":"\xff"}', b'{"url":"x"}', b"[]", b"  " + good.encode()]
    )
    rows = _read(raw)
    assert [(row.number, row.line) for row in rows] == [(1, 1), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]
    assert _rejected(raw) == [
        (2, 3, "", "malformed-json"),
        (3, 4, "url", "wrong-type"),
        (4, 5, "", "broken-utf8"),
        (5, 6, "url", "not-a-url"),
        (6, 7, "", "wrong-type"),
    ]


def test_ndjson_with_bom_blank_lines_and_a_line_over_the_limit() -> None:
    raw = b"\xef\xbb\xbf\n \r\n" + b'{"url":"' + b"x" * (1 << 21) + b'"}\r\n{"url":"http://canary.example/"}\r\n'
    rows = _read(raw, "ndjson")
    assert [(row.number, row.line, type(row)) for row in rows] == [(1, 3, RowRejected), (2, 4, Row)]
    assert isinstance(rows[0], RowRejected)
    assert rows[0].reason == "line-too-long"


def test_the_format_can_be_said() -> None:
    assert _refused(b'{"url":"http://canary.example/"}\n', "csv") is FileFault.MISSING_COLUMN
    (row,) = _read("url\n", "ndjson")
    assert isinstance(row, RowRejected)


def test_a_reject_is_one_line_of_json() -> None:
    line = reject_line(RowRejected(7, 9, "url", "not-a-url", "no\nline \u00e9"))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"row": 7, "line": 9, "field": "url", "reason": "not-a-url", "detail": "no\nline \u00e9"}


def test_a_row_has_the_same_derived_reference_however_it_is_written() -> None:
    basis = _row(f"url,note\n{URL},a\n").digest_basis
    assert _row(f'x_own;note;url\r\nmine;"a";"{URL}"\r\n').digest_basis == basis
    assert _row(f"url,note,law\n{URL},a,\n").digest_basis == basis
    assert _row(f"url,note\n{URL},b\n").digest_basis != basis
    json_basis = _row('{"url":"http://canary.example/","note":"a"}').digest_basis
    assert _row('{ "note": "\\u0061", "url": "http://canary.example/" }').digest_basis == json_basis


def test_a_derived_reference_depends_on_source_number_and_content() -> None:
    one = derived_reference("file.csv", 1, b"x")
    assert one == derived_reference("file.csv", 1, b"x")
    assert len({one, *(derived_reference(*other) for other in [("g", 1, b"x"), ("file.csv", 2, b"x")])}) == 3
    assert derived_reference("file.csv", 1, b"y") != one
    assert one.startswith("row:")
    assert len(one) == 4 + 52
    assert one.islower()
    derived_reference("file\udcff.csv", 1, b"x")


class _Endless(io.RawIOBase):
    """A file of many rows, one in ten of which is bad, that is never whole in memory."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._lines = self._generate(rows)

    @staticmethod
    def _generate(rows: int) -> Iterator[bytes]:
        yield b"url,note\n"
        for number in range(rows):
            yield b"http://host%d.example/,%b\n" % (number, b"x" * 500 if number % 10 else b"\xff" * 500)

    def readline(self, size: int | None = -1, /) -> bytes:
        del size
        return next(self._lines, b"")


def test_memory_does_not_grow_with_the_file() -> None:
    peaks = []
    for count in (500, 4000):
        tracemalloc.start()
        rejected = sum(isinstance(row, RowRejected) for row in read_rows(_Endless(count), None, now=NOW))  # type: ignore[arg-type]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rejected == count // 10
    assert peaks[1] < peaks[0] + 100_000


@given(st.binary(max_size=80), st.sampled_from(["csv", "ndjson", None]))
def test_any_file_is_read_or_refused(raw: bytes, fmt: Format | None) -> None:
    for candidate in (raw, b"url,note\n" + raw, b'{"url":"' + raw + b'"}\n{"url":"http://host.example/"}'):
        try:
            rows = list(read_rows(io.BytesIO(candidate), fmt, now=NOW))
        except FileRefused:
            continue
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
