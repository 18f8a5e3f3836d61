"""Reads MaxMind DB files, memory-mapped, and follows their replacement on disk; never writes or fetches one.

A file must be replaced (renamed over), never overwritten in place: a mapped file that shrinks kills the process.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import maxminddb

from geo.address import IPAddress
from geo.evidence import NO_COUNTRY_CODES, CountryRecord, DatabaseKind, NetworkRecord

AGE_WARNING_DAYS = 45
ORGANISATION_CHARS_MAX = 64

_CHECK_EVERY_S = 5.0
_PROBED_NETWORKS = 256
_PROBED_V4_STEP = 1 << 23  # 512 addresses, evenly over IPv4
_PROBED_V6_STEP = 1 << 117  # 256 addresses, evenly over 2000::/3
_ASN_MAX = 2**32 - 1
_BUILD_EPOCH_MAX = 2**34  # beyond any date that can be meant, and within what `datetime` takes
_IPV6 = 6

_COUNTRY_CODE = re.compile(r"[A-Z]{2}")


_TYPE_WORDS = {
    DatabaseKind.COUNTRY: ("country", "city", "enterprise"),
    DatabaseKind.ASN: ("asn", "isp"),
}
_ARTICLES = {DatabaseKind.COUNTRY: "a country", DatabaseKind.ASN: "an ASN"}


class DatabaseInvalid(Exception):  # noqa: N818 (named as what is wrong, like the errors of `protocol`)
    """A file cannot be used; the text is one sentence that names the file and the reason."""


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """A file as status and health show it. `problem` is a sentence, when a newer file could not be taken."""

    path: Path
    kind: DatabaseKind
    type: str
    build_date: datetime
    age_days: int
    problem: str | None


class Refresh(StrEnum):
    """What a look at the file led to."""

    UNCHANGED = "unchanged"
    RELOADED = "reloaded"
    KEPT_OLD = "kept-old"


_Signature = tuple[int, int, int]


class _MmdbFile:
    """One file, open. A lookup uses the reader it began with; the old one is unmapped when nobody holds it."""

    def __init__(self, path: Path, kind: DatabaseKind) -> None:
        """Raises `DatabaseInvalid`."""
        self.path = path
        self.kind = kind
        self.generation = 0
        self.problem: str | None = None
        self._signature = _signature(path)
        self._checked_s = float("-inf")
        self._take(open_checked(path, kind))

    def _take(self, reader: maxminddb.Reader) -> None:
        metadata = reader.metadata()
        # One attribute, set in one step: another thread may be looking something up.
        self._open = (reader, metadata.ip_version)
        self.type = metadata.database_type
        self.build_date = datetime.fromtimestamp(metadata.build_epoch, UTC)

    def info(self, now: datetime) -> DatabaseInfo:
        """The file as it is used at `now`."""
        age_days = (now - self.build_date).days
        return DatabaseInfo(self.path, self.kind, self.type, self.build_date, age_days, self.problem)

    def refresh(self, now_s: float) -> Refresh:
        """Take the file anew when it changed; looks at most every 5 s. A file that is no good leaves the old one.

        May run in another thread than the lookups.
        """
        if now_s - self._checked_s < _CHECK_EVERY_S:
            return Refresh.UNCHANGED
        self._checked_s = now_s
        try:
            signature = _signature(self.path)
            if signature == self._signature:
                return Refresh.UNCHANGED
            # Looked at before it is opened: a file replaced in between is seen as changed the next time.
            self._signature = signature
            reader = open_checked(self.path, self.kind)
        except DatabaseInvalid as error:
            self.problem = str(error)
            return Refresh.KEPT_OLD
        self._take(reader)
        self.problem = None
        self.generation += 1
        return Refresh.RELOADED

    def close(self) -> None:
        """Unmap the file; nothing can be looked up afterwards."""
        self._open[0].close()

    def _record(self, address: IPAddress) -> Mapping[str, object]:
        reader, ip_version = self._open
        if address.version > ip_version:
            return {}
        try:
            record = reader.get(address)
        except maxminddb.InvalidDatabaseError:
            # The probes at opening cannot reach every record. One bad record is no reason to stop locating.
            self.problem = f"{self.path.name}: a record could not be read; the file is damaged"
            return {}
        return record if isinstance(record, dict) else {}


class CountryDatabase(_MmdbFile):
    """A file of countries (MaxMind or DB-IP Country, City, Enterprise, or the one built here)."""

    def __init__(self, path: Path) -> None:
        """Raises `DatabaseInvalid`."""
        super().__init__(path, DatabaseKind.COUNTRY)

    def lookup(self, address: IPAddress) -> CountryRecord | None:
        """The file's opinion of an address, None when it has none."""
        return country_of(self._record(address))


class AsnDatabase(_MmdbFile):
    """A file of autonomous systems (MaxMind or DB-IP ASN)."""

    def __init__(self, path: Path) -> None:
        """Raises `DatabaseInvalid`."""
        super().__init__(path, DatabaseKind.ASN)

    def lookup(self, address: IPAddress) -> NetworkRecord | None:
        """The file's opinion of an address, None when it has none."""
        return network_of(self._record(address))


def country_of(record: Mapping[str, object]) -> CountryRecord | None:
    """The country fields of a record (MaxMind GeoIP2 schema), None when it names no country."""
    country = _iso_code(record.get("country"))
    registered = _iso_code(record.get("registered_country"))
    return CountryRecord(country, registered) if country or registered else None


def network_of(record: Mapping[str, object]) -> NetworkRecord | None:
    """The network fields of a record (MaxMind GeoIP2 schema), None when it names no network."""
    asn = record.get("autonomous_system_number")
    if not isinstance(asn, int) or not 0 < asn <= _ASN_MAX:
        return None
    organisation = record.get("autonomous_system_organization")
    return NetworkRecord(asn, organisation[:ORGANISATION_CHARS_MAX] if isinstance(organisation, str) else None)


def _iso_code(place: object) -> str | None:
    code = place.get("iso_code") if isinstance(place, dict) else None
    if isinstance(code, str) and _COUNTRY_CODE.fullmatch(code) and code not in NO_COUNTRY_CODES:
        return code
    return None


def _signature(path: Path) -> _Signature:
    try:
        status = os.stat(path)  # noqa: PTH116 (called for every check of every file)
    except OSError as error:
        raise DatabaseInvalid(f"{path.name}: {_words(error)}") from None
    return status.st_mtime_ns, status.st_ino, status.st_size


def open_checked(path: Path, kind: DatabaseKind) -> maxminddb.Reader:
    """Open a file and try it: its type, its dates, some hundred records.

    Raises:
        DatabaseInvalid: it cannot be read, is of another kind, or a record is broken.
    """
    try:
        reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
    except OSError as error:
        raise DatabaseInvalid(f"{path.name}: {_words(error)}") from None
    except (maxminddb.InvalidDatabaseError, ValueError):
        raise DatabaseInvalid(f"{path.name}: not a MaxMind DB file") from None
    try:
        _check(reader, kind, path.name)
    except (maxminddb.InvalidDatabaseError, ValueError, KeyError):
        reader.close()
        raise DatabaseInvalid(f"{path.name}: the file is damaged") from None
    except DatabaseInvalid:
        reader.close()
        raise
    return reader


def _check(reader: maxminddb.Reader, kind: DatabaseKind, name: str) -> None:
    metadata = reader.metadata()
    if not any(word in metadata.database_type.lower() for word in _TYPE_WORDS[kind]):
        raise DatabaseInvalid(f"{name}: the file is of type {metadata.database_type!r}, not {_ARTICLES[kind]} database")
    if not 0 < metadata.build_epoch < _BUILD_EPOCH_MAX:
        raise DatabaseInvalid(f"{name}: the file has no build date")
    read = country_of if kind is DatabaseKind.COUNTRY else network_of
    if not any([read(record) is not None for record in _probe(reader, metadata.ip_version)]):  # noqa: C419 (every probe is read)
        raise DatabaseInvalid(f"{name}: no record tried tells {_ARTICLES[kind]}")


def _probe(reader: maxminddb.Reader, ip_version: int) -> Iterator[Mapping[str, object]]:
    records = [record for _, record in itertools.islice(reader, _PROBED_NETWORKS)]
    records += [reader.get(IPv4Address(value)) for value in range(0, 1 << 32, _PROBED_V4_STEP)]
    if ip_version == _IPV6:
        records += [reader.get(IPv6Address(value)) for value in range(1 << 125, 2 << 125, _PROBED_V6_STEP)]
    return (record for record in records if isinstance(record, dict))


def _words(error: OSError) -> str:
    return (error.strerror or "cannot be opened").lower()
