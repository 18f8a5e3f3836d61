"""Takes a peer's batch: checks it in the numbered order of the specification, stores it and gives the receipt.

Never looks into a record: what became of each one is said later by `node.hotline.flows.apply`, so a bad record cannot
hold up the good ones behind it.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from node.hotline.domain.budgets import BudgetLimits
from node.hotline.domain.comparison import Direction
from node.hotline.judging import Judge
from node.hotline.store import contacts, inbound
from node.hotline.store.proofs import Proofs
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.ids import new_id
from node.platform.nonces import remember_nonce
from protocol.batch import decode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, verify_checkpoint, without_strangers
from protocol.directory import Directory
from protocol.epoch import ended_epoch
from protocol.errors import ProtocolError
from protocol.evidence import make_proof
from protocol.keys import KeyUse, PublicKey, SignatureInvalid, SigningKey
from protocol.merkle import Edge, inclusion_proof, leaf_hash
from protocol.note import Note, parse_note
from protocol.receipt import bare_receipt

#: Records are applied at some thousand a second.
_APPLIED_SOON_S = 2
#: The first epoch of every stream; a later one begins only with a recovery.
FIRST_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Offer:
    """A batch as it came: who signed the request, what the path says, the body.

    One that we fetched ourselves has no nonce of its own: the answer was bound to our request.
    """

    peer: str
    keyid: str
    nonce: str | None
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
class _Batch:
    """An offer once it is read: steps 4 and 5 are passed, and step 8 is judged (`verdict`), which counts in its place.

    `stated` is the second that its receipt states; `kept` is whether its note is a receipt that we gave, and lost.
    """

    offer: Offer
    note: Note
    checkpoint: Checkpoint
    records: Sequence[bytes]
    leaves: Sequence[bytes]
    verdict: ProtocolError | None
    stated: datetime
    kept: bool

    def check_signatures(self) -> None:
        """Step 8: raise what it came to."""
        if self.verdict is not None:
            raise self.verdict

    def contradicts(self, sentence: str, held: bytes, ending: bytes | None = None) -> "_Contradiction":
        """Return the proof that this checkpoint contradicts the one that is `held`."""
        return _Contradiction(sentence, self.checkpoint, held, self.note.to_bytes(), ending)


@dataclass(frozen=True, slots=True)
class Receiver:
    """What this flow works with; one for each process."""

    node_id: str
    db: Database
    vault: Vault
    judge: Judge
    receipt_keys: Callable[[datetime], Sequence[SigningKey]]
    pool: Executor
    batch_records_max: int
    unapplied_records_max: int
    budgets: BudgetLimits
    clock_now: Callable[[], datetime]

    async def receive(self, offer: Offer, directory: Directory) -> Receipt:
        """Return the receipt once everything is committed; raises ProtocolError and stores nothing otherwise.

        The numbers are those of docs/protocol.md, "Checking order". Steps 1 to 3 (size, request signature, digest)
        are the door's (`node.platform.peerdoor`), steps 9 and on are said in outcomes.
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
        # A receipt states whole seconds, and the sender will judge both signatures by the keys of the second it states:
        # a key that changes within it, or while we wait for the stream, must not part what we check from what we sign.
        stated = self.clock_now().replace(microsecond=0)
        own, verdict = await self._own_receipt(note, directory), None
        if own is None:
            keys = directory.verification_keys(offer.peer, KeyUse.STREAM, stated)
            verdict = await self._signature_verdict(note, checkpoint, keys)
            if verdict is None:
                # What strangers added would go on in each proof of these records.
                note = without_strangers(note, checkpoint.origin, keys)
        batch = _Batch(offer, own or note, checkpoint, records, leaves, verdict, stated, kept=own is not None)
        try:
            async with self.db.transaction("receive.store") as tx:
                if offer.nonce is not None:
                    await self._remember(tx, offer, offer.nonce)
                await self.judge.hold(tx, Direction.IN, offer.peer, directory)
                return await self._store(tx, batch)
        except _Contradiction as proof:
            await self._keep_proof(offer, proof)
            raise ProtocolError("equivocation", proof.sentence, extra={"size": proof.size}) from None

    async def _own_receipt(self, note: Note, directory: Directory) -> Note | None:
        """Return the note where it is a receipt that we gave, and lost since: what both sides have signed stays so.

        It is judged by the keys of its time (PROTOCOL section 6); whatever else the note is, step 8 says.
        """
        name = f"{self.node_id}/receipt"
        if not any(line.name == name for line in note.signatures):
            return None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.pool, bare_receipt, note, directory)
        except (ProtocolError, SignatureInvalid, ValueError):
            return None

    async def _signature_verdict(
        self, note: Note, checkpoint: Checkpoint, keys: Sequence[PublicKey]
    ) -> ProtocolError | None:
        """Return what step 8 has to say: keys known, of the right use and state, each with a valid signature."""
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

    async def _remember(self, tx: Transaction, offer: Offer, nonce: str) -> None:
        if not await remember_nonce(tx, offer.keyid, nonce, self.clock_now()):
            raise ProtocolError("replay", "this request was answered before", field="nonce")

    async def _store(self, tx: Transaction, batch: _Batch) -> Receipt:
        now, offer, leaves = self.clock_now(), batch.offer, batch.leaves
        head = await self._lock(tx, batch)
        # 6. First index against what is held.
        if offer.first_index > head.edge.size:
            raise ProtocolError(
                "stream-gap", "records before the first index are missing here", extra={"expected": head.edge.size}
            )
        overlap = min(len(leaves), head.edge.size - offer.first_index)
        await _compare_overlap(tx, head.id, batch, overlap)
        await contacts.heard_from(tx, offer.peer, now)
        if overlap == len(leaves):
            return await self._repeat(tx, head, batch)
        # 7. The leaves extend the held edge to exactly the signed root.
        edge = head.edge.extend(leaves[overlap:])
        if edge.root() != batch.checkpoint.root:
            raise ProtocolError("root-mismatch", "the records do not lead to the signed root", field="root")
        # 8. Checkpoint signatures.
        batch.check_signatures()
        if overlap and (first := await _first_receipt(tx, head, offer.first_index)) is not None:
            # A repeat with new records behind it. Were they stored now, the sender would never get the receipt that
            # covers the repeated ones, and the two sides would prove one record by two receipts (PROTOCOL, I3).
            return first
        # Where no receipt of the repeated ones counts any more, one is given for all of them.
        await self._check_not_ended(tx, batch)
        return await self._take(tx, head, batch, overlap, edge, now)

    async def _take(
        self, tx: Transaction, head: inbound.InboundHead, batch: _Batch, overlap: int, edge: Edge, now: datetime
    ) -> Receipt:
        """Store the records behind the first `overlap`, as far as there is room, and return the receipt for `edge`."""
        records = batch.records[overlap:]
        credit = await self._room(tx, head, batch, records, now)
        receipt = await self._receipt(batch)
        seal = self.vault.seal_record
        rows = [
            (idx, leaf, seal("inbox", head.id, idx, record))
            for idx, leaf, record in zip(range(head.edge.size, edge.size), batch.leaves[overlap:], records, strict=True)
        ]
        await inbound.store_batch(tx, head, edge, rows, receipt, now)
        await tx.notify("apply")
        await tx.notify(f"received:{batch.offer.peer}")
        return Receipt(receipt, edge.size, len(rows), credit - len(rows))

    async def _room(
        self, tx: Transaction, head: inbound.InboundHead, batch: _Batch, records: Sequence[bytes], now: datetime
    ) -> int:
        """Return how many new records can be taken, and take these off the budget; raises `over-quota`.

        What we had, and lost, comes back whatever the budget says.
        """
        # What is stored waits to be applied; new records are taken as far as that queue has room, repeats always.
        credit = max(0, self.unapplied_records_max - (head.edge.size - head.applied))
        if len(records) > credit:
            raise ProtocolError(
                "over-quota",
                "records received before are to be applied first",
                extra={"credit": credit, "retry_after": _APPLIED_SOON_S},
            )
        size = sum(len(record) for record in records)
        peer = batch.offer.peer
        budget = await inbound.budget(tx, peer)
        room = self.budgets.room(budget, len(records), size, now)
        if batch.kept:
            return min(credit, max(room.records, len(records)))
        if len(records) > room.records:
            raise ProtocolError(
                "over-quota",
                "the budget of new records or bytes is used up for the time being",
                extra={"credit": room.records, "retry_after": room.wait_s},
            )
        await inbound.keep_budget(tx, peer, self.budgets.after(budget, len(records), size, now))
        return min(credit, room.records)

    async def _receipt(self, batch: _Batch) -> bytes:
        """Return the receipt of what we have not, which is the one that we gave for it, if we did (PROTOCOL, I3)."""
        return batch.note.to_bytes() if batch.kept else await self._cosign(batch)

    async def _repeat(self, tx: Transaction, head: inbound.InboundHead, batch: _Batch) -> Receipt:
        """Answer what is held already: the same root at that size, and the receipt first given, byte for byte.

        Where none that was given counts any more, this checkpoint is cosigned in its place (PROTOCOL section 6).
        """
        batch.check_signatures()
        checkpoint = batch.checkpoint
        if (await inbound.edge_at(tx, head.id, checkpoint.size)).root() != checkpoint.root:
            held = await inbound.batch_covering(tx, head.id, checkpoint.size)
            raise batch.contradicts("another root was signed for this size", held.receipt)
        given = await _first_receipt(tx, head, batch.offer.first_index)
        if given is not None:
            return given
        receipt = await self._receipt(batch)
        await inbound.give_anew(tx, head.id, checkpoint.size, receipt, self.clock_now())
        await tx.notify("apply")
        return Receipt(receipt, checkpoint.size, 0, None)

    async def _lock(self, tx: Transaction, batch: _Batch) -> inbound.InboundHead:
        offer = batch.offer
        head = await inbound.lock_stream(tx, offer.iss, offer.epoch)
        if head is None:
            if offer.epoch != FIRST_EPOCH:
                await self._check_new_epoch(tx, batch)
            await inbound.create_stream(tx, offer.iss, offer.epoch)
            head = await inbound.lock_stream(tx, offer.iss, offer.epoch)
        if head is None:
            raise LookupError("a stream that was just begun is there")
        if head.left_out:
            # What we had receipted and answered is not known: it would be taken as new.
            raise ProtocolError("maintenance", "this node was recovered and has not asked the caller yet")
        return head

    async def _check_new_epoch(self, tx: Transaction, batch: _Batch) -> None:
        """A new epoch begins where the one before ended, exactly as it is held here: or it denies what was said."""
        offer = batch.offer
        before = StreamId(offer.iss, self.node_id, offer.epoch - 1)
        if offer.epoch - 1 == FIRST_EPOCH:
            # Of a stream that never carried anything the end is known all the same.
            await inbound.create_stream(tx, offer.iss, FIRST_EPOCH)
        old = await inbound.lock_stream(tx, offer.iss, before.epoch)
        if old is None:
            raise ProtocolError("malformed", "the epoch before is not known here", field="epoch")
        if offer.first_index:
            raise ProtocolError("stream-gap", "an epoch begins with its first record", extra={"expected": 0})
        named = ended_epoch(batch.records[0], before.origin())
        if Edge.EMPTY.extend(batch.leaves).root() != batch.checkpoint.root:
            raise ProtocolError("root-mismatch", "the records do not lead to the signed root", field="root")
        batch.check_signatures()
        if named.size > old.edge.size:
            raise ProtocolError("stream-gap", "records of the epoch before are missing here", extra={"expected": 0})
        if named != Checkpoint(before.origin(), old.edge.size, old.edge.root()):
            held = await inbound.batch_covering(tx, old.id, old.edge.size)
            ending = make_proof(batch.records[0], 0, inclusion_proof(0, batch.leaves), batch.note.to_bytes())
            raise batch.contradicts("the new epoch denies records of the one before", held.receipt, ending)

    async def _check_not_ended(self, tx: Transaction, batch: _Batch) -> None:
        """A later epoch is the sender's own word that this one had ended where it is held."""
        later = await inbound.stream_of(tx, batch.offer.iss, batch.offer.epoch + 1)
        if later is not None:
            # Both of one batch, whether its receipt counts or not: the desk compares their checkpoints.
            held = await inbound.batch_covering(tx, later, 1)
            ending = await Proofs(tx, self.vault).proof_of_first(later, held.size, held.receipt)
            raise batch.contradicts("a later epoch says that this one had ended", held.receipt, ending)

    async def _cosign(self, batch: _Batch) -> bytes:
        keys = self.receipt_keys(batch.stated)
        if not keys:
            # By a clock that is behind, new keys do not count yet; what they signed would be repeated for ever.
            raise ProtocolError("maintenance", "this node has no receipt key that counts at the time of its clock")

        name = f"{self.node_id}/receipt"
        # Where the note was a receipt of ours that counts no more, our old lines are off it by now: a sender that has
        # not heard so would take the new one for the old, and have neither once it hears.

        def sign() -> bytes:
            return cosign(batch.note, batch.checkpoint, name, keys, now_s=int(batch.stated.timestamp())).to_bytes()

        return await asyncio.get_running_loop().run_in_executor(self.pool, sign)

    async def _keep_proof(self, offer: Offer, proof: "_Contradiction") -> None:
        now = self.clock_now()
        async with self.db.transaction("receive.equivocation") as tx:
            await inbound.keep_equivocation(
                tx, new_id(now), offer.peer, proof.origin, proof.size, proof.held, proof.offered, proof.ending, now
            )


class _Contradiction(Exception):  # noqa: N818 - a proof, not an error of ours
    """The sender signed two stories; carries both checkpoints, and of two epochs the record that ended the first."""

    def __init__(
        self, sentence: str, checkpoint: Checkpoint, held: bytes, offered: bytes, ending: bytes | None = None
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.origin = checkpoint.origin
        self.size = checkpoint.size
        self.held = held
        self.offered = offered
        self.ending = ending


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


async def _compare_overlap(tx: Transaction, stream: int, batch: _Batch, overlap: int) -> None:
    """Compare the first `overlap` leaves with those held; another leaf at a held index is a second story.

    But only if it is the signed one: leaves that do not lead to the signed root prove nothing against the sender.
    """
    if not overlap:
        return
    first, leaves = batch.offer.first_index, batch.leaves
    held = await inbound.leaf_hashes(tx, stream, first, first + overlap)
    for at, (ours, theirs) in enumerate(zip(held, leaves[:overlap], strict=True), start=first):
        if ours != theirs:
            before = await inbound.edge_at(tx, stream, first)
            if before.extend(leaves).root() != batch.checkpoint.root:
                raise ProtocolError("root-mismatch", "the records do not lead to the signed root", field="root")
            batch.check_signatures()
            covering = await inbound.batch_covering(tx, stream, at + 1)
            raise batch.contradicts("another record is held at this index", covering.receipt)


async def _first_receipt(tx: Transaction, head: inbound.InboundHead, first: int) -> Receipt | None:
    """Return the first stored receipt that covers index `first` and counts."""
    batch = await inbound.receipt_covering(tx, head.id, first)
    return None if batch is None else Receipt(batch.receipt, batch.size, 0, None)
