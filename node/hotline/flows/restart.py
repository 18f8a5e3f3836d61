"""Begins a new epoch of every stream after a restore, each in the words that its peer checks. Sends nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from node.hotline.domain.acceptance import NEVER_SENT
from node.hotline.store import outbound, restored, waiting
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.ids import new_id
from protocol.bodies import OutcomeBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import WithdrawalReason
from protocol.epoch import encode_epoch
from protocol.merkle import leaf_hash
from protocol.record import Handling, Record, encode_outcome, parse_record
from protocol.steps import WithdrawalBody

#: The beginning of an epoch is about the exchange, not about content; kept like an outcome.
_RETAIN = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Restarter:
    """What this flow works with."""

    node_id: str
    db: Database
    vault: Vault
    clock_now: Callable[[], datetime]

    async def restart(self, recovery: UUID, asked: Collection[str]) -> list[tuple[str, int]]:
        """Begin the next epoch of each stream to a peer of `asked`; returns (peer, epoch) of those begun now.

        What another one holds, who was left out or is no member at present, is not known: to name the end of its epoch
        would be a second story.

        All in one transaction: if we crash before, none is begun; if we crash after, none is begun twice.
        """
        now = self.clock_now()
        begun = []
        async with self.db.transaction("recover.epochs") as tx:
            for peer, epoch, by in await restored.newest_epochs(tx):
                if peer not in asked or by == recovery:
                    continue
                async for page in waiting.refused_with(tx, self.vault, peer, NEVER_SENT):
                    await self._judge_again(tx, peer, page)
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
        for one in await restored.take_tail(tx, peer):
            raw = await self._unsaid(tx, peer, one)
            if raw is None:
                continue
            idx = len(rows)
            sealed = seal("outbox", head.id, idx, raw)
            rows.append(outbound.OutboxRow(idx, one.record_id, one.item_id, one.type, leaf_hash(raw), sealed))
            if one.type == "transfer" and one.item_id is not None:
                await restored.replace_transfer(tx, one.item_id, head.id, idx)
        await outbound.append(tx, head, rows, now)

    async def _unsaid(self, tx: Transaction, peer: str, one: restored.TailRow) -> bytes | None:
        """Return a record written after the restore, without what the peer had been told before it; None for nothing.

        An item that had gone to this peer by then did not go a second time, what was answered is answered, and what
        the peer had receipted is not taken back for want of a receipt.
        """
        raw = self.vault.open_record("recovery_tail", one.stream, one.idx, one.sealed)
        if one.type in {"report", "transfer"} and one.item_id is not None:
            return None if await restored.had_gone(tx, peer, one.item_id) else raw
        record = parse_record(raw)
        body = record.body
        if one.item_id is not None and _takes_back(record):
            return None if await self._has_arrived(tx, peer, one.item_id) else raw
        if not isinstance(body, OutcomeBody):
            return raw
        epoch = StreamId.parse(body.stream).epoch
        rest = _from_index(body, await restored.told(tx, peer, epoch))
        # Refused by what the older database knew, and nobody has heard so.
        places = [(one.index, one.index) for one in rest.refused]
        again: set[int] = set()
        async for page in waiting.refused_within(tx, self.vault, peer, epoch, places):
            again |= await self._judge_again(tx, peer, page)
        rest = replace(rest, refused=tuple(one for one in rest.refused if one.index not in again))
        if rest == body:
            return raw
        envelope = record.envelope
        if not (rest.accepted or rest.kept or rest.refused):
            return None
        return encode_outcome(
            rest,
            record_id=envelope.id,
            iss=envelope.iss,
            aud=envelope.aud,
            iat=envelope.iat,
            handling=envelope.handling,
        )

    async def _judge_again(self, tx: Transaction, peer: str, refused: Sequence[waiting.RefusedRecord]) -> set[int]:
        """Let what was refused of a peer's records be judged when what was lost is back; returns their indices.

        Not what gives an item, where that would wait for somebody left out: its sender has it again.
        """
        left_out = bool(refused) and (await waiting.standing(tx, peer, (), self.clock_now())).left_out
        again = [one for one in refused if not (left_out and one.gives)]
        await waiting.judge_again(tx, again)
        return {one.idx for one in again}

    async def _has_arrived(self, tx: Transaction, peer: str, item_id: UUID) -> bool:
        """Tell whether the peer has what was taken back from it; then it is not, and stands there again.

        What went another way meanwhile, or is acted on here, stays taken back.
        """
        went_again = await restored.had_gone(tx, peer, item_id)
        report = await restored.receipted_report(tx, peer, item_id, went_again=went_again)
        if report is None and not went_again:
            return False
        if report is not None:
            raw = self.vault.open_record("outbox", report.stream, report.idx, report.sealed)
            await restored.put_replays(tx, report.stream, [(report.idx, parse_record(raw).envelope.iat)])
        await restored.forget_failure(tx, peer, item_id)
        return True


def _takes_back(record: Record) -> bool:
    """Tell whether a record says that its item goes another way, as no receipt came for what had given it."""
    body = record.body
    return isinstance(body, WithdrawalBody) and body.reason is WithdrawalReason.REROUTED and body.proof is None


def _from_index(body: OutcomeBody, first: int) -> OutcomeBody:
    """Return what an outcome says of the records from `first` on."""

    def cut(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        return tuple((max(low, first), high) for low, high in ranges if high >= first)

    return OutcomeBody(
        stream=body.stream,
        accepted=cut(body.accepted),
        kept=cut(body.kept),
        refused=tuple(one for one in body.refused if one.index >= first),
    )
