"""Which peers are delivered to when not all can be at once: the longest unserved first. Pure; starts nothing.

A delivery holds its batches in memory until they are answered, so their number bounds the memory. Peers that failed
last get at most half of the places: those that accept and never answer cannot take the places of those that do.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field


@dataclass(slots=True)
class Slots:
    """The places of one process for deliveries; remembers one number for each peer ever delivered to."""

    places: int
    turn_s: float
    _running: dict[str, bool] = field(default_factory=dict)
    _began_s: dict[str, float] = field(default_factory=dict)
    _waiting: set[bool] = field(default_factory=set)

    def admit(self, due: Iterable[str], suspects: AbstractSet[str], now_s: float) -> list[str]:
        """Return which of `due` to begin with at `now_s`, and count them as running until `done`.

        `suspects` are the peers whose last delivery failed. Whoever has waited longest since its own last turn is
        first.
        """
        wanted = sorted(set(due) - self._running.keys(), key=lambda peer: (self._began_s.get(peer, 0.0), peer))
        begun: list[str] = []
        self._waiting.clear()
        for peer in wanted:
            suspect = peer in suspects
            if self._has_place(suspect=suspect):
                self._running[peer] = suspect
                self._began_s[peer] = now_s
                begun.append(peer)
            else:
                self._waiting.add(suspect)
        return begun

    def done(self, peer: str) -> None:
        """Give the place of `peer` back."""
        self._running.pop(peer, None)

    def turn_is_over(self, peer: str, now_s: float) -> bool:
        """Tell whether `peer` has had its turn and another waits for the place; what is under way is then finished."""
        if peer not in self._running or now_s - self._began_s[peer] < self.turn_s:
            return False
        if self._running[peer]:
            return bool(self._waiting)
        return False in self._waiting or (True in self._waiting and self._suspects() < self._suspects_max())

    @property
    def waiting(self) -> bool:
        """Whether a peer was due at the last look and found no place."""
        return bool(self._waiting)

    def _has_place(self, *, suspect: bool) -> bool:
        if len(self._running) >= self.places:
            return False
        return not suspect or self._suspects() < self._suspects_max()

    def _suspects(self) -> int:
        return sum(self._running.values())

    def _suspects_max(self) -> int:
        return max(1, self.places // 2)
