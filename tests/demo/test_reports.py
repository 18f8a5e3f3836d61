"""The demo's file of reports: the same bytes each time, and the product reads in it what the demo expects of it."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.demo.internet import Host, Hosting, Internet, Relay, make_internet
from node.demo.reports import COLUMNS, Expected, Fate, Rules, write_reports
from node.hotline.domain.assessment import Assessment, merge
from node.hotline.domain.lifecycle import State
from node.hotline.domain.rows import COLUMNS as PRODUCT_COLUMNS
from node.hotline.domain.rows import Row, RowRejected, read_rows

RULES = Rules("FR", {"NL": "nl.hotline.example", "DE": "de.hotline.example"})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(seed: int = 7) -> Internet:
    return make_internet(seed, 60, Relay("made-up", 64510, "relay.example"))


def read(path: Path) -> tuple[list[Row], list[RowRejected]]:
    with path.open("rb") as file:
        rows = list(read_rows(file, None, now=NOW))
    return [row for row in rows if isinstance(row, Row)], [row for row in rows if isinstance(row, RowRejected)]


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first = write_reports(tmp_path / "1", made(), RULES, seed=3, rows=80)
    assert first == write_reports(tmp_path / "2", made(), RULES, seed=3, rows=80)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    write_reports(tmp_path / "3", made(), RULES, seed=4, rows=80)
    assert (tmp_path / "1").read_bytes() != (tmp_path / "3").read_bytes()


def test_every_column_is_one_of_the_product_s_or_the_submitter_s_own() -> None:
    assert {name for name in COLUMNS if not name.startswith("x_")} <= set(PRODUCT_COLUMNS)


@given(st.integers(0, 1000))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_product_reads_what_is_expected_of_the_file(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "reports.csv"
    expected = write_reports(path, made(seed), RULES, seed=seed, rows=120)
    good, bad = read(path)
    assert (len(good), len(bad), len(good) + len(bad)) == (expected.reports, expected.rejected, expected.rows)
    gravest: dict[str, Assessment | None] = {}
    items = 0
    for row in good:
        for item in row.report.items:
            items += 1
            gravest[item.url.normal] = merge(gravest.get(item.url.normal), item.assessment)[0]
    assert items == expected.items
    assert items - len(gravest) == expected.duplicates
    closed = sum(one is not None and not one.illegal for one in gravest.values())
    assert closed == expected.fates.get(Fate("closed", "not-illegal"), 0)
    assert sum(expected.fates.values()) == len(gravest)
    assert expected.located() == len(gravest) - closed


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Expected]:
    path = tmp_path_factory.mktemp("reports") / "reports.csv"
    return path, write_reports(path, made(), RULES, seed=5, rows=1000)


def test_every_fate_that_the_demo_shows_comes_up(large: tuple[Path, Expected]) -> None:
    _, expected = large
    assert {fate.state for fate in expected.fates} == {
        "closed",
        "waiting",
        "kept",
        "origin-lookup",
        "unlocated",
        "sent",
    }
    assert {fate.state for fate in expected.fates} <= set(State)
    assert {fate.detail for fate in expected.fates if fate.state == "kept"} == {
        "own-country",
        "mandated",
        "onion",
        "i2p",
        "ipfs",
    }
    assert expected.duplicates > 50
    assert expected.sent() > 300


def test_rows_are_refused_for_many_reasons(large: tuple[Path, Expected]) -> None:
    path, _ = large
    _, bad = read(path)
    reasons = Counter((row.field, row.reason) for row in bad)
    assert len(reasons) >= 7
    assert {"url", "classification", "received_at", "media_urls", "virtual"} <= {field for field, _ in reasons}


def test_the_file_has_what_makes_csv_difficult(large: tuple[Path, Expected]) -> None:
    text = large[0].read_bytes()
    assert b'""archive"", with a comma' in text
    assert b"first line of the note\nsecond line" in text


@pytest.mark.parametrize(
    ("hosting", "classification", "fate"),
    [
        (Hosting("hosted", "NL"), "baseline", Fate("sent", "nl.hotline.example")),
        (Hosting("hosted", "FR"), "national", Fate("kept", "own-country")),
        (Hosting("hosted", "US"), "national", Fate("kept", "mandated")),
        (Hosting("hosted", "NL"), "", Fate("waiting")),
        (Hosting("hosted", "NL"), "not-illegal", Fate("closed", "not-illegal")),
        (Hosting("proxied", None, "proxy-by-asn"), "baseline", Fate("origin-lookup", "proxy-by-asn")),
        (Hosting("no-country", None, "onion"), "", Fate("kept", "onion")),
        (Hosting("unlocated", None, "nxdomain"), "baseline", Fate("unlocated", "nxdomain")),
        (Hosting("retry", None, "dns-servfail"), "", Fate("unlocated", "dns-servfail")),
    ],
)
def test_the_rules_of_the_network(hosting: Hosting, classification: str, fate: Fate) -> None:
    assert RULES.fate(Host("site.example", hosting, {}), classification) == fate
