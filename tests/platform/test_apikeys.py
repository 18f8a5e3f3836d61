"""API keys: their form, what is stored of them, and when they stop counting."""

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from node.platform import apikeys
from node.platform.apikeys import ApiKeyCheck, ApiKeyRow, Role, new_api_key
from tests.platform.manual_clock import ManualClock


class Store:
    """Keys in memory that counts how often it is asked."""

    def __init__(self, *rows: ApiKeyRow) -> None:
        self.rows = {row.key_id: row for row in rows}
        self.asked = 0

    async def find(self, key_id: str) -> ApiKeyRow | None:
        self.asked += 1
        return self.rows.get(key_id)


KEY = new_api_key()
ROW = ApiKeyRow(KEY.key_id, "intake form", KEY.secret_sha256, frozenset({Role.INTAKE}))


def test_a_new_key_has_256_bits_and_only_their_digest_is_for_storing() -> None:
    prefix, key_id, secret = KEY.text.split("_")
    assert (prefix, key_id) == ("hx", KEY.key_id)
    assert len(key_id) == 12
    assert len(secret) == 43
    assert hashlib.sha256(secret.encode()).digest() == KEY.secret_sha256
    assert secret not in repr(KEY)
    assert len({new_api_key().text for _ in range(50)}) == 50


async def test_the_right_key_names_its_caller() -> None:
    check = ApiKeyCheck(Store(ROW), ManualClock())
    caller = await check.caller(KEY.text)
    assert caller is not None
    assert (caller.key_id, caller.name) == (KEY.key_id, "intake form")
    assert caller.may({Role.INTAKE, Role.ADMIN})
    assert not caller.may({Role.ADMIN})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hx_",
        KEY.text[:-1],
        KEY.text + "A",
        KEY.text[:-1] + ("A" if KEY.text[-1] != "A" else "B"),
        new_api_key().text,
        "hx_" + KEY.key_id + "_" + "é" * 43,
        KEY.text + "\n",
        KEY.key_id,
    ],
    # The keys are new in each run; names made from them would differ between test processes.
    ids=["empty", "prefix", "cut", "longer", "one character", "unknown", "not ascii", "newline", "id alone"],
)
async def test_anything_else_names_nobody(text: str) -> None:
    assert await ApiKeyCheck(Store(ROW), ManualClock()).caller(text) is None


async def test_the_store_is_asked_once_in_a_while() -> None:
    store, clock = Store(ROW), ManualClock()
    check = ApiKeyCheck(store, clock)
    for _ in range(100):
        assert await check.caller(KEY.text) is not None
    assert store.asked == 1
    store.rows[KEY.key_id] = replace(ROW, revoked_at=clock.now())
    clock.advance(apikeys.CACHE_TTL_S - 0.1)
    assert await check.caller(KEY.text) is not None
    clock.advance(0.1)
    assert await check.caller(KEY.text) is None
    assert store.asked == 2


async def test_a_key_expires_on_the_moment_also_while_it_is_remembered() -> None:
    clock = ManualClock()
    check = ApiKeyCheck(Store(replace(ROW, expires_at=clock.now() + timedelta(seconds=2))), clock)
    assert await check.caller(KEY.text) is not None
    clock.advance(2)
    assert await check.caller(KEY.text) is None


async def test_unknown_ids_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apikeys, "CACHE_ENTRIES_MAX", 3)
    store = Store()
    check = ApiKeyCheck(store, ManualClock())
    keys = [new_api_key().text for _ in range(4)]
    for text in [*keys, keys[3]]:
        assert await check.caller(text) is None
    assert store.asked == 4
    assert len(check._cache) == 3
    assert await check.caller(keys[0]) is None
    assert store.asked == 5
