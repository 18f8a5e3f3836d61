"""`hotline keys`: what is shown, keys of the API, and a master key that is rotated without a way to lose data."""

import asyncio
import stat
from pathlib import Path

import pytest

from node.clock import SystemClock
from node.errors import OperatorError
from node.hotline.cli import keys as keys_module
from node.hotline.store.apikeys import ApiKeys
from node.hotline.store.vault import rotate_master
from node.platform.apikeys import ApiKeyCheck, Caller, Role
from node.platform.database import Database, Transaction
from node.platform.fieldcrypto import MasterKey
from node.settings import load_settings
from tests.cli.conftest import Home, Hotline, NewHome


@pytest.fixture
def home(new_home: NewHome) -> Home:
    return new_home()


def test_the_keys_are_shown_without_their_secrets(hotline: Hotline, home: Home) -> None:
    said = hotline("--settings", home.settings, "keys", "show")
    assert (said.status, said.err) == (0, "")
    assert [said.out.count(word) for word in (" http ", " stream ", " receipt ")] == [1, 2, 2]
    settings = load_settings(home.settings, {})
    assert f"Master key {MasterKey.load(settings).id}, from {settings.master_key_file}." in said.out
    assert (home.data / "master.key").read_text().strip() not in said.out


def test_an_api_key_from_its_making_to_its_end(hotline: Hotline, home: Home) -> None:
    made = hotline(
        "--settings", home.settings, "keys", "api", "new", "--name", "crawler", "--role", "intake", "--role", "reader"
    )
    assert made.status == 0
    text = made.out.strip()
    key_id = text.split("_")[1]

    def caller() -> Caller | None:
        async def look() -> Caller | None:
            db = Database(load_settings(home.settings, {}).database_url)
            try:
                return await ApiKeyCheck(ApiKeys(db), SystemClock()).caller(text)
            finally:
                await db.close()

        return asyncio.run(look())

    assert caller() == Caller(key_id, "crawler", frozenset({Role.INTAKE, Role.READER}))
    listed = hotline("--settings", home.settings, "keys", "api", "list").out
    assert key_id in listed
    assert "intake, reader   in use" in listed
    assert text not in listed
    assert hotline("--settings", home.settings, "keys", "api", "revoke", key_id).status == 0
    assert caller() is None
    assert "ended" in hotline("--settings", home.settings, "keys", "api", "list").out
    again = hotline("--settings", home.settings, "keys", "api", "revoke", key_id)
    assert again.status == 2
    assert "`hotline keys api list` shows them" in again.err
    for words in (("--name", "", "--role", "reader"), ("--name", "x", "--role", "king"), ("--name", "x")):
        assert hotline("--settings", home.settings, "keys", "api", "new", *words).status == 2


def test_a_rotated_master_key_opens_and_the_old_one_does_not(hotline: Hotline, home: Home, tmp_path: Path) -> None:
    reports = tmp_path / "reports.csv"
    reports.write_text("url\nhttps://192.0.2.1/a\n")
    assert hotline("--settings", home.settings, "import", reports).status == 0
    fresh = home.data / "master-2.key"
    said = hotline("--settings", home.settings, "keys", "rotate-master", "--new-file", fresh)
    assert said.status == 0, said.err
    assert f'Next: set master_key_file = "{fresh}" in {home.settings}.' in said.out
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
    assert (home.data / "master.key").exists()

    old = hotline("--settings", home.settings, "status")
    assert old.status == 2
    assert "wrapped under another master key" in old.err
    home.add(f'master_key_file = "{fresh}"')
    assert hotline("--settings", home.settings, "status").status == 0
    # The same row again: what was sealed and digested before is found.
    again = hotline("--settings", home.settings, "import", reports)
    assert "known already from an earlier import: 1" in again.out


def test_a_rotation_that_fails_changes_nothing(hotline: Hotline, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = home.data / "master-2.key"

    async def fails(tx: Transaction, old: MasterKey, new: MasterKey) -> int:
        await rotate_master(tx, old, new)
        raise OperatorError("The field key 1 in the database is damaged and does not open.")

    async def breaks(tx: Transaction, old: MasterKey, new: MasterKey) -> int:
        await rotate_master(tx, old, new)
        raise ConnectionResetError

    monkeypatch.setattr(keys_module, "rotate_master", fails)
    said = hotline("--settings", home.settings, "keys", "rotate-master", "--new-file", fresh)
    assert (said.status, "is damaged" in said.err, fresh.exists()) == (2, True, False)
    monkeypatch.setattr(keys_module, "rotate_master", breaks)
    said = hotline("--settings", home.settings, "keys", "rotate-master", "--new-file", fresh)
    assert said.status == 2
    assert "keep the old key and the new one" in said.err
    assert fresh.exists()
    monkeypatch.undo()
    assert hotline("--settings", home.settings, "status").status == 0
    said = hotline("--settings", home.settings, "keys", "rotate-master", "--new-file", fresh)
    assert f"{fresh} exists already and is left as it is." in said.err
    assert (
        "There is no folder"
        in hotline("--settings", home.settings, "keys", "rotate-master", "--new-file", home.data / "no" / "key").err
    )
