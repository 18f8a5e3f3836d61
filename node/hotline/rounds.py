"""Goes round the peers: says hello at the start and to whoever comes back. Never writes a record."""

import asyncio
from collections.abc import Collection
from datetime import timedelta

from node.errors import OperatorError
from node.hotline.assembly import Node
from node.hotline.domain.comparison import Difference
from node.hotline.domain.delivery import UNREACHABLE, Problem
from node.hotline.flows.greet import Greeting
from node.hotline.store import contacts, restored
from node.hotline.store import heads as heads_store
from node.platform.database import DATABASE_ERRORS
from protocol.codes import Delivery, NodeState
from protocol.directory import NodeEntry

#: Peers greeted at once.
_AT_ONCE_MAX = 16
#: How long a start waits for the answers of peers; who has not answered by then is greeted before it is sent anything.
_START_LIMIT_S = 5.0
#: After so long a start looks again whether its database is back.
_REST_S = 1.0
#: Heads and receipts are compared with each peer once a day.
_COMPARE_AGAIN = timedelta(days=1)
#: After these problems a peer is greeted before it is sent anything; a gap may be that of an older epoch.
_AWAY = (UNREACHABLE, "answer-", "stream-gap")
_MEMBERS = frozenset({NodeState.ACTIVE, NodeState.MAINTENANCE})


class Rounds:
    """What one process knows of whom it has met."""

    def __init__(self, node: Node) -> None:
        """Take the assembled node; nobody is met yet."""
        self._node = node
        self._met: set[str] = set()
        #: Whether the hello of the start is over: before, the node signs nothing and begins no work.
        self.begun = False

    def callable_peers(self) -> list[NodeEntry]:
        """Return the members that can be called, this node left out; nobody once the directory has expired."""
        if self._node.membership.has_expired():
            return []
        directory = self._node.directory()
        return [
            entry
            for entry in directory.nodes.values()
            if entry.id != self._node.settings.node_id
            and entry.state in _MEMBERS
            and entry.delivery is not Delivery.PULL
        ]

    async def begin(self) -> None:
        """Say hello to everybody; raises OperatorError when somebody proves that our database was set back.

        A database that goes away meanwhile is waited for, and then everybody is greeted anew: what was not stored of
        an answer could be such a proof.
        """
        while not self.begun:
            try:
                await self._begin()
            except DATABASE_ERRORS as error:
                kind = type(error).__name__
                self._node.log.warning("database not available", action="start.database", kind=kind)
                self._node.metrics.loop_errors.labels(loop="start").inc()
                await asyncio.sleep(_REST_S)
            else:
                self.begun = True

    async def _begin(self) -> None:
        turns = asyncio.Semaphore(_AT_ONCE_MAX)

        async def greet(peer: NodeEntry) -> None:
            async with turns:
                await self._greet(peer, back=True)

        await refuse_if_unfinished(self._node)
        greetings = [asyncio.ensure_future(greet(peer)) for peer in self.callable_peers()]
        if greetings:
            try:
                await asyncio.wait(greetings, timeout=_START_LIMIT_S)
            finally:
                for one in greetings:
                    one.cancel()
            failures = [one for one in await asyncio.gather(*greetings, return_exceptions=True) if one is not None]
            for failure in failures:
                if not isinstance(failure, asyncio.CancelledError):
                    raise failure
        await refuse_if_set_back(self._node)

    async def may_deliver(self, peer: NodeEntry) -> bool:
        """Compare with a peer that this process has not met, or that was away, before anything is signed for it."""
        async with self._node.db.transaction("deliver.due") as tx:
            contact = await contacts.contact(tx, peer.id)
            stops = await heads_store.stops(tx)
        if stops.set_back.get(peer.id):
            return False
        away = (contact.last_problem or "").startswith(_AWAY) and contact.failures > 0
        if peer.id in self._met and peer.id not in stops.set_back and not stops.stands(peer.id) and not away:
            return True
        greeting = await self._greet(peer, back=False)
        if (problem := _unheard(greeting)) is not None:
            await self._node.sender.unheard(peer, problem)
            return False
        async with self._node.db.transaction("deliver.due") as tx:
            return not (await heads_store.stops(tx)).stands(peer.id)

    async def compare(self, peer: NodeEntry) -> Problem | None:
        """Compare heads and receipts with one peer; what differs is kept. A Problem when it does not answer."""
        node = self._node
        greeting = await self._greet(peer, back=False)
        problem = greeting if isinstance(greeting, Problem) else greeting.unasked
        if problem is not None:
            return problem
        found = await node.comparer.compare(peer, node.directory())
        if isinstance(found, Problem):
            return found
        for one in found:
            self._say(peer.id, one)
        return None

    async def compare_due(self) -> int:
        """Compare with every peer with which it was not done for a day; returns with how many it was done."""
        node = self._node
        async with node.db.transaction("hello.read") as tx:
            fresh = await contacts.compared_since(tx, node.clock.now() - _COMPARE_AGAIN)
        due = [peer for peer in self.callable_peers() if peer.id not in fresh]
        for done, peer in enumerate(due):
            # They may take long to answer, and the directory goes on to age meanwhile.
            if self._node.membership.has_expired():
                return done
            await self.compare(peer)
        return len(due)

    def _say(self, peer: str, one: Difference) -> None:
        self._node.log.error(
            "the two sides of a stream differ",
            action="hello.difference",
            peer=peer,
            kind=one.kind,
            direction=one.direction,
            epoch=one.epoch,
            ours=one.ours,
            theirs=one.theirs,
        )

    async def _greet(self, peer: NodeEntry, *, back: bool) -> Greeting | Problem:
        node = self._node
        greeting = await node.greeter.greet(peer, node.directory(), back=back)
        if isinstance(greeting, Problem):
            node.log.info("hello not answered", action="hello.unanswered", peer=peer.id, code=greeting.code)
            return greeting
        for one in greeting.differences:
            self._say(peer.id, one)
        if greeting.unasked is None:
            self._met.add(peer.id)
        else:
            self._met.discard(peer.id)
            node.log.info("claim not proven", action="hello.unasked", peer=peer.id, code=greeting.unasked.code)
        if back:
            node.signals.wake("deliver")
        return greeting


def _unheard(greeting: Greeting | Problem) -> Problem | None:
    """Return why nothing is signed for a peer before it was greeted again, or None.

    Who does not hear a hello would not hear a batch: to cut and sign one is spared. Who says that we contradict
    ourselves may hold the proof, though it could not be asked: what we signed now would be a second story.
    """
    if isinstance(greeting, Problem):
        return greeting if greeting.code.startswith(UNREACHABLE) else None
    return greeting.unasked


async def refuse_if_unfinished(node: Node) -> None:
    """Raise OperatorError while a recovery has begun and not ended."""
    async with node.db.transaction("hello.read") as tx:
        begun = await restored.unfinished(tx)
    if begun is not None:
        raise OperatorError("A recovery has begun and not ended: run `hotline recover` again.")


async def refuse_if_set_back(node: Node) -> None:
    """Raise OperatorError when a peer has proven that our database is older than what we told it."""
    async with node.db.transaction("hello.read") as tx:
        claimed = (await heads_store.stops(tx)).set_back
    sentence = set_back_sentence([peer for peer, proven in claimed.items() if proven])
    if sentence is not None:
        raise OperatorError(sentence)


def set_back_sentence(peers: Collection[str]) -> str | None:
    """Return what an operator is to be told, or None when nobody has proven anything."""
    if not peers:
        return None
    names = ", ".join(sorted(peers))
    return f"The database is older than what this node told {names}: stop the node and run `hotline recover`."
