"""`hotline init` and `hotline migrate`: whole, private, once; and what is there when something fails on the way."""

import asyncio
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from node.platform.embedded import EmbeddedPostgres
from node.settings import load_settings
from tests.cli.conftest import Home, Hotline, NewHome, init_arguments, program

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> str:
    """The address of a database without a table."""
    name = f"t_{uuid4().hex[:12]}"
    sql(postgres.url(), f"CREATE DATABASE {name} TEMPLATE template0")
    return postgres.url(name)


def sql(url: str, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_node_from_nothing(hotline: Hotline, tmp_path: Path, empty_database: str) -> None:
    home = tmp_path / "node"
    home.mkdir()
    arguments = init_arguments("FR", empty_database, tmp_path)
    said = program("init", *arguments, cwd=home)
    assert said.status == 0, said.err
    assert "The node fr.hotline.example is set up." in said.out
    assert "hotline join ADDRESS --root-fingerprint HEX" in said.out
    settings = load_settings(home / "hotline.toml", {})
    assert settings.countries == ("FR",)
    assert settings.poll_s == 0.1
    written = content(home)
    assert len(written) == 8  # settings, five keys, the master key, the descriptor
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert stat.S_IMODE(settings.keys_dir.stat().st_mode) == 0o700
    entry = json.loads((home / "data" / "descriptor.json").read_bytes())
    assert (entry["id"], entry["contact"]) == ("fr.hotline.example", "ops@hotline.example")
    assert "seed" not in str(entry)
    assert sql(empty_database, "SELECT count(*) FROM field_keys") == 2

    again = hotline("--settings", home / "hotline.toml", "init", *arguments)
    assert again.status == 2
    assert again.err.startswith("hotline: Nothing was changed, since a node is here already or was begun: there is ")
    assert content(home) == written

    migrated = hotline("--settings", home / "hotline.toml", "migrate")
    assert (migrated.status, migrated.out) == (0, "The database is up to date.\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--country", "XX"], "Setting countries: 'XX' is not an ISO 3166-1 alpha-2 country code"),
        (["--set", "no_such=1"], "Setting no_such: there is no such setting"),
        (["--set", "poll_s=soon"], "Setting poll_s: must be a number"),
        (["--set", "poll_s=1000"], "Setting poll_s: must lie between"),
        (["--set", "log_level"], "Option --set takes NAME=VALUE"),
        (["--set", "master_key=abc"], "Setting master_key: "),
        (["--base-url", "http://peer.example"], "Setting base_url: must be https"),
        (["--base-url", "https://peer.example/path"], "Setting base_url: must be https"),
        (["--name", "x" * 201], "The directory would not take this node: name: "),
        (["--weight", "-1"], "The directory would not take this node: weight: "),
        (["--node-id", "FR"], "Setting node_id: must be "),
        (["--database-url", "mysql://x"], "Setting database_url: must begin with postgresql://"),
        (["--database-url", NOWHERE], "The database cannot be reached (ConnectionRefusedError)"),
    ],
)
def test_what_makes_no_sense_leaves_nothing_behind(
    hotline: Hotline, tmp_path: Path, words: list[str], sentence: str
) -> None:
    home = tmp_path / "node"
    home.mkdir()
    said = hotline("--settings", home / "hotline.toml", "init", *init_arguments("FR", NOWHERE, tmp_path), *words)
    assert (said.status, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert list(home.iterdir()) == []


def test_what_is_not_given_is_named(hotline: Hotline, tmp_path: Path) -> None:
    given: list[str] = []
    for option, value in (
        ("--node-id", "fr.hotline.example"),
        ("--country", "FR"),
        ("--base-url", "https://fr.example"),
    ):
        said = hotline("init", *given)
        assert said.status == 2
        assert f"give {option}, or call `hotline init` on a terminal" in said.err
        given += [option, value]
    assert "give --database-url, or --embedded" in hotline("init", *given).err
    assert "not allowed with" in hotline("init", *given, "--embedded", "--database-url", NOWHERE).err
    assert "There is no folder" in hotline("--settings", "no/where.toml", "init", *given, "--embedded").err
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_it_asks_until_the_answer_makes_sense(
    hotline: Hotline, new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(
        [
            "Wrong Name",
            "fr.hotline.example",
            "FR, ZZ",
            "FR, MC",
            "fr.example",
            "https://fr.example",
            "Hotline",
            "",
            new_database(),
        ]
    )
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _question: next(answers))
    said = hotline("init")
    assert said.status == 0, said.err
    assert said.err.count("Setting ") == 3
    assert load_settings(tmp_path / "hotline.toml", {}).countries == ("FR", "MC")
    entry = json.loads((tmp_path / "data" / "descriptor.json").read_bytes())
    assert (entry["name"], entry["contact"]) == ("Hotline", "not stated")
    assert "Put name and contact of the hotline into the descriptor" in said.out
    assert list(answers) == []


def test_the_environment_counts_as_given(
    hotline: Hotline, new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "NODE_ID": "nl.hotline.example",
        "COUNTRIES": "NL,BE",
        "BASE_URL": "https://nl.example",
        "DATABASE_URL": new_database(),
        "MASTER_KEY": "A" * 43 + "=",
        "POLL_S": "2",
    }
    for name, text in given.items():
        monkeypatch.setenv(f"HOTLINE_{name}", text)
    said = hotline("init", "--country", "NL")
    assert said.status == 0, said.err
    settings = load_settings(tmp_path / "hotline.toml", {})
    assert (settings.node_id, settings.countries, settings.poll_s) == ("nl.hotline.example", ("NL",), 2.0)
    # The master key stays where it came from.
    assert not settings.master_key_file.exists()
    assert "master key" not in said.out.lower()
    assert "A" * 43 not in settings.node_id + (tmp_path / "hotline.toml").read_text()
    assert hotline("status").status == 0
    monkeypatch.delenv("HOTLINE_MASTER_KEY")
    assert "master.key is missing" in hotline("status").err


def test_the_database_of_another_node_is_refused(hotline: Hotline, new_home: NewHome, tmp_path: Path) -> None:
    url = load_settings(new_home("FR").settings, {}).database_url
    other = tmp_path / "other"
    other.mkdir()
    said = hotline("--settings", other / "hotline.toml", "init", *init_arguments("NL", url, tmp_path))
    assert "The database belongs to a node already; give an empty one." in said.err
    assert list(other.iterdir()) == []


def test_a_database_that_fails_on_the_way_is_finished_by_migrate(
    hotline: Hotline, tmp_path: Path, empty_database: str
) -> None:
    sql(empty_database, "CREATE TABLE items (other int)")
    home = Home(tmp_path / "node", "fr.hotline.example")
    home.folder.mkdir()
    said = hotline("--settings", home.settings, "init", *init_arguments("FR", empty_database, tmp_path))
    assert said.status == 2
    assert "The database failed during the command (ProgrammingError)" in said.err
    assert f"there is {home.settings}, " in said.err
    assert "let `hotline migrate` do the rest" in said.err
    assert said.err.count("\n") == 1
    assert "run `hotline migrate`" in hotline("--settings", home.settings, "status").err
    sql(empty_database, "DROP TABLE items")
    migrated = hotline("--settings", home.settings, "migrate")
    assert (migrated.status, migrated.out) == (0, "The database has the schema of this version now.\n")
    assert hotline("--settings", home.settings, "status").status == 0


def test_files_that_fail_on_the_way_are_named(
    hotline: Hotline, new_database: Callable[[], str], tmp_path: Path
) -> None:
    home = tmp_path / "node"
    home.mkdir()
    (home / "keys").write_text("not a folder")
    arguments = init_arguments("FR", new_database(), tmp_path)
    said = hotline("--settings", home / "hotline.toml", "init", *arguments, "--set", "keys_dir=keys")
    assert said.status == 2
    assert "put right what failed, remove these and begin again" in said.err
    assert str(home / "data" / "master.key") in said.err
    assert not (home / "hotline.toml").exists()
    (home / "data" / "master.key").unlink()
    (home / "keys").unlink()
    assert hotline("--settings", home / "hotline.toml", "init", *arguments, "--set", "keys_dir=keys").status == 0
