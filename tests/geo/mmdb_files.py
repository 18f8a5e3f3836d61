"""Writes real MMDB files for tests."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter, TreeWriter
from netaddr import IPSet


def write_mmdb(
    path: Path, rows: Mapping[str, dict[str, Any]], *, database_type: str, built: datetime, ip_version: int = 6
) -> Path:
    """Write a file beside `path` and rename it there, as files are to be replaced."""
    writer = MMDBWriter(ip_version=ip_version, ipv4_compatible=ip_version == 6, database_type=database_type)
    for network, record in rows.items():
        writer.insert_network(IPSet([network]), record)
    metadata = {**writer._build_meta(), "build_epoch": int(built.timestamp())}
    partial = path.with_name(f"{path.name}.new")
    TreeWriter(writer.tree, metadata, int_type="u32").write(str(partial))
    partial.replace(path)
    return path


def write_country(
    path: Path,
    rows: Mapping[str, str | tuple[str | None, str | None]],
    *,
    built: datetime,
    database_type: str = "Test-Country",
    ip_version: int = 6,
) -> Path:
    """A country file; a row is a country, or (country, registered country)."""
    records: dict[str, dict[str, Any]] = {}
    for network, row in rows.items():
        country, registered = (row, row) if isinstance(row, str) else row
        places = {"country": country, "registered_country": registered}
        records[network] = {member: {"iso_code": code} for member, code in places.items() if code is not None}
    return write_mmdb(path, records, database_type=database_type, built=built, ip_version=ip_version)


def write_asn(path: Path, rows: Mapping[str, tuple[int, str]], *, built: datetime) -> Path:
    """An ASN file; a row is (number, organisation)."""
    records: dict[str, dict[str, Any]] = {
        network: {"autonomous_system_number": asn, "autonomous_system_organization": organisation}
        for network, (asn, organisation) in rows.items()
    }
    return write_mmdb(path, records, database_type="Test-ASN", built=built)
