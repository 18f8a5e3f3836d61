"""What a node takes on at once: whose bodies, and whose turn it is to be worked for. Pure; waits for nothing.

Both are shared: no peer can fill the memory or the line so that another finds no place in it.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from node.hotline.domain.turns import mark_after, start_of


@dataclass(slots=True)
class Shares:
    """Bytes of bodies in memory, at most `bytes_max` of all peers.

    A peer may hold no more than is left for all others afterwards (a dynamic threshold). So however many hold as much
    as they may, one part is always free, and a peer that holds nothing is refused only when everything is taken.
    """

    bytes_max: int
    _held: Counter[str] = field(default_factory=Counter)

    def take(self, peer: str, size: int) -> bool:
        """Take room for `size` bytes, unless that is more than the share of `peer` now."""
        left = self.bytes_max - self._held.total() - size
        mine = self._held.get(peer, 0)
        if left < 0 or (mine and mine + size > left):
            return False
        self._held[peer] = mine + size
        return True

    def give_back(self, peer: str, size: int) -> None:
        """Give the room back."""
        self._held[peer] -= size
        if self._held[peer] <= 0:
            del self._held[peer]

    def held(self, peer: str) -> int:
        """Return how many bytes `peer` holds."""
        return self._held.get(peer, 0)


@dataclass(slots=True)
class Line:
    """Who works next, at most `at_once` at a time: start-time fair queueing over peers, by cost and share.

    `waiting_max` bounds how many of one peer may wait.
    """

    at_once: int
    waiting_max: int
    _waiting: dict[str, deque[tuple[object, int]]] = field(default_factory=dict)
    _marks: dict[str, int] = field(default_factory=dict)
    _passed: int = 0
    _running: int = 0

    def enter(self, peer: str, ticket: object, cost: int) -> bool:
        """Join the line with `cost` units of work; False when too many of `peer` wait already."""
        own = self._waiting.setdefault(peer, deque())
        if len(own) >= self.waiting_max:
            return False
        own.append((ticket, cost))
        return True

    def leave(self, peer: str, ticket: object) -> None:
        """Leave the line before one's turn came."""
        own = self._waiting.get(peer)
        if own is not None:
            self._waiting[peer] = own = deque(one for one in own if one[0] is not ticket)
            if not own:
                del self._waiting[peer]

    def next(self, share_of: Callable[[str], int]) -> object | None:
        """Return the ticket whose turn it is now, or None while nobody waits or all places are taken."""
        if not self._waiting or self._running >= self.at_once:
            return None
        peer = min(self._waiting, key=lambda one: (start_of(self._marks.get(one, 0), self._passed), one))
        ticket, cost = self._waiting[peer].popleft()
        if not self._waiting[peer]:
            del self._waiting[peer]
        start = start_of(self._marks.get(peer, 0), self._passed)
        self._passed = start
        self._marks[peer] = mark_after(start, cost, share_of(peer))
        # A mark that all have passed says no more than that its peer may begin at once.
        self._marks = {one: mark for one, mark in self._marks.items() if mark > self._passed}
        self._running += 1
        return ticket

    def done(self) -> None:
        """Give a place back."""
        self._running -= 1
