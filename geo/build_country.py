"""Builds the country file that ships with the program from the registries' delegation statistics; fetches nothing.

    python -m geo.build_country [--from DIR] OUT

Without `--from` the ranges come from the installed package `ip-to-country`, which carries what the five registries
published; with it from their `delegated-*` files in DIR (the RIR statistics exchange format). The output is a MaxMind
DB of type `HX-RIR-Country`, the same bytes for the same input. See data/README.md for source and terms.
"""

import argparse
import importlib.metadata
import importlib.resources
import io
import ipaddress
import itertools
import os
import pickle
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources.abc import Traversable
from operator import itemgetter
from pathlib import Path
from typing import IO

from mmdb_writer import MMDBWriter, TreeWriter
from netaddr import IPNetwork, IPSet

from geo.evidence import NO_COUNTRY_CODES, REGISTRY_TYPE_PREFIX

DATABASE_TYPE = f"{REGISTRY_TYPE_PREFIX}-Country"

_PACKAGE = "ip-to-country"
_PACKAGE_DATA = "ip_to_country.data"
# The package's data names no date. Its ranges were written on this day: the time of the two files in the wheel.
_PACKAGE_DATES = {"1.0.2": date(2025, 5, 9)}

_REGISTRIES = ("afrinic", "apnic", "arin", "lacnic", "ripencc")
_COUNTRY_CODE = re.compile(r"[A-Z]{2}")
_HEADER_FIELDS = 7
_RECORD_FIELDS_MIN = 7
_PICKLE_BYTES_MAX = 64 * 1024 * 1024

Range = tuple[int, int, str]
"""First and last address as numbers, and a country code."""


class SourceInvalid(Exception):  # noqa: N818 (named as what is wrong, like the errors of `protocol`)
    """The statistics cannot be used; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Delegations:
    """What the registries delegated, and the day the statistics are of."""

    v4: list[Range]
    v6: list[Range]
    day: date


class _RestrictedUnpickler(pickle.Unpickler):
    """Reads pickles of addresses: any other object in the file stops the reading before it is made."""

    _ALLOWED = frozenset({"IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"})

    def find_class(self, module: str, name: str) -> object:
        if module == "ipaddress" and name in self._ALLOWED:
            return getattr(ipaddress, name)
        raise SourceInvalid(f"the data of {_PACKAGE} holds an object that is no address")

    def persistent_load(self, pid: object) -> object:
        raise SourceInvalid(f"the data of {_PACKAGE} refers to something outside it: {type(pid).__name__}")


def load_addresses(stream: IO[bytes]) -> object:
    """Unpickle lists, tuples, strings, numbers and addresses; nothing else. Raises `SourceInvalid`."""
    raw = stream.read(_PICKLE_BYTES_MAX + 1)
    if len(raw) > _PICKLE_BYTES_MAX:
        raise SourceInvalid(f"the data of {_PACKAGE} is larger than expected")
    try:
        return _RestrictedUnpickler(io.BytesIO(raw)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, AttributeError):
        raise SourceInvalid(f"the data of {_PACKAGE} cannot be read") from None


def from_package() -> Delegations:
    """The statistics in the installed package `ip-to-country`. Raises `SourceInvalid`."""
    try:
        version = importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise SourceInvalid(
            f"the package {_PACKAGE} is not installed; or give the registries' files with --from"
        ) from None
    day = _PACKAGE_DATES.get(version)
    if day is None:
        raise SourceInvalid(f"the date of the data in {_PACKAGE} {version} is not known; note it in _PACKAGE_DATES")
    folder = importlib.resources.files(_PACKAGE_DATA)
    return Delegations(_ranges(folder / "ipv4_ranges.pkl"), _ranges(folder / "ipv6_ranges.pkl"), day)


def _ranges(file: Traversable) -> list[Range]:
    with file.open("rb") as stream:
        rows = load_addresses(stream)
    if not isinstance(rows, list):
        raise SourceInvalid(f"the data of {_PACKAGE} is no list")
    return [_range(row) for row in rows]


def _range(row: object) -> Range:
    match row:
        case (ipaddress.IPv4Address() as first, ipaddress.IPv4Address() as last, str(code)):
            return int(first), int(last), code
        case (ipaddress.IPv6Network() as network, str(code)):
            return int(network.network_address), int(network.broadcast_address), code
    raise SourceInvalid(f"the data of {_PACKAGE} has a row of an unknown form")


def from_folder(folder: Path) -> Delegations:
    """The registries' own files in a folder; their day is that of the oldest. Raises `SourceInvalid`."""
    v4: list[Range] = []
    v6: list[Range] = []
    days: dict[str, date] = {}
    for path in sorted(folder.glob("delegated-*")):
        with path.open(encoding="ascii", errors="replace") as lines:
            registry, day = _read_statistics(lines, v4, v6, path.name)
        if registry in days:
            raise SourceInvalid(f"{path.name}: a second file of {registry}")
        days[registry] = day
    missing = [registry for registry in _REGISTRIES if registry not in days]
    if missing:
        raise SourceInvalid(f"no file of {', '.join(missing)} in the folder")
    return Delegations(v4, v6, min(days.values()))


def _read_statistics(lines: Iterable[str], v4: list[Range], v6: list[Range], name: str) -> tuple[str, date]:
    """Add the delegations of one file (RIR statistics exchange format 2.x); its registry and the last day it covers."""
    header: tuple[str, date] | None = None
    for line in lines:
        fields = line.strip().split("|")
        if line.startswith("#") or fields == [""] or fields[-1] == "summary":
            continue
        try:
            if header is None:
                header = _read_header(fields)
            elif len(fields) >= _RECORD_FIELDS_MIN and fields[6] in {"allocated", "assigned"}:
                _read_record(fields, v4, v6)
        except ValueError:
            raise SourceInvalid(f"{name}: a line cannot be read") from None
    if header is None:
        raise SourceInvalid(f"{name}: not a file of delegation statistics")
    return header


def _read_header(fields: list[str]) -> tuple[str, date]:
    # version|registry|serial|records|startdate|enddate|UTCoffset
    if len(fields) != _HEADER_FIELDS or not fields[0].startswith("2") or fields[1] not in _REGISTRIES:
        raise ValueError
    return fields[1], datetime.strptime(fields[5], "%Y%m%d").replace(tzinfo=UTC).date()


def _read_record(fields: list[str], v4: list[Range], v6: list[Range]) -> None:
    # registry|cc|type|start|value|date|status[|opaque-id]
    _, code, kind, start, value = fields[:5]
    if kind == "ipv4":  # value: the number of addresses, not always a power of two
        first = int(ipaddress.IPv4Address(start))
        v4.append((first, first + int(value) - 1, code))
    elif kind == "ipv6":  # value: the prefix length
        network = ipaddress.IPv6Network(f"{start}/{value}")
        v6.append((int(network.network_address), int(network.broadcast_address), code))


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Sorted ranges without overlap, neighbours of one country joined, blocks of no country left out.

    The registries' blocks do not overlap; where two should, the one that begins first keeps what both claim.
    """
    out: list[Range] = []
    for first, last, code in sorted(ranges):
        if not _COUNTRY_CODE.fullmatch(code) or code in NO_COUNTRY_CODES:
            continue
        start = max(first, out[-1][1] + 1) if out else first
        if start > last:
            continue
        if out and out[-1][2] == code and out[-1][1] + 1 == start:
            out[-1] = (out[-1][0], last, code)
        else:
            out.append((start, last, code))
    return out


def networks_of(ranges: list[Range], version: int) -> dict[str, list[str]]:
    """The ranges as networks, by country in alphabetical order."""
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address  # noqa: PLR2004 (the IP version)
    by_country: dict[str, list[str]] = {}
    for code, group in itertools.groupby(sorted(ranges, key=itemgetter(2)), key=itemgetter(2)):
        by_country[code] = [
            str(network)
            for first, last, _ in group
            for network in ipaddress.summarize_address_range(kind(first), kind(last))
        ]
    return by_country


class _Networks(IPSet):  # type: ignore[misc]  # netaddr has no types
    """The networks of a country. They are merged already; the set's own merging would take minutes."""

    def __init__(self, networks: list[str]) -> None:
        super().__init__()
        self._networks = networks

    def iter_cidrs(self) -> Iterator[IPNetwork]:
        return map(IPNetwork, self._networks)


def build(delegations: Delegations, out: Path) -> int:
    """Write the file and return its size in bytes. The same delegations give the same bytes."""
    writer = MMDBWriter(
        ip_version=6,
        ipv4_compatible=True,
        database_type=DATABASE_TYPE,
        languages=["en"],
        description={"en": f"Country of registration, from the registries' delegation statistics of {delegations.day}"},
    )
    v4, v6 = networks_of(merge(delegations.v4), 4), networks_of(merge(delegations.v6), 6)
    if not v4 and not v6:
        raise SourceInvalid("the statistics name no country")
    for code in sorted({*v4, *v6}):
        place = {"iso_code": code}
        writer.insert_network(
            _Networks([*v4.get(code, ()), *v6.get(code, ())]), {"country": place, "registered_country": place}
        )
    built = datetime(delegations.day.year, delegations.day.month, delegations.day.day, tzinfo=UTC)
    metadata = {**writer._build_meta(), "build_epoch": int(built.timestamp())}  # noqa: SLF001 (it would put the time of day)
    partial = out.with_name(f"{out.name}.part")
    TreeWriter(writer.tree, metadata).write(str(partial))
    partial.replace(out)
    return os.stat(out).st_size  # noqa: PTH116


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status 1 with one sentence when the statistics cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m geo.build_country", description="Build the default country file.")
    parser.add_argument(
        "--from", dest="folder", type=Path, metavar="DIR", help="folder of the registries' delegated-* files"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write")
    options = parser.parse_args(arguments)
    try:
        delegations = from_folder(options.folder) if options.folder else from_package()
        size = build(delegations, options.out)
    except (SourceInvalid, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{options.out.name}: {size} bytes, statistics of {delegations.day.isoformat()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
