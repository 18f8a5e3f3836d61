"""The default country file: built from statistics, the same bytes each time, and the one that ships is what it says."""

import io
import itertools
import pickle
from datetime import UTC, date, datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo.build_country import (
    Delegations,
    Range,
    SourceInvalid,
    build,
    from_folder,
    from_package,
    load_addresses,
    main,
    merge,
)
from geo.mmdb import CountryDatabase

SHIPPED = Path(__file__).resolve().parents[2] / "geo" / "data" / "country.mmdb"
REGISTRIES = ("afrinic", "apnic", "arin", "lacnic", "ripencc")


def number(text: str) -> int:
    return int(ip_address(text))


DELEGATIONS = Delegations(
    v4=[
        (number("192.0.2.0"), number("192.0.2.127"), "FR"),
        (number("192.0.2.128"), number("192.0.2.255"), "FR"),
        (number("198.51.100.5"), number("198.51.100.77"), "NL"),
        (number("203.0.113.0"), number("203.0.113.255"), "EU"),
    ],
    v6=[(number("2001:db8::"), number("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), "DE")],
    day=date(2026, 11, 1),
)


def statistics(registry: str, *rows: str, day: str = "20261101") -> str:
    return "\n".join(
        [
            "# conditions of use",
            f"2|{registry}|{day}|{len(rows)}|19830101|{day}|+0000",
            f"{registry}|*|ipv4|*|{len(rows)}|summary",
            *(f"{registry}|{row}" for row in rows),
            "",
        ]
    )


def write_folder(folder: Path, **files: str) -> Path:
    for registry in REGISTRIES:
        text = files.get(registry, statistics(registry))
        (folder / f"delegated-{registry}-extended-latest").write_text(text)
    return folder


def test_the_file_says_what_the_statistics_say(tmp_path: Path) -> None:
    out = tmp_path / "country.mmdb"
    assert build(DELEGATIONS, out) == out.stat().st_size
    database = CountryDatabase(out)
    for text, code in [
        ("192.0.2.0", "FR"),
        ("192.0.2.255", "FR"),
        ("198.51.100.4", None),
        ("198.51.100.5", "NL"),
        ("198.51.100.77", "NL"),
        ("198.51.100.78", None),
        ("203.0.113.1", None),
        ("2001:db8::", "DE"),
        ("2001:db9::", None),
    ]:
        record = database.lookup(ip_address(text))
        assert (record.country if record else None) == code, text
        assert (record.registered_country if record else None) == code, text
    assert database.type == "HX-RIR-Country"
    assert database.build_date == datetime(2026, 11, 1, tzinfo=UTC)


def test_the_same_statistics_give_the_same_bytes(tmp_path: Path) -> None:
    build(DELEGATIONS, tmp_path / "a.mmdb")
    shuffled = Delegations(DELEGATIONS.v4[::-1], DELEGATIONS.v6, DELEGATIONS.day)
    build(shuffled, tmp_path / "b.mmdb")
    assert (tmp_path / "a.mmdb").read_bytes() == (tmp_path / "b.mmdb").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mmdb", "b.mmdb"]


ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 10), st.sampled_from(["FR", "NL", "EU", "ZZ", "fr", ""])).map(
        lambda row: (row[0], row[0] + row[1], row[2])
    ),
    max_size=20,
)


@given(ranges)
def test_merged_ranges_cover_the_same_addresses_once(rows: list[Range]) -> None:
    merged = merge(rows)
    claimed: dict[int, set[str]] = {}
    for first, last, code in rows:
        for value in range(first, last + 1):
            claimed.setdefault(value, set()).add(code)
    covered = [(value, code) for first, last, code in merged for value in range(first, last + 1)]
    assert len({value for value, _ in covered}) == len(covered)
    assert all(code in claimed[value] for value, code in covered)
    wanted = {value for value, codes in claimed.items() if codes & {"FR", "NL"}}
    assert {value for value, _ in covered} == wanted
    assert all(a[2] != b[2] or a[1] + 1 < b[0] for a, b in itertools.pairwise(merged))


def test_the_registries_own_files(tmp_path: Path) -> None:
    ripencc = statistics(
        "ripencc",
        "FR|ipv4|192.0.2.0|256|20000101|allocated|id-1",
        "NL|ipv4|198.51.100.0|128|20000101|assigned|id-2",
        "DE|ipv6|2001:db8::|32|20000101|allocated|id-3",
        "FR|asn|64496|1|20000101|allocated|id-4",
        "|ipv4|203.0.113.0|256||available|",
        "|ipv4|233.252.0.0|256||reserved|",
    )
    folder = write_folder(tmp_path, ripencc=ripencc, arin=statistics("arin", day="20261015"))
    delegations = from_folder(folder)
    assert delegations.v4 == [
        (number("192.0.2.0"), number("192.0.2.255"), "FR"),
        (number("198.51.100.0"), number("198.51.100.127"), "NL"),
    ]
    assert delegations.v6 == DELEGATIONS.v6
    assert delegations.day == date(2026, 10, 15), "the oldest file dates the whole"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a file of delegation statistics"),
        ("2|nobody|20261101|0|19830101|20261101|+0000\n", "a line cannot be read"),
        ("2|arin|20261101|0|19830101|tomorrow|+0000\n", "a line cannot be read"),
        (statistics("arin", "US|ipv4|192.0.2|256|20000101|allocated|x"), "a line cannot be read"),
        (statistics("arin", "US|ipv6|2001:db8::1|32|20000101|allocated|x"), "a line cannot be read"),
        (statistics("apnic"), "a second file of apnic"),
    ],
)
def test_bad_statistics_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SourceInvalid, match=reason):
        from_folder(write_folder(tmp_path, arin=text))


def test_all_five_registries_are_needed(tmp_path: Path) -> None:
    (tmp_path / "delegated-arin-latest").write_text(statistics("arin"))
    with pytest.raises(SourceInvalid, match="no file of afrinic, apnic, lacnic, ripencc"):
        from_folder(tmp_path)


def test_addresses_are_unpickled() -> None:
    rows = [(IPv4Address("192.0.2.0"), IPv4Address("192.0.2.255"), "FR"), (IPv6Network("2001:db8::/32"), "DE")]
    assert load_addresses(io.BytesIO(pickle.dumps(rows))) == rows


@pytest.mark.parametrize("harmful", [Path("x"), date(2026, 1, 1), print])
def test_nothing_but_addresses_is_unpickled(harmful: object) -> None:
    with pytest.raises(SourceInvalid, match="an object that is no address"):
        load_addresses(io.BytesIO(pickle.dumps([harmful])))


@pytest.mark.parametrize("raw", [b"", b"no pickle", pickle.dumps([1, 2])[:-3]])
def test_damaged_pickles_are_refused(raw: bytes) -> None:
    with pytest.raises(SourceInvalid, match="cannot be read"):
        load_addresses(io.BytesIO(raw))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path, arin=statistics("arin", "US|ipv4|192.0.2.0|256|20000101|allocated|x"))
    out = tmp_path / "out.mmdb"
    assert main(["--from", str(folder), str(out)]) == 0
    assert capsys.readouterr().out == f"out.mmdb: {out.stat().st_size} bytes, statistics of 2026-11-01\n"
    (folder / "delegated-arin-extended-latest").unlink()
    assert main(["--from", str(folder), str(out)]) == 1
    assert capsys.readouterr().err == "error: no file of arin in the folder\n"


def test_the_shipped_file_agrees_with_the_package() -> None:
    delegations = from_package()
    database = CountryDatabase(SHIPPED)
    assert database.type == "HX-RIR-Country"
    assert database.build_date.date() == delegations.day
    assert SHIPPED.stat().st_size < 9_000_000
    for kind, rows in ((IPv4Address, delegations.v4), (IPv6Address, delegations.v6)):
        for first, last, code in rows[::97]:
            for value in (first, (first + last) // 2, last):
                record = database.lookup(kind(value))
                assert (record.country if record else "EU") == code
