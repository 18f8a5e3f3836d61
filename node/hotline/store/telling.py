"""Writes steps into the streams of those who are to hear of an item, in the caller's transaction. Decides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from node.hotline.store import outbound
from node.hotline.store.steps import Listener
from node.hotline.store.vault import Vault
from node.platform.database import Transaction
from node.platform.ids import new_ids
from protocol.merkle import leaf_hash
from protocol.record import Handling, encode_step
from protocol.steps import Step, step_type


@dataclass(frozen=True, slots=True)
class Telling:
    """One step for one hotline; `handling` is given where it tells what another hotline allowed us to keep."""

    to: Listener
    body: Step
    handling: Handling | None = None


@dataclass(frozen=True, slots=True)
class Teller:
    """What steps are written with; one for each process."""

    node_id: str
    vault: Vault
    retain_days: int

    async def tell(self, tx: Transaction, told: Sequence[Telling], now: datetime) -> list[bytes]:
        """Append each step to its hotline's stream, in order; returns their record hashes.

        Raises ProtocolError for a step that the wire cannot carry; nothing of the transaction may then be kept.
        """
        if not told:
            return []
        hashes: list[bytes] = []
        rows: dict[str, list[outbound.OutboxRow]] = {}
        heads = await outbound.lock_streams(tx, [one.to.node for one in told])
        handling = Handling("takedown", now + timedelta(days=self.retain_days))
        for record_id, one in zip(new_ids(len(told), now), told, strict=True):
            head, mine = heads[one.to.node], rows.setdefault(one.to.node, [])
            record = encode_step(
                one.body,
                record_id=str(record_id),
                case=str(one.to.case_id),
                item=str(one.to.item_id),
                iss=self.node_id,
                aud=one.to.node,
                iat=now,
                handling=one.handling or handling,
                parent=one.to.report_hash.hex(),
            )
            idx = head.next_index + len(mine)
            hashes.append(leaf_hash(record))
            sealed = self.vault.seal_record("outbox", head.id, idx, record)
            mine.append(outbound.OutboxRow(idx, record_id, one.to.item_id, step_type(one.body), hashes[-1], sealed))
        for node, mine in rows.items():
            await outbound.append(tx, heads[node], mine, now)
        await tx.notify("deliver")
        return hashes
