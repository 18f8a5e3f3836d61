"""Applies the records of peers in stream order and says in `outcome` records what became of each.

Outcomes come first, since they speak of what we said before; what is about different items may change places. A bad
record is refused on its own and blocks nothing; an outcome is never answered with an outcome.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from node.hotline.domain.acceptance import Judged, Refused, carries_proof, judge, ranges
from node.hotline.domain.runs import runs_of
from node.hotline.domain.turns import share_of
from node.hotline.flows.apply.outcomes import OutcomeApplier
from node.hotline.flows.apply.reports import ReportApplier
from node.hotline.flows.apply.statuses import StatusApplier, is_read
from node.hotline.flows.apply.steps import StepApplier, is_applied
from node.hotline.flows.apply.transfers import TransferApplier
from node.hotline.flows.apply.unsaid import unsaid
from node.hotline.store import inbound, outbound, waiting
from node.hotline.store.proofs import NoReceipt
from node.hotline.store.telling import Teller, Telling
from node.hotline.store.vault import Vault
from node.platform.database import DATABASE_ERRORS, REFUSED_VALUES, Database, Transaction
from node.platform.ids import new_ids
from node.platform.telemetry import Logger
from protocol.bodies import OutcomeBody, Refusal, ReportBody, split_outcome
from protocol.checkpoint import StreamId
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.merkle import leaf_hash
from protocol.record import Handling, encode_outcome
from protocol.steps import TransferBody
from protocol.versions import speaks

#: An outcome is about the exchange, not about content: it is kept as long as the stream it speaks of is disputed.
_OUTCOME_RETAIN = timedelta(days=365)

#: A record alone that cannot be applied is tried again once, and then refused; that is the last try.
_TRIES_MAX = 2

#: Hears which items were given to us, in the transaction that takes them: what we had done with them may be undone.
Came = Callable[[Transaction, Collection[UUID], datetime], Awaitable[None]]

#: Records of a stream that were judged while no lock was held, by the stream's number and the index.
_Verdicts = Mapping[tuple[int, int], Judged | Refused]


@dataclass(slots=True)
class _Appliers:
    """What applies the records of each kind, for one turn."""

    outcomes: OutcomeApplier
    reports: ReportApplier
    transfers: TransferApplier
    statuses: StatusApplier
    steps: StepApplier

    @classmethod
    def of(cls, node_id: str, vault: Vault, *, incomplete: bool) -> "_Appliers":
        """Make them, with nothing applied yet; `incomplete` is whether a recovery left somebody out."""
        return cls(
            OutcomeApplier(node_id),
            ReportApplier(node_id, vault),
            TransferApplier(node_id, vault),
            StatusApplier(node_id, vault, incomplete),
            StepApplier(node_id, vault),
        )

    async def apply(
        self, tx: Transaction, head: inbound.ApplyHead, judged: Sequence[Judged], now: datetime
    ) -> list[Refused]:
        """Apply records in stream order; returns what is refused. What is only kept is passed over."""
        refused = await self.outcomes.apply(tx, head, [one for one in judged if _is(one, OutcomeBody)], now)
        known = [(one, applier) for one in judged if (applier := self._for(one)) is not None]
        for run in runs_of(known, lambda pair: id(pair[1]), lambda pair: pair[0].record.envelope.item):
            applier = run[0][1]
            refused += await applier.apply(tx, head, [one for one, _ in run], now)
        return refused

    def told(self) -> list[Telling]:
        """Return what others are to hear of it: first who has an item, for who does not know that believes no more."""
        appliers = self.reports, self.outcomes, self.transfers, self.statuses, self.steps
        return [*self.transfers.delivered, *(one for applier in appliers for one in applier.told)]

    def _for(self, one: Judged) -> "ReportApplier | TransferApplier | StatusApplier | StepApplier | None":
        if _is(one, ReportBody):
            return self.reports
        if _is(one, TransferBody):
            return self.transfers
        if is_read(one):
            return self.statuses
        return self.steps if is_applied(one.record.body) else None


def _is(one: Judged, body: type) -> bool:
    return isinstance(one.record.body, body)


@dataclass(frozen=True, slots=True)
class _Turn:
    """Records of one peer that are judged together; `again` is whether they waited (store.waiting)."""

    head: inbound.ApplyHead
    rows: Sequence[tuple[int, bytes, bytes]]
    again: bool = False


class _Unfit(Exception):  # noqa: N818 - not an error of ours; ends the transaction
    """Not all that these records of a stream lead to could be written."""

    def __init__(self, turn: _Turn, cause: Exception) -> None:
        """Say which, and why."""
        super().__init__("what a turn leads to cannot be written")
        self.head = turn.head
        self.indices = [idx for idx, _, _ in turn.rows]
        self.cause = cause


class _ToVerify(Exception):  # noqa: N818 - not an error of ours; ends the transaction
    """These records of a stream, by index, hold others whose signatures are not verified yet."""

    def __init__(self, head: inbound.ApplyHead, records: Mapping[int, bytes]) -> None:
        """Name them."""
        super().__init__("signatures are verified while no lock is held")
        self.head = head
        self.records = records


@dataclass(frozen=True, slots=True)
class Applier:
    """What this flow works with; one for each process."""

    node_id: str
    db: Database
    vault: Vault
    teller: Teller
    came: Came
    pool: Executor
    clock_now: Callable[[], datetime]
    records_max: int
    log: Logger
    #: By stream, up to which index its records are taken one by one, since one among them is unfit.
    careful: dict[int, int] = field(default_factory=dict)
    #: Streams that met an unforeseen error, and rest while others have records to be applied.
    resting: set[int] = field(default_factory=set)

    async def run_once(self, directory: Directory, until: inbound.Until | None = None) -> int:
        """Apply up to `records_max` records of one peer, of that of `until` no more than it says; returns how many.

        Items, refusals, the outcome record and the cursor are committed together: if we crash before, the records are
        applied again from the cursor; if we crash after, they are not. The signatures of records within records are
        verified in the pool, before the locks are taken under which the verdicts are used.
        """

        async def take(tx: Transaction) -> _Turn | None:
            head = await (inbound.lock_unapplied(tx, self.resting) if until is None else inbound.lock_until(tx, until))
            if head is None:
                self.resting.clear()
                return None
            most = self.records_max if head.end is None else min(self.records_max, head.end - head.applied)
            return self._turn(head, await inbound.read(tx, head.stream, head.applied, most))

        return await self._run(take, directory)

    async def judge_waiting(self, directory: Directory) -> int:
        """Judge up to `records_max` steps of one peer that waited for a recovery to be complete; returns how many.

        0 also while they wait: somebody is left out that has not shown what it holds.
        """

        async def take(tx: Transaction) -> _Turn | None:
            head = await waiting.lock_due(tx, self.clock_now())
            if head is None:
                return None
            rows = await waiting.read(tx, head.stream, self.records_max)
            return self._turn(head, [row for row in rows if head.end is None or row[0] < head.end], again=True)

        return await self._run(take, directory)

    def _turn(self, head: inbound.ApplyHead, rows: Sequence[tuple[int, bytes, bytes]], *, again: bool = False) -> _Turn:
        """Return what is judged together: one record where one of the next is unfit."""
        careful = bool(rows) and rows[0][0] < self.careful.get(head.stream, 0)
        return _Turn(head, rows[:1] if careful else rows, again)

    async def try_waiting(self, directory: Directory) -> None:
        """Judge everything that waits; what is still of no item that is known goes on waiting."""
        async with self.db.transaction("recover.read") as tx:
            streams = await waiting.streams(tx)
        for stream in streams:
            first: int | None = 0
            while first is not None:
                first = await self._try(stream, first, directory)

    async def _try(self, stream: int, first: int, directory: Directory) -> int | None:
        """Judge what waits of a stream from `first` on, up to `records_max`; returns where to go on, or None."""
        after = None

        async def take(tx: Transaction) -> _Turn | None:
            nonlocal after
            head = await waiting.lock_stream(tx, stream, first)
            if head is None:
                return None
            turn = self._turn(head, await waiting.read(tx, stream, self.records_max, first=first), again=True)
            after = turn.rows[-1][0] + 1
            return turn

        return after if await self._run(take, directory) else None

    async def _run(self, take: Callable[[Transaction], Awaitable[_Turn | None]], directory: Directory) -> int:
        verified: dict[tuple[int, int], Judged | Refused] = {}
        unfit: Counter[tuple[int, int]] = Counter()
        while True:
            try:
                return await self._apply(take, directory, verified)
            except _ToVerify as found:
                verified |= await self._verify(found, directory)
            except _Unfit as found:
                verified |= self._singled_out(found, unfit)
            except NoReceipt:
                # A newer directory came into use at this moment; what is to be proven waits for another receipt.
                return 0

    def _singled_out(self, found: _Unfit, unfit: Counter[tuple[int, int]]) -> _Verdicts:
        """Return the refusal of the one record that is unfit, once it is alone and was tried again; `unfit` remembers.

        Whatever a peer writes, and whatever rule of ours it gets round, it keeps nobody's records waiting but its own.
        Raises what was found where not even the refusal can be written.
        """
        head, first = found.head, found.indices[0]
        if len(found.indices) > 1:
            self.careful[head.stream] = found.indices[-1] + 1
            return {}
        place = head.stream, first
        unfit[place] += 1
        if unfit[place] == 1:
            # Two processes may have met in the store.
            return {}
        if unfit[place] > _TRIES_MAX:
            self.resting.add(head.stream)
            raise found.cause
        kind = type(found.cause).__name__
        self.log.error("a record cannot be applied", action="apply.unfit", peer=head.peer, index=first, kind=kind)
        return {place: Refused(first, None, "schema-invalid", None, "this record cannot be applied here")}

    async def _verify(self, found: _ToVerify, directory: Directory) -> _Verdicts:
        """Judge records in one thread of the pool: the others are for the doors."""
        now, head = self.clock_now(), found.head

        def work() -> _Verdicts:
            return {
                (head.stream, idx): self._judge(idx, raw, head, directory, now) for idx, raw in found.records.items()
            }

        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    def _judge(
        self, idx: int, raw: bytes, head: inbound.ApplyHead, directory: Directory, now: datetime
    ) -> Judged | Refused:
        # What we had answered before a restore, and not refused, we had taken: by the directory of then.
        then = None if idx < head.told else directory
        return judge(idx, raw, iss=head.peer, aud=self.node_id, directory=then, now=now)

    async def _apply(
        self, take: Callable[[Transaction], Awaitable[_Turn | None]], directory: Directory, verified: _Verdicts
    ) -> int:
        """Apply one turn, or raise _ToVerify for what has to be verified before."""
        async with self.db.transaction("apply.store") as tx:
            turn = await take(tx)
            if turn is None:
                return 0
            # No record is judged by a time before it came.
            now = self.clock_now()
            try:
                await self._apply_turn(tx, turn, directory, verified, now)
            except (ProtocolError, *REFUSED_VALUES) as error:
                raise _Unfit(turn, error) from None
            except (_ToVerify, NoReceipt, *DATABASE_ERRORS):
                raise
            except BaseException:
                self.resting.add(turn.head.stream)
                raise
        return len(turn.rows)

    async def _apply_turn(
        self, tx: Transaction, turn: _Turn, directory: Directory, verified: _Verdicts, now: datetime
    ) -> None:
        head = turn.head
        # Before a restore we had answered some of these: they are applied as it was said, and not answered again.
        answered = await inbound.refusals_said(tx, head.stream, head.applied, head.told)
        verdicts = self._verdicts(turn, answered, directory, verified, now)
        judged = [verdict for verdict in verdicts if isinstance(verdict, Judged)]
        refused = [verdict for verdict in verdicts if isinstance(verdict, Refused)]
        steps = {one.idx: _item(one) for one in judged if _is_step(one)}
        standing = waiting.Standing()
        if steps:
            standing = await waiting.standing(tx, head.peer, () if turn.again else steps.values(), now)
        waits = {idx: item for idx, item in steps.items() if item in standing.items}
        appliers = _Appliers.of(self.node_id, self.vault, incomplete=standing.left_out)
        refused += await appliers.apply(tx, head, [one for one in judged if one.idx not in waits], now)
        if standing.left_out:
            waits |= {one.idx: steps[one.idx] for one in refused if one.unknown}
        judged = [one for one in judged if one.idx not in waits]
        refused = [one for one in refused if one.idx not in waits]
        if head.undone and (given := [_item(one) for one in judged if _is_given(one)]):
            await self.came(tx, given, now)
        await self._note(tx, turn, [one for one in refused if one.idx not in answered], waits, directory, now)
        await self._tell_all(tx, head, appliers, judged, refused, now)

    def _verdicts(
        self,
        turn: _Turn,
        answered: Mapping[int, tuple[str, str | None, str]],
        directory: Directory,
        verified: _Verdicts,
        now: datetime,
    ) -> list[Judged | Refused]:
        """Judge each record of a turn; raises _ToVerify for what has to be verified before."""
        head = turn.head
        known = answered.keys() | {idx for stream, idx in verified if stream == head.stream}
        raws = {
            idx: self.vault.open_record("inbox", head.stream, idx, sealed)
            for idx, _, sealed in turn.rows
            if idx not in known
        }
        if unverified := {idx: raw for idx, raw in raws.items() if carries_proof(raw)}:
            raise _ToVerify(head, unverified)
        return [
            Refused(idx, None, *answered[idx], told=False)
            if idx in answered
            else verified.get((head.stream, idx)) or self._judge(idx, raws[idx], head, directory, now)
            for idx, _, _ in turn.rows
        ]

    async def _note(
        self,
        tx: Transaction,
        turn: _Turn,
        refused: Sequence[Refused],
        waits: Mapping[int, UUID],
        directory: Directory,
        now: datetime,
    ) -> None:
        """Write how far the turn has come, what was refused for good, and what waits."""
        head = turn.head
        await inbound.note_refusals(
            tx, head.stream, [(one.idx, one.code, one.field, one.detail) for one in refused], now
        )
        if turn.again:
            await waiting.over(tx, head.stream, [idx for idx, _, _ in turn.rows if idx not in waits])
            return
        if waits:
            await waiting.put(tx, head.stream, sorted(waits.items()))
        sender = directory.nodes.get(head.peer)
        share = 1 if sender is None else share_of(sender.limits)
        await inbound.finish_apply(tx, head, head.applied + len(turn.rows), share=share)

    async def _tell_all(
        self,
        tx: Transaction,
        head: inbound.ApplyHead,
        appliers: _Appliers,
        judged: Sequence[Judged],
        refused: Sequence[Refused],
        now: datetime,
    ) -> None:
        """Say what became of the records, and to others what they are to hear and were not told before a restore."""
        told = appliers.told()
        if head.applied < head.told:
            told = await unsaid(tx, self.vault, told)
        await self._tell(tx, head, judged, refused, told, now)

    async def _tell(
        self,
        tx: Transaction,
        head: inbound.ApplyHead,
        judged: Sequence[Judged],
        refused: Sequence[Refused],
        others: Sequence[Telling],
        now: datetime,
    ) -> None:
        """Append the outcome to our stream back to the peer, and what others are to hear, to theirs."""
        bad = {one.idx for one in refused}
        news = [one for one in judged if one.idx >= head.told]
        good = [one for one in news if one.idx not in bad and not isinstance(one.record.body, OutcomeBody)]
        accepted = [one.idx for one in good if _is_taken(one)]
        kept = [one.idx for one in good if not _is_taken(one)]
        told = sorted((one for one in refused if one.told and one.idx >= head.told), key=lambda one: one.idx)
        says = bool(accepted or kept or told)
        to = {one.to.node for one in others} | ({head.peer} if says else set())
        if not to:
            return
        # All at once, in the order of their names: two transactions that tell each other's peers could wait for ever.
        streams = await outbound.lock_streams(tx, sorted(to))
        if says:
            await self._say_outcome(tx, head, streams[head.peer], accepted, kept, told, now)
        await self.teller.tell(tx, others, now)
        await tx.notify("deliver")

    async def _say_outcome(
        self,
        tx: Transaction,
        head: inbound.ApplyHead,
        back: outbound.StreamHead,
        accepted: list[int],
        kept: list[int],
        told: Sequence[Refused],
        now: datetime,
    ) -> None:
        body = OutcomeBody(
            stream=StreamId(head.peer, self.node_id, head.epoch).origin(),
            accepted=ranges(accepted),
            kept=ranges(kept),
            refused=tuple(
                Refusal(index=one.idx, id=one.record_id, code=one.code, detail=one.detail, field=one.field)
                for one in told
            ),
        )
        parts = list(split_outcome(body))
        rows = []
        for at, (record_id, part) in enumerate(zip(new_ids(len(parts), now), parts, strict=True)):
            record = encode_outcome(
                part,
                record_id=str(record_id),
                iss=self.node_id,
                aud=head.peer,
                iat=now,
                handling=Handling("takedown", now + _OUTCOME_RETAIN),
            )
            idx = back.next_index + at
            sealed = self.vault.seal_record("outbox", back.id, idx, record)
            rows.append(outbound.OutboxRow(idx, record_id, None, "outcome", leaf_hash(record), sealed))
        await outbound.append(tx, back, rows, now)


def _item(one: Judged) -> UUID:
    return UUID(one.record.envelope.item)


def _is_given(one: Judged) -> bool:
    """Tell whether a record brings an item."""
    return _is(one, ReportBody) or _is(one, TransferBody)


def _is_step(one: Judged) -> bool:
    """Tell whether a record is about an item that has to be here."""
    return is_read(one) or is_applied(one.record.body)


def _is_taken(one: Judged) -> bool:
    """Tell whether a record that is not refused is of a kind that is understood here, or else is only kept."""
    body, kind = one.record.body, one.record.envelope.type
    if isinstance(body, ReportBody | TransferBody) or kind in speaks().types:
        return True
    return is_read(one) or is_applied(body)
