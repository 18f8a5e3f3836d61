"""Since when two versions of the directory judge receipts differently, by the windows of the keys they name. Pure."""

import json
from typing import Final

import msgspec

from protocol.directory import Directory
from protocol.keys import KeyState, KeyUse
from protocol.timestamps import format_time

#: What is told of no keys at all.
NONE: Final = "{}"
#: From when until when a key was good, and whether it is a receipt key that was stolen.
_Window = tuple[str, str | None, bool]


def windows_of(directory: Directory, sender: str, receiver: str) -> str | None:
    """Return what decides, by this directory, which receipts of streams from `sender` to `receiver` prove something.

    For each stream key of the sender and each receipt key of the receiver from when until when it was good, and whether
    it is a receipt key that was stolen, which proves nothing at all (protocol.evidence). Equal texts judge alike.
    None where one of the two is not listed: nothing is said of its keys then, so what was judged before stands.
    """
    found: dict[str, _Window] = {}
    for node, use in ((sender, KeyUse.STREAM), (receiver, KeyUse.RECEIPT)):
        entry = directory.nodes.get(node)
        if entry is None:
            return None
        for key in entry.keys:
            window = key.window()
            if key.use is not use or window is None:
                continue
            stolen = use is KeyUse.RECEIPT and key.state is KeyState.COMPROMISED
            ends = None if window[1] is None else format_time(window[1])
            found[f"{use}:{key.public.thumbprint()}"] = format_time(window[0]), ends, stolen
    return json.dumps(found, sort_keys=True)


def changed_since(before: str, after: str) -> str | None:
    """Return the first time (RFC 3339) at which the two would have other keys sign a receipt; None when they agree."""
    if before == after:
        return None
    old, new = (msgspec.json.decode(text, type=dict[str, _Window]) for text in (before, after))
    changed = [(old.get(key), new.get(key)) for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    return min((_differ_at(*windows) for windows in changed), default=None)


def _differ_at(one: _Window | None, other: _Window | None) -> str:
    """Return when two windows of one key part; None is one that is not there."""
    there = [window for window in (one, other) if window is not None]
    if len({(begins, stolen) for begins, _, stolen in there}) == len(there):
        return min(begins for begins, _, _ in there)
    return min(ends for _, ends, _ in there if ends is not None)
