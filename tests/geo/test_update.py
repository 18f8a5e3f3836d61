"""Fetching newer files from a real HTTP server on the loopback: what is taken, and everything that is not."""

import base64
import gzip
import io
import stat
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web

import geo.update
from geo.evidence import DatabaseKind
from geo.mmdb import CountryDatabase
from geo.update import DbIpLite, FileOutcome, FileUpdate, MaxMind, UpdateResult, fetch_http, update
from tests.geo.mmdb_files import write_asn, write_country

NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
BUILT = datetime(2026, 11, 1, tzinfo=UTC)
OLD = datetime(2026, 9, 1, tzinfo=UTC)
ACCOUNT, KEY = "123456", "sample-licence-key"
BASIC = "Basic " + base64.b64encode(f"{ACCOUNT}:{KEY}".encode()).decode()


class FileServer:
    """Serves what `files` holds by path and query; anything else is a 404."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path_qs, request.headers.get("Authorization")))
        found = self.files.get(request.path_qs)
        if found is None:
            return web.Response(status=404)
        return web.Response(body=found) if isinstance(found, bytes) else await found(request)


@asynccontextmanager
async def serving() -> AsyncIterator[FileServer]:
    server = FileServer()
    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def country_bytes(folder: Path, code: str = "FR", built: datetime = BUILT) -> bytes:
    path = write_country(folder / "made.mmdb", {"192.0.2.0/24": code}, built=built, database_type="DBIP-Country-Lite")
    raw = path.read_bytes()
    path.unlink()
    return raw


def asn_bytes(folder: Path) -> bytes:
    path = write_asn(folder / "made.mmdb", {"192.0.2.0/24": (64496, "Host")}, built=BUILT)
    raw = path.read_bytes()
    path.unlink()
    return raw


def tar_gz(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, raw in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "elsewhere"
            info.size = len(raw) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def db_ip(server: FileServer, country: bytes, asn: bytes, month: str = "2026-11") -> DbIpLite:
    server.files[f"/dbip-country-lite-{month}.mmdb.gz"] = country
    server.files[f"/dbip-asn-lite-{month}.mmdb.gz"] = asn
    return DbIpLite(server.url)


def maxmind(server: FileServer, country: bytes, asn: bytes) -> MaxMind:
    server.files["/GeoLite2-Country/download?suffix=tar.gz"] = country
    server.files["/GeoLite2-ASN/download?suffix=tar.gz"] = asn
    return MaxMind(ACCOUNT, KEY, server.url)


async def run(source: DbIpLite | MaxMind, folder: Path, now: datetime = NOW) -> UpdateResult:
    return await update(source, folder, fetch=fetch_http, now=now)


async def update_country(tmp_path: Path, body: bytes) -> tuple[FileUpdate, Path]:
    """Update with `body` as DB-IP's country file while an older one is in use."""
    folder = tmp_path / "geo"
    folder.mkdir()
    write_country(folder / "dbip-country-lite.mmdb", {"192.0.2.0/24": "NL"}, built=OLD)
    async with serving() as server:
        result = await run(db_ip(server, body, b""), folder)
    return result.files[0], folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def country_in_use(folder: Path) -> str | None:
    database = CountryDatabase(folder / "dbip-country-lite.mmdb")
    record = database.lookup(ip_address("192.0.2.1"))
    database.close()
    return record.country if record else None


async def test_db_ip_lite(tmp_path: Path) -> None:
    folder = tmp_path / "geo"
    async with serving() as server:
        source = db_ip(server, gzip.compress(country_bytes(tmp_path)), gzip.compress(asn_bytes(tmp_path)))
        result = await run(source, folder)
        again = await run(source, folder)
    assert result.ok
    country, asn = result.files
    assert country == FileUpdate(
        folder / "dbip-country-lite.mmdb",
        DatabaseKind.COUNTRY,
        FileOutcome.UPDATED,
        BUILT,
        21,
        "dbip-country-lite.mmdb: updated, built 2026-11-01, 21 days old",
    )
    assert (asn.path.name, asn.kind, asn.outcome) == ("dbip-asn-lite.mmdb", DatabaseKind.ASN, FileOutcome.UPDATED)
    assert stat.S_IMODE(country.path.stat().st_mode) == 0o644
    assert country_in_use(folder) == "FR"
    assert [file.outcome for file in again.files] == [FileOutcome.UNCHANGED] * 2
    assert names_in(folder) == ["dbip-asn-lite.mmdb", "dbip-country-lite.mmdb"]
    assert {authorization for _, authorization in server.requests} == {None}


async def test_the_month_before_is_taken_when_this_one_is_not_out(tmp_path: Path) -> None:
    async with serving() as server:
        source = db_ip(server, gzip.compress(country_bytes(tmp_path)), gzip.compress(asn_bytes(tmp_path)), "2026-12")
        result = await run(source, tmp_path, datetime(2027, 1, 1, 1, tzinfo=UTC))
    assert result.ok
    assert [path for path, _ in server.requests][:2] == [
        "/dbip-country-lite-2027-01.mmdb.gz",
        "/dbip-country-lite-2026-12.mmdb.gz",
    ]


async def test_maxmind(tmp_path: Path) -> None:
    async with serving() as server:
        source = maxmind(
            server,
            tar_gz(
                ("GeoLite2-Country_20261101/LICENSE.txt", b"terms"),
                ("GeoLite2-Country_20261101/GeoLite2-Country.mmdb", country_bytes(tmp_path)),
            ),
            tar_gz(("GeoLite2-ASN_20261101/GeoLite2-ASN.mmdb", asn_bytes(tmp_path))),
        )
        result = await run(source, tmp_path / "geo")
    assert result.ok
    assert [file.path.name for file in result.files] == ["GeoLite2-Country.mmdb", "GeoLite2-ASN.mmdb"]
    assert {authorization for _, authorization in server.requests} == {BASIC}


async def test_credentials_stay_with_the_first_host(tmp_path: Path) -> None:
    packed = tar_gz(("x/GeoLite2-Country.mmdb", country_bytes(tmp_path)))
    async with serving() as store, serving() as server:
        store.files["/signed"] = packed

        async def away(_: web.Request) -> web.StreamResponse:
            raise web.HTTPFound(f"{store.url}/signed")

        server.files["/GeoLite2-Country/download?suffix=tar.gz"] = away
        result = await run(MaxMind(ACCOUNT, KEY, server.url), tmp_path / "geo")
    assert result.files[0].outcome is FileOutcome.UPDATED
    assert store.requests == [("/signed", None)]
    assert server.requests[0][1] == BASIC


async def test_the_licence_key_is_in_nothing_that_is_told(tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, text=request.headers["Authorization"])

    async with serving() as server:
        server.files["/GeoLite2-Country/download?suffix=tar.gz"] = refuse
        source = MaxMind(ACCOUNT, KEY, server.url)
        result = await run(source, tmp_path)
    assert result.files[0].sentence == (
        "GeoLite2-Country.mmdb: the server does not accept the account and licence key; there is no file yet"
    )
    assert not result.ok
    for text in (repr(source), repr(result), str(result)):
        assert KEY not in text


@pytest.mark.parametrize(
    ("account", "key"), [("me", KEY), ("", KEY), (ACCOUNT, ""), (ACCOUNT, "line\nbreak"), (ACCOUNT, "clé")]
)
def test_accounts_and_keys_that_cannot_be(account: str, key: str) -> None:
    with pytest.raises(ValueError, match="MaxMind") as caught:
        MaxMind(account, key)
    assert not key or key not in str(caught.value)


async def test_the_old_file_stays_when_there_is_no_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "geo"
    folder.mkdir()
    write_country(folder / "dbip-country-lite.mmdb", {"192.0.2.0/24": "NL"}, built=OLD)
    async with serving() as server:
        result = await run(DbIpLite(server.url), folder)
    country, asn = result.files
    assert country.sentence == "dbip-country-lite.mmdb: the server has no such file; the file in use is kept"
    assert (country.outcome, country.build_date, country.age_days) == (FileOutcome.KEPT_OLD, OLD, 82)
    assert asn.sentence == "dbip-asn-lite.mmdb: the server has no such file; there is no file yet"
    assert (asn.build_date, asn.age_days) == (None, None)


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async with serving() as server:
        url = server.url
    result = await run(DbIpLite(url), tmp_path)
    assert result.files[0].sentence == (
        "dbip-country-lite.mmdb: the download failed (ClientConnectorError); there is no file yet"
    )


async def test_a_server_in_trouble(tmp_path: Path) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with serving() as server:
        server.files["/dbip-country-lite-2026-11.mmdb.gz"] = fail
        result = await run(DbIpLite(server.url), tmp_path)
    assert "the server answered with status 503" in result.files[0].sentence


async def test_a_download_cut_off(tmp_path: Path) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving() as server:
        server.files["/dbip-country-lite-2026-11.mmdb.gz"] = cut
        result = await run(DbIpLite(server.url), tmp_path)
    assert "the download failed" in result.files[0].sentence
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"<html>an error page</html>", "the download is no gzip file, or a damaged one"),
        (gzip.compress(b"<html>an error page</html>", mtime=0), "the new file is no good: not a MaxMind DB file"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], "the download ends too early"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-6] + b"\0" * 6, "the download is no gzip file, or a damaged one"),
        (gzip.compress(b"x", mtime=0) + b"y", "the download has something after its end"),
        (b"", "the download ends too early"),
    ],
)
async def test_bad_downloads_change_nothing(tmp_path: Path, packed: bytes, reason: str) -> None:
    told, folder = await update_country(tmp_path, packed)
    assert told.sentence == f"dbip-country-lite.mmdb: {reason}; the file in use is kept"
    assert told.outcome is FileOutcome.KEPT_OLD
    assert country_in_use(folder) == "NL"
    assert names_in(folder) == ["dbip-country-lite.mmdb"]


async def test_a_file_of_another_kind_changes_nothing(tmp_path: Path) -> None:
    told, folder = await update_country(tmp_path, gzip.compress(asn_bytes(tmp_path)))
    assert "of type 'Test-ASN', not a country database" in told.sentence
    assert country_in_use(folder) == "NL"


@pytest.mark.parametrize(
    ("built", "reason"),
    [
        (datetime(2026, 8, 1, tzinfo=UTC), "the new file is older (2026-08-01) than the one in use (2026-09-01)"),
        (datetime(2026, 12, 1, tzinfo=UTC), "the new file says it was built on 2026-12-01, which is yet to come"),
    ],
)
async def test_dates_that_make_no_sense_change_nothing(tmp_path: Path, built: datetime, reason: str) -> None:
    told, folder = await update_country(tmp_path, gzip.compress(country_bytes(tmp_path, built=built)))
    assert reason in told.sentence
    assert country_in_use(folder) == "NL"


async def test_a_broken_file_in_use_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "dbip-country-lite.mmdb").write_text("not a database")
    raw = gzip.compress(country_bytes(tmp_path))
    async with serving() as server:
        result = await run(db_ip(server, raw, b""), tmp_path)
    assert result.files[0].outcome is FileOutcome.UPDATED
    assert country_in_use(tmp_path) == "FR"


async def test_a_download_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geo.update, "UNPACKED_BYTES_MAX", 1 << 20)
    told, folder = await update_country(tmp_path, gzip.compress(bytes(1 << 22)))
    assert "the download unpacks to more than 1048576 bytes" in told.sentence
    assert country_in_use(folder) == "NL"


async def test_a_download_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geo.update, "DOWNLOAD_BYTES_MAX", 1 << 16)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 16))
        except ConnectionError:
            return response

    async with serving() as server:
        server.files["/dbip-country-lite-2026-11.mmdb.gz"] = endless
        result = await run(DbIpLite(server.url), tmp_path)
    assert "the download is larger than 65536 bytes" in result.files[0].sentence


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (gzip.compress(b"x" * 2000, mtime=0), "the download is no tar archive, or a damaged one"),
        (tar_gz(("x/README.txt", b"")), "the archive does not hold GeoLite2-Country.mmdb"),
        (tar_gz(("../GeoLite2-Country.mmdb", b"x")), "the archive names a file outside itself"),
        (tar_gz(("/etc/GeoLite2-Country.mmdb", b"x")), "the archive names a file outside itself"),
        (tar_gz(("x/y/GeoLite2-Country.mmdb", b"x")), "the archive does not hold GeoLite2-Country.mmdb as expected"),
        (
            tar_gz(("GeoLite2-Country.mmdb", b""), kind=tarfile.SYMTYPE),
            "the archive does not hold GeoLite2-Country.mmdb as expected",
        ),
        (
            tar_gz(("a/GeoLite2-Country.mmdb", b"x"), ("b/GeoLite2-Country.mmdb", b"x")),
            "the archive does not hold GeoLite2-Country.mmdb as expected",
        ),
        (tar_gz(("a/GeoLite2-Country.mmdb", b"x")), "the new file is no good: not a MaxMind DB file"),
    ],
)
async def test_bad_archives_change_nothing(tmp_path: Path, archive: bytes, reason: str) -> None:
    async with serving() as server:
        result = await run(maxmind(server, archive, b""), tmp_path)
    assert result.files[0].sentence == f"GeoLite2-Country.mmdb: {reason}; there is no file yet"
    assert names_in(tmp_path) == []
