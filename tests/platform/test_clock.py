"""How times are written and read."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.clock import SystemClock, parse_rfc3339, rfc3339


def test_the_wire_writes_utc_with_milliseconds() -> None:
    moment = datetime(2026, 11, 22, 17, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert rfc3339(moment) == "2026-11-22T16:00:00.999Z"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        rfc3339(datetime(2026, 11, 22))  # noqa: DTZ001 -- the mistake under test


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_is_written_is_read_back(moment: datetime) -> None:
    cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_rfc3339(rfc3339(moment)) == cut


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T16:00:00Z", datetime(2026, 11, 22, 16, tzinfo=UTC)),
        ("2026-11-22t16:00:00.5z", datetime(2026, 11, 22, 16, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-22T16:00:00.123456789+02:00", datetime(2026, 11, 22, 14, 0, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_every_form_of_rfc_3339_is_read(text: str, expected: datetime) -> None:
    assert parse_rfc3339(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22 16:00:00Z",
        "2026-11-22T16:00:00",
        "2026-11-22T16:00Z",
        "2026-13-22T16:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T16:00:60Z",
        "2026-11-22T16:00:00+0200",
        "2026-11-22T16:00:00,5Z",
        "2026-W47-7T16:00:00Z",
        "٢٠٢٦-11-22T16:00:00Z",
        "0001-01-01T00:00:00+23:59",
    ],
)
def test_anything_else_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not an RFC 3339 date and time$"):
        parse_rfc3339(text)


def test_the_machines_clock_knows_its_zone_and_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()
