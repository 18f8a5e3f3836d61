"""`hotline geo`: which files are in use, and newer ones fetched from what stands in for the source."""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from geo.update import NotThere
from node.hotline.cli import geo as geo_module
from tests.cli.conftest import Home, Hotline, NewHome
from tests.geo.mmdb_files import write_country


@pytest.fixture
def home(new_home: NewHome) -> Home:
    return new_home()


def test_the_files_in_use_are_shown(hotline: Hotline, home: Home, tmp_path: Path) -> None:
    said = hotline("--settings", home.settings, "geo", "status")
    assert (said.status, said.err) == (0, "")
    assert str(tmp_path / "country.mmdb") in said.out
    assert "0 d" in said.out
    as_json = json.loads(hotline("--settings", home.settings, "geo", "status", "--json").out)
    assert [each["kind"] for each in as_json["databases"]] == ["country"]
    assert as_json["warnings"] == []
    (tmp_path / "country.mmdb").unlink()
    assert (
        "WARNING: A geolocation file cannot be used: country.mmdb: "
        in hotline("--settings", home.settings, "geo", "status").out
    )


def test_newer_files_are_fetched(hotline: Hotline, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = datetime.now(UTC).replace(microsecond=0)
    packed = gzip.compress(write_country(tmp_path / "fresh.mmdb", {"192.0.2.0/24": "FR"}, built=built).read_bytes())

    @asynccontextmanager
    async def fetch(url: str, *, credentials: tuple[str, str] | None) -> AsyncIterator[AsyncIterator[bytes]]:
        assert credentials is None

        async def pieces() -> AsyncIterator[bytes]:
            yield packed

        if "asn" in url:
            raise NotThere("the server has no such file")
        yield pieces()

    monkeypatch.setattr(geo_module, "fetch_http", fetch)
    said = hotline("--settings", home.settings, "geo", "update")
    assert (said.status, said.err) == (1, "")
    assert "dbip-country-lite.mmdb: updated, built" in said.out
    assert "dbip-asn-lite.mmdb: the server has no such file; there is no file yet." in said.out
    file = home.data / "geo" / "dbip-country-lite.mmdb"
    line = f'geo_country_databases = ["{file}"]'
    assert f"To use it, add to the settings: {line}" in said.out
    assert "://" not in said.out
    text = home.settings.read_text().splitlines()
    home.settings.write_text("\n".join(line if each.startswith("geo_country_databases") else each for each in text))
    said = hotline("--settings", home.settings, "geo", "update")
    assert "dbip-country-lite.mmdb: unchanged" in said.out
    assert "To use it" not in said.out
    assert str(file) in hotline("--settings", home.settings, "geo", "status").out


def test_maxmind_needs_an_account_and_a_private_key(
    hotline: Hotline, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("--settings", home.settings, "geo", "update", "--source", "maxmind")
    assert "give --account and --licence-key-file, or set GEOIPUPDATE_ACCOUNT_ID" in hotline(*call).err
    key = tmp_path / "licence"
    key.write_text("word\n")
    key.chmod(0o644)
    said = hotline(*call, "--account", "1", "--licence-key-file", key)
    assert (said.status, "chmod 600" in said.err) == (2, True)
    key.chmod(0o600)
    said = hotline(*call, "--account", "me", "--licence-key-file", key)
    assert said.err == "hotline: MaxMind: the MaxMind account id is a number.\n"

    @asynccontextmanager
    async def fetch(_url: str, *, credentials: tuple[str, str] | None) -> AsyncIterator[AsyncIterator[bytes]]:
        assert credentials in {("1", "word"), ("2", "other")}
        raise NotThere("the server has no such file")
        yield  # type: ignore[unreachable]

    monkeypatch.setattr(geo_module, "fetch_http", fetch)
    assert hotline(*call, "--account", "1", "--licence-key-file", key).status == 1
    monkeypatch.setenv("GEOIPUPDATE_ACCOUNT_ID", "2")
    monkeypatch.setenv("GEOIPUPDATE_LICENSE_KEY", "other")
    said = hotline(*call)
    assert said.status == 1
    assert "other" not in said.out + said.err
    (home.data / "geo").rmdir()
    (home.data / "geo").write_text("")
    assert "cannot be made" in hotline(*call).err
