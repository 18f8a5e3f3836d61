"""MMDB files: good ones are read and followed, broken ones are refused and change nothing."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from geo.evidence import CountryRecord, DatabaseKind, NetworkRecord
from geo.mmdb import AsnDatabase, CountryDatabase, DatabaseInvalid, Refresh, country_of, network_of
from tests.geo.mmdb_files import write_asn, write_country, write_mmdb
from tests.vectors_dir import vectors

BUILT = datetime(2026, 11, 1, tzinfo=UTC)
DAY_S = 86_400.0


@pytest.mark.parametrize("name", ["GeoLite2-Country-Test.mmdb", "GeoIP2-Country-Test.mmdb"])
def test_maxmind_country_files(name: str) -> None:
    database = CountryDatabase(vectors("mmdb", name))
    assert database.lookup(ip_address("81.2.69.142")) == CountryRecord("GB", "US")
    assert database.lookup(ip_address("2001:218::1")) == CountryRecord("JP", "JP")
    assert database.lookup(ip_address("192.0.2.1")) is None
    info = database.info(datetime(2026, 2, 14, tzinfo=UTC))
    assert (info.kind, info.type, info.age_days) == (DatabaseKind.COUNTRY, name.removesuffix("-Test.mmdb"), 9)
    database.close()


def test_maxmind_asn_file() -> None:
    database = AsnDatabase(vectors("mmdb", "GeoLite2-ASN-Test.mmdb"))
    assert database.lookup(ip_address("1.128.0.1")) == NetworkRecord(1221, "Telstra Pty Ltd")
    assert database.lookup(ip_address("12.81.96.1")) == NetworkRecord(7018, None)
    assert database.lookup(ip_address("192.0.2.1")) is None
    database.close()


@pytest.mark.parametrize(
    "name", ["MaxMind-DB-test-broken-pointers-24.mmdb", "MaxMind-DB-test-broken-search-tree-24.mmdb"]
)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    # The damage is in the tree or the records, which only reading them shows; the type is set right to get that far.
    damaged = vectors("mmdb", name).read_bytes().replace(b"\x44Test", b"\x47Country")
    path = tmp_path / "damaged.mmdb"
    path.write_bytes(damaged)
    with pytest.raises(DatabaseInvalid, match=r"^damaged\.mmdb: the file is damaged$"):
        CountryDatabase(path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = vectors("mmdb", "GeoLite2-Country-Test.mmdb").read_bytes()
    path = tmp_path / "cut.mmdb"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatabaseInvalid, match="not a MaxMind DB file"):
        CountryDatabase(path)


def test_files_of_another_kind_are_refused() -> None:
    with pytest.raises(DatabaseInvalid, match="of type 'GeoLite2-ASN', not a country database"):
        CountryDatabase(vectors("mmdb", "GeoLite2-ASN-Test.mmdb"))
    with pytest.raises(DatabaseInvalid, match="of type 'GeoLite2-Country', not an ASN database"):
        AsnDatabase(vectors("mmdb", "GeoLite2-Country-Test.mmdb"))


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseInvalid, match=r"^none\.mmdb: no such file or directory$"):
        CountryDatabase(tmp_path / "none.mmdb")
    (tmp_path / "text.mmdb").write_text("not a database")
    with pytest.raises(DatabaseInvalid, match=r"^text\.mmdb: not a MaxMind DB file$"):
        CountryDatabase(tmp_path / "text.mmdb")
    with pytest.raises(DatabaseInvalid):
        CountryDatabase(tmp_path)


def test_a_file_that_tells_no_country_is_refused(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "odd.mmdb", {"192.0.2.0/24": {"colour": "red"}}, database_type="Country", built=BUILT)
    with pytest.raises(DatabaseInvalid, match="no record tried tells a country"):
        CountryDatabase(path)


def test_an_ipv4_file_has_no_opinion_of_ipv6(tmp_path: Path) -> None:
    database = CountryDatabase(write_country(tmp_path / "v4.mmdb", {"192.0.2.0/24": "FR"}, built=BUILT, ip_version=4))
    assert database.lookup(ip_address("192.0.2.1")) == CountryRecord("FR", "FR")
    assert database.lookup(ip_address("2001:db8::1")) is None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"country": {"iso_code": "FR"}}, CountryRecord("FR", None)),
        ({"registered_country": {"iso_code": "US"}}, CountryRecord(None, "US")),
        ({"country": {"iso_code": "ZZ"}, "registered_country": {"iso_code": "EU"}}, None),
        ({"country": {"iso_code": "fr"}}, None),
        ({"country": {"iso_code": 5}}, None),
        ({"country": "FR"}, None),
        ({"continent": {"code": "EU"}}, None),
        ({}, None),
    ],
)
def test_country_records(record: dict[str, object], expected: CountryRecord | None) -> None:
    assert country_of(record) == expected


def test_network_records() -> None:
    assert network_of({"autonomous_system_number": 0}) is None
    assert network_of({"autonomous_system_number": "64496"}) is None
    long = network_of({"autonomous_system_number": 64496, "autonomous_system_organization": "x" * 500})
    assert long == NetworkRecord(64496, "x" * 64)


def test_a_replaced_file_is_taken_when_it_is_looked_at(tmp_path: Path) -> None:
    path = write_country(tmp_path / "c.mmdb", {"192.0.2.0/24": "FR"}, built=BUILT)
    database = CountryDatabase(path)
    assert database.refresh(0.0) is Refresh.UNCHANGED
    write_country(path, {"192.0.2.0/24": "NL"}, built=BUILT + timedelta(days=7))
    assert database.refresh(1.0) is Refresh.UNCHANGED, "looked at only every 5 seconds"
    assert database.refresh(6.0) is Refresh.RELOADED
    assert database.lookup(ip_address("192.0.2.1")) == CountryRecord("NL", "NL")
    assert database.generation == 1
    assert database.build_date == BUILT + timedelta(days=7)


def test_a_lookup_in_flight_keeps_its_reader(tmp_path: Path) -> None:
    path = write_country(tmp_path / "c.mmdb", {"192.0.2.0/24": "FR"}, built=BUILT)
    database = CountryDatabase(path)
    in_flight, _ = database._open
    write_country(path, {"192.0.2.0/24": "NL"}, built=BUILT)
    assert database.refresh(0.0) is Refresh.RELOADED
    assert in_flight.get("192.0.2.1") == {"country": {"iso_code": "FR"}, "registered_country": {"iso_code": "FR"}}


@pytest.mark.parametrize("damage", ["text", "gone", "kind"])
def test_a_bad_replacement_keeps_the_old_file_and_is_told(tmp_path: Path, damage: str) -> None:
    path = write_country(tmp_path / "c.mmdb", {"192.0.2.0/24": "FR"}, built=BUILT)
    database = CountryDatabase(path)
    if damage == "text":
        (tmp_path / "new").write_text("not a database")
        (tmp_path / "new").replace(path)
    elif damage == "gone":
        path.unlink()
    else:
        write_asn(path, {"192.0.2.0/24": (64496, "Host")}, built=BUILT)
    assert database.refresh(0.0) is Refresh.KEPT_OLD
    assert database.lookup(ip_address("192.0.2.1")) == CountryRecord("FR", "FR")
    problem = database.info(BUILT).problem
    assert problem is not None
    assert problem.startswith("c.mmdb: ")
    write_country(path, {"192.0.2.0/24": "DE"}, built=BUILT)
    assert database.refresh(6.0) is Refresh.RELOADED
    assert database.info(BUILT).problem is None


def test_a_record_damaged_where_no_probe_looks_is_no_opinion(tmp_path: Path) -> None:
    rows: dict[str, str | tuple[str | None, str | None]] = {f"10.{i}.0.0/16": "FR" for i in range(0, 256, 2)}
    rows |= {f"2001:db8:{i:x}::/48": "NL" for i in range(0, 600, 2)} | {"3000:1234:5678::/48": "DE"}
    path = write_country(tmp_path / "c.mmdb", rows, built=BUILT)
    raw = path.read_bytes()
    # The record of DE: its country member becomes a pointer out of the file.
    at = raw.index(b"\x42DE")
    (tmp_path / "bad").write_bytes(raw[:at] + b"\x3f\xff\xff" + raw[at + 3 :])
    (tmp_path / "bad").replace(path)
    database = CountryDatabase(path)
    assert database.lookup(ip_address("3000:1234:5678::1")) is None
    assert database.info(BUILT).problem == "c.mmdb: a record could not be read; the file is damaged"
    assert database.lookup(ip_address("10.0.0.1")) == CountryRecord("FR", "FR")
