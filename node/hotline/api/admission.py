"""Lets members' requests in: so many in a time, so many bytes there and back, their work in turns; reads no body.

All of it is about members whose signature was checked: what strangers can cost is bounded by the connections.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from node.hotline.domain.admission import Given, Line, Shares
from node.hotline.domain.turns import share_of
from node.platform.requestrate import Allowance, RequestRate, over_quota
from protocol.directory import Directory

#: Batches and questions of one peer that may wait for their turn: more than any sender has in flight.
_WAITING_MAX: Final = 32
#: A batch or an answer costs as a record for each so many bytes, and one for its request.
_UNIT_BYTES: Final = 1024
#: What a question costs of the budget for answers: to verify it, to note it and to sign its answer is work, too.
QUESTION_BYTES: Final = 65_536
_SOON_S: Final = 1


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Whose turn is waited for."""

    peer: str
    asks: bool
    called: asyncio.Future[None]


@dataclass(slots=True)
class Admission:
    """One for each process."""

    directory: Callable[[], Directory]
    rate: RequestRate
    answers: Allowance
    shares: Shares
    line: Line
    given: Given = field(default_factory=Given)

    @classmethod
    def of(
        cls,
        directory: Callable[[], Directory],
        *,
        requests_per_s: float,
        answers_bytes_per_s: float,
        answers_bytes_burst: int,
        bodies_bytes_max: int,
        batches_at_once: int,
    ) -> "Admission":
        """Return an admission with nobody in it."""
        return cls(
            directory,
            RequestRate.of(requests_per_s),
            Allowance(answers_bytes_per_s, answers_bytes_burst / answers_bytes_per_s),
            Shares(bodies_bytes_max),
            Line(batches_at_once, _WAITING_MAX),
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
    async def question(self, peer: str) -> AsyncIterator[None]:
        """Run the block, which answers a question of the peer's, when it is the peer's turn.

        Raises ProtocolError `over-quota` when too many of it wait, or it was given too much lately.
        """
        self._refuse_who_was_given_much(peer)
        async with self.turn(peer, 0, asks=True):
            # Others of its questions may have been answered while this one waited.
            self._refuse_who_was_given_much(peer)
            self.answers.take(peer, QUESTION_BYTES)
            yield

    def _refuse_who_was_given_much(self, peer: str) -> None:
        if wait_s := self.answers.wait_s(peer):
            raise over_quota("too much was asked and answered for the time being", wait_s)

    def give(self, peer: str, what: str, epoch: int, first: int, until: int, size: int, answer: ExitStack) -> None:
        """Note that the answer holds `size` bytes: `what` of an epoch, from `first` up to before `until`.

        Only what was given before counts against the budget; what is new pays for its question and one more: the one
        that finds out that nothing follows. It counts as being answered until `answer` is closed.
        """
        is_new = self.given.give(peer, what, epoch, first, until)
        self.answers.take(peer, -2 * QUESTION_BYTES if is_new else size)
        self.line.charge(peer, size // _UNIT_BYTES, self._share(peer))
        self.line.answers(peer)
        answer.callback(self._answered, peer)

    def _answered(self, peer: str) -> None:
        self.line.answered(peer)
        self._call()

    @asynccontextmanager
    async def turn(self, peer: str, size: int, *, asks: bool = False) -> AsyncIterator[None]:
        """Run the block when it is the peer's turn; raises ProtocolError `over-quota` when too many of it wait.

        `asks`: it answers a question, of which few of one peer are answered at once.
        """
        ticket = _Ticket(peer, asks, asyncio.get_running_loop().create_future())
        if not self.line.enter(peer, ticket, 1 + size // _UNIT_BYTES, asks=asks):
            raise over_quota("too many requests of this peer wait for their turn", _SOON_S)
        self._call()
        try:
            await ticket.called
        except BaseException:
            if ticket.called.done() and not ticket.called.cancelled():
                self._done(ticket)
            else:
                self.line.leave(peer, ticket)
            self._call()
            raise
        try:
            yield
        finally:
            self._done(ticket)
            self._call()

    def _done(self, ticket: _Ticket) -> None:
        self.line.done()
        if ticket.asks:
            self.line.answered(ticket.peer)

    def _call(self) -> None:
        """Tell whose turn it is."""
        while (ticket := self.line.next(self._share)) is not None:
            if not isinstance(ticket, _Ticket):
                raise TypeError("whoever waits holds a ticket")
            if ticket.called.done():
                # Cancelled between its leaving and now; its place goes to the next.
                self._done(ticket)
            else:
                ticket.called.set_result(None)

    def _share(self, peer: str) -> int:
        entry = self.directory().nodes.get(peer)
        return 1 if entry is None else share_of(entry.limits)
