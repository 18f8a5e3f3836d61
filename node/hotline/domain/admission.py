"""What a node takes on at once: whose bodies, and whose turn it is to be worked for. Pure; waits for nothing.

Both are shared: no peer can fill the memory or the line so that another finds no place in it. What was given to a peer
before is told from what is new to it.
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
class Given:
    """How far each peer was given each thing that it asks for, as an epoch and an index; nothing is taken back."""

    _until: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def give(self, peer: str, what: str, epoch: int, first: int, until: int) -> bool:
        """Note that `peer` is given `what` from `first` up to before `until`; tells whether all of it is new to it."""
        before = self._until.get((peer, what), (0, 0))
        self._until[peer, what] = max(before, (epoch, until))
        return before <= (epoch, first) < (epoch, until)


@dataclass(slots=True)
class Line:
    """Who works next, at most `at_once` at a time: start-time fair queueing over peers, by cost and share.

    `waiting_max` bounds how many of one peer may wait; `asks_max` how many of its questions are being answered, up to
    when the answer has left.
    """

    at_once: int
    waiting_max: int
    asks_max: int = 2
    _waiting: dict[str, deque[tuple[object, int, bool]]] = field(default_factory=dict)
    _answering: Counter[str] = field(default_factory=Counter)
    _marks: dict[str, int] = field(default_factory=dict)
    _passed: int = 0
    _running: int = 0

    def enter(self, peer: str, ticket: object, cost: int, *, asks: bool = False) -> bool:
        """Join the line with `cost` units of work; False when too many of `peer` wait already.

        `asks`: it is a question, whose place as such is given back by `answered`.
        """
        own = self._waiting.setdefault(peer, deque())
        if len(own) >= self.waiting_max:
            return False
        own.append((ticket, cost, asks))
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
        ready = [one for one in self._waiting if self._may_begin(one)] if self._running < self.at_once else []
        if not ready:
            return None
        peer = min(ready, key=lambda one: (start_of(self._marks.get(one, 0), self._passed), one))
        ticket, cost, asks = self._waiting[peer].popleft()
        if asks:
            self.answers(peer)
        if not self._waiting[peer]:
            del self._waiting[peer]
        start = start_of(self._marks.get(peer, 0), self._passed)
        self._passed = start
        self._marks[peer] = mark_after(start, cost, share_of(peer))
        # A mark that all have passed says no more than that its peer may begin at once.
        self._marks = {one: mark for one, mark in self._marks.items() if mark > self._passed}
        self._running += 1
        return ticket

    def _may_begin(self, peer: str) -> bool:
        return not self._waiting[peer][0][2] or self._answering[peer] < self.asks_max

    def done(self) -> None:
        """Give a place back."""
        self._running -= 1

    def charge(self, peer: str, cost: int, share: int) -> None:
        """Weigh work that was larger than it looked: later turns of `peer` come as much later."""
        self._marks[peer] = mark_after(start_of(self._marks.get(peer, 0), self._passed), cost, share)

    def answers(self, peer: str) -> None:
        """Count one more answer to `peer` that is on its way."""
        self._answering[peer] += 1

    def answered(self, peer: str) -> None:
        """Count one less."""
        self._answering[peer] -= 1
        if not self._answering[peer]:
            del self._answering[peer]
