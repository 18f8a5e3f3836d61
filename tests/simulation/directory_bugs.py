"""Planted mistakes about the membership directory: which version is used and how long, and whose keys count."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from unittest.mock import patch

from node.hotline.store import directories, judged
from node.platform import peerdoor
from node.platform.trust import Freshness, InUse, Update
from protocol.directory import Directory, DirectoryKey
from protocol.keys import KeyState
from tests.simulation.bug import Bug


@contextmanager
def _key_state_ignored() -> Iterator[None]:
    real = Directory.http_key

    def http_key(self: Directory, keyid: str, at: datetime) -> tuple[str, Any]:
        found = self._http.get(keyid)
        if found is not None and found[1].state is not KeyState.NEXT:
            return found[0].id, found[1].public
        return real(self, keyid, at)

    with patch.object(Directory, "http_key", http_key), patch.object(DirectoryKey, "counts_at", DirectoryKey.good_at):
        yield


async def _accept_any(*_args: object) -> None:
    """Whatever version was trusted before."""


def _never_expired(self: InUse, now: datetime) -> Freshness:
    """Whoever was a member is one still."""
    return Freshness.FRESH if now < self.fresh_until else Freshness.STALE


def _whenever_signed(*_args: object) -> None:
    """What was signed once is good for ever."""


@contextmanager
def _stolen_key_opens() -> Iterator[None]:
    real = Directory.http_key

    def http_key(self: Directory, keyid: str, at: datetime) -> tuple[str, Any]:
        found = self._http.get(keyid)
        if found is not None and found[1].state is KeyState.COMPROMISED:
            return found[0].id, found[1].public
        return real(self, keyid, at)

    with patch.object(Directory, "http_key", http_key):
        yield


@contextmanager
def _left_is_a_member() -> Iterator[None]:
    real = Directory.http_key

    def http_key(self: Directory, keyid: str, at: datetime) -> tuple[str, Any]:
        found = self._http.get(keyid)
        if found is not None and found[1].counts_at(at):
            return found[0].id, found[1].public
        return real(self, keyid, at)

    with patch.object(Directory, "http_key", http_key), patch.object(peerdoor, "_NOT_MEMBERS", frozenset()):
        yield


async def _stays_delivered(*_args: object) -> None:
    """What was receipted once is delivered."""


DIRECTORY_BUGS: Final = (
    Bug("key-state-ignored", "A key that was retired still opens the door.", _key_state_ignored),
    Bug(
        "directory-rollback",
        "An older version of the directory is taken into use.",
        lambda: patch.object(directories, "check", _accept_any),
    ),
    Bug(
        "expired-used-on",
        "A directory that has expired is used on.",
        lambda: patch.object(InUse, "freshness", _never_expired),
        needs="unsigned",
    ),
    Bug(
        "expired-is-taken",
        "Metadata that have expired are taken from whoever offers them.",
        lambda: patch.object(Update, "_check_expiry", _whenever_signed),
        needs="unsigned",
    ),
    Bug(
        "stolen-key-opens",
        "A key that is listed as stolen still opens the door.",
        _stolen_key_opens,
        needs="compromised",
    ),
    Bug(
        "stolen-receipt-key-counts",
        "A receipt under a stolen receipt key counts where it states a time before the theft.",
        lambda: patch.object(DirectoryKey, "counts_at", DirectoryKey.good_at),
        needs="compromised",
    ),
    Bug(
        "not-sent-again",
        "What had a receipt that lost its worth is not sent again.",
        lambda: patch.object(judged, "send_again", _stays_delivered),
        needs="compromised",
    ),
    Bug(
        "left-is-a-member",
        "Whoever has left is still let in.",
        _left_is_a_member,
        needs="goodbye",
    ),
)
