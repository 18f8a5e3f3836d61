"""Judges the receipts at hand anew when the directory says otherwise of a key; marks those that prove nothing any more.

Whoever stores a receipt calls `hold` in the same transaction. So every receipt at hand that is not marked proves
something by the keys that are remembered beside them, whatever dies when, and whichever of two processes hears first.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta

from node.hotline.domain.comparison import Direction
from node.hotline.domain.windows import changed_since, windows_of
from node.hotline.store import judged
from node.hotline.store.judged import Receipt
from node.platform.database import Database, Transaction
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import SignatureInvalid
from protocol.receipt import open_receipt
from protocol.timestamps import parse_time

#: A receipt may have been stored here so long before the second that it states, by a clock that was behind.
_CLOCKS_DIFFER = timedelta(hours=1)
#: Receipts held in memory at a time, of some 7 KiB.
_PIECE = 100


@dataclass(frozen=True, slots=True)
class Judge:
    """What judging works with; one for each process. `directory` returns the one in use."""

    node_id: str
    db: Database
    pool: Executor
    directory: Callable[[], Directory]

    async def run(self) -> int:
        """Judge the receipts of every peer by the directory in use; returns how many prove nothing any more."""
        async with self.db.transaction("judge.read") as tx:
            peers = await judged.peers(tx)
        count = 0
        for peer in peers:
            for direction in Direction:
                async with self.db.transaction("judge.store") as tx:
                    count += await self.hold(tx, direction, peer, self.directory())
        return count

    async def hold(self, tx: Transaction, direction: Direction, peer: str, directory: Directory) -> int:
        """Let no receipt of this direction be judged by other keys than `directory`'s until `tx` ends.

        What was judged by others is judged first; returns how many receipts that marked. Receipts of a peer that is
        not listed stay as they were judged. Raises ProtocolError `maintenance` when another directory came into use
        meanwhile.
        """
        known = await judged.lock(tx, peer, direction)
        windows = self._windows(direction, peer, directory)
        now = self.directory()
        if now is not directory and windows != self._windows(direction, peer, now):
            raise ProtocolError("maintenance", "a newer directory came into use at this moment")
        since = None if windows is None else changed_since(known, windows)
        if windows is None or since is None:
            return 0
        count = await self._judge(tx, direction, peer, directory, since)
        await judged.keep(tx, peer, direction, windows)
        return count

    def _windows(self, direction: Direction, peer: str, directory: Directory) -> str | None:
        ends = (self.node_id, peer) if direction is Direction.OUT else (peer, self.node_id)
        return windows_of(directory, *ends)

    async def _judge(self, tx: Transaction, direction: Direction, peer: str, directory: Directory, since: str) -> int:
        """Mark what proves nothing among the receipts that state a later time than `since`, and go back behind them."""
        begin = parse_time(since, field="since") - _CLOCKS_DIFFER
        after, count, streams = (0, 0), 0, set[int]()
        while receipts := await judged.read(tx, peer, direction, begin, after, _PIECE):
            worthless = await asyncio.get_running_loop().run_in_executor(self.pool, _worthless, receipts, directory)
            await judged.mark(tx, direction, worthless)
            streams |= {one.stream for one in worthless}
            count += len(worthless)
            after = receipts[-1].stream, receipts[-1].size
        again = judged.send_again if direction is Direction.OUT else judged.fetch_again
        for stream in sorted(streams):
            await again(tx, stream)
        return count


def _worthless(receipts: Sequence[Receipt], directory: Directory) -> list[Receipt]:
    return [one for one in receipts if not _proves(one.note, directory)]


def _proves(note: bytes, directory: Directory) -> bool:
    try:
        open_receipt(note, directory)
    except (ProtocolError, SignatureInvalid, ValueError):
        return False
    return True
