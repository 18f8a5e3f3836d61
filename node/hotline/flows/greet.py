"""Says and answers hello: clears back-off, and compares how far both sides have the streams between them.

Never writes a record and never sends one; a stream that the peer proves to be set back is only marked.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from node.hotline.domain.comparison import (
    KNOWS_MORE,
    TOLD_BY_HELLO,
    Difference,
    Direction,
    Kind,
    compare_roots,
    compare_sizes,
    missing,
)
from node.hotline.domain.delivery import Problem
from node.hotline.store import contacts, outbound, pulls
from node.hotline.store import heads as store
from node.platform.database import Database, Transaction
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.hello import Heads, Lost
from protocol.keys import SignatureInvalid
from protocol.receipt import open_receipt


class Calls(Protocol):
    """The gateway's doors; they never raise for a peer's fault."""

    async def hello(self, peer: NodeEntry, heads: Heads) -> Heads | Problem:
        """Say hello and return what the peer says."""

    async def newest_receipt(self, peer: NodeEntry, epoch: int) -> bytes | Problem | None:
        """Return the newest receipt that the peer holds of one epoch of our stream."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a hello brought: the differences found, and the (epoch, size) of what the peer wrote beyond what we hold.

    `set_back` tells that the peer proved, by our own signature, that our database is older than what we told it;
    `lost` is what the peer lost of its own stream and asks us for. `unasked` is why it could not be asked for the proof
    of what it claims, where it is so.
    """

    differences: tuple[Difference, ...]
    missing: tuple[tuple[int, int], ...]
    set_back: bool
    lost: tuple[Lost, ...] = ()
    unasked: Problem | None = None


@dataclass(frozen=True, slots=True)
class Greeter:
    """What this flow works with; one for each process."""

    node_id: str
    db: Database
    calls: Calls
    pool: Executor
    clock_now: Callable[[], datetime]

    async def greet(self, peer: NodeEntry, directory: Directory, *, back: bool) -> Greeting | Problem:
        """Say hello to `peer`, keep what differs, and let delivery begin again where the peer lost records.

        `back` tells that it was us who were away: then an answer ends the waiting for the peer. Else it does not, or a
        peer that answers and takes nothing would never be left alone for long.
        """
        async with self.db.transaction("hello.read") as tx:
            before = await store.read_heads(tx, peer.id)
        theirs = await self.calls.hello(peer, before)
        if isinstance(theirs, Problem):
            return theirs
        async with self.db.transaction("hello.read") as tx:
            ours, found = await self._differences(tx, peer.id, theirs, before)
        proofs = [(one, await self._proven(one, peer, directory)) for one in found]
        judged = [(one, proof is True) for one, proof in proofs]
        now = self.clock_now()
        async with self.db.transaction("hello.store") as tx:
            looked_for = TOLD_BY_HELLO | {Kind.PEER_LOST} | _settled(found)
            await store.keep_differences(tx, peer.id, judged, looked_for, now)
            for one in found:
                if one.kind is Kind.PEER_LOST:
                    await _send_again(tx, peer.id, one)
            await _bring_again(tx, peer.id, theirs, found)
            if back:
                await contacts.heard_from(tx, peer.id, now)
        set_back = any(proven for one, proven in judged if one.kind in KNOWS_MORE)
        unasked = next((proof for _, proof in proofs if isinstance(proof, Problem)), None)
        return Greeting(tuple(found), tuple(missing(ours, theirs)), set_back, theirs.lost, unasked)

    async def welcome(self, peer: str, theirs: Heads) -> Heads:
        """Take a peer's hello and return what we say; the peer's claims about us are kept, unproven as they are."""
        now = self.clock_now()
        async with self.db.transaction("hello.store") as tx:
            ours, found = await self._differences(tx, peer, theirs, None)
            looked_for = TOLD_BY_HELLO | _settled(found)
            await store.keep_differences(tx, peer, [(one, False) for one in found], looked_for, now)
            await contacts.greeted(tx, peer, now)
        return ours

    async def _differences(
        self, tx: Transaction, peer: str, theirs: Heads, before: Heads | None
    ) -> tuple[Heads, list[Difference]]:
        ours = await store.read_heads(tx, peer)
        found, roots = compare_sizes(ours, theirs, before)
        own = {
            (one.direction, one.epoch): await store.own_root(tx, one.direction, peer, one.epoch, one.size)
            for one in roots
        }
        others = compare_roots(roots, own)
        # Where the records differ, sending again mends nothing.
        differing = {(one.direction, one.epoch) for one in others}
        return ours, [one for one in found if (one.direction, one.epoch) not in differing] + others

    async def _proven(self, one: Difference, peer: NodeEntry, directory: Directory) -> bool | Problem:
        """Tell whether the peer holds our own signature on what contradicts us; a claim alone stops nothing.

        A Problem where it could not be asked: then it is not known.
        """
        if one.direction is not Direction.OUT or one.kind not in KNOWS_MORE:
            return False
        raw = await self.calls.newest_receipt(peer, one.epoch)
        if raw is None or isinstance(raw, Problem):
            return False if raw is None else raw
        try:
            covered, stream = await asyncio.get_running_loop().run_in_executor(self.pool, open_receipt, raw, directory)
        except (ProtocolError, SignatureInvalid, ValueError):
            return False
        if (stream.iss, stream.aud, stream.epoch) != (self.node_id, peer.id, one.epoch):
            return False
        async with self.db.transaction("hello.read") as tx:
            cursor = await outbound.cursor_of(tx, peer.id, one.epoch)
            if cursor is None or covered.size > cursor.next_index:
                return True
            own = await store.own_root(tx, Direction.OUT, peer.id, one.epoch, covered.size)
        return own != covered.root


def _settled(found: Sequence[Difference]) -> frozenset[Kind]:
    """Return what a hello ends: who holds nothing of our stream that we do not know need not be recovered from."""
    unknown = any(one.direction is Direction.OUT and one.kind in KNOWS_MORE for one in found)
    return frozenset() if unknown else frozenset({Kind.NOT_ASKED})


async def _send_again(tx: Transaction, peer: str, lost: Difference) -> None:
    """Go back to where the peer holds our stream: what it receipted beyond is sent again, with those receipts."""
    cursor = await outbound.cursor_of(tx, peer, lost.epoch)
    if cursor is not None and lost.theirs < cursor.edge.size:
        await outbound.set_cursor_back(tx, cursor.stream, await outbound.edge_at(tx, cursor, lost.theirs))


async def _bring_again(tx: Transaction, peer: str, theirs: Heads, found: Sequence[Difference]) -> None:
    """Bring receipts once more that a peer we fetch from says it has not: it was set back to before they came.

    Not where its stream is not the one that we receipted: there it would refuse them.
    """
    differing = {one.epoch for one in found if one.direction is Direction.IN}
    held = {one.epoch: one.size for one in (await store.read_heads(tx, peer)).held}
    for one in theirs.written:
        # A peer may name a hundred epochs that nobody wrote.
        if one.epoch in held and one.epoch not in differing and one.size >= held[one.epoch]:
            await pulls.bring_again(tx, peer, one.epoch, one.receipted)
