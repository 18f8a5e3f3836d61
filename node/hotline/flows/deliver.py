"""Delivers one peer's stream: batches under signed checkpoints, a few in flight, in order; stores verified receipts.

Never drops anything: whatever fails, the records stay in the outbox and the cursor where it was.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from node.hotline.domain.delivery import BackOff, BatchAnswer, Problem, Rewind, Shrink, decide
from node.hotline.store import contacts, outbound
from node.hotline.store.vault import Vault
from node.platform.database import Database
from protocol.batch import encode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import sign_checkpoint, verify_checkpoint, verify_cosignature
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, SignatureInvalid, SigningKey
from protocol.merkle import Edge
from protocol.note import Note, parse_note

#: After a problem with the size of a batch it grows back by this factor with every receipt.
_GROWTH = 2
#: Room for the signed checkpoint in front of the records.
_NOTE_BYTES = 16_384
#: A cosignature line begins with its time in seconds (C2SP tlog-cosignature); a datetime holds no later one than this.
_TIME_BYTES = 8
_TIME_S_MAX = 253_402_300_799


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
    rewound: bool = False
    flights: deque[_InFlight] = field(default_factory=deque)

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

    async def deliver(self, peer: NodeEntry, directory: Directory, stop: Callable[[], bool]) -> None:
        """Send until everything is receipted, the peer has to be left alone, or `stop()` says so.

        Batches already in flight when `stop()` turns true are waited for and their receipts stored.
        """
        async with self.db.transaction("deliver.read") as tx:
            cursor = await outbound.cursor(tx, peer.id)
        if cursor is None:
            return
        window = _Window(cursor.edge, self.batch_records_max)
        acked = cursor.edge
        try:
            while True:
                if not stop():
                    await self._fill(window, peer, cursor)
                if not window.flights:
                    return
                flight = window.flights.popleft()
                answer = await flight.answer
                problem = answer.problem
                if answer.receipt is not None:
                    problem, acked = await self._keep_receipt(peer, directory, cursor.stream, flight, answer.receipt)
                if problem is None:
                    if acked.size != flight.after.size:
                        # The receipt of an earlier cut: what is in flight was cut for another place.
                        window.abandon(acked)
                    window.batch_records = min(self.batch_records_max, window.batch_records * _GROWTH)
                    continue
                window.abandon(acked)
                if not await self._react(peer, cursor, window, flight, problem, answer.clock_skew_s):
                    return
                acked = window.sent
        finally:
            # Cancelled, or the database went away: what is in flight is somebody's next repeat.
            window.abandon(acked)

    async def _fill(self, window: _Window, peer: NodeEntry, cursor: outbound.Cursor) -> None:
        while len(window.flights) < self.batches_in_flight_max:
            async with self.db.transaction("deliver.read") as tx:
                rows = await outbound.read(
                    tx, cursor.stream, window.sent.size, window.batch_records, self.batch_bytes_max - _NOTE_BYTES
                )
            if not rows:
                return
            before = window.sent
            after = before.extend([row.leaf_hash for row in rows])
            checkpoint = Checkpoint(StreamId(self.node_id, peer.id, cursor.epoch).origin(), after.size, after.root())
            body = await self._sign_and_frame(cursor.stream, checkpoint, rows)
            sending = asyncio.create_task(_put(self.put_batch, peer, cursor.epoch, before.size, body))
            window.flights.append(_InFlight(before, after, checkpoint, sending))
            window.sent = after

    async def _sign_and_frame(
        self, stream: int, checkpoint: Checkpoint, rows: Sequence[outbound.StoredRecord]
    ) -> bytes:
        now_s = int(self.clock_now().timestamp())

        def work() -> bytes:
            note = sign_checkpoint(checkpoint, self.stream_keys, now_s=now_s)
            records = [self.vault.open_record("outbox", stream, row.idx, row.sealed) for row in rows]
            return encode_batch(note.to_bytes(), records)

        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    async def _keep_receipt(
        self, peer: NodeEntry, directory: Directory, stream: int, flight: _InFlight, raw: bytes
    ) -> tuple[Problem | None, Edge]:
        """Verify a receipt, store it with the new cursor and return the edge it covers; a Problem when it is none."""
        now = self.clock_now()
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
        async with self.db.transaction("deliver.receipt") as tx:
            await outbound.store_receipt(tx, stream, covered.size, raw, after, now)
            await contacts.reached(tx, peer.id, now)
        self.watch.receipted(peer.id, after.size - flight.before.size)
        return None, after

    async def _other_cut(self, stream: int, covered: Checkpoint, before: Edge) -> Edge | None:
        """Return the edge at an earlier cut's receipt; None when its root is not that of our own records there."""
        async with self.db.transaction("deliver.read") as tx:
            leaves = await outbound.leaf_hashes(tx, stream, covered.size, first=before.size)
        edge = before.extend(leaves)
        return edge if edge.size == covered.size and edge.root() == covered.root else None

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
            base_s=self.backoff_base_s,
            cap_s=self.backoff_cap_s,
            draw=self.draw,
        )
        alarm = isinstance(decision, BackOff) and decision.alarm
        self.watch.failed(peer.id, problem, alarm=alarm)
        if isinstance(decision, Shrink):
            window.batch_records = decision.records
            return True
        now = self.clock_now()
        delay_s = decision.seconds if isinstance(decision, BackOff) else 0.0
        async with self.db.transaction("deliver.failed") as tx:
            await contacts.failed(tx, peer.id, problem.code, now + timedelta(seconds=delay_s), clock_skew_s)
            if isinstance(decision, Rewind):
                leaves = await outbound.leaf_hashes(tx, cursor.stream, decision.index)
                window.sent = Edge.EMPTY.extend(leaves)
                window.rewound = True
        return isinstance(decision, Rewind)


async def _put(put_batch: PutBatch, peer: NodeEntry, epoch: int, first: int, body: bytes) -> BatchAnswer:
    return await put_batch(peer, epoch, first, body)


def _check_receipt(raw: bytes, flight: _InFlight, directory: Directory) -> Checkpoint:
    """Return the checkpoint the receipt covers; raises when it proves nothing, or nothing of `flight`.

    It is judged as whoever reads the proof later will judge it (protocol.evidence): by the keys that both sides had at
    the time it states. So one that was given before a key was changed, and comes with a repeat, is as good as ever.
    """
    note = parse_note(raw)
    covered = Checkpoint.parse(note.text)
    if covered.origin != flight.checkpoint.origin or covered.size <= flight.before.size:
        raise ValueError("the receipt covers something else")
    stream = StreamId.parse(covered.origin)
    at = _cosigned_at(note, covered, stream, directory)
    verify_checkpoint(note, covered, directory.verification_keys(stream.iss, KeyUse.STREAM, at))
    return covered


def _cosigned_at(note: Note, covered: Checkpoint, stream: StreamId, directory: Directory) -> datetime:
    """Return when the peer cosigned with every receipt key it had then; raises SignatureInvalid."""
    name = stream.receipt_name()
    stated = {int.from_bytes(one.signature[:_TIME_BYTES]) for one in note.signatures if one.name == name}
    for time_s in sorted(stated):
        at = datetime.fromtimestamp(min(time_s, _TIME_S_MAX), UTC)
        keys = directory.verification_keys(stream.aud, KeyUse.RECEIPT, at)
        try:
            if verify_cosignature(note, covered, name, keys) == time_s:
                return at
        except SignatureInvalid:
            continue
    raise SignatureInvalid("no receipt is signed by every receipt key that the peer had at the time it states")
