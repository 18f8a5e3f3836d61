"""Takes our own records back from a peer's copy after a restore, proves them, and queues them to be done again.

Never signs anything, and never believes a copy that our own signature does not cover; where only a key that was stolen
since has made it, the operator says whether it is believed.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol
from uuid import UUID

from node.errors import OperatorError
from node.hotline.domain.comparison import Direction
from node.hotline.domain.delivery import Problem
from node.hotline.judging import Judge
from node.hotline.store import inbound, judged, outbound, restored, waiting
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from protocol.batch import RETURNED_BYTES_MAX, decode_batch
from protocol.bodies import OutcomeBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import verify_checkpoint
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.hello import Held
from protocol.keys import KeyState, KeyUse, PublicKey, SignatureInvalid
from protocol.merkle import leaf_hash
from protocol.note import Note, parse_note
from protocol.receipt import open_receipt
from protocol.record import parse_record


class Copy(Protocol):
    """What a peer had from an index on: the body of a batch, or None."""

    @property
    def body(self) -> bytes | None:
        """The batch."""


class FetchOwn(Protocol):
    """The gateway's door; it never raises for a peer's fault."""

    async def __call__(self, peer: NodeEntry, epoch: int, first: int) -> Copy | Problem:
        """Fetch what the peer holds of our own stream."""


class OnlyStolenError(OperatorError):
    """Our own records come back signed by nothing but a key of ours that was stolen since."""

    def __init__(self, peer: str) -> None:
        """Say whose copy it is, and what the operator can do."""
        super().__init__(
            f"The copy of our records at {peer} is not proven by our signature, but by a key that was stolen since: "
            f"whoever had it may have written them. Run this again with --believe {peer} to take them all the same, or "
            "leave the peer out with --without."
        )


class _Worth(Enum):
    """What a copy of our records comes under: a receipt that counts, our own word, or that of a stolen key of ours."""

    COUNTS = "counts"
    OUR_WORD = "our-word"
    STOLEN = "stolen"


@dataclass(frozen=True, slots=True)
class Reclaimer:
    """What this flow works with; of the peers in `believed` a copy counts also where only a stolen key signed it."""

    node_id: str
    db: Database
    vault: Vault
    judge: Judge
    pool: Executor
    fetch_own: FetchOwn
    clock_now: Callable[[], datetime]
    believed: frozenset[str] = frozenset()

    async def reclaim(self, peer: NodeEntry, held: Sequence[Held], directory: Directory) -> int:
        """Take back every record of ours that `peer` holds and we do not; returns how many.

        Each batch is one transaction, so this may be broken off and run again. Raises OperatorError, one sentence, when
        the peer's copy is not to be had, or not proven.
        """
        taken = 0
        for epoch in held:
            async with self.db.transaction("recover.read") as tx:
                cursor = await outbound.cursor_of(tx, peer.id, epoch.epoch)
            first = 0 if cursor is None else cursor.edge.size
            while first < epoch.size:
                fetched = await self.fetch_own(peer, epoch.epoch, first)
                if isinstance(fetched, Problem):
                    raise OperatorError(f"{peer.id} does not give back our records ({fetched.code}); run this again.")
                if fetched.body is None:
                    raise OperatorError(f"{peer.id} holds less of our records than it said; run this again.")
                size, new = await self.take(peer.id, epoch.epoch, first, fetched.body, directory)
                first, taken = size, taken + new
        return taken

    async def take(self, peer: str, epoch: int, first: int, body: bytes, directory: Directory) -> tuple[int, int]:
        """Store one batch; returns how far the stream is receipted then, and how many records were new.

        Raises OperatorError, one sentence, when it is not proven or does not continue what is here; OnlyStolenError
        where only a stolen key of ours proves it and the peer is not believed.
        """
        loop = asyncio.get_running_loop()
        try:
            note, records = decode_batch(body, bytes_max=RETURNED_BYTES_MAX)
            covered, stream, worth = await loop.run_in_executor(self.pool, _opened, note, directory)
        except (ProtocolError, SignatureInvalid, ValueError):
            raise OperatorError(f"The copy of our records at {peer} is not proven by our signature.") from None
        if (stream.iss, stream.aud, stream.epoch, covered.size) != (self.node_id, peer, epoch, first + len(records)):
            raise OperatorError(f"{peer} gave back other records of ours than it was asked for.")
        if worth is _Worth.STOLEN and peer not in self.believed:
            raise OnlyStolenError(peer)
        leaves = [leaf_hash(record) for record in records]
        now = self.clock_now()
        async with self.db.transaction("recover.own") as tx:
            await self.judge.hold(tx, Direction.OUT, peer, directory)
            cursor = await restored.lock_epoch(tx, peer, epoch)
            edge = cursor.edge.extend(leaves)
            if cursor.edge.size != first or edge.root() != covered.root:
                raise OperatorError(f"The copy of our records at {peer} does not continue what our database holds.")
            ours = await outbound.leaf_hashes(tx, cursor.stream, covered.size, first=first)
            same = next((at for at, (a, b) in enumerate(zip(ours, leaves, strict=False)) if a != b), len(ours))
            if same < len(ours):
                # Written after the restore and never signed: it goes into the new epoch.
                await self._set_aside(tx, cursor.stream, peer, first + same)
            await self._append(tx, cursor.stream, peer, first + same, records[same:], now)
            await outbound.store_receipt(tx, cursor.stream, covered.size, note, edge, now)
            if worth is not _Worth.COUNTS:
                await judged.mark(tx, Direction.OUT, [judged.Receipt(cursor.stream, covered.size, note)])
        return covered.size, len(records) - same

    async def send_again(self) -> None:
        """Go back behind what came with receipts that prove nothing any more: it is sent again, under new ones."""
        async with self.db.transaction("recover.resend") as tx:
            for stream in await judged.uncovered(tx):
                await judged.send_again(tx, stream)

    async def _set_aside(self, tx: Transaction, stream: int, peer: str, first: int) -> None:
        rows = await restored.cut_tail(tx, stream, first)
        await restored.keep_tail(
            tx,
            peer,
            [
                restored.TailRow(
                    row.idx,
                    row.record_id,
                    row.item_id,
                    row.type,
                    row.leaf_hash,
                    self.vault.seal_record(
                        "recovery_tail", stream, row.idx, self.vault.open_record("outbox", stream, row.idx, row.sealed)
                    ),
                    stream,
                )
                for row in rows
            ],
        )

    async def _append(
        self, tx: Transaction, stream: int, peer: str, first: int, records: Sequence[bytes], now: datetime
    ) -> None:
        """Write the records where they stood; what each one had done is done again by `flows.replay`."""
        rows, said = [], []
        for idx, raw in enumerate(records, start=first):
            record = parse_record(raw)
            envelope = record.envelope
            item = None if isinstance(record.body, OutcomeBody) else UUID(envelope.item)
            sealed = self.vault.seal_record("outbox", stream, idx, raw)
            rows.append(outbound.OutboxRow(idx, UUID(envelope.id), item, envelope.type, record.leaf_hash, sealed))
            said.append((idx, envelope.iat))
            if isinstance(record.body, OutcomeBody):
                await self._told(tx, record.body, peer, now)
        await restored.append_at(tx, stream, rows, now)
        await restored.put_replays(tx, stream, said)

    async def _told(self, tx: Transaction, body: OutcomeBody, peer: str, now: datetime) -> None:
        """We had said what became of these records: it is not said again, and a refusal stays one."""
        about = StreamId.parse(body.stream)
        await inbound.create_stream(tx, peer, about.epoch)
        await restored.note_told(
            tx,
            peer,
            about.epoch,
            [last for _, last in (*body.accepted, *body.kept)],
            [(one.index, one.code, one.field, one.detail) for one in body.refused],
            now,
        )
        # What the older database refused of what we had taken is taken, now that what was lost comes back.
        taken = [*body.accepted, *body.kept]
        async for page in waiting.refused_within(tx, self.vault, peer, about.epoch, taken):
            await waiting.judge_again(tx, page)


def _opened(raw: bytes, directory: Directory) -> tuple[Checkpoint, StreamId, _Worth]:
    """Return what a receipt covers, and what it is worth; one that does not count is still our own word.

    Raises SignatureInvalid where we never signed it, ProtocolError for what is no receipt.
    """
    try:
        return *open_receipt(raw, directory), _Worth.COUNTS
    except SignatureInvalid:
        note = parse_note(raw)
        covered = Checkpoint.parse(note.text)
        stream = StreamId.parse(covered.origin)
        return covered, stream, _worth(note, covered, stream.iss, directory)


def _worth(note: Note, covered: Checkpoint, node: str, directory: Directory) -> _Worth:
    """Tell whether `node` signed with one key of each algorithm, retired or not, without any that was stolen.

    When it was signed nothing proves any more. A key that was never in other hands signed what we wrote, whenever that
    was. Raises SignatureInvalid where also the stolen ones have not signed.
    """
    keys = [key for key in directory.nodes[node].keys if key.use is KeyUse.STREAM and key.window() is not None]
    safe = [key.public for key in keys if key.state is not KeyState.COMPROMISED]
    if _all_signed(note, covered, safe):
        return _Worth.OUR_WORD
    if _all_signed(note, covered, [key.public for key in keys]):
        return _Worth.STOLEN
    raise SignatureInvalid("no key of ours signed this")


def _all_signed(note: Note, covered: Checkpoint, keys: Sequence[PublicKey]) -> bool:
    """Tell whether one key of each algorithm that is among `keys` signed."""
    algorithms = {key.algorithm for key in keys}
    return bool(algorithms) and {key.algorithm for key in keys if _has_signed(note, covered, key)} == algorithms


def _has_signed(note: Note, covered: Checkpoint, key: PublicKey) -> bool:
    try:
        verify_checkpoint(note, covered, [key])
    except SignatureInvalid:
        return False
    return True
