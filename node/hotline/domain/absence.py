"""Which hotlines nothing is sent to or taken from, by the directory, and why. Pure; asks nobody whether one is up."""

from typing import Final

from protocol.codes import NodeState
from protocol.directory import Directory

NOT_LISTED: Final = "not-listed"
_GONE: Final = frozenset({NodeState.SUSPENDED, NodeState.LEFT})
_WORDS: Final = {
    NodeState.SUSPENDED.value: "is suspended",
    NodeState.LEFT.value: "has left the network",
    NOT_LISTED: "is not in the directory",
}


def absence(directory: Directory, node: str) -> str | None:
    """Return why a hotline is no member that is sent to: `suspended`, `left`, `not-listed`; None for one that is."""
    entry = directory.nodes.get(node)
    if entry is None:
        return NOT_LISTED
    return entry.state.value if entry.state in _GONE else None


def in_words(why: str) -> str:
    """Return what `absence` says for a person, as the end of a sentence about the hotline."""
    return _WORDS[why]
