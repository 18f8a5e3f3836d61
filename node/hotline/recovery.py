"""Puts a node right that stands on an older database: takes back what it lost, proves it, begins new epochs.

Runs while the node does not serve; broken off anywhere, it is run again and goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar
from uuid import UUID

from node.errors import OperatorError
from node.hotline.assembly import Node
from node.hotline.domain.budgets import BudgetLimits, Rate
from node.hotline.domain.comparison import Direction
from node.hotline.domain.delivery import Problem
from node.hotline.flows.receive import Offer, Receipt, Receiver
from node.hotline.flows.reclaim import OnlyStolenError, Reclaimer
from node.hotline.flows.replay import Replayer
from node.hotline.flows.restart import Restarter
from node.hotline.gateways.catchup import Fetched
from node.hotline.store import heads as heads_store
from node.hotline.store import inbound, judged, outbound, restored
from node.platform.database import Transaction
from node.platform.ids import new_id
from protocol.batch import decode_batch
from protocol.codes import Delivery, NodeState
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.hello import Heads, Held, Lost
from protocol.note import parse_note

#: How long nothing may come from peers that only fetch, which call at least every half minute.
WAIT_S = 120.0

#: A peer that says `over-quota` is asked so often in a row, and again after at most so many seconds each time.
_PATIENCE = 20
_PAUSE_S = 30.0
_Answer = TypeVar("_Answer")

_MEMBERS = frozenset({NodeState.ACTIVE, NodeState.MAINTENANCE})
#: What was taken once is taken again, however much it is: nothing of it is applied before all of it is here.
_ALL = 2**53
_EVERYTHING = BudgetLimits(records=Rate(2.0**40, _ALL), bytes=Rate(2.0**40, _ALL))


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery did: records of ours taken back, records of peers fetched again, epochs begun (peer, epoch).

    `left` is how many records of ours could not be done again, by the reason (flows.replay).
    """

    own: dict[str, int]
    received: dict[str, int]
    epochs: list[tuple[str, int]]
    left: dict[str, int]


class Visits:
    """What peers that cannot be called bring while a recovery waits for them; `api.recovery` is their door."""

    def __init__(self, node: Node, reclaimer: Reclaimer, awaited: Collection[str]) -> None:
        """Wait for the peers of `awaited`; nobody has come yet."""
        self._node = node
        self._reclaimer = reclaimer
        self._said: dict[str, Heads] = {}
        #: How far each peer said that its stream was receipted, by its epochs. The most it ever said: it goes back to
        #: what we have, and says so in its next hello, long before it has sent all of it again.
        self._receipted: dict[str, dict[int, int]] = {}
        self._refused: set[tuple[str, int]] = set()
        self._only_stolen: OnlyStolenError | None = None
        self._came = asyncio.Event()
        self.awaited = frozenset(awaited)
        self.taken = dict.fromkeys(awaited, 0)

    async def greeted(self, peer: str, theirs: Heads) -> Heads:
        """Take how far a peer has both streams; returns how far we have them, and what of ours we lost.

        Of the peer's we say how far a receipt that counts covers it: what we hold beyond comes again under the receipts
        that it has had since (ADR 0021).
        """
        self._said[peer] = theirs
        most = self._receipted.setdefault(peer, {})
        for one in theirs.written:
            most[one.epoch] = max(one.receipted, most.get(one.epoch, 0))
        self._came.set()
        async with self._node.db.transaction("hello.read") as tx:
            ours = await heads_store.read_heads(tx, peer)
            covered = tuple([await _covered(tx, peer, one) for one in ours.held])
        return replace(ours, held=covered, lost=await self._lost(peer))

    async def brought(self, peer: str, epoch: int, first: int, body: bytes) -> int:
        """Take a batch of our own records; returns how far the peer's copy of this epoch is back then.

        Raises ProtocolError `stream-gap` with `expected`, or `malformed` for what our signature does not prove.
        """
        async with self._node.db.transaction("recover.read") as tx:
            cursor = await outbound.cursor_of(tx, peer, epoch)
        size = 0 if cursor is None else cursor.edge.size
        if first != size:
            raise ProtocolError("stream-gap", "the records lost begin elsewhere", extra={"expected": size})
        try:
            size, new = await self._reclaimer.take(peer, epoch, first, body, self._node.directory())
        except OperatorError as error:
            if isinstance(error, OnlyStolenError):
                self._only_stolen = error
                self._came.set()
            raise ProtocolError("malformed", error.sentence, field="body") from None
        self.taken[peer] += new
        self._came.set()
        return size

    def moved(self) -> None:
        """Something came of a peer's own stream."""
        self._came.set()

    async def refused(self, peer: str, epoch: int, first: int) -> None:
        """A batch of a peer's own stream that begins at `first` was refused.

        Of records that are held already, the peer has not heard yet what its receipts are worth: they will be
        delivered again, and are not waited for.
        """
        async with self._node.db.transaction("hello.read") as tx:
            held = await inbound.held_size(tx, peer, epoch)
        if first < held:
            self._refused.add((peer, epoch))
            self._came.set()

    async def complete(self, wait_s: float) -> dict[str, int]:
        """Wait until every peer has brought everything; returns how many records of its own each sent again.

        Raises OperatorError when nothing came for `wait_s` seconds, or what the operator has to decide about.
        """
        received = {peer: -await self._held(peer) for peer in self.awaited}
        while True:
            # Before it is looked at: what comes meanwhile is looked at again.
            self._came.clear()
            missing = [peer for peer in sorted(self.awaited) if not await self._has_all(peer)]
            if not missing:
                break
            if self._only_stolen is not None:
                raise self._only_stolen
            try:
                await asyncio.wait_for(self._came.wait(), wait_s)
            except TimeoutError:
                raise OperatorError(_not_all(missing)) from None
        return {peer: count + await self._held(peer) for peer, count in received.items()}

    async def _held(self, peer: str) -> int:
        async with self._node.db.transaction("hello.read") as tx:
            return sum(one.size for one in (await heads_store.read_heads(tx, peer)).held)

    async def _has_all(self, peer: str) -> bool:
        said = self._said.get(peer)
        if said is None or await self._lost(peer):
            return False
        async with self._node.db.transaction("hello.read") as tx:
            for epoch, receipted in self._receipted[peer].items():
                repeated = (peer, epoch) not in self._refused
                measure = inbound.covered_size if repeated else inbound.held_size
                if await measure(tx, peer, epoch) < receipted:
                    return False
        return True

    async def _lost(self, peer: str) -> tuple[Lost, ...]:
        lost = []
        async with self._node.db.transaction("hello.read") as tx:
            for one in self._said[peer].held:
                cursor = await outbound.cursor_of(tx, peer, one.epoch)
                size = 0 if cursor is None else cursor.edge.size
                if size < one.size:
                    lost.append(Lost(one.epoch, size))
        return tuple(lost)


async def _covered(tx: Transaction, peer: str, held: Held) -> Held:
    """Return how far a receipt that counts covers an epoch of a peer's that we hold."""
    size = await inbound.covered_size(tx, peer, held.epoch)
    if size >= held.size:
        return held
    return Held(held.epoch, size, await heads_store.own_root(tx, Direction.IN, peer, held.epoch, size))


def without_limits(receiver: Receiver) -> Receiver:
    """Return the receiver as a recovery uses it: it takes what peers give again, however much it is."""
    return replace(receiver, unapplied_records_max=_ALL, budgets=_EVERYTHING)


#: Opens the door for peers that only fetch, while the block runs.
OpenDoor = Callable[[Visits], AbstractAsyncContextManager[None]]


async def recover(
    node: Node,
    without: Collection[str],
    door: OpenDoor | None = None,
    *,
    wait_s: float = WAIT_S,
    believed: Collection[str] = (),
) -> Recovered:
    """Recover from every peer but those of `without`; raises OperatorError, one sentence, and can be run again.

    Peers that only fetch are waited for behind `door`; without one they cannot be asked. What only a key of ours that
    was stolen since proves is taken back of peers in `believed` alone.
    """
    now = node.clock.now()
    async with node.db.transaction("recover.begin") as tx:
        recovery = await restored.begin(tx, new_id(now), now)
    # While this node was down a peer may have moved, or changed its keys.
    await node.membership.refresh()
    node.membership.refuse_if_expired()
    said, awaited = await _ask_all(node, without, visited=door is not None)
    asked = {*awaited, *(peer.id for peer, _ in said)}
    async with node.db.transaction("recover.asked") as tx:
        others = {*node.directory().nodes, *await judged.peers(tx)} - asked - {node.settings.node_id}
        await heads_store.leave_out(tx, sorted(asked), sorted(others), node.clock.now())
    # The backup may be older than a change of keys: what its receipts are worth, the newest directory says; whom we
    # asked may have told of a newer one.
    await node.membership.refresh()
    await node.judge.run()
    own: dict[str, int] = {}
    received: dict[str, int] = {}
    reclaimer = Reclaimer(
        node.settings.node_id,
        node.db,
        node.store.vault,
        node.judge,
        node.greeter.pool,
        partial(_fetched_own, node),
        node.clock.now,
        frozenset(believed),
    )
    directory = node.directory()
    if door is not None and awaited:
        visits = Visits(node, reclaimer, awaited)
        async with door(visits):
            received |= await visits.complete(wait_s)
        own |= visits.taken
    for peer, heads in said:
        own[peer.id] = await reclaimer.reclaim(peer, heads.held, directory)
    await reclaimer.send_again()
    for peer, heads in said:
        received[peer.id] = await _fetch_back(node, peer, heads)
    epochs = await _begin_epochs(node, recovery, asked)
    # Only now: what these records make us say belongs into the new epochs.
    await _do_again(node, directory)
    while await node.applier.run_once(directory):
        pass
    await node.applier.try_waiting(directory)
    for peer, _ in said:
        # The peers' view once more: what differed is mended.
        node.membership.refuse_if_expired()
        await node.greeter.greet(peer, directory, back=False)
    async with node.db.transaction("recover.end") as tx:
        left = await restored.left(tx)
        await restored.end(tx, recovery, asked, node.clock.now())
    return Recovered(own, received, epochs, left)


async def _ask_all(
    node: Node, without: Collection[str], *, visited: bool
) -> tuple[list[tuple[NodeEntry, Heads]], list[str]]:
    """Ask every peer how far it has both streams; all that can be called must answer before anything is changed.

    Returns what they said, and the peers that cannot be called; where nobody can visit us, none may be among them.
    """
    said: list[tuple[NodeEntry, Heads]] = []
    silent: list[str] = []
    awaited: list[str] = []
    for peer in node.directory().nodes.values():
        if peer.id == node.settings.node_id or peer.state not in _MEMBERS or peer.id in without:
            continue
        if peer.delivery is Delivery.PULL:
            # It cannot be called. That the backup knows of no stream with it says nothing of what came after.
            awaited.append(peer.id)
            continue
        async with node.db.transaction("hello.read") as tx:
            ours = await heads_store.read_heads(tx, peer.id)
        # They may take long to answer, and the directory goes on to age meanwhile; so before every call.
        heads = await _patiently(node, partial(node.catchup.hello, peer, ours))
        if isinstance(heads, Problem):
            silent.append(peer.id)
        else:
            said.append((peer, heads))
    if silent or (awaited and not visited):
        raise OperatorError(_not_all([*silent, *(() if visited else awaited)]))
    return said, awaited


def _not_all(silent: Collection[str]) -> str:
    names = ", ".join(silent)
    return (
        f"Not every peer says what it holds: {names}. Run this again when they can be reached, or leave one out "
        "with --without: nothing is sent to it before it was recovered from"
    )


async def _fetched_own(node: Node, peer: NodeEntry, epoch: int, first: int) -> Fetched | Problem:
    """Fetch one batch of our own stream; raises OperatorError once the directory has expired."""
    return await _patiently(node, lambda: node.catchup.fetch_own(peer, epoch, first))


async def _patiently(node: Node, ask: Callable[[], Awaitable[_Answer | Problem]]) -> _Answer | Problem:
    """Ask, and again when the peer says so where it answered much lately; raises OperatorError as `_fetched_own`."""
    for _ in range(_PATIENCE):
        node.membership.refuse_if_expired()
        answer = await ask()
        if not isinstance(answer, Problem) or answer.code != "over-quota":
            break
        await asyncio.sleep(min(answer.retry_after_s or 1.0, _PAUSE_S))
    return answer


async def _fetch_back(node: Node, peer: NodeEntry, heads: Heads) -> int:
    """Fetch what we had receipted and hold no more, under the receipts that we gave then.

    A peer that has heard of the loss goes back, and says that it is receipted no further: its receipts say more. What
    is held without a receipt that counts comes again, too: it may have been receipted again since. If not, since
    the peer has not heard yet what its receipts are worth, it will be delivered again, and is not waited for.
    """
    fetched_all = 0
    receiver = without_limits(node.receiver)
    for epoch in heads.written:
        async with node.db.transaction("hello.read") as tx:
            size = await inbound.covered_size(tx, peer.id, epoch.epoch)
            held = await inbound.held_size(tx, peer.id, epoch.epoch)
        while size < epoch.size:
            node.membership.refuse_if_expired()
            try:
                body = await _fetched(node, peer, epoch.epoch, size)
                if size >= epoch.receipted and not _is_receipted(body, node.settings.node_id):
                    break
                receipt = await _stored(node, receiver, peer, epoch.epoch, size, body)
            except OperatorError:
                if size >= held:
                    raise
                size = held
            else:
                size, fetched_all = receipt.size, fetched_all + receipt.records
    return fetched_all


async def _fetched(node: Node, peer: NodeEntry, epoch: int, first: int) -> bytes:
    """Fetch one batch; raises OperatorError when it does not come."""
    most = node.settings.batch_records_max
    fetched = await _patiently(node, lambda: node.catchup.fetch(peer, epoch, first, records_max=most))
    if isinstance(fetched, Problem) or fetched.body is None:
        code = fetched.code if isinstance(fetched, Problem) else "nothing"
        raise OperatorError(f"{peer.id} does not give again what it had sent ({code}); run this again.")
    return fetched.body


def _is_receipted(body: bytes, node_id: str) -> bool:
    """Tell whether a batch comes under a receipt that we gave; whether that is ours, its signature is asked."""
    try:
        note = parse_note(decode_batch(body)[0])
    except ProtocolError:
        return False
    return any(line.name == f"{node_id}/receipt" for line in note.signatures)


async def _stored(node: Node, receiver: Receiver, peer: NodeEntry, epoch: int, first: int, body: bytes) -> Receipt:
    """Store one batch that was fetched; raises OperatorError when it cannot be taken."""
    try:
        return await receiver.receive(Offer(peer.id, "", None, peer.id, epoch, first, body), node.directory())
    except ProtocolError as error:
        raise OperatorError(f"What {peer.id} sent again was refused ({error.code}).") from None


async def _do_again(node: Node, directory: Directory) -> None:
    """Let our own records that came back do what they did, and what peers had said in between be applied in between."""
    replayer = Replayer(
        node.db, node.store.vault, node.store.teller(), node.clock.now, node.settings.forward_unqualified
    )
    await _follow(node, replayer, directory)
    await node.applier.try_waiting(directory)
    # A clock that was set back may have put a record before what it rests on.
    await replayer.again()
    await _follow(node, replayer, directory)


async def _follow(node: Node, replayer: Replayer, directory: Directory) -> None:
    while (until := await replayer.run()) is not None:
        while await node.applier.run_once(directory, until):
            pass


async def _begin_epochs(node: Node, recovery: UUID, asked: Collection[str]) -> list[tuple[str, int]]:
    restarter = Restarter(node.settings.node_id, node.db, node.store.vault, node.clock.now)
    return await restarter.restart(recovery, asked)
