"""Writes the demo's geolocation files (MMDB) for documentation addresses; never used outside the demo and tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from node.demo.internet import Network, mmdb_rows
from node.errors import OperatorError

COUNTRY_TYPE = "HX-Demo-Country"
ASN_TYPE = "HX-Demo-ASN"


def write_geofiles(folder: Path, held: Sequence[Network]) -> tuple[Path, Path]:
    """Write `country.mmdb` and `asn.mmdb` into `folder` and return their paths.

    OperatorError when the extra `demo` is not installed.
    """
    countries, systems = mmdb_rows(held)
    return (
        _write(folder / "country.mmdb", COUNTRY_TYPE, countries),
        _write(folder / "asn.mmdb", ASN_TYPE, systems),
    )


def _write(path: Path, database_type: str, rows: Mapping[str, dict[str, Any]]) -> Path:
    try:
        from mmdb_writer import MMDBWriter  # noqa: PLC0415 - an optional extra
        from netaddr import IPSet  # noqa: PLC0415 - comes with it
    except ImportError:
        raise OperatorError("The demo needs the extra `demo`; install hotline-exchange[demo].") from None
    # Without the fixed integer type the writer chooses one a value, and readers of the GeoIP2 schema expect 32 bits.
    writer = MMDBWriter(6, database_type, ["en"], "Made up for the demo", ipv4_compatible=True, int_type="u32")
    for prefix, record in rows.items():
        writer.insert_network(IPSet([prefix]), record)
    writer.to_db_file(str(path))
    return path
