"""Makes and checks the keys that machines and browsers call the API with; never stores or logs a key itself.

A key is `hx_<id>_<secret>`: 12 characters that name it and 256 random bits in base 62. Only the secret's SHA-256 is
stored. A slow password hash would add nothing: 256 random bits cannot be guessed.
"""

import hashlib
import hmac
import os
import re
import secrets
import string
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from node.clock import Clock

CACHE_TTL_S: Final = 10.0
CACHE_ENTRIES_MAX: Final = 1024
_ID_CHARS: Final = 12
_ID_ALPHABET: Final = string.ascii_lowercase + string.digits
_ALPHABET: Final = string.digits + string.ascii_letters
_SECRET_BYTES: Final = 32
#: 62^43 exceeds 2^256.
_SECRET_CHARS: Final = 43
_FORM: Final = re.compile(rf"hx_([a-z0-9]{{{_ID_CHARS}}})_([0-9A-Za-z]{{{_SECRET_CHARS}}})")


class Role(StrEnum):
    """What the holder of a key may do; a key may have several."""

    INTAKE = "intake"
    ANALYST = "analyst"
    READER = "reader"
    MONITOR = "monitor"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made. `text` is shown once, to who will use it; `key_id` and `secret_sha256` are stored."""

    text: str
    key_id: str
    secret_sha256: bytes

    def __repr__(self) -> str:
        return f"NewApiKey({self.key_id})"


@dataclass(frozen=True, slots=True)
class ApiKeyRow:
    """A key as it is stored. It counts until `expires_at` or `revoked_at`, where they are set."""

    key_id: str
    name: str
    secret_sha256: bytes
    roles: frozenset[Role]
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def counts_at(self, now: datetime) -> bool:
        """Tell whether the key may be used at `now`."""
        ends = (moment for moment in (self.expires_at, self.revoked_at) if moment is not None)
        return all(now < moment for moment in ends)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the key's id and name (never its text) and what it may do."""

    key_id: str
    name: str
    roles: frozenset[Role]

    def may(self, allowed: Iterable[Role]) -> bool:
        """Tell whether one of the caller's roles is among `allowed`."""
        return not self.roles.isdisjoint(allowed)


class ApiKeyStore(Protocol):
    """Where keys are stored."""

    async def find(self, key_id: str) -> ApiKeyRow | None:
        """Return the key of this id, revoked and expired ones too, or None."""


def new_api_key() -> NewApiKey:
    """Return a fresh key from the system's randomness."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))
    number = int.from_bytes(os.urandom(_SECRET_BYTES), "big")
    digits = []
    for _ in range(_SECRET_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    secret = "".join(digits)
    return NewApiKey(f"hx_{key_id}_{secret}", key_id, _digest(secret))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()


class ApiKeyCheck:
    """Tells who a key belongs to, asking the store about one key at most once in CACHE_TTL_S.

    So a revocation takes effect within CACHE_TTL_S (10 s), on every process. Ids that no key has are remembered too:
    who floods with one of them does not reach the database each time. The memory is bounded by CACHE_ENTRIES_MAX.
    """

    __slots__ = ("_cache", "_clock", "_store")

    def __init__(self, store: ApiKeyStore, clock: Clock) -> None:
        """Start with an empty cache."""
        self._store = store
        self._clock = clock
        self._cache: OrderedDict[str, tuple[float, ApiKeyRow | None]] = OrderedDict()

    async def caller(self, text: str) -> Caller | None:
        """Return who calls with the key `text`, or None when it is no key, unknown, wrong, expired or revoked."""
        parts = _FORM.fullmatch(text)
        if parts is None:
            return None
        key_id, secret = parts.groups()
        row = await self._row(key_id)
        # The comparison runs for an unknown id as well, so that its time does not tell which ids exist.
        matches = hmac.compare_digest(_digest(secret), bytes(32) if row is None else row.secret_sha256)
        if row is None or not matches or not row.counts_at(self._clock.now()):
            return None
        return Caller(row.key_id, row.name, row.roles)

    async def _row(self, key_id: str) -> ApiKeyRow | None:
        now = self._clock.monotonic()
        known = self._cache.get(key_id)
        if known is not None and now < known[0]:
            return known[1]
        row = await self._store.find(key_id)
        self._cache[key_id] = (now + CACHE_TTL_S, row)
        self._cache.move_to_end(key_id)
        while len(self._cache) > CACHE_ENTRIES_MAX:
            self._cache.popitem(last=False)
        return row
