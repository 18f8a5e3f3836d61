"""Fetches what peers have to say to a node that cannot be called, or that lost records; brings them its receipts.

Stores only through the flow that takes a push, so a record is stored once however it comes.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

from node.hotline.assembly import Node
from node.hotline.domain.comparison import Kind
from node.hotline.domain.delivery import Problem, backoff_s
from node.hotline.flows.receive import Offer
from node.hotline.store import contacts, heads, pulls
from protocol.codes import Delivery, NodeState
from protocol.directory import NodeEntry
from protocol.errors import ProtocolError

#: A peer that is away is asked again so often at the latest: it cannot tell us that it is back.
_CAP_S = 30.0
#: A peer may think so long before it says that there is nothing.
_WAIT_S = 20
#: What was received before is to be applied first.
_FULL_S = 0.5
#: After the first answer without anything that came at once, though it might have waited; twice as long each time.
_IDLE_S = 1.0


#: Runs one round of a loop; whatever it meets is logged and counted, never raised.
Survive = Callable[[str, Callable[[], Awaitable[object]]], Awaitable[object]]


class Pulls:
    """The fetching of one process."""

    def __init__(self, node: Node, stop: asyncio.Event, survive: Survive) -> None:
        """Take the assembled node and what runs a round and survives it; nothing is fetched yet."""
        self._node = node
        self._stop = stop
        self._survive = survive
        self._begun: set[tuple[str, int]] = set()
        self._running: dict[str, asyncio.Task[None]] = {}

    async def supervise(self) -> int:
        """Keep one task for each peer that is to be fetched from; returns 0, as a loop's round that may rest."""
        for peer in await self._wanted():
            if peer.id not in self._running and not self._stop.is_set():
                task = asyncio.ensure_future(self._run(peer.id))
                self._running[peer.id] = task
                task.add_done_callback(partial(self._ended, peer.id))
        return 0

    async def end(self) -> None:
        """Let go of peers that are being waited for; a batch that is being stored is fetched again."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, peer_id: str, _task: asyncio.Task[None]) -> None:
        self._running.pop(peer_id, None)

    def _may_ask(self) -> bool:
        """Tell whether peers are called at all: not once we stop, or the directory has expired."""
        return not self._stop.is_set() and not self._node.membership.has_expired()

    def _always(self) -> bool:
        """Tell whether this node cannot be called, and so fetches all it gets."""
        own = self._node.directory().nodes.get(self._node.settings.node_id)
        return own is not None and own.delivery is Delivery.PULL

    async def _wanted(self) -> list[NodeEntry]:
        """Everybody, for a node that cannot be called; else who has receipts of ours for records that we lack."""
        node = self._node
        if node.membership.has_expired():
            # Nothing is sent to any node then, not even a question (PROTOCOL section 2).
            return []
        directory = node.directory()
        wanted = None
        if not self._always():
            async with node.db.transaction("pull.read") as tx:
                wanted = {one.peer for one in await heads.differences(tx) if one.kind is Kind.LOST}
        return [
            entry
            for entry in directory.nodes.values()
            if self._callable(entry.id) is not None and (wanted is None or entry.id in wanted)
        ]

    def _callable(self, peer_id: str) -> NodeEntry | None:
        """Return a peer as the directory lists it now, or None where it is not to be asked any more."""
        entry = self._node.directory().nodes.get(peer_id)
        if entry is None or entry.id == self._node.settings.node_id or entry.delivery is Delivery.PULL:
            return None
        return entry if entry.state in {NodeState.ACTIVE, NodeState.MAINTENANCE} else None

    async def _run(self, peer_id: str) -> None:
        await self._survive("pull", partial(self._fetch, peer_id))

    async def _fetch(self, peer_id: str) -> None:
        """Fetch from one peer, unless another process does, for as long as there is a reason.

        Each turn goes by the newest directory: the peer may have another address meanwhile, or be suspended.
        """
        node, settings = self._node, self._node.settings
        cap_s = min(_CAP_S, settings.backoff_cap_s)
        failures = idle = 0
        most = settings.batch_records_max
        async with node.db.session_lock(f"pull:{peer_id}") as held:
            while held is not None and held() and self._may_ask() and (peer := self._callable(peer_id)) is not None:
                always = self._always()
                wait_s = min(_WAIT_S, int(settings.peer_timeout_s / 2)) if always else 0
                began_s = node.clock.monotonic()
                gained = await self._turn(peer, wait_s, most)
                if not isinstance(gained, Problem):
                    if failures:
                        await self._back(peer)
                    failures, most = 0, settings.batch_records_max
                    if not always and not gained:
                        return
                    if gained:
                        idle = 0
                    elif not wait_s or node.clock.monotonic() - began_s < wait_s / 2:
                        # A peer that does not wait must not make us ask without a pause.
                        await self._pause(min(cap_s, _IDLE_S * 2 ** min(idle, 10)))
                        idle += 1
                    continue
                if gained.code == "over-quota":
                    # A smaller batch may still find room: what waits for a whole one could wait for ever.
                    most = min(most, gained.credit or most)
                    await self._pause(min(max(gained.retry_after_s or 0, _FULL_S), _CAP_S))
                    continue
                node.metrics.problems.labels(code=gained.code, direction="met").inc()
                node.log.warning("nothing fetched", action="pull.failed", peer=peer.id, code=gained.code)
                if not always:
                    return
                if gained.code == "maintenance":
                    await self._help(peer)
                await self._pause(backoff_s(failures, base_s=settings.backoff_base_s, cap_s=cap_s, draw=random.random))
                failures += 1

    async def _turn(self, peer: NodeEntry, wait_s: int, most: int) -> int | Problem:
        """Bring the receipts that the peer lacks and fetch one batch, of `most` records, meanwhile.

        Returns how many records came and receipts were brought.
        """
        node = self._node
        async with node.db.transaction("pull.read") as tx:
            head = await pulls.head(tx, peer.id)
            owed = await pulls.owed(tx, peer.id)
        # What waits for a receipt does not wait for new records.
        bringing = asyncio.ensure_future(self._bring(peer, owed))
        try:
            fetched = await node.catchup.fetch(
                peer, head.epoch, head.size, wait_s=0 if owed else wait_s, records_max=most
            )
        finally:
            problem = await bringing
        if isinstance(fetched, Problem):
            return fetched
        if problem is not None:
            return problem
        if fetched.body is None:
            if fetched.epoch is None or fetched.epoch <= head.epoch:
                return len(owed)
            head = pulls.PullHead(head.epoch + 1, 0)
            again = await node.catchup.fetch(peer, head.epoch, 0, records_max=most)
            if isinstance(again, Problem) or again.body is None:
                return again if isinstance(again, Problem) else len(owed)
            fetched = again
        stored = await self._store(peer, head, fetched.body or b"")
        return stored if isinstance(stored, Problem) else stored + len(owed)

    async def _store(self, peer: NodeEntry, head: pulls.PullHead, body: bytes) -> int | Problem:
        node = self._node
        if (peer.id, head.epoch) not in self._begun:
            async with node.db.transaction("pull.begin") as tx:
                await pulls.begin(tx, peer.id, head.epoch)
            self._begun.add((peer.id, head.epoch))
        offer = Offer(peer.id, "", None, peer.id, head.epoch, head.size, body)
        try:
            receipt = await node.receiver.receive(offer, node.directory())
        except ProtocolError as error:
            credit = error.extra.get("credit")
            return Problem(error.code, credit=credit if isinstance(credit, int) else None)
        node.signals.wake("apply")
        node.metrics.records_received.labels(peer=peer.id).inc(receipt.records)
        return receipt.records

    async def _bring(self, peer: NodeEntry, owed: list[tuple[int, int, int, bytes]]) -> Problem | None:
        """Bring receipts, oldest first; each that was taken is noted, and one that was not comes with the next turn."""
        for stream, epoch, size, note in owed:
            if not self._may_ask():
                break
            problem = await self._node.catchup.put_receipt(peer, epoch, size, note)
            if problem is not None:
                return problem
            async with self._node.db.transaction("pull.brought") as tx:
                await pulls.brought(tx, stream, size, note)
        return None

    async def _help(self, peer: NodeEntry) -> None:
        """The peer's streams stand still: one that recovers hears how far we have them, and gets what it asks for."""
        node = self._node
        greeting = await node.greeter.greet(peer, node.directory(), back=True)
        if isinstance(greeting, Problem):
            return
        node.signals.wake("deliver")
        for one in greeting.lost:
            first = one.first
            while self._may_ask():
                kept = await node.give_back.held(peer.id, one.epoch, first)
                if kept.body is None or await node.catchup.bring_back(peer, one.epoch, first, kept.body) is not None:
                    break
                first = kept.until

    async def _back(self, peer: NodeEntry) -> None:
        """The peer answers again: what we have to say to it need not wait longer either."""
        async with self._node.db.transaction("pull.back") as tx:
            await contacts.heard_from(tx, peer.id, self._node.clock.now())

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
