"""Lets members' requests in: so many in a time, so many bytes of bodies, and their work in fair turns; reads no body.

All of it is about members whose signature was checked: what strangers can cost is bounded by the connections.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from node.hotline.domain.admission import Line, Shares
from node.hotline.domain.turns import share_of
from node.platform.requestrate import RequestRate, over_quota
from protocol.directory import Directory

#: Batches of one peer that may wait for their turn: more than any sender has in flight.
_WAITING_MAX: Final = 32
#: A batch costs as a record for each so many bytes, and one for its request.
_UNIT_BYTES: Final = 1024
_SOON_S: Final = 1


@dataclass(slots=True)
class Admission:
    """One for each process."""

    directory: Callable[[], Directory]
    rate: RequestRate
    shares: Shares
    line: Line

    @classmethod
    def of(
        cls,
        directory: Callable[[], Directory],
        *,
        requests_per_s: float,
        bodies_bytes_max: int,
        batches_at_once: int,
    ) -> "Admission":
        """Return an admission with nobody in it."""
        return cls(
            directory, RequestRate(requests_per_s), Shares(bodies_bytes_max), Line(batches_at_once, _WAITING_MAX)
        )

    def request(self, peer: str) -> None:
        """Count a verified request; raises ProtocolError `over-quota` when the peer sends too many."""
        self.rate.request(peer)

    @contextmanager
    def body(self, peer: str, size: int) -> Iterator[None]:
        """Hold room for a body of `size` bytes while the block runs; raises ProtocolError `over-quota` without it."""
        if not self.shares.take(peer, size):
            raise over_quota("too many bodies of this peer are being worked on", _SOON_S)
        try:
            yield
        finally:
            self.shares.give_back(peer, size)

    @asynccontextmanager
    async def turn(self, peer: str, size: int) -> AsyncIterator[None]:
        """Run the block when it is the peer's turn; raises ProtocolError `over-quota` when too many of it wait."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.line.enter(peer, ticket, 1 + size // _UNIT_BYTES):
            raise over_quota("too many batches of this peer wait for their turn", _SOON_S)
        self._call()
        try:
            await ticket
        except BaseException:
            if ticket.done() and not ticket.cancelled():
                self.line.done()
            else:
                self.line.leave(peer, ticket)
            self._call()
            raise
        try:
            yield
        finally:
            self.line.done()
            self._call()

    def _call(self) -> None:
        """Tell whose turn it is."""
        while (ticket := self.line.next(self._share)) is not None:
            if not isinstance(ticket, asyncio.Future):
                raise TypeError("whoever waits holds a future")
            if ticket.done():
                # Cancelled between its leaving and now; its place goes to the next.
                self.line.done()
            else:
                ticket.set_result(None)

    def _share(self, peer: str) -> int:
        entry = self.directory().nodes.get(peer)
        return 1 if entry is None else share_of(entry.limits)
