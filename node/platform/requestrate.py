"""How much each member may take in a time: requests, answers. Remembers a number for each that came lately."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from protocol.errors import ProtocolError

#: Seconds for which the allowance for requests can be saved up.
_BURST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Of something, `per_s` a second for each member over a long time, and that of `burst_s` seconds at once.

    It may be overdrawn by what is taken last, and is paid back by waiting (the generic cell rate algorithm).
    """

    per_s: float
    burst_s: float
    _full_at_s: dict[str, float] = field(default_factory=dict)

    def wait_s(self, peer: str) -> int:
        """Return 0 while something is left for `peer`, otherwise the whole seconds until there is."""
        over_s = self._full_at_s.get(peer, 0.0) - asyncio.get_running_loop().time() - self.burst_s
        return 1 + int(over_s) if over_s > 0 else 0

    def take(self, peer: str, amount: float) -> None:
        """Take so much; what is negative is given back, and what is full grows no more."""
        now_s = asyncio.get_running_loop().time()
        self._full_at_s[peer] = max(self._full_at_s.get(peer, now_s), now_s) + amount / self.per_s


@dataclass(frozen=True, slots=True)
class RequestRate:
    """At most `per_s` requests a second of each member over a long time; one for each process."""

    allowance: Allowance

    @classmethod
    def of(cls, per_s: float) -> "RequestRate":
        """Return a rate that nobody has used."""
        return cls(Allowance(per_s, _BURST_S))

    def request(self, peer: str) -> None:
        """Count a verified request; raises ProtocolError `over-quota` when the peer sends too many."""
        if wait_s := self.allowance.wait_s(peer):
            raise over_quota("too many requests for the time being", wait_s)
        self.allowance.take(peer, 1)


def over_quota(sentence: str, retry_after_s: int) -> ProtocolError:
    """Return the problem of a member that sends too much; it may try again after so many seconds."""
    return ProtocolError("over-quota", sentence, extra={"credit": 0, "retry_after": retry_after_s})
