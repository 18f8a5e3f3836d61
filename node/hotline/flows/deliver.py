"""Delivers one peer's stream: batches under signed checkpoints, a few in flight, in order; stores verified receipts.

Never drops anything: whatever fails, the records stay in the outbox and the cursor where it was.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from node.hotline.domain.comparison import Direction
from node.hotline.domain.delivery import (
    KEY_PROBLEMS,
    PROBE_RECORDS,
    BackOff,
    BatchAnswer,
    Problem,
    Rewind,
    Shrink,
    backoff_s,
    decide,
    next_batch_records,
)
from node.hotline.framing import Framer
from node.hotline.judging import Judge
from node.hotline.store import contacts, outbound
from node.hotline.store.vault import Vault
from node.platform.database import Database
from protocol.checkpoint import Checkpoint
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.keys import SignatureInvalid, SigningKey
from protocol.merkle import Edge
from protocol.receipt import open_receipt

#: After a problem with the size of a batch it grows back by this factor with every receipt.
_GROWTH = 2


class PutBatch(Protocol):
    """The gateway's door: send one batch and return the verified answer; never raises for a peer's fault."""

    async def __call__(self, peer: NodeEntry, epoch: int, first_index: int, body: bytes) -> BatchAnswer:
        """PUT the batch to the peer's inbox."""


class Watch(Protocol):
    """Told what happened, for metrics and the log."""

    def receipted(self, peer: str, records: int) -> None:
        """A receipt for `records` more records is stored."""

    def failed(self, peer: str, problem: Problem, *, alarm: bool) -> None:
        """A batch was not taken."""


@dataclass(slots=True)
class _InFlight:
    """One batch on its way."""

    before: Edge
    after: Edge
    checkpoint: Checkpoint
    answer: "asyncio.Task[BatchAnswer]"


@dataclass(slots=True)
class _Window:
    """What is on its way to the peer, in order."""

    sent: Edge
    batch_records: int
    #: What a peer once said it takes in one batch; to grow beyond it would be refused again.
    batch_records_max: int
    flights_max: int
    credit: int | None = None
    rewound: bool = False
    flights: deque[_InFlight] = field(default_factory=deque)

    def next_records(self) -> int:
        """Return how many records the next batch may hold; 0 when an answer has to come first."""
        in_flight = sum(flight.after.size - flight.before.size for flight in self.flights)
        return next_batch_records(self.batch_records, credit=self.credit, in_flight=in_flight)

    def abandon(self, to: Edge) -> None:
        """Forget what is in flight: the receiver answers repeats with their receipts."""
        for flight in self.flights:
            flight.answer.cancel()
        self.flights.clear()
        self.sent = to


@dataclass(frozen=True, slots=True)
class Sender:
    """What this flow works with; one for each process."""

    node_id: str
    db: Database
    vault: Vault
    judge: Judge
    stream_keys: Sequence[SigningKey]
    pool: Executor
    put_batch: PutBatch
    watch: Watch
    clock_now: Callable[[], datetime]
    draw: Callable[[], float]
    batch_records_max: int
    batch_bytes_max: int
    batches_in_flight_max: int
    backoff_base_s: float
    backoff_cap_s: float

    async def deliver(self, peer: NodeEntry, stop: Callable[[], bool]) -> None:
        """Send until everything is receipted, the peer has to be left alone, or `stop()` says so.

        Batches already in flight when `stop()` turns true are waited for and their receipts stored.
        """
        async with self.db.transaction("deliver.read") as tx:
            cursor = await outbound.cursor(tx, peer.id)
            failures = (await contacts.contact(tx, peer.id)).failures
        if cursor is None:
            return
        # Whoever did not answer last time is asked with one small batch: a dead peer then costs next to nothing.
        flights_max = 1 if failures else self.batches_in_flight_max
        records = min(self.batch_records_max, PROBE_RECORDS) if failures else self.batch_records_max
        window = _Window(cursor.edge, records, self.batch_records_max, flights_max)
        acked = cursor.edge
        try:
            while True:
                if not stop():
                    await self._fill(window, peer, cursor, stop)
                if not window.flights:
                    return
                flight = window.flights.popleft()
                answer = await flight.answer
                problem = answer.problem
                if answer.receipt is not None:
                    problem, acked = await self._keep_receipt(peer, cursor.stream, flight, answer.receipt)
                if problem is None:
                    if acked.size != flight.after.size:
                        # The receipt of an earlier cut: what is in flight was cut for another place.
                        window.abandon(acked)
                    window.batch_records = min(window.batch_records_max, window.batch_records * _GROWTH)
                    window.credit = answer.credit
                    window.flights_max = self.batches_in_flight_max
                    continue
                window.abandon(acked)
                if not await self._react(peer, cursor, window, flight, problem, answer.clock_skew_s):
                    return
                acked = window.sent
        finally:
            # Cancelled, or the database went away: what is in flight is somebody's next repeat.
            window.abandon(acked)

    async def _fill(self, window: _Window, peer: NodeEntry, cursor: outbound.Cursor, stop: Callable[[], bool]) -> None:
        framer = Framer(
            self.node_id, self.db, self.vault, self.stream_keys, self.pool, self.clock_now, self.batch_bytes_max
        )
        while len(window.flights) < window.flights_max and (records := window.next_records()):
            before = window.sent
            cut = await framer.cut(peer.id, cursor, before, records)
            # Reading and signing takes a moment, in which a newer directory may say that the peer is none any more.
            if cut is None or stop():
                return
            sending = asyncio.create_task(_put(self.put_batch, peer, cursor.epoch, before.size, cut.body))
            window.flights.append(_InFlight(before, cut.after, cut.checkpoint, sending))
            window.sent = cut.after

    async def _keep_receipt(
        self, peer: NodeEntry, stream: int, flight: _InFlight, raw: bytes
    ) -> tuple[Problem | None, Edge]:
        """Verify a receipt, store it with the new cursor and return the edge it covers; a Problem when it is none."""
        now = self.clock_now()
        directory = self.judge.directory()
        try:
            covered = await asyncio.get_running_loop().run_in_executor(
                self.pool, _check_receipt, raw, flight, directory
            )
        except (ProtocolError, SignatureInvalid, ValueError):
            return Problem("bad-receipt"), flight.before
        after = flight.after
        if covered != flight.checkpoint:
            # A repeat is answered with the receipt first given, for the cut of that time: its root must be ours.
            other = await self._other_cut(stream, covered, flight.before)
            if other is None:
                return Problem("bad-receipt"), flight.before
            after = other
        try:
            async with self.db.transaction("deliver.receipt") as tx:
                await self.judge.hold(tx, Direction.OUT, peer.id, directory)
                await outbound.store_receipt(tx, stream, covered.size, raw, after, now)
                await contacts.reached(tx, peer.id, now)
        except ProtocolError as error:
            return Problem(error.code), flight.before
        self.watch.receipted(peer.id, after.size - flight.before.size)
        return None, after

    async def _other_cut(self, stream: int, covered: Checkpoint, before: Edge) -> Edge | None:
        """Return the edge at an earlier cut's receipt; None when its root is not that of our own records there."""
        try:
            async with self.db.transaction("deliver.read") as tx:
                edge = await outbound.edge_near(tx, stream, before, covered.size)
        except LookupError:
            return None
        return edge if edge.root() == covered.root else None

    async def unheard(self, peer: NodeEntry, problem: Problem) -> None:
        """Leave a peer alone for a while that did not hear what was said to it before a batch."""
        async with self.db.transaction("deliver.read") as tx:
            failures = (await contacts.contact(tx, peer.id)).failures
        wait_s = backoff_s(failures, base_s=self.backoff_base_s, cap_s=self.backoff_cap_s, draw=self.draw)
        self.watch.failed(peer.id, problem, alarm=False)
        async with self.db.transaction("deliver.failed") as tx:
            await tx.need_not_last()
            await contacts.failed(tx, peer.id, problem.code, self.clock_now() + timedelta(seconds=wait_s), None)

    async def _react(
        self,
        peer: NodeEntry,
        cursor: outbound.Cursor,
        window: _Window,
        flight: _InFlight,
        problem: Problem,
        clock_skew_s: int | None,
    ) -> bool:
        """Carry out the decision; tell whether to go on at once."""
        async with self.db.transaction("deliver.read") as tx:
            contact = await contacts.contact(tx, peer.id)
        decision = decide(
            problem,
            failures=contact.failures,
            first_index=flight.before.size,
            batch_records=flight.after.size - flight.before.size,
            rewound=window.rewound,
            key_problems=contact.key_problems,
            base_s=self.backoff_base_s,
            cap_s=self.backoff_cap_s,
            draw=self.draw,
        )
        alarm = isinstance(decision, BackOff) and decision.alarm
        self.watch.failed(peer.id, problem, alarm=alarm)
        if isinstance(decision, Shrink):
            window.batch_records = decision.records
            if problem.code == "too-large" and problem.credit is not None:
                window.batch_records_max = max(problem.credit, decision.records)
            elif problem.code != "too-large":
                window.credit = problem.credit
            return True
        now = self.clock_now()
        delay_s = decision.seconds if isinstance(decision, BackOff) else 0.0
        async with self.db.transaction("deliver.failed") as tx:
            await tx.need_not_last()
            retry_at = now + timedelta(seconds=delay_s)
            of_keys = problem.code in KEY_PROBLEMS
            await contacts.failed(tx, peer.id, problem.code, retry_at, clock_skew_s, of_keys=of_keys)
            if isinstance(decision, Rewind):
                window.sent = await outbound.edge_at(tx, cursor, decision.index)
                window.rewound = True
        return isinstance(decision, Rewind)


async def _put(put_batch: PutBatch, peer: NodeEntry, epoch: int, first: int, body: bytes) -> BatchAnswer:
    return await put_batch(peer, epoch, first, body)


def _check_receipt(raw: bytes, flight: _InFlight, directory: Directory) -> Checkpoint:
    """Return the checkpoint the receipt covers; raises when it proves nothing, or nothing of `flight`."""
    covered, _ = open_receipt(raw, directory)
    if covered.origin != flight.checkpoint.origin or covered.size <= flight.before.size:
        raise ValueError("the receipt covers something else")
    return covered
