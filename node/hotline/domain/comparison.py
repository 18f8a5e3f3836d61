"""Compares what two nodes say of the streams between them: what is missing where, and who contradicts whom. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocol.hello import Heads


class Direction(StrEnum):
    """Which of the two streams a difference is about."""

    OUT = "out"
    """Ours to the peer."""
    IN = "in"
    """The peer's to us."""


class Kind(StrEnum):
    """What is different."""

    SET_BACK = "set-back"
    """The peer holds more of our stream than we wrote: our database is older than what we told."""
    OTHER_ROOT = "other-root"
    """Both have the stream up to one size, and with other records."""
    PEER_LOST = "peer-lost"
    """The peer holds less of our stream than it receipted: its database was set back. Sent again."""
    LOST = "lost"
    """We hold less of the peer's stream than we receipted: ours was set back. Fetched, or sent again by the peer."""
    RECEIPT_MISSING = "receipt-missing"
    """The peer holds more of our stream than it gave us receipts for, and gives us none now."""
    RECEIPT_DIFFERS = "receipt-differs"
    """The peer keeps another receipt for a size than the one it gave us."""
    NOT_ASKED = "not-asked"
    """We recovered and did not ask the peer: what it holds of our stream is not known."""


#: What a peer says that holds of our stream what we do not know: that we are on older storage, if it is proven.
KNOWS_MORE = frozenset({Kind.SET_BACK, Kind.OTHER_ROOT})
#: What a hello alone can tell.
TOLD_BY_HELLO = KNOWS_MORE | {Kind.LOST}
#: No rewind mends these: a person has to look.
ALARMING = KNOWS_MORE | {Kind.RECEIPT_DIFFERS}


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; `ours` and `theirs` are the sizes that each side says."""

    direction: Direction
    epoch: int
    kind: Kind
    ours: int
    theirs: int


@dataclass(frozen=True, slots=True)
class RootAt:
    """A root that the peer says, to be compared with our own log's at the same size."""

    direction: Direction
    epoch: int
    size: int
    root: bytes


def compare_sizes(ours: Heads, theirs: Heads, before: Heads | None) -> tuple[list[Difference], list[RootAt]]:
    """Return what the sizes alone tell, and the roots that are then to be compared.

    Records may be under way meanwhile, so each size is held against one of ours that cannot have been overtaken:
    `ours` was read after the peer said `theirs`; `before` is ours as it was before the peer was asked, None where the
    peer spoke first, and then nothing is said of what the peer lost.
    """
    found: list[Difference] = []
    roots: list[RootAt] = []
    written = {one.epoch: one.size for one in ours.written}
    receipted = {one.epoch: one.receipted for one in (before or ours).written}
    held = {one.epoch: one for one in theirs.held}
    for epoch in sorted(held.keys() | written.keys()):
        size, ended = (held[epoch].size if epoch in held else 0), written.get(epoch, 0)
        if size > ended:
            found.append(Difference(Direction.OUT, epoch, Kind.SET_BACK, ended, size))
            continue
        if before is not None and size < receipted.get(epoch, 0):
            found.append(Difference(Direction.OUT, epoch, Kind.PEER_LOST, receipted[epoch], size))
        if size:
            roots.append(RootAt(Direction.OUT, epoch, size, held[epoch].root))
    mine = {one.epoch: one.size for one in ours.held}
    for said in theirs.written:
        if said.receipted > mine.get(said.epoch, 0):
            found.append(Difference(Direction.IN, said.epoch, Kind.LOST, mine.get(said.epoch, 0), said.receipted))
        elif said.receipted:
            roots.append(RootAt(Direction.IN, said.epoch, said.receipted, said.root))
    return found, roots


def compare_roots(said: Sequence[RootAt], own: Mapping[tuple[Direction, int], bytes]) -> list[Difference]:
    """Return where the peer's root is not that of our own log; `own` holds ours by direction and epoch."""
    return [
        Difference(one.direction, one.epoch, Kind.OTHER_ROOT, one.size, one.size)
        for one in said
        if own[one.direction, one.epoch] != one.root
    ]


def missing(ours: Heads, theirs: Heads) -> list[tuple[int, int]]:
    """Return (epoch, size) of the peer's epochs of which it wrote more than we hold."""
    mine = {one.epoch: one.size for one in ours.held}
    return [(one.epoch, one.size) for one in theirs.written if one.size > mine.get(one.epoch, 0)]
