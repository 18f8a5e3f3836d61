"""What time it is, and how times are written; never sleeps."""

import re
import time
from datetime import UTC, datetime
from typing import Protocol

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:[Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)


class Clock(Protocol):
    """The only source of time in the program, so that a test can stand in for it."""

    def now(self) -> datetime:
        """Return the time of day as an aware datetime in UTC."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; it never goes back."""


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """Return the time of day as an aware datetime in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; it never goes back."""
        return time.monotonic()


def rfc3339(moment: datetime) -> str:
    """Return `moment` as the wire writes it: UTC, three decimals, `Z` (`2026-11-22T16:00:00.000Z`).

    Digits beyond the millisecond are cut off, not rounded: a rounded time could lie in the future.
    ValueError when `moment` has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone has no place on the wire")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_rfc3339(text: str) -> datetime:
    """Return the aware UTC datetime that an RFC 3339 `date-time` names (section 5.6).

    Digits beyond the microsecond are cut off. ValueError, without the text in it, for anything else;
    a leap second (`:60`) is among them, because datetime cannot hold one.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 date and time")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not an RFC 3339 date and time") from None
