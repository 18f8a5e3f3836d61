"""The virtual network: it delays, loses, repeats, reorders and cuts what the nodes really signed."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from node.platform.httpclient import PeerUnreachable
from protocol.profile import Request, Response
from tests.simulation.services import RUNNING
from tests.simulation.station import Run

if TYPE_CHECKING:
    from tests.simulation.world import World


#: Far more than any history needs; a node that never rests shows here.
MESSAGES_MAX = 3000


@dataclass(slots=True)
class Link:
    """One direction between two nodes: shares of messages lost and doubled, seconds of delay, and whether it is cut."""

    cut: bool = False
    loss: float = 0.0
    double: float = 0.0
    garble: float = 0.0
    delay_s: tuple[float, float] = (0.005, 0.05)


class Answering(Protocol):
    """Who answers at an address."""

    async def answer(self, request: Request) -> Response:
        """Answer a request; may take as long as it likes."""


@dataclass(slots=True)
class Network:
    """All links; `hosts` maps a base address to the node behind it, `closed` nodes only call."""

    world: "World"
    rng: random.Random
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    strangers: dict[str, Answering] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    in_flight: dict[tuple[str, str], int] = field(default_factory=dict)
    captured: list[tuple[str, str, Request]] = field(default_factory=list)
    messages: int = 0

    def link(self, source: str, target: str) -> Link:
        """Return one direction."""
        return self.links.setdefault((source, target), Link())

    async def exchange(self, source: str, request: Request, timeout_s: float) -> Response:
        """Carry a request and its answer; raises PeerUnreachable as the real client does."""
        base = "/".join(request.target_uri.split("/", 3)[:3])
        target = self.hosts[base]
        pair = source, target
        self.messages += 1
        if self.messages > MESSAGES_MAX:
            self.world.violated("I9", f"{source} asks {target} again and again without a pause")
            await asyncio.Event().wait()
        if target in self.closed:
            if RUNNING.get() is not None:
                self.world.violated("reach", f"{source} calls {target}, which cannot be called")
            raise PeerUnreachable("connect", "no connection gets in there")
        self.world.checks.leaves(source, target, request)
        self.world.expiry.leaves(source, request)
        self.in_flight[pair] = self.in_flight.get(pair, 0) + 1
        self.world.checks.in_flight(source, target, self.in_flight[pair])
        try:
            async with asyncio.timeout(timeout_s):
                return await self._carry(source, target, request)
        except TimeoutError:
            raise PeerUnreachable("timeout", "the peer did not answer in time") from None
        finally:
            self.in_flight[pair] -= 1

    async def _carry(self, source: str, target: str, request: Request) -> Response:
        there, back = self.link(source, target), self.link(target, source)
        request = self._garbled(request, there)
        self.captured.append((source, target, request))
        del self.captured[:-40]
        await self._travel(there)
        if self.rng.random() < there.double:
            self.world.later(self.rng.uniform(0.0, 5.0), lambda: self._again(source, target, request))
        answer = await self._answered(source, target, request)
        await self._travel(back)
        return answer

    async def _travel(self, link: Link) -> None:
        seconds = self.rng.uniform(*link.delay_s)
        if not self.world.loop.passes(seconds):
            await asyncio.sleep(seconds)
        if link.cut or self.rng.random() < link.loss:
            # Lost: the caller's patience ends it.
            await asyncio.Event().wait()

    def _garbled(self, request: Request, link: Link) -> Request:
        if not request.body or self.rng.random() >= link.garble:
            return request
        at = self.rng.randrange(len(request.body))
        body = request.body[:at] + bytes([request.body[at] ^ 1]) + request.body[at + 1 :]
        return Request(request.method, request.target_uri, request.headers, body)

    def _again(self, source: str, target: str, request: Request) -> None:
        """Deliver a message a second time; nobody waits for its answer."""

        async def deliver() -> None:
            with suppress(PeerUnreachable):
                await self._answered(source, target, request)

        self.world.spawn(deliver())

    async def _answered(self, source: str, target: str, request: Request) -> Response:
        """Run the target's door in the target's own life."""
        stranger = self.strangers.get(target)
        if stranger is not None:
            return await stranger.answer(request)
        run = self.world.stations[target].run
        if run is None or run.app is None:
            raise PeerUnreachable("connect", "the peer does not take connections")
        arrival = self.world.checks.arrived(target, request)
        signed = self.world.thefts.arrived(target, request)
        none_any_more = self.world.authority.arrived(target, request)
        work = _begin(run, lambda: run.answer(request))
        try:
            answer = await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise PeerUnreachable("disconnected", "the connection broke") from None
            raise
        self.world.checks.answered(source, arrival, answer)
        self.world.expiry.answered(target, request, answer)
        self.world.thefts.answered(target, signed, answer)
        self.world.authority.answered(target, none_any_more, answer)
        return answer


def _begin(run: Run, work: Callable[[], Awaitable[Response]]) -> "asyncio.Future[Response]":
    token = RUNNING.set(run)
    try:
        return asyncio.ensure_future(work())
    finally:
        RUNNING.reset(token)
