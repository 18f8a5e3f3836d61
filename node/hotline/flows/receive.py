"""Takes a peer's batch: checks it in the numbered order of the specification, stores it and gives the receipt.

Never looks into a record: what became of each one is said later by `node.hotline.flows.apply`, so a bad record cannot
hold up the good ones behind it.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from node.hotline.store import contacts, inbound
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.ids import new_id
from protocol.batch import decode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, verify_checkpoint
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, SignatureInvalid, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note, parse_note

#: The first epoch of every stream; a later one begins only with a recovery (a later version of HX/1).
FIRST_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Offer:
    """A batch as it came: who signed the request, what the path says, the body."""

    peer: str
    keyid: str
    nonce: str
    iss: str
    epoch: int
    first_index: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer: a receipt, as stored; `records` were new, `credit` more can be taken now, where that is known."""

    note: bytes
    size: int
    records: int
    credit: int | None


@dataclass(frozen=True, slots=True)
class Receiver:
    """What this flow works with; one for each process."""

    node_id: str
    db: Database
    vault: Vault
    receipt_keys: Sequence[SigningKey]
    pool: Executor
    batch_records_max: int
    unapplied_records_max: int
    clock_now: Callable[[], datetime]

    async def receive(self, offer: Offer, directory: Directory) -> Receipt:
        """Return the receipt once everything is committed; raises ProtocolError and stores nothing otherwise.

        The numbers are those of docs/protocol.md, "Checking order". Steps 1 to 3 (size, request signature, digest)
        are the door's (`node.hotline.api.peer`), steps 9 and on are said in outcomes.
        """
        # 4. Framing.
        raw_note, records = decode_batch(offer.body)
        if len(records) > self.batch_records_max:
            raise ProtocolError(
                "too-large",
                f"a batch holds at most {self.batch_records_max} records",
                extra={"credit": self.batch_records_max},
            )
        # 5. Checkpoint syntax and origin.
        note, checkpoint = _open_checkpoint(raw_note, offer, self.node_id)
        if checkpoint.size != offer.first_index + len(records):
            raise ProtocolError(
                "malformed", "the checkpoint's size is not the first index plus the records", field="size"
            )
        leaves = [leaf_hash(record) for record in records]
        # The costly part of step 8, done before the stream is locked; its verdict counts in its place.
        verdict = await self._signature_verdict(note, checkpoint, offer.peer, directory)
        try:
            async with self.db.transaction("receive.store") as tx:
                return await self._store(tx, offer, note, checkpoint, records, leaves, verdict)
        except _Contradiction as proof:
            await self._keep_proof(offer, proof)
            raise ProtocolError("equivocation", proof.sentence, extra={"size": proof.size}) from None

    async def _signature_verdict(
        self, note: Note, checkpoint: Checkpoint, peer: str, directory: Directory
    ) -> ProtocolError | None:
        """Return what step 8 has to say: keys known, of the right use and state, each with a valid signature."""
        keys = directory.verification_keys(peer, KeyUse.STREAM, self.clock_now())
        if not keys:
            return ProtocolError("unknown-key", "the directory lists no stream key for the sender")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self.pool, verify_checkpoint, note, checkpoint, keys)
        except SignatureInvalid:
            return ProtocolError(
                "bad-signature", "the checkpoint is not signed by every active stream key of the sender"
            )
        return None

    async def _store(
        self,
        tx: Transaction,
        offer: Offer,
        note: Note,
        checkpoint: Checkpoint,
        records: Sequence[bytes],
        leaves: Sequence[bytes],
        verdict: ProtocolError | None,
    ) -> Receipt:
        now = self.clock_now()
        if not await inbound.remember_nonce(tx, offer.keyid, offer.nonce, now):
            raise ProtocolError("replay", "this request was answered before", field="nonce")
        head = await self._lock(tx, offer)
        # 6. First index against what is held.
        if offer.first_index > head.edge.size:
            raise ProtocolError(
                "stream-gap", "records before the first index are missing here", extra={"expected": head.edge.size}
            )
        overlap = min(len(records), head.edge.size - offer.first_index)
        await _compare_overlap(tx, head.id, offer.first_index, leaves, overlap, note, checkpoint, verdict)
        await contacts.heard_from(tx, offer.peer, now)
        if overlap == len(records):
            return await _repeat(tx, head, offer.first_index, note, checkpoint, verdict)
        # 7. The leaves extend the held edge to exactly the signed root.
        edge = head.edge.extend(leaves[overlap:])
        if edge.root() != checkpoint.root:
            raise ProtocolError("root-mismatch", "the records do not lead to the signed root", field="root")
        # 8. Checkpoint signatures.
        if verdict is not None:
            raise verdict
        if overlap:
            # A repeat with new records behind it. Were they stored now, the sender would never get the receipt that
            # covers the repeated ones, and the two sides would prove one record by two receipts (PROTOCOL, I3).
            return await _first_receipt(tx, head, offer.first_index)
        # What is stored waits to be applied; new records are taken as far as that queue has room, repeats always.
        credit = max(0, self.unapplied_records_max - (head.edge.size - head.applied))
        if len(records) > credit:
            raise ProtocolError(
                "over-quota", "records received before are to be applied first", extra={"credit": credit}
            )
        receipt = await self._cosign(note, checkpoint, now)
        seal = self.vault.seal_record
        rows = [
            (idx, leaf, seal("inbox", head.id, idx, record))
            for idx, leaf, record in zip(range(head.edge.size, edge.size), leaves, records, strict=True)
        ]
        await inbound.store_batch(tx, head, edge, rows, receipt, now)
        await tx.notify("apply")
        await tx.notify(f"received:{offer.peer}")
        return Receipt(receipt, edge.size, len(rows), credit - len(rows))

    async def _lock(self, tx: Transaction, offer: Offer) -> inbound.InboundHead:
        head = await inbound.lock_stream(tx, offer.iss, offer.epoch)
        if head is None and offer.epoch == FIRST_EPOCH:
            await inbound.create_stream(tx, offer.iss, offer.epoch)
            head = await inbound.lock_stream(tx, offer.iss, offer.epoch)
        if head is None:
            raise ProtocolError("malformed", "this epoch of the stream is not known here", field="epoch")
        return head

    async def _cosign(self, note: Note, checkpoint: Checkpoint, now: datetime) -> bytes:
        def sign() -> bytes:
            name = f"{self.node_id}/receipt"
            return cosign(note, checkpoint, name, self.receipt_keys, now_s=int(now.timestamp())).to_bytes()

        return await asyncio.get_running_loop().run_in_executor(self.pool, sign)

    async def _keep_proof(self, offer: Offer, proof: "_Contradiction") -> None:
        now = self.clock_now()
        async with self.db.transaction("receive.equivocation") as tx:
            await inbound.keep_equivocation(
                tx, new_id(now), offer.peer, proof.origin, proof.size, proof.held, proof.offered, now
            )


class _Contradiction(Exception):  # noqa: N818 - a proof, not an error of ours
    """The sender signed two stories; carries both checkpoints."""

    def __init__(self, sentence: str, checkpoint: Checkpoint, held: bytes, offered: bytes) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.origin = checkpoint.origin
        self.size = checkpoint.size
        self.held = held
        self.offered = offered


def _open_checkpoint(raw_note: bytes, offer: Offer, node_id: str) -> tuple[Note, Checkpoint]:
    """Step 5: the note parses, and its origin names the signer, us and the epoch of the path."""
    note = parse_note(raw_note)
    checkpoint = Checkpoint.parse(note.text)
    stream = StreamId.parse(checkpoint.origin)
    if stream.aud != node_id:
        raise ProtocolError("wrong-audience", "the stream is not addressed to this node", field="origin")
    if stream.iss != offer.peer or offer.iss != offer.peer:
        raise ProtocolError("wrong-audience", "the stream is not the signer's own", field="origin")
    if stream.epoch != offer.epoch:
        raise ProtocolError("malformed", "the origin's epoch is not the path's", field="epoch")
    return note, checkpoint


async def _compare_overlap(
    tx: Transaction,
    stream: int,
    first: int,
    leaves: Sequence[bytes],
    overlap: int,
    note: Note,
    checkpoint: Checkpoint,
    verdict: ProtocolError | None,
) -> None:
    """Compare the first `overlap` leaves with those held; another leaf at a held index is a second story.

    But only if it is the signed one: leaves that do not lead to the signed root prove nothing against the sender.
    """
    if not overlap:
        return
    held = await inbound.leaf_hashes(tx, stream, first, first + overlap)
    for at, (ours, theirs) in enumerate(zip(held, leaves[:overlap], strict=True), start=first):
        if ours != theirs:
            before = await _edge_at(tx, stream, first)
            if before.extend(leaves).root() != checkpoint.root:
                raise ProtocolError("root-mismatch", "the records do not lead to the signed root", field="root")
            if verdict is not None:
                raise verdict
            batch = await inbound.batch_covering(tx, stream, at + 1)
            raise _Contradiction("another record is held at this index", checkpoint, batch.receipt, note.to_bytes())


async def _repeat(
    tx: Transaction,
    head: inbound.InboundHead,
    first: int,
    note: Note,
    checkpoint: Checkpoint,
    verdict: ProtocolError | None,
) -> Receipt:
    """Answer what is held already: the same root at that size, and the receipt first given, byte for byte."""
    if verdict is not None:
        raise verdict
    if (await _edge_at(tx, head.id, checkpoint.size)).root() != checkpoint.root:
        batch = await inbound.batch_covering(tx, head.id, checkpoint.size)
        raise _Contradiction("another root was signed for this size", checkpoint, batch.receipt, note.to_bytes())
    return await _first_receipt(tx, head, first)


async def _first_receipt(tx: Transaction, head: inbound.InboundHead, first: int) -> Receipt:
    """Return the stored receipt of the batch that index `first` came in."""
    batch = await inbound.batch_covering(tx, head.id, first + 1)
    return Receipt(batch.receipt, batch.size, 0, None)


async def _edge_at(tx: Transaction, stream: int, size: int) -> Edge:
    """Return the edge of the held log when it had `size` leaves."""
    if not size:
        return Edge.EMPTY
    batch = await inbound.batch_covering(tx, stream, size)
    return batch.edge_before.extend(await inbound.leaf_hashes(tx, stream, batch.first, size))
