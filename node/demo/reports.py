"""Writes the demo's file of reports and says beforehand what has to become of it. Pure but for the file it writes.

Deterministic: the same seed and count give the same bytes. What is expected follows from how the file was made, by the
rules the product promises (URL identity, the graver qualification wins, who is competent); none of the product's code
is asked, so that the accounting at the end is a second opinion.
"""

import csv
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from node.demo.internet import Host, Internet

COLUMNS: Final = (
    "reference",
    "url",
    "media_urls",
    "referrer",
    "note",
    "channel",
    "reported_at",
    "received_at",
    "site_type",
    "commerciality",
    "classification",
    "age",
    "gender",
    "virtual",
    "law",
    "x_desk",
)
#: In the past whatever the clock of the machine says, so that no row is refused for lying in the future.
FIRST_DAY: Final = datetime(2025, 6, 2, 6, 0, tzinfo=UTC)
_BAD_SHARE: Final = 0.01
_BAD_MIN: Final = 6
_AGAIN_SHARE: Final = 0.12
_RESPELLED_SHARE: Final = 0.6
_NEW_HOST_SHARE: Final = 0.4
_CLASSES: Final = (("baseline", 0.3), ("national", 0.28), ("not-illegal", 0.12), ("", 0.3))
#: What becomes of items by the kind of verdict, where that names no hosting country; of the others: not located.
_WITHOUT_COUNTRY: Final = {"proxied": "origin-lookup", "no-country": "kept"}
_GRAVITY: Final = {"": 0, "not-illegal": 1, "national": 2, "baseline": 3}
_DIRECTORIES: Final = ("gallery", "set", "thread", "upload", "p", "album")
_CHANNELS: Final = ("public", "public", "public", "network", "own", "professional")
_SITES: Final = ("website", "file-host", "image-host", "image-board", "forum", "blog", "")
_NOTES: Final = (
    "",
    "",
    "",
    "seen twice this week",
    'the page calls itself "archive", with a comma, and quotes',
    "first line of the note\nsecond line of the note",
)
_AGES: Final = ("infant", "prepubescent", "pubescent", "not-categorised", "")
_GENDERS: Final = ("female", "male", "both", "not-determined", "")


@dataclass(frozen=True, slots=True, order=True)
class Fate:
    """Where an item ends at the node that took it in: its state, and the reason or the peer that goes with it."""

    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What has to come out of the file: rows, refused ones, reports, items, duplicates in them, fates of the rest."""

    rows: int
    rejected: int
    reports: int
    items: int
    duplicates: int
    fates: Mapping[Fate, int]

    def located(self) -> int:
        """Return how many items are located in the end: those that are neither duplicates nor closed."""
        return sum(count for fate, count in self.fates.items() if fate.state != "closed")

    def sent(self) -> int:
        """Return how many items go to peers."""
        return sum(count for fate, count in self.fates.items() if fate.state == "sent")


@dataclass(frozen=True, slots=True)
class Rules:
    """Who is competent in the demo's network, seen from the node that takes the reports in."""

    own: str
    peers: Mapping[str, str]

    def fate(self, host: Host, classification: str) -> Fate:
        """Return where an item ends that is hosted so and qualified so (empty: not qualified)."""
        hosting = host.hosting
        if classification == "not-illegal":
            return Fate("closed", "not-illegal")
        if hosting.country is None:
            return Fate(_WITHOUT_COUNTRY.get(hosting.kind, "unlocated"), hosting.reason or "")
        if not classification:
            return Fate("waiting")
        if hosting.country == self.own:
            return Fate("kept", "own-country")
        peer = self.peers.get(hosting.country)
        # Nobody is competent there: the node that takes the reports in is the mandated one too.
        return Fate("kept", "mandated") if peer is None else Fate("sent", peer)


@dataclass(frozen=True, slots=True)
class _Place:
    """One URL: a host and what stands behind it, in normal form."""

    host: Host
    tail: str

    def identity(self) -> str:
        return f"{self.host.scheme}://{self.host.authority}/{self.tail}"


@dataclass(slots=True)
class _Ledger:
    """What was written so far."""

    places: list[_Place] = field(default_factory=list)
    gravest: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    items: int = 0
    reports: int = 0

    def note(self, places: Sequence[_Place], classification: str) -> None:
        self.reports += 1
        for place in {place.identity(): place for place in places}.values():
            identity = place.identity()
            self.items += 1
            held = self.gravest.get(identity)
            if held is None:
                self.places.append(place)
                self.hosts[identity] = place.host
            if held is None or _GRAVITY[classification] > _GRAVITY[held]:
                self.gravest[identity] = classification


class _Writer:
    """Draws rows."""

    def __init__(self, internet: Internet, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311 - reproducible on purpose, nothing secret
        self.ledger = _Ledger()
        self._internet = internet
        self._kinds = list(internet.shares)
        self._weights = list(internet.shares.values())

    def good(self, number: int) -> dict[str, str]:
        """Return the next row that has to be taken, and note what has to become of it."""
        draw = self.draw
        page = self._place()
        media = [self._place(page.host) for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4, 6)))]
        classification = draw.choices([name for name, _ in _CLASSES], [share for _, share in _CLASSES])[0]
        self.ledger.note([page, *media], classification)
        row = self._circumstances(number)
        row["url"] = self._spell(page)
        row["media_urls"] = " ".join(self._spell(one) for one in media)
        row["classification"] = classification
        if classification in {"baseline", "national"}:
            row["age"], row["gender"] = draw.choice(_AGES), draw.choice(_GENDERS)
            row["virtual"] = draw.choice(("", "", "no", "yes"))
            row["law"] = "article 227-23" if classification == "national" else ""
        return row

    def bad(self, number: int, fault: int) -> dict[str, str]:
        """Return a row that has to be refused, each time for another reason."""
        row = self._circumstances(number)
        row["url"] = f"https://refused-{number}.example/"
        faults = (
            {"url": "javascript:void(0)"},
            {"url": "the reporter did not know the address"},
            {"url": f"https://refused-{number}.example/{'a' * 8192}"},
            {"classification": "very-illegal"},
            {"received_at": "2999-01-01T00:00:00Z"},
            {"media_urls": f"https://refused-{number}.example/1 data:,x"},
            {"url": ""},
            {"virtual": "perhaps", "classification": "national"},
        )
        return {**row, **faults[fault % len(faults)]}

    def _circumstances(self, number: int) -> dict[str, str]:
        draw = self.draw
        reported = FIRST_DAY + timedelta(minutes=7 * number)
        received = reported + timedelta(minutes=draw.randrange(1, 90))
        return {
            # One in ten submitters gives no reference: the row then gets a derived one.
            "reference": "" if number % 10 == 0 else f"demo-{number:06}",
            "referrer": f"https://search.example/q{number}" if draw.random() < 0.2 else "",  # noqa: PLR2004 - a share
            "note": draw.choice(_NOTES),
            "channel": draw.choice(_CHANNELS),
            "reported_at": reported.isoformat(),
            "received_at": received.isoformat(),
            "site_type": draw.choice(_SITES),
            "commerciality": draw.choice(("commercial", "non-commercial", "")),
            "x_desk": str(draw.randrange(1, 5)),
        }

    def _place(self, near: Host | None = None) -> _Place:
        draw = self.draw
        if self.ledger.places and draw.random() < _AGAIN_SHARE:
            return draw.choice(self.ledger.places)
        host = near
        if host is None or draw.random() < _NEW_HOST_SHARE:
            host = draw.choice(self._internet.hosts[draw.choices(self._kinds, self._weights)[0]])
        tail = f"{draw.choice(_DIRECTORIES)}/{draw.randrange(10**6)}"
        return _Place(host, tail if draw.random() < 0.7 else f"{tail}?page={draw.randrange(1, 40)}")  # noqa: PLR2004 - a share

    def _spell(self, place: _Place) -> str:
        """Write a URL in its normal form, or in another that a browser reads as the same."""
        draw, host = self.draw, place.host
        if draw.random() > _RESPELLED_SHARE or host.scheme == "ipfs":
            return place.identity()
        authority = draw.choice((host.authority, *host.spellings))
        scheme = draw.choice((host.scheme, host.scheme.upper()))
        tail = draw.choice(
            (
                place.tail,
                f"{place.tail}#top",
                f"./x/../{place.tail}",
                f"%{ord(place.tail[0]):02X}{place.tail[1:]}",
            )
        )
        return f"{scheme}://{authority}/{tail}"


def write_reports(path: Path, internet: Internet, rules: Rules, *, seed: int, rows: int) -> Expected:
    """Write a CSV file of `rows` reports, about one in a hundred of them bad, and return what has to become of it."""
    writer = _Writer(internet, seed)
    bad = min(rows, max(_BAD_MIN, round(rows * _BAD_SHARE)))
    refused = set(writer.draw.sample(range(rows), bad))
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, restval="")
        out.writeheader()
        faults = 0
        for number in range(rows):
            if number in refused:
                out.writerow(writer.bad(number, faults))
                faults += 1
            else:
                out.writerow(writer.good(number))
    ledger = writer.ledger
    fates = Counter(rules.fate(ledger.hosts[identity], gravest) for identity, gravest in ledger.gravest.items())
    return Expected(
        rows=rows,
        rejected=bad,
        reports=ledger.reports,
        items=ledger.items,
        duplicates=ledger.items - len(ledger.gravest),
        fates=dict(sorted(fates.items())),
    )
