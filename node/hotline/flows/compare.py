"""Compares the receipts that a peer keeps of our streams with ours, and fetches those that we lack. Sends no record."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from node.hotline.domain.comparison import Difference, Direction, Kind
from node.hotline.domain.delivery import Problem
from node.hotline.store import contacts, outbound
from node.hotline.store import heads as store
from node.platform.database import Database
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.hello import Written
from protocol.keys import SignatureInvalid
from protocol.receipt import open_receipt

#: Receipts fetched from one peer in one comparison; the next one goes on.
_FETCHED_MAX = 1_000
_LOOKED_FOR = frozenset({Kind.RECEIPT_MISSING, Kind.RECEIPT_DIFFERS})

#: Keeps a receipt (peer, epoch, size, note) once it is verified, and returns how far the stream is receipted then.
Settle = Callable[[str, int, int, bytes, Directory], Awaitable[int]]


class Receipts(Protocol):
    """The gateway's doors; they never raise for a peer's fault."""

    async def newest_receipt(self, peer: NodeEntry, epoch: int) -> bytes | Problem | None:
        """Return the newest receipt that the peer holds of one epoch of our stream."""

    async def receipt(self, peer: NodeEntry, epoch: int, index: int) -> bytes | Problem | None:
        """Return the receipt that covers one index of our stream."""


@dataclass(frozen=True, slots=True)
class Comparer:
    """What this flow works with; one for each process."""

    db: Database
    calls: Receipts
    settle: Settle
    pool: Executor
    clock_now: Callable[[], datetime]

    async def compare(self, peer: NodeEntry, directory: Directory) -> list[Difference] | Problem:
        """Compare every epoch of our stream to `peer`; what a receipt mends is mended, the rest kept."""
        async with self.db.transaction("hello.read") as tx:
            ours = await store.read_heads(tx, peer.id)
        found: list[Difference] = []
        for epoch in ours.written:
            one = await self._epoch(peer, epoch, directory)
            if isinstance(one, Problem):
                return one
            found += one
        now = self.clock_now()
        async with self.db.transaction("compare.store") as tx:
            await store.keep_differences(tx, peer.id, [(one, True) for one in found], _LOOKED_FOR, now)
            await contacts.compared(tx, peer.id, now)
        return found

    async def _epoch(self, peer: NodeEntry, ours: Written, directory: Directory) -> list[Difference] | Problem:
        raw = await self.calls.newest_receipt(peer, ours.epoch)
        if raw is None or isinstance(raw, Problem):
            return [] if raw is None else raw
        differs = Difference(Direction.OUT, ours.epoch, Kind.RECEIPT_DIFFERS, ours.receipted, ours.receipted)
        try:
            covered, stream = await asyncio.get_running_loop().run_in_executor(self.pool, open_receipt, raw, directory)
        except (ProtocolError, SignatureInvalid, ValueError):
            return [differs]
        if (stream.aud, stream.epoch) != (peer.id, ours.epoch):
            return [differs]
        async with self.db.transaction("hello.read") as tx:
            kept = await outbound.receipt_at(tx, peer.id, ours.epoch, covered.size)
        if kept is not None:
            return [] if kept == raw else [differs]
        return await self._fetch(peer, ours, covered.size, directory)

    async def _fetch(
        self, peer: NodeEntry, ours: Written, size: int, directory: Directory
    ) -> list[Difference] | Problem:
        """Fetch the receipts from where ours end, one after the other: each moves the cursor."""
        at = ours.receipted
        for _ in range(_FETCHED_MAX):
            if at >= size:
                return []
            raw = await self.calls.receipt(peer, ours.epoch, at)
            if isinstance(raw, Problem):
                return raw
            try:
                if raw is None:
                    break
                covered, _stream = await asyncio.get_running_loop().run_in_executor(
                    self.pool, open_receipt, raw, directory
                )
                after = await self.settle(peer.id, ours.epoch, covered.size, raw, directory)
            except (ProtocolError, SignatureInvalid, ValueError):
                break
            if after <= at:
                break
            at = after
        return [Difference(Direction.OUT, ours.epoch, Kind.RECEIPT_MISSING, at, size)] if at < size else []
