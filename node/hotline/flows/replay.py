"""Does again, after a restore, what our own records had done, in the order in which they were made; each once.

By the rules of the lifecycle, as it was done first; what cannot be done stays in the queue with the reason. Signs
nothing, and says again only what one who was to hear it has not got.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from node.hotline.domain.assessment import AssessmentRefused, from_wire
from node.hotline.domain.custody import LATE
from node.hotline.domain.lifecycle import Event, RecordRefused, State, TransitionRefused, next_state
from node.hotline.domain.routing import HOSTING_COUNTRY, MANDATED
from node.hotline.domain.steps import Done, KnownItem
from node.hotline.domain.urls import UrlRefused, parse_reported_url
from node.hotline.store import amendments, custody, inbound, items, restored, steps
from node.hotline.store.amendments import Amendments
from node.hotline.store.custody import Chain, Rehosted, Stale
from node.hotline.store.inbound import Until
from node.hotline.store.qualification import is_illegal, to_column
from node.hotline.store.restored import Replay
from node.hotline.store.telling import Teller, Telling
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from protocol.bodies import OutcomeBody, ReportBody
from protocol.checkpoint import StreamId
from protocol.codes import OVER, StatusKind, WithdrawalReason
from protocol.errors import ProtocolError
from protocol.record import Record, parse_record
from protocol.steps import (
    ActionBody,
    AssessmentBody,
    Corrected,
    CorrectionBody,
    StatusBody,
    Step,
    TransferBody,
    WithdrawalBody,
    step_type,
)

#: Why a record of ours is not done again: its item is not here; the rules do not allow it as the item stands; the
#: dispute that it tells of has to be opened anew.
UNKNOWN: Final = "unknown-item"
REFUSED: Final = "not-allowed"
DISPUTE_LOST: Final = "dispute-lost"
#: The reason of an item that was kept here, of which no record says why.
RECOVERED: Final = "recovered"

_AT_ONCE = 100
#: Records looked through for outcomes before one of ours is given up.
_PEEKED_MAX = 100
#: What a report of ours cannot be sent from: its item is another's now, or its end is recorded.
_PAST_SENDING = frozenset({State.LEAVING, State.TRANSFERRED, State.DONE, State.WITHDRAWN, State.DECLINED})
#: What was ended by whoever has it.
_ENDS = frozenset({State.DONE, State.WITHDRAWN})
_MAY_LEAVE = frozenset({State.ASSIGNED, State.KEPT, State.DISPUTED})


@dataclass(frozen=True, slots=True)
class Replayer:
    """What this flow works with."""

    db: Database
    vault: Vault
    teller: Teller
    clock_now: Callable[[], datetime]
    forward_unqualified: bool

    async def run(self) -> Until | None:
        """Do records again until none is left (None), or until what a peer had said before the next one is applied.

        A record and its place in the queue are committed together: broken off anywhere, it goes on.
        """
        while True:
            async with self.db.transaction("recover.replay") as tx:
                now = self.clock_now()
                for _ in range(_AT_ONCE):
                    found = await self._next(tx)
                    if found is None:
                        return None
                    one, record, first = found
                    if first is not None:
                        return first
                    code = await self._do(tx, one, record, now)
                    if code == REFUSED and (first := await self._outcomes(tx)) is not None:
                        return first
                    await restored.replayed(tx, one, code)

    async def again(self) -> None:
        """Let what could not be done be tried once more, now that the rest is."""
        async with self.db.transaction("recover.again") as tx:
            await restored.retry_left(tx)

    async def arrived(self, tx: Transaction, item_ids: Collection[UUID], now: datetime) -> None:
        """Do again what could not be done since these items were not here; they have just come once more.

        As where the receipt for an item was lost, it was handed on, and its giver gives it again after the recovery:
        in the transaction that takes it, so that it is at no moment here and at the hotline that has it.
        """
        for one in await restored.left_of(tx, item_ids, UNKNOWN):
            record = parse_record(self.vault.open_record("outbox", one.stream, one.idx, one.sealed))
            await restored.replayed(tx, one, await self._do(tx, one, record, now))

    async def _next(self, tx: Transaction) -> tuple[Replay, Record, Until | None] | None:
        """Return what is to be done next, and what is to be applied before: what was made first, but for a report.

        Two streams are one story by the times of their records alone, and a clock that was set back tells it wrongly:
        what an outcome speaks of may be said of an item whose report, in another stream, bears a later time.
        """
        one, passed = await restored.next_replay(tx), []
        while one is not None:
            passed.append(one.stream)
            record = parse_record(self.vault.open_record("outbox", one.stream, one.idx, one.sealed))
            first = await self._before(tx, record)
            stream = None if first is None else await self._resting_on(tx, first, passed)
            if stream is None:
                return one, record, first
            one = await restored.next_replay(tx, stream)
        return None

    async def _resting_on(self, tx: Transaction, until: Until, passed: Sequence[int]) -> int | None:
        """Return the stream with a report, still to be done, of an item that a peer speaks of before `until`."""
        for stream, peer, epoch, applied in await restored.cursors(tx):
            if peer != until.peer:
                continue
            end = until.size if epoch == until.epoch else None
            async for items_said in self._said(tx, stream, applied, end):
                found = await restored.reported_in(tx, items_said, passed)
                if found is not None:
                    return found
        return None

    async def _said(self, tx: Transaction, stream: int, first: int, end: int | None) -> AsyncIterator[list[UUID]]:
        """Yield, a portion at a time, the items that a peer's records speak of, those before `end`."""
        while end is None or first < end:
            count = _AT_ONCE if end is None else min(_AT_ONCE, end - first)
            rows = await inbound.read(tx, stream, first, count)
            if not rows:
                return
            yield [item for idx, _, sealed in rows if (item := self._item_of(stream, idx, sealed))]
            first = rows[-1][0] + 1

    def _item_of(self, stream: int, idx: int, sealed: bytes) -> UUID | None:
        """Return the item that a record speaks of; None for one that cannot be read."""
        record = self._read(stream, idx, sealed)
        return None if record is None else UUID(record.envelope.item)

    def _read(self, stream: int, idx: int, sealed: bytes) -> Record | None:
        """Return a record of a peer, or None for one that cannot be read: it is held as it came, and is refused."""
        try:
            return parse_record(self.vault.open_record("inbox", stream, idx, sealed))
        except ProtocolError:
            return None

    async def _before(self, tx: Transaction, record: Record) -> Until | None:
        """What an outcome speaks of had been applied when it was written."""
        body = record.body
        if not isinstance(body, OutcomeBody):
            return None
        told = [last for _, last in (*body.accepted, *body.kept)] + [one.index for one in body.refused]
        until = Until(record.envelope.aud, StreamId.parse(body.stream).epoch, max(told, default=-1) + 1)
        return None if await inbound.is_applied(tx, until) else until

    async def _outcomes(self, tx: Transaction) -> Until | None:
        """Return outcomes of a peer that come next in its stream and speak of nothing still to be done here.

        Nothing of ours answers an outcome, so when it had been applied no record says; a record of ours that the rules
        refuse may have come after it.
        """
        for stream, peer, epoch, applied in await restored.cursors(tx):
            end = applied
            for idx, _, sealed in await inbound.read(tx, stream, applied, _PEEKED_MAX):
                record = self._read(stream, idx, sealed)
                body = None if record is None else record.body
                if not isinstance(body, OutcomeBody) or not await self._is_past(tx, peer, body):
                    break
                end = idx + 1
            if end > applied:
                return Until(peer, epoch, end)
        return None

    async def _is_past(self, tx: Transaction, peer: str, body: OutcomeBody) -> bool:
        first = await restored.replay_from(tx, peer, StreamId.parse(body.stream).epoch)
        told = [last for _, last in (*body.accepted, *body.kept)] + [one.index for one in body.refused]
        return first is None or max(told, default=-1) < first

    async def _do(self, tx: Transaction, one: Replay, record: Record, now: datetime) -> str | None:
        """Do one record again; returns why it could not be done, or None."""
        body = record.body
        try:
            if isinstance(body, ReportBody):
                return await self._sent(tx, record, body, now)
            if isinstance(body, TransferBody):
                return await self._handed_on(tx, one, record, body, now)
            if isinstance(body, AssessmentBody | ActionBody):
                return await self._step(tx, record, body, now)
            if isinstance(body, CorrectionBody | WithdrawalBody):
                return await self._amended(tx, record, body, now)
        except (AssessmentRefused, RecordRefused, TransitionRefused):
            return REFUSED
        return await self._status(tx, record, body, now) if isinstance(body, StatusBody) else None

    async def _status(self, tx: Transaction, record: Record, body: StatusBody, now: datetime) -> str | None:
        """A dispute went with the storage: who heard of it hears that the item is at the desk no longer."""
        if body.kind is not StatusKind.DISPUTED or body.code == OVER:
            return None
        envelope = record.envelope
        about = bytes.fromhex(body.about or "")
        to = steps.Listener(envelope.aud, UUID(envelope.item), UUID(envelope.case), about)
        over = StatusBody(kind=StatusKind.DISPUTED, at=now, about=body.about, code=OVER)
        await self.teller.tell(tx, [Telling(to, over)], now)
        return DISPUTE_LOST

    async def _sent(self, tx: Transaction, record: Record, body: ReportBody, now: datetime) -> str | None:
        """The item left with this report: a known one is marked so, an unknown one is written anew."""
        item_id, peer = UUID(record.envelope.item), record.envelope.aud
        known = (await steps.lock_known(tx, [item_id], self.teller.node_id)).get(item_id)
        if known is None:
            try:
                await restored.write_sent(tx, self._item(record, body), now)
            except UrlRefused:
                return REFUSED
            return None
        if known.came_from is not None or known.state in _PAST_SENDING:
            if known.came_from is None and known.state in _ENDS and await self._outcomes(tx) is None:
                await self._ended(tx, known, record, now)
            return REFUSED
        if known.state is State.SENT and known.custodian != peer:
            if await self._outcomes(tx) is not None:
                return REFUSED
            await self._recall(tx, known, known.custodian, known.report_hash, now)
        # What was corrected before it was sent, no record says but this one.
        await Amendments(tx, self.vault).correct(item_id, known.case_id, _members(body), now)
        await restored.mark_sent(tx, self._item(record, body), now)
        return None

    async def _handed_on(
        self, tx: Transaction, one: Replay, record: Record, body: TransferBody, now: datetime
    ) -> str | None:
        """The item was given to another hotline with this transfer."""
        item_id, peer = UUID(record.envelope.item), record.envelope.aud
        row = (await custody.lock(tx, [item_id])).get(item_id)
        if row is None:
            return UNKNOWN
        state = State(row["state"])
        if state is State.LEAVING and row["assigned_node"] != peer:
            if await self._outcomes(tx) is not None:
                return REFUSED
            known = (await steps.lock_known(tx, [item_id], self.teller.node_id))[item_id]
            await self._recall(tx, known, known.custodian, known.report_hash, now)
        if state is State.LEAVING:
            # Since the restore it was to leave again; that transfer is not sent, or called back.
            state = State.ASSIGNED
        if state not in _MAY_LEAVE:
            return REFUSED
        after = next_state(state, Event.HANDED_ON, qualified=True, forward_unqualified=True)
        chain = Chain(peer, body.trail, record.envelope.iat)
        await custody.given(tx, item_id, chain, now, place=(one.stream, one.idx))
        evidence = msgspec.json.encode(body.hosting.evidence).decode()
        rehosted = Rehosted(
            id=item_id,
            state=after,
            reason=body.reason,
            country=body.hosting.country,
            registered_country=body.hosting.registered_country,
            assigned_country=body.hosting.assigned_country,
            assigned_node=peer,
            confidence=body.hosting.confidence,
            verdict=row["verdict"],
            reasons=body.hosting.reasons,
            evidence_enc=self.vault.seal("items", "evidence_enc", item_id, evidence),
        )
        await custody.rehost(tx, rehosted, now)
        await custody.answered(tx, [item_id])
        await custody.receipted(tx, one.stream, one.acked, now)
        return None

    async def _ended(self, tx: Transaction, item: KnownItem, record: Record, now: datetime) -> None:
        """What was ended here since the restore had gone to a peer before: that has it no more, and hears why."""
        if item.is_here:
            why = WithdrawalReason.REROUTED
            if item.state is State.WITHDRAWN and item.reason is not None:
                why = WithdrawalReason(item.reason)
            await self._recall(tx, item, record.envelope.aud, record.leaf_hash, now, why)

    async def _recall(
        self,
        tx: Transaction,
        item: KnownItem,
        peer: str,
        report_hash: bytes | None,
        now: datetime,
        why: WithdrawalReason = WithdrawalReason.REROUTED,
    ) -> None:
        """What was given to `peer` before went another way: it hears so, unless a record of ours says it already."""
        if report_hash is None or await restored.said_of(tx, peer, item.id, "withdrawal"):
            return
        listener = steps.Listener(peer, item.id, item.case_id, report_hash)
        await self.teller.tell(tx, [Telling(listener, WithdrawalBody(withdraws=report_hash.hex(), reason=why))], now)

    async def _step(
        self, tx: Transaction, record: Record, body: AssessmentBody | ActionBody, now: datetime
    ) -> str | None:
        """We had qualified the item, or acted on it; what was said of a repeat was done at the item that counts."""
        said_of = UUID(record.envelope.item)
        item_id = await restored.original_of(tx, said_of)
        item = (await steps.lock_known(tx, [item_id], self.teller.node_id)).get(item_id)
        if item is None:
            return UNKNOWN
        if item_id != said_of and not item.is_here:
            # The word of the hotline that has it, which we had passed on.
            return None
        if isinstance(body, AssessmentBody):
            await self._assessed(tx, item, body, record.leaf_hash, now)
        else:
            await self._acted(tx, item, body, record.leaf_hash, now)
        return None

    async def _assessed(
        self, tx: Transaction, item: KnownItem, body: AssessmentBody, record_hash: bytes, now: datetime
    ) -> None:
        assessment = from_wire(body.qualification)
        if item.is_known_to_others:
            after = item.assessed(item.here, assessment)
            if after is None:
                return
            await steps.write_known(tx, [after], now)
        else:
            after = item.qualified(assessment, forward_unqualified=self.forward_unqualified)
            if after.own is item.own:
                return
            written = (item.id, to_column(after.own) or "{}", after.state, after.reason)
            await items.write_qualifications(tx, [written], now)
            if after.state is State.LOCATING:
                await items.requeue(tx, [item.id], now)
        row = steps.AssessmentRow(item.id, item.here, assessment, record_hash)
        await steps.append_assessments(tx, [row], now)
        await self._also(tx, item, body, now)

    async def _acted(
        self, tx: Transaction, item: KnownItem, body: ActionBody, record_hash: bytes, now: datetime
    ) -> None:
        if not item.is_known_to_others:
            # It had been kept here, or nobody could have acted on it; where it is hosted no record says.
            item = replace(item, state=State.KEPT, reason=RECOVERED)
            await items.leave_queue(tx, [item.id])
        done = Done(item.here, body.action, body.at, body.by, body.reason)
        after = item.acted(done)
        if after is None:
            return
        await steps.write_known(tx, [after], now)
        await steps.append_actions(tx, [steps.ActionRow(item.id, done, record_hash)], now)
        await self._also(tx, item, body, now)

    async def _also(self, tx: Transaction, item: KnownItem, body: Step, now: datetime) -> None:
        """Tell everybody who was to hear of it and whose copy of our stream, as far as it came, does not say it."""
        others = await steps.listeners_of_duplicates(tx, [item.id])
        holder, told = steps.holder(item), []
        to = [*steps.listeners(item), *others.get(item.id, ())] if holder is None else [holder]
        for one in to:
            records = await restored.said_of(tx, one.node, one.item_id, step_type(body))
            said = [parse_record(self.vault.open_record("outbox", *place)).body for place in records]
            if body not in said:
                told.append(Telling(one, body))
        await self.teller.tell(tx, told, now)

    async def _amended(
        self, tx: Transaction, record: Record, body: CorrectionBody | WithdrawalBody, now: datetime
    ) -> str | None:
        """We had corrected our report, or taken it back, or taken back from one hotline what went another way."""
        item_id = UUID(record.envelope.item)
        if isinstance(body, WithdrawalBody):
            await amendments.lock_identities(tx, [item_id])
        item = (await steps.lock_known(tx, [item_id], self.teller.node_id)).get(item_id)
        if item is None:
            return UNKNOWN
        if isinstance(body, WithdrawalBody) and body.reason is WithdrawalReason.REROUTED:
            await self._rerouted(tx, item, record, now)
            return None
        if item.here not in item.origins:
            # The reporter's own word, which we had handed on.
            return None
        writing = Amendments(tx, self.vault)
        if isinstance(body, CorrectionBody):
            item.corrected(item.here)
            await writing.correct(item_id, item.case_id, body.members, now)
            return None
        after = item.withdrawn(item.here, body.reason.value)
        if after is None:
            return None
        await steps.write_known(tx, [after], now)
        await writing.withdraw([(item_id, body.reason.value)], now)
        if after.state is State.WITHDRAWN and item.state is not State.DUPLICATE:
            await writing.succeed([item_id], now)
        return None

    async def _rerouted(self, tx: Transaction, item: KnownItem, record: Record, now: datetime) -> None:
        """The hotline had not receipted the item in time: it is ours again, and goes another way as it did then."""
        envelope = record.envelope
        if item.custodian != envelope.aud:
            return
        row = (await custody.lock(tx, [item.id]))[item.id]
        kind = "report" if item.came_from is None else "transfer"
        since = envelope.iat
        lost = Stale(item.id, 0, 0, envelope.aud, kind, item.report_hash or b"", b"", since, 0)
        if item.state is State.SENT and item.came_from is None:
            state = next_state(
                item.state,
                Event.RELAY_FAILED,
                qualified=is_illegal(row["qualification"]),
                forward_unqualified=self.forward_unqualified,
            )
            await custody.relay_failed(tx, lost, LATE, now)
            await custody.stand(tx, item.id, state, LATE, now)
        elif item.state in {State.LEAVING, State.TRANSFERRED}:
            chain = (await custody.chains(tx, [item.id]))[item.id]
            state = next_state(
                item.state, Event.RETURNED, qualified=is_illegal(row["qualification"]), forward_unqualified=False
            )
            await custody.relay_failed(tx, lost, LATE, now)
            await custody.given(tx, item.id, Chain(item.here, chain.trail[:-1], now), now)
            await custody.come_back(tx, item.id, state, LATE, item.here, now)

    def _item(self, record: Record, body: ReportBody) -> restored.SentItem:
        """Return an item as its report tells it; raises UrlRefused when its URL cannot be read any more."""
        envelope = record.envelope
        item_id, case_id = UUID(envelope.item), UUID(envelope.case)
        url, seal = parse_reported_url(body.url), self.vault.seal
        sealed = None if body.reference is None else seal("cases", "wire_reference_enc", case_id, body.reference)
        return restored.SentItem(
            id=item_id,
            case_id=case_id,
            kind=body.kind.value,
            page_id=None if body.page is None else UUID(body.page),
            url_enc=seal("items", "url_enc", item_id, url.original),
            normal_enc=None if url.normal == url.original else seal("items", "normal_enc", item_id, url.normal),
            url_digest=self.vault.url_digest(url.normal),
            hashes=[{"alg": one.alg.value, "value": one.value} for one in body.hashes],
            channel=body.channel.value,
            received_at=body.received_at,
            reported_at=body.reported_at,
            referrer_enc=None if body.referrer is None else seal("cases", "referrer_enc", case_id, body.referrer),
            wire_reference_enc=sealed,
            site_type=body.site_type,
            commerciality=body.commerciality,
            payment_methods=tuple(body.payment_methods),
            qualification=None if body.qualification is None else to_column(from_wire(body.qualification)),
            hosting=body.hosting,
            evidence_enc=seal("items", "evidence_enc", item_id, restored.evidence_text(body.hosting)),
            node=envelope.aud,
            reason=HOSTING_COUNTRY if body.hosting.country == body.hosting.assigned_country else MANDATED,
            report_hash=record.leaf_hash,
        )


def _members(body: ReportBody) -> Corrected:
    """Return what a report says of its case and item that a correction may change."""
    return Corrected(
        referrer=body.referrer,
        hashes=body.hashes or None,
        site_type=body.site_type,
        commerciality=body.commerciality,
        payment_methods=body.payment_methods or None,
        reference=body.reference,
    )
