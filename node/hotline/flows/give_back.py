"""Gives a peer back its own records, as they are held here: what it lost with its database. Changes nothing."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

from node.hotline.store import inbound
from node.hotline.store.vault import Vault
from node.platform.database import Database
from protocol.batch import RETURNED_BYTES_MAX, encode_batch


@dataclass(frozen=True, slots=True)
class Kept:
    """Records under their receipt and the index after them, or None where nothing follows; how far the epoch is held.

    `epoch` is the newest that is held, whichever was asked for.
    """

    body: bytes | None
    held: int
    epoch: int
    until: int = 0


@dataclass(frozen=True, slots=True)
class GiveBack:
    """What this flow works with; one for each process."""

    db: Database
    vault: Vault
    pool: Executor

    async def held(self, peer: str, epoch: int, first: int) -> Kept:
        """Return the records from `first` to the end of the batch they came in, under its receipt."""
        async with self.db.transaction("giveback.read") as tx:
            head = await tx.row("SELECT id, size FROM inbound_streams WHERE peer = $1 AND epoch = $2", peer, epoch)
            newest = await tx.value("SELECT max(epoch) FROM inbound_streams WHERE peer = $1", peer)
            size = 0 if head is None else int(head["size"])
            if head is None or first >= size:
                return Kept(None, size, int(newest or epoch))
            proven = await inbound.receipt_covering(tx, head["id"], first)
            batch = proven or await inbound.batch_covering(tx, head["id"], first + 1)
            rows = await inbound.read(tx, head["id"], first, batch.size - first)

        def work() -> bytes:
            records = [self.vault.open_record("inbox", head["id"], idx, sealed) for idx, _, sealed in rows]
            return encode_batch(batch.receipt, records, bytes_max=RETURNED_BYTES_MAX)

        body = await asyncio.get_running_loop().run_in_executor(self.pool, work)
        return Kept(body, size, int(newest or epoch), batch.size)
