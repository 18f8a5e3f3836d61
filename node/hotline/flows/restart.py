"""Begins a new epoch of every stream after a restore, each in the words that its peer checks. Sends nothing."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from node.hotline.store import outbound, restored
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.ids import new_id
from protocol.checkpoint import Checkpoint, StreamId
from protocol.epoch import encode_epoch
from protocol.merkle import leaf_hash
from protocol.record import Handling

#: The beginning of an epoch is about the exchange, not about content; kept like an outcome.
_RETAIN = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Restarter:
    """What this flow works with."""

    node_id: str
    db: Database
    vault: Vault
    clock_now: Callable[[], datetime]

    async def restart(self, recovery: UUID, without: Collection[str]) -> list[tuple[str, int]]:
        """Begin the next epoch of each stream but those to `without`; returns (peer, epoch) of those begun now.

        All in one transaction: if we crash before, none is begun; if we crash after, none is begun twice.
        """
        now = self.clock_now()
        begun = []
        async with self.db.transaction("recover.epochs") as tx:
            for peer, epoch, by in await restored.newest_epochs(tx):
                if peer in without or by == recovery:
                    continue
                await self._begin(tx, peer, epoch, recovery, now)
                begun.append((peer, epoch + 1))
        return begun

    async def _begin(self, tx: Transaction, peer: str, epoch: int, recovery: UUID, now: datetime) -> None:
        cursor = await restored.lock_epoch(tx, peer, epoch)
        edge = await outbound.edge_at(tx, cursor, cursor.next_index)
        ended = Checkpoint(StreamId(self.node_id, peer, epoch).origin(), edge.size, edge.root())
        record_id = new_id(now)
        first = encode_epoch(
            ended,
            record_id=str(record_id),
            iss=self.node_id,
            aud=peer,
            now=now,
            handling=Handling("takedown", now + _RETAIN),
        )
        head = await restored.begin_epoch(tx, peer, epoch + 1, recovery)
        seal = self.vault.seal_record
        rows = [outbound.OutboxRow(0, record_id, None, "status", leaf_hash(first), seal("outbox", head.id, 0, first))]
        for idx, one in enumerate(await restored.take_tail(tx, peer), start=1):
            raw = self.vault.open_record("recovery_tail", one.stream, one.idx, one.sealed)
            sealed = seal("outbox", head.id, idx, raw)
            rows.append(outbound.OutboxRow(idx, one.record_id, one.item_id, one.type, one.leaf_hash, sealed))
            if one.type == "transfer" and one.item_id is not None:
                await restored.replace_transfer(tx, one.item_id, head.id, idx)
        await outbound.append(tx, head, rows, now)
