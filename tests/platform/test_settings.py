"""Settings: what is taken, what is refused and with which sentence."""

import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.errors import OperatorError, SettingError
from node.platform.keyfiles import create_master_key, create_node_keys
from node.setting_files import write_settings
from node.setting_rules import split_address
from node.settings import Settings, documented, load_settings, settings_from
from node.start_checks import check_at_start

NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
LEAST: Mapping[str, object] = {
    "node_id": "fr.hotline.example",
    "countries": ["FR"],
    "base_url": "https://fr.hotline.example",
    "embedded_database": True,
}


def made(folder: Path, **values: object) -> Settings:
    return settings_from({**LEAST, **values}, folder)


def test_the_least_that_must_be_said(tmp_path: Path) -> None:
    settings = made(tmp_path)
    assert settings.data_dir == tmp_path / "data"
    assert settings.keys_dir == tmp_path / "data" / "keys"
    assert settings.master_key_file == tmp_path / "data" / "master.key"
    assert settings.embedded_database_dir == tmp_path / "data" / "db"
    assert settings.countries == ("FR",)
    assert settings.backoff_cap_s == 900.0


def test_a_file_is_read_and_the_environment_goes_over_it(tmp_path: Path) -> None:
    path = tmp_path / "hotline.toml"
    write_settings(path, {**LEAST, "data_dir": "here", "dns_servers": ["192.0.2.53:53"]})
    environment = {
        "HOTLINE_COUNTRIES": "FR, MC",
        "HOTLINE_DNS_TIMEOUT_MS": "500",
        "HOTLINE_POLL_S": "2",
        "HOTLINE_FORWARD_UNQUALIFIED": "yes",
        "HOTLINE_GEO_COUNTRY_DATABASES": "a.mmdb,/b.mmdb",
        "PATH": "/bin",
    }
    settings = load_settings(path, environment)
    assert settings.countries == ("FR", "MC")
    assert (settings.dns_timeout_ms, settings.poll_s, settings.forward_unqualified) == (500, 2.0, True)
    assert settings.geo_country_databases == (tmp_path / "a.mmdb", Path("/b.mmdb"))
    assert settings.data_dir == tmp_path / "here"
    assert settings.keys_dir == tmp_path / "here" / "keys"
    assert settings.dns_servers == ("192.0.2.53:53",)


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    write_settings(path, LEAST)
    assert load_settings(None, {"HOTLINE_SETTINGS": str(path)}).node_id == "fr.hotline.example"
    with pytest.raises(OperatorError, match=r"no settings file .*absent.toml"):
        load_settings(None, {"HOTLINE_SETTINGS": str(tmp_path / "absent.toml")})


def test_the_environment_alone_can_say_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {
        "HOTLINE_NODE_ID": "fr.hotline.example",
        "HOTLINE_COUNTRIES": "FR",
        "HOTLINE_BASE_URL": "https://fr.hotline.example/",
        "HOTLINE_DATABASE_URL": "postgresql://db.example/hotline",
    }
    settings = load_settings(None, environment)
    assert settings.base_url == "https://fr.hotline.example"
    with pytest.raises(SettingError, match="Setting node_id: is required"):
        load_settings(None, {})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"node": "x"}, "node: there is no such setting"),
        ({"node_id": "FR"}, "node_id: must be 1 to 100 lower-case"),
        ({"node_id": 3}, "node_id: must be a text"),
        ({"role": "press"}, "role: must be one of hotline, coordinator"),
        ({"countries": []}, "countries: must name at least one"),
        ({"countries": ["XX"]}, "countries: 'XX' is not an ISO 3166-1"),
        ({"countries": ["fr"]}, "countries: 'fr' is not an ISO 3166-1"),
        ({"countries": ["FR", "FR"]}, "countries: names a country twice"),
        ({"countries": "FR"}, "countries: must be a list of text"),
        ({"countries": [1]}, "countries: must be a list of text"),
        ({"base_url": "http://fr.hotline.example"}, "base_url: must be https"),
        ({"base_url": "https://u@fr.hotline.example"}, "base_url: must be https://host"),
        ({"base_url": "https://FR.hotline.example"}, "base_url: must be https://host"),
        ({"base_url": "https://fr.hotline.example/path"}, "base_url: must be https://host"),
        ({"base_url": "https:///"}, "base_url: "),
        ({"base_url": "https://fr.hotline.example/?a"}, "base_url: must be https://host"),
        ({"base_url": "https://fr.hotline.example/#"}, "base_url: must be https://host"),
        ({"base_url": "https://fr.hotline.example:x"}, "base_url: is not an address"),
        ({"base_url": "fr.hotline.example"}, "base_url: must be https://host"),
        ({"listen_peer": "8701"}, "listen_peer: must be address:port"),
        ({"listen_peer": "::1:8701"}, "listen_peer: must be address:port"),
        ({"listen_peer": "127.0.0.1:65536"}, "listen_peer: must be address:port"),
        ({"listen_peer": "127.0.0.1:1", "listen_api": "127.0.0.1:1"}, "listen_api: must differ"),
        ({"database_url": "postgresql://db.example/x"}, "database_url: set either"),
        ({"embedded_database": False}, "database_url: set either"),
        ({"embedded_database": False, "database_url": "mysql://db.example/x"}, "database_url: must begin with"),
        ({"embedded_database": 1}, "embedded_database: must be true or false"),
        ({"database_pool_size": True}, "database_pool_size: must be a whole number"),
        ({"database_pool_size": 1}, "database_pool_size: must lie between 2 and 200"),
        ({"poll_s": float("nan")}, "poll_s: must lie between"),
        ({"poll_s": "1"}, "poll_s: must be a number"),
        ({"dns_servers": ["resolver.example:53"]}, "dns_servers: each must be ip:port"),
        ({"directory_root": "fingerprint"}, "directory_root: must be a fingerprint, 64 hexadecimal digits"),
        ({"directory_sources": ["coordinator.example"]}, "directory_sources: each must be https://host"),
        ({"directory_sources": ["http://coordinator.example"]}, "directory_sources: must be https"),
        ({"master_key": "short"}, "master_key: must be 32 bytes"),
        ({"data_dir": ""}, "data_dir: must be a path"),
        ({"keys_dir": 5}, "keys_dir: must be a path"),
        ({"geo_asn_databases": [""]}, "geo_asn_databases: must be a path"),
        ({"backoff_base_s": 10.0, "backoff_cap_s": 5.0}, "backoff_base_s: must not exceed"),
        ({"clock_window_s": 600}, "nonce_retention_s: must be at least twice"),
        ({"retain_days": 7}, "deliver_by_days: must not exceed"),
        ({"body_bytes_max": 1_048_576}, "body_bytes_max: must exceed batch_bytes_max"),
        ({"log_level": "loud"}, "log_level: must be one of debug"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    tmp_path: Path, values: Mapping[str, object], sentence: str
) -> None:
    with pytest.raises(SettingError) as caught:
        made(tmp_path, **values)
    assert caught.value.sentence.startswith(f"Setting {sentence}")
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("HOTLINE_NODE_NAME", "x", "node_name: there is no such setting (environment variable HOTLINE_NODE_NAME)"),
        ("HOTLINE_EMBEDDED_DATABASE", "maybe", "embedded_database: must be true or false"),
        ("HOTLINE_DNS_TRIES_MAX", "three", "dns_tries_max: must be a whole number"),
    ],
)
def test_the_environment_is_held_to_the_same_rules(tmp_path: Path, variable: str, text: str, sentence: str) -> None:
    path = tmp_path / "hotline.toml"
    write_settings(path, LEAST)
    with pytest.raises(SettingError) as caught:
        load_settings(path, {variable: text})
    assert caught.value.sentence == f"Setting {sentence}"


def test_loopback_addresses_need_no_tls(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:8701", "http://[::1]:8701", "http://localhost:8701"):
        assert made(tmp_path, base_url=url).base_url == url


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"node_id = ", "is not TOML"),
        (b'node_id = "\xff"', "is not UTF-8"),
        (b"#" * 300_000, "is larger than"),
        (b'nodeid = "x"', "nodeid: there is no such setting (in "),
        (b'master_key = "x"', "set HOTLINE_MASTER_KEY"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "hotline.toml"
    path.write_bytes(content)
    with pytest.raises(OperatorError) as caught:
        load_settings(path, {})
    assert sentence in caught.value.sentence


def test_a_readable_file_with_a_database_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hotline.toml"
    write_settings(
        path, {**LEAST, "embedded_database": False, "database_url": "postgresql://hotline:word@db.example/hotline"}
    )
    assert "word" not in repr(load_settings(path, {}))
    path.chmod(0o644)
    with pytest.raises(OperatorError, match="chmod 600"):
        load_settings(path, {})


def test_written_settings_load_again_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "hotline.toml"
    odd = 'a "quoted" \\ name\x7f\tü😀'
    write_settings(path, {**LEAST, "data_dir": odd, "poll_s": 0.5, "geo_country_databases": (Path("x.mmdb"),)})
    settings = load_settings(path, {})
    assert settings.data_dir == tmp_path / odd
    assert settings.poll_s == 0.5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OperatorError, match="exists already"):
        write_settings(path, LEAST)


def test_nothing_is_written_that_could_not_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "hotline.toml"
    for wrong in ({"countries": ["ZZ"]}, {"master_key": "A" * 43 + "="}):
        with pytest.raises(SettingError):
            write_settings(path, {**LEAST, **wrong})
    assert not path.exists()


def test_every_setting_has_its_sentence() -> None:
    rows = documented()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.doc.endswith(".") and row.kind and row.default for row in rows)
    by_name = {row.name: row for row in rows}
    assert by_name["node_id"].default == "required"
    assert by_name["keys_dir"].default == "data_dir/keys"
    assert by_name["countries"].kind == "list of text"


@pytest.fixture
def ready(tmp_path: Path) -> Settings:
    """Settings whose files are all there."""
    settings = made(tmp_path)
    create_node_keys(settings.keys_dir, NOW)
    create_master_key(settings.master_key_file)
    return settings


def test_a_node_with_its_files_may_start(ready: Settings) -> None:
    check_at_start(ready)


def test_an_exposed_or_missing_file_stops_the_start(ready: Settings, tmp_path: Path) -> None:
    key = min(ready.keys_dir.glob("*.key"))

    def refused(sentence: str) -> None:
        with pytest.raises(OperatorError) as caught:
            check_at_start(ready)
        assert sentence in caught.value.sentence

    key.chmod(0o644)
    refused(f"keys_dir: {key} may be read or written by others")
    key.chmod(0o600)
    moved = key.rename(tmp_path / "elsewhere")
    key.symlink_to(moved)
    refused("is a symbolic link")
    key.unlink()
    key.mkdir()
    refused("is not an ordinary file")
    key.rmdir()
    moved.rename(key)
    ready.keys_dir.chmod(0o777)
    refused("keys_dir: ")
    ready.keys_dir.chmod(0o700)
    ready.master_key_file.unlink()
    refused("master_key_file: ")
    create_master_key(ready.master_key_file)
    check_at_start(ready)


def test_no_keys_no_start(tmp_path: Path) -> None:
    settings = made(tmp_path)
    with pytest.raises(SettingError, match="hotline init"):
        check_at_start(settings)
    settings.keys_dir.mkdir(parents=True, mode=0o700)
    with pytest.raises(SettingError, match="holds no key"):
        check_at_start(settings)


def test_a_geolocation_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    settings = made(tmp_path, geo_asn_databases=["asn.mmdb"], master_key="A" * 43 + "=")
    create_node_keys(settings.keys_dir, NOW)
    with pytest.raises(SettingError, match="geo_asn_databases: there is no file"):
        check_at_start(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:53", ("::1", 53)), ("host.example:0", ("host.example", 0))],
)
def test_addresses_are_split(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


def test_an_address_may_leave_a_default_port_out() -> None:
    assert split_address("192.0.2.1", default_port=53) == ("192.0.2.1", 53)
    assert split_address("[2001:db8::1]", default_port=53) == ("2001:db8::1", 53)
    for wrong in ("2001:db8::1", "[192.0.2.1]:53", ":53", "[::1]", "x:٣", "x:-1"):
        with pytest.raises(ValueError, match="host:port"):
            split_address(wrong)


def test_the_home_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    assert made(tmp_path, data_dir="~/node").data_dir == tmp_path / "node"
