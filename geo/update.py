"""Fetches newer geolocation files and swaps each in whole once it is tried; never gives up an old one before.

Nothing is believed of a download: its size is bounded packed and unpacked, an archive's member names are looked at,
and the file is opened and tried before it replaces anything. A licence key is never part of a URL, an error or a repr.
"""

import asyncio
import contextlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import IO, Protocol

import aiohttp

from geo.evidence import DatabaseKind
from geo.mmdb import DatabaseInvalid, open_checked

DOWNLOAD_BYTES_MAX = 128 * 1024 * 1024
UNPACKED_BYTES_MAX = 512 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=15, sock_read=60)
_REDIRECTS_MAX = 5
_CLOCK_SLACK = timedelta(days=2)
_MODE = 0o644


class UpdateRefused(Exception):  # noqa: N818 (named as what happened, like the errors of `protocol`)
    """A file could not be fetched or must not be used; the text is one sentence."""


class NotThere(UpdateRefused):
    """The server has no such file (404)."""


class Fetch(Protocol):
    """How files are fetched: streams the body of a URL. Raises `UpdateRefused`, `NotThere` for a 404."""

    def __call__(
        self, url: str, *, credentials: tuple[str, str] | None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The body of `url` in pieces, asked for with HTTP basic `credentials` when there are some."""


@dataclass(frozen=True, slots=True)
class DbIpLite:
    """DB-IP Lite, monthly, no account. CC BY 4.0: pages that show its results link to db-ip.com."""

    base_url: str = "https://download.db-ip.com/free"


@dataclass(frozen=True, slots=True)
class MaxMind:
    """MaxMind GeoLite2, with an account and its licence key."""

    account: str
    licence_key: str = field(repr=False)
    base_url: str = "https://download.maxmind.com/geoip/databases"

    def __post_init__(self) -> None:
        """Raises `ValueError` for an account or a key that cannot be one; the text shows neither."""
        if not self.account.isascii() or not self.account.isdigit():
            raise ValueError("the MaxMind account id is a number")
        if not self.licence_key or not self.licence_key.isascii() or not self.licence_key.isprintable():
            raise ValueError("the MaxMind licence key is empty or has characters no key has")


class FileOutcome(StrEnum):
    """What became of one file."""

    UPDATED = "updated"
    UNCHANGED = "unchanged"
    KEPT_OLD = "kept-old"


@dataclass(frozen=True, slots=True)
class FileUpdate:
    """One file after an update: what is in place now, and a sentence for the reader.

    `build_date` and `age_days` are of the file in place, None when there is none.
    """

    path: Path
    kind: DatabaseKind
    outcome: FileOutcome
    build_date: datetime | None
    age_days: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """All files of a source."""

    files: tuple[FileUpdate, ...]

    @property
    def ok(self) -> bool:
        """Whether every file is as new as the source has it."""
        return all(file.outcome is not FileOutcome.KEPT_OLD for file in self.files)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file of a source: the URLs to try in order, and how it is packed."""

    name: str
    kind: DatabaseKind
    urls: tuple[str, ...]
    member: str | None  # the name inside a tar archive, None when the file is packed alone
    credentials: tuple[str, str] | None = None


async def update(source: DbIpLite | MaxMind, dest_dir: Path, *, fetch: Fetch, now: datetime) -> UpdateResult:
    """Bring the country and ASN files of a source in `dest_dir` up to date, each on its own.

    Never raises for what the network or the server does; the result tells it. Raises `OSError` when `dest_dir` cannot
    be made.
    """
    await asyncio.to_thread(dest_dir.mkdir, parents=True, exist_ok=True)
    files = [await _update_one(wanted, dest_dir / wanted.name, fetch, now) for wanted in _wanted(source, now)]
    return UpdateResult(tuple(files))


def _wanted(source: DbIpLite | MaxMind, now: datetime) -> Iterator[_Wanted]:
    if isinstance(source, DbIpLite):
        this_month = now.strftime("%Y-%m")
        month_before = (now.replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
        for name, kind in (("dbip-country-lite", DatabaseKind.COUNTRY), ("dbip-asn-lite", DatabaseKind.ASN)):
            # A month's file appears some time on its first day.
            urls = tuple(f"{source.base_url}/{name}-{month}.mmdb.gz" for month in (this_month, month_before))
            yield _Wanted(f"{name}.mmdb", kind, urls, None)
        return
    for edition, kind in (("GeoLite2-Country", DatabaseKind.COUNTRY), ("GeoLite2-ASN", DatabaseKind.ASN)):
        url = f"{source.base_url}/{edition}/download?suffix=tar.gz"
        yield _Wanted(f"{edition}.mmdb", kind, (url,), f"{edition}.mmdb", (source.account, source.licence_key))


async def _update_one(wanted: _Wanted, path: Path, fetch: Fetch, now: datetime) -> FileUpdate:
    old = await asyncio.to_thread(_build_date, path, wanted.kind)
    try:
        built = await _fetch_and_swap(wanted, path, old, fetch, now)
    except UpdateRefused as error:
        kept = "the file in use is kept" if old else "there is no file yet"
        return _told(wanted, path, FileOutcome.KEPT_OLD, old, now, f"{wanted.name}: {error}; {kept}")
    except OSError as error:
        kept = "the file in use is kept" if old else "there is no file yet"
        reason = (error.strerror or "the disk failed").lower()
        return _told(wanted, path, FileOutcome.KEPT_OLD, old, now, f"{wanted.name}: {reason}; {kept}")
    outcome = FileOutcome.UNCHANGED if built == old else FileOutcome.UPDATED
    age = (now - built).days
    return _told(wanted, path, outcome, built, now, f"{wanted.name}: {outcome}, built {built.date()}, {age} days old")


def _told(
    wanted: _Wanted, path: Path, outcome: FileOutcome, built: datetime | None, now: datetime, sentence: str
) -> FileUpdate:
    return FileUpdate(path, wanted.kind, outcome, built, (now - built).days if built else None, sentence)


async def _fetch_and_swap(wanted: _Wanted, path: Path, old: datetime | None, fetch: Fetch, now: datetime) -> datetime:
    with _scratch(path) as (packed, unpacked):
        await _download(wanted, packed, fetch)
        return await asyncio.to_thread(_take, wanted, packed, unpacked, path, old, now)


async def _download(wanted: _Wanted, packed: IO[bytes], fetch: Fetch) -> None:
    for place, url in enumerate(wanted.urls, 1):
        try:
            async with fetch(url, credentials=wanted.credentials) as chunks:
                size = 0
                async for chunk in chunks:
                    size += len(chunk)
                    if size > DOWNLOAD_BYTES_MAX:
                        raise UpdateRefused(f"the download is larger than {DOWNLOAD_BYTES_MAX} bytes")
                    packed.write(chunk)
        except NotThere:
            if place == len(wanted.urls):
                raise
        else:
            return


def _take(
    wanted: _Wanted, packed: IO[bytes], unpacked: IO[bytes], path: Path, old: datetime | None, now: datetime
) -> datetime:
    """Unpack, try, and put in place; the build date of the new file."""
    packed.seek(0)
    if wanted.member is None:
        _gunzip(packed, unpacked)
    else:
        with tempfile.TemporaryFile(dir=path.parent) as archive:
            _gunzip(packed, archive)
            archive.seek(0)
            _untar(archive, wanted.member, unpacked)
    unpacked.flush()
    built = _try_file(Path(unpacked.name), wanted.kind)
    if built > now + _CLOCK_SLACK:
        raise UpdateRefused(f"the new file says it was built on {built.date()}, which is yet to come")
    if old is not None and built < old:
        raise UpdateRefused(f"the new file is older ({built.date()}) than the one in use ({old.date()})")
    if built != old:
        os.fchmod(unpacked.fileno(), _MODE)
        os.fsync(unpacked.fileno())
        # From here on the new name holds: a crash leaves the old file or the new one, never a part.
        Path(unpacked.name).replace(path)
        _sync_folder(path.parent)
    return built


def _gunzip(packed: IO[bytes], out: IO[bytes]) -> None:
    """Unpack one gzip member (RFC 1952), bounded, its checksum checked by zlib."""
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    size = 0
    try:
        while not inflater.eof:
            chunk = inflater.unconsumed_tail or packed.read(_CHUNK_BYTES)
            piece = inflater.decompress(chunk, _CHUNK_BYTES)
            if not chunk and not piece and not inflater.eof:
                raise UpdateRefused("the download ends too early")
            size += len(piece)
            if size > UNPACKED_BYTES_MAX:
                raise UpdateRefused(f"the download unpacks to more than {UNPACKED_BYTES_MAX} bytes")
            out.write(piece)
    except zlib.error:
        raise UpdateRefused("the download is no gzip file, or a damaged one") from None
    if inflater.unused_data or packed.read(1):
        raise UpdateRefused("the download has something after its end")


def _untar(archive: IO[bytes], name: str, out: IO[bytes]) -> None:
    """Copy the one member called `name`, in at most one folder, out of a tar archive."""
    found = False
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                parts = member.name.split("/")
                if member.name.startswith("/") or ".." in parts:
                    raise UpdateRefused("the archive names a file outside itself")
                if parts[-1] != name:
                    continue
                stream = tar.extractfile(member) if member.isreg() else None
                if found or len(parts) > 2 or stream is None:  # noqa: PLR2004 (folder and file)
                    raise UpdateRefused(f"the archive does not hold {name} as expected")
                found = True
                while piece := stream.read(_CHUNK_BYTES):
                    out.write(piece)
    except tarfile.TarError:
        raise UpdateRefused("the download is no tar archive, or a damaged one") from None
    if not found:
        raise UpdateRefused(f"the archive does not hold {name}")


def _try_file(path: Path, kind: DatabaseKind) -> datetime:
    try:
        reader = open_checked(path, kind)
    except DatabaseInvalid as error:
        # Its own name is one nobody knows.
        raise UpdateRefused(f"the new file is no good: {str(error).partition(': ')[2]}") from None
    try:
        return datetime.fromtimestamp(reader.metadata().build_epoch, UTC)
    finally:
        reader.close()


def _build_date(path: Path, kind: DatabaseKind) -> datetime | None:
    try:
        return _try_file(path, kind)
    except UpdateRefused:
        return None  # absent or broken: whatever is fetched is better


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A nameless file for the download, and a named one beside `path` that is gone afterwards unless it was moved."""
    with (
        tempfile.TemporaryFile(dir=path.parent) as packed,
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as unpacked,
    ):
        try:
            yield packed, unpacked
        finally:
            Path(unpacked.name).unlink(missing_ok=True)


def _refuse_status(status: int) -> None:
    if status == HTTPStatus.NOT_FOUND:
        raise NotThere("the server has no such file")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise UpdateRefused("the server does not accept the account and licence key")
    if status != HTTPStatus.OK:
        raise UpdateRefused(f"the server answered with status {status}")


@asynccontextmanager
async def fetch_http(url: str, *, credentials: tuple[str, str] | None) -> AsyncIterator[AsyncIterator[bytes]]:
    """`Fetch` over HTTP with aiohttp: redirects, but not from HTTPS to HTTP; credentials for the first host only."""
    # As a header, which aiohttp drops when a redirect leaves the host.
    headers = {"Authorization": aiohttp.encode_basic_auth(*credentials)} if credentials else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False, trust_env=True) as session,
            session.get(url, headers=headers, max_redirects=_REDIRECTS_MAX) as response,
        ):
            steps = [step.url.scheme for step in response.history] + [response.url.scheme]
            if "https" in steps and steps[-1] != "https":
                raise UpdateRefused("the server sent us from HTTPS to HTTP")
            _refuse_status(response.status)
            yield response.content.iter_chunked(_CHUNK_BYTES)
    except (aiohttp.ClientError, TimeoutError) as error:
        # The text of aiohttp's errors holds the URL; the name of the class says enough.
        raise UpdateRefused(f"the download failed ({type(error).__name__})") from None
