"""Cuts the next batch of one of our streams, under a signature or a receipt it has already; never sends one."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from node.hotline.store import outbound
from node.hotline.store.vault import Vault
from node.platform.database import Database
from protocol.batch import encode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import sign_checkpoint
from protocol.errors import ProtocolError
from protocol.keys import SigningKey
from protocol.merkle import Edge
from protocol.note import parse_note

#: Room for the signed checkpoint, or the receipt, in front of the records.
_NOTE_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch: the log after it, what its checkpoint says, and its body."""

    after: Edge
    checkpoint: Checkpoint
    body: bytes


@dataclass(frozen=True, slots=True)
class Framer:
    """What cutting works with; one for each process."""

    node_id: str
    db: Database
    vault: Vault
    stream_keys: Sequence[SigningKey]
    pool: Executor
    clock_now: Callable[[], datetime]
    batch_bytes_max: int

    async def cut(self, peer: str, cursor: outbound.Cursor, before: Edge, records_max: int) -> Cut | None:
        """Return the batch that follows `before` in our stream to `peer`, or None at its end.

        What the peer has receipted once, and lost since, goes out in the cut and under the receipt of that time, so
        that it stores this one and no second proves the same records (PROTOCOL, I3).
        """
        async with self.db.transaction("deliver.read") as tx:
            receipt = None
            if before.size < cursor.next_index:
                receipt = await outbound.receipt_covering(tx, cursor.stream, before.size)
            wanted = records_max if receipt is None else min(records_max, receipt[0] - before.size)
            rows = await outbound.read(tx, cursor.stream, before.size, wanted, self.batch_bytes_max - _NOTE_BYTES)
        if not rows:
            return None
        after = before.extend([row.leaf_hash for row in rows])
        checkpoint = Checkpoint(StreamId(self.node_id, peer, cursor.epoch).origin(), after.size, after.root())
        given = receipt[1] if receipt is not None and _is_of(receipt[1], checkpoint) else None
        return Cut(after, checkpoint, await self._frame(cursor.stream, checkpoint, rows, given))

    async def _frame(
        self,
        stream: int,
        checkpoint: Checkpoint,
        rows: Sequence[outbound.StoredRecord],
        receipt: bytes | None,
    ) -> bytes:
        now_s = int(self.clock_now().timestamp())

        def work() -> bytes:
            note = receipt or sign_checkpoint(checkpoint, self.stream_keys, now_s=now_s).to_bytes()
            records = [self.vault.open_record("outbox", stream, row.idx, row.sealed) for row in rows]
            return encode_batch(note, records)

        return await asyncio.get_running_loop().run_in_executor(self.pool, work)


def _is_of(receipt: bytes, checkpoint: Checkpoint) -> bool:
    """Tell whether a stored receipt covers exactly this cut; one that the limits made smaller is signed anew."""
    try:
        return parse_note(receipt).text == checkpoint.text()
    except ProtocolError:
        return False
