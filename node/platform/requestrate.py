"""How many requests each member may send in a time. Remembers a number for each that called lately; stores nothing."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from protocol.errors import ProtocolError

#: Seconds for which the allowance for requests can be saved up.
_BURST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class RequestRate:
    """At most `per_s` requests a second of each member over a long time; one for each process."""

    per_s: float
    _full_at_s: dict[str, float] = field(default_factory=dict)

    def request(self, peer: str) -> None:
        """Count a verified request; raises ProtocolError `over-quota` when the peer sends too many."""
        now_s = asyncio.get_running_loop().time()
        full_at_s = max(self._full_at_s.get(peer, now_s), now_s)
        if full_at_s - now_s > _BURST_S:
            raise over_quota("too many requests for the time being", 1 + int(full_at_s - now_s - _BURST_S))
        self._full_at_s[peer] = full_at_s + 1 / self.per_s


def over_quota(sentence: str, retry_after_s: int) -> ProtocolError:
    """Return the problem of a member that sends too much; it may try again after so many seconds."""
    return ProtocolError("over-quota", sentence, extra={"credit": 0, "retry_after": retry_after_s})
