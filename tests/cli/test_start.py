"""Settings, keys and services that make no sense stop a start, with one sentence that says what to do."""

from collections.abc import Callable

import pytest

from tests.cli.conftest import Home, Hotline, NewHome, Signers


def expose_a_key(home: Home) -> None:
    min((home.data / "keys").glob("*.key")).chmod(0o644)


def remove_a_key(home: Home) -> None:
    next((home.data / "keys").glob("stream-ml-dsa-44-*.key")).unlink()


def remove_every_key(home: Home) -> None:
    for key in (home.data / "keys").glob("*.key"):
        key.unlink()


def expose_the_master_key(home: Home) -> None:
    (home.data / "master.key").chmod(0o640)


def remove_the_master_key(home: Home) -> None:
    (home.data / "master.key").unlink()


def spoil_the_master_key(home: Home) -> None:
    (home.data / "master.key").write_bytes(b"AAAA\n")


def other_master_key(home: Home) -> None:
    (home.data / "master.key").write_bytes(b"A" * 43 + b"=\n")


def unreachable_database(home: Home) -> None:
    text = home.settings.read_text().splitlines()
    kept = [line for line in text if not line.startswith("database_url")]
    home.settings.write_text("\n".join([*kept, 'database_url = "postgresql://nobody@127.0.0.1:1/none"']))


def unknown_country(home: Home) -> None:
    home.settings.write_text(home.settings.read_text().replace('["FR"]', '["XX"]'))


def unknown_setting(home: Home) -> None:
    home.add("colour = 3")


def no_country_file(home: Home) -> None:
    (home.folder.parent / "country.mmdb").unlink()


def broken_country_file(home: Home) -> None:
    file = home.folder.parent / "country.mmdb"
    fresh = file.with_suffix(".new")
    fresh.write_bytes(b"no database")
    fresh.replace(file)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (expose_a_key, "may be read or written by others; chmod 600 it"),
        (remove_a_key, "holds no ml-dsa-44 key for stream; `hotline init` makes the keys"),
        (remove_every_key, "holds no key; `hotline init` makes the keys"),
        (expose_the_master_key, "master.key may be read or written by others; chmod 600 it"),
        (remove_the_master_key, "master.key is missing"),
        (spoil_the_master_key, "does not hold 32 bytes in base64"),
        (other_master_key, "wrapped under another master key"),
        (unreachable_database, "The database cannot be reached (ConnectionRefusedError)"),
        (unknown_country, "Setting countries: 'XX' is not an ISO 3166-1 alpha-2 country code"),
        (unknown_setting, "Setting colour: there is no such setting"),
        (no_country_file, "geo_country_databases: there is no file"),
        (broken_country_file, "country.mmdb: not a MaxMind DB file"),
    ],
)
def test_the_start_is_refused(
    hotline: Hotline, new_home: NewHome, signers: Signers, spoil: Callable[[Home], None], sentence: str
) -> None:
    home = new_home()
    pin(home, signers, signers.begin(home.data / "descriptor.json"))
    spoil(home)
    said = hotline("--settings", home.settings, "serve")
    assert (said.status, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.startswith("hotline: ")
    assert said.err.count("\n") == 1


def test_a_directory_that_cannot_be_trusted_stops_the_start(
    hotline: Hotline, new_home: NewHome, signers: Signers
) -> None:
    home, other = new_home("FR"), new_home("NL")
    assert "`hotline join` writes it" in hotline("--settings", home.settings, "serve").err
    right = signers.begin(other.data / "descriptor.json")
    bare = home.settings.read_text()
    pin(home, signers, right)
    said = hotline("--settings", home.settings, "serve")
    assert said.err == "hotline: The membership directory does not list this node (fr.hotline.example).\n"
    home.settings.write_text(bare)
    pin(home, signers, "0" * 64)
    said = hotline("--settings", home.settings, "serve")
    assert "it has no root of the pinned fingerprint" in said.err
    assert said.err.count("\n") == 1


def pin(home: Home, signers: Signers, fingerprint: str) -> None:
    """Write into the settings what `hotline join` writes."""
    home.add(f'directory_root = "{fingerprint}"')
    home.add(f'directory_sources = ["{signers.repository}"]')
