"""Hands disputes and contradictions in at the network's desk, and follows its rulings. Never decides whose an item is.

Never holds a transaction while it calls; handing in again changes nothing, so a crash costs one more call.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from node.hotline.domain.custody import HandOn
from node.hotline.domain.delivery import DISPUTE_UNKNOWN, Problem, refused_for_good
from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.flows.transfer.relay import Relay
from node.hotline.store import custody, desk, steps
from node.hotline.store.desk import Case, Dispute
from node.hotline.store.proofs import NoReceipt, Proofs
from node.hotline.store.qualification import is_illegal
from node.hotline.store.telling import Teller, Telling
from node.hotline.store.vault import Vault
from node.platform.database import Database, Row, Transaction
from node.platform.telemetry import Logger
from protocol.bodies import Hosting
from protocol.codes import OVER, StatusKind, TransferReason
from protocol.custody import evidence_hash
from protocol.desk import Equivocation, Ruling, encode, open_ruling
from protocol.directory import DeskEntry, Directory
from protocol.errors import ProtocolError
from protocol.steps import Custody, StatusBody

#: The reason of an item that the desk ruled on.
RULED = "ruling"
#: Of one whose ruling cannot be followed: the other hotline is not in the directory, or the record does not fit.
NOT_FOLLOWED = "ruling-not-followed"
_AT_ONCE_MAX = 100
_FIRST = UUID(int=0)
#: A desk that was restored does not say that it lost a contradiction: it is told again, and of one it has nothing new.
_AGAIN = timedelta(days=1)


@dataclass(slots=True)
class _Turn:
    """The last ids that had their turn."""

    new: UUID = _FIRST
    waiting: UUID = _FIRST
    contradiction: UUID = _FIRST


HandIn = Callable[[DeskEntry, bytes], Awaitable[Problem | None]]


@dataclass(frozen=True, slots=True)
class Disputer:
    """What this flow works with; `dispute`, `equivocation` and `ruling` are calls to the desk."""

    db: Database
    vault: Vault
    relay: Relay
    teller: Teller
    dispute: HandIn
    equivocation: HandIn
    ruling: Callable[..., Awaitable[bytes | Problem | None]]
    clock_now: Callable[[], datetime]
    #: Whether the desk may be called: a directory may expire while one call is under way.
    may_call: Callable[[], bool]
    log: Logger
    _turn: _Turn = field(default_factory=_Turn)

    async def run_once(self, directory: Directory) -> int:
        """Hand in what the desk has not, and follow what it ruled; returns how many things were done."""
        at = directory.desk
        if at is None:
            return 0
        turn, to = self._turn, desk_name(at)
        async with self.db.transaction("dispute.due") as tx:
            new = await desk.unsettled(tx, turn.new, _AT_ONCE_MAX, to, handed_in=False)
            waiting = await desk.unsettled(tx, turn.waiting, _AT_ONCE_MAX, to, handed_in=True)
            before = self.clock_now() - _AGAIN
            contradictions = await desk.open_equivocations(tx, turn.contradiction, _AT_ONCE_MAX, to, before)
        turn.new = new[-1].id if new else _FIRST
        turn.waiting = waiting[-1].id if waiting else _FIRST
        turn.contradiction = contradictions[-1]["id"] if contradictions else _FIRST
        done = 0
        for row in contradictions:
            done += self.may_call() and await self._contradiction(at, row, directory)
        for one in (*new, *waiting):
            done += self.may_call() and await self._one(at, one, directory)
        return done

    async def _contradiction(self, at: DeskEntry, row: Row, directory: Directory) -> bool:
        said = Equivocation(
            held=row["held"].decode(),
            offered=row["offered"].decode(),
            ending=None if row["ending"] is None else row["ending"].decode(),
            seen_at=row["seen_at"],
        )
        problem = await self.equivocation(at, encode(said, directory))
        return await self._noted(at, Case.CONTRADICTION, row["id"], problem)

    async def _hand_in(self, at: DeskEntry, one: Dispute) -> bool:
        return await self._noted(at, Case.DISPUTE, one.id, await self.dispute(at, one.statement))

    async def _noted(self, at: DeskEntry, case: Case, case_id: UUID, problem: Problem | None) -> bool:
        """Note what became of a case that was handed in, and tell whether the desk has it.

        A person is told once of what no retry mends; it is tried again all the same, for the desk may be mended.
        """
        if problem is None:
            async with self.db.transaction("dispute.handed") as tx:
                await desk.handed_in(tx, case, case_id, desk_name(at), self.clock_now())
            return True
        if refused_for_good(problem):
            async with self.db.transaction("dispute.refused") as tx:
                if await desk.refused(tx, case, case_id, problem.code):
                    self.log.error(
                        "the desk refuses what was handed in",
                        action="desk.refused",
                        alarm=True,
                        case=str(case_id),
                        code=problem.code,
                    )
        return False

    async def _one(self, at: DeskEntry, one: Dispute, directory: Directory) -> bool:
        has_it = one.handed_in or await self._hand_in(at, one)
        if not has_it or not self.may_call():
            return False
        answer = await self.ruling(at, one.id)
        if isinstance(answer, Problem) and answer.code == DISPUTE_UNKNOWN and self.may_call():
            # It is another desk than the one that took it, or one that was restored.
            await self._hand_in(at, one)
        if not isinstance(answer, bytes):
            return False
        try:
            ruling = open_ruling(answer, directory)
        except ProtocolError:
            # Not provably the desk's: nothing is done on it, and it is asked for again.
            return False
        if (ruling.dispute, ruling.item) != (str(one.id), str(one.item_id)):
            return False
        try:
            await self._follow(one, ruling, answer, directory)
        except NoReceipt:
            return False
        return True

    async def _follow(self, one: Dispute, ruling: Ruling, note: bytes, directory: Directory) -> None:
        """Do as the desk says: the ruling, the item's state and its transfer are committed together."""
        now = self.clock_now()
        async with self.db.transaction("dispute.follow") as tx:
            row = (await custody.lock(tx, [one.item_id])).get(one.item_id)
            if not await desk.followed(tx, one.id, note, now) or row is None:
                return
            await self._tell(tx, one.item_id, now)
            if row["state"] != State.DISPUTED:
                return
            if ruling.custodian == self.relay.node_id:
                await self._keep(tx, row, ruling, RULED, now)
            elif ruling.custodian not in directory.nodes:
                await self._keep(tx, row, ruling, NOT_FOLLOWED, now)
            else:
                await self._hand_on(tx, row, ruling, note, directory, now)

    async def _tell(self, tx: Transaction, item_id: UUID, now: datetime) -> None:
        """Who heard that the item is at the desk hears that it is there no longer, whatever became of it meanwhile."""
        item = (await steps.lock_known(tx, [item_id], self.relay.node_id))[item_id]
        told = [
            Telling(to, StatusBody(kind=StatusKind.DISPUTED, at=now, about=to.report_hash.hex(), code=OVER))
            for to in steps.listeners(item)
        ]
        await self.teller.tell(tx, told, now)

    async def _keep(self, tx: Transaction, row: Row, ruling: Ruling, reason: str, now: datetime) -> None:
        qualified = is_illegal(row["qualification"])
        state = next_state(State.DISPUTED, Event.RULED_OURS, qualified=qualified, forward_unqualified=False)
        await custody.settle(tx, row["id"], state, reason, ruling.country, now)

    async def _hand_on(
        self, tx: Transaction, row: Row, ruling: Ruling, note: bytes, directory: Directory, now: datetime
    ) -> None:
        held = await self.relay.held(Proofs(tx, self.vault), row)
        countries = directory.nodes[ruling.custodian].countries
        assigned = ruling.country if ruling.country in countries or not countries else countries[0]
        evidence = self.relay.evidence(row)
        hosting = Hosting(
            country=ruling.country,
            assigned_country=assigned,
            confidence=row["confidence"],
            reasons=(RULED,),
            evidence=evidence,
        )
        station = Custody(node=self.relay.node_id, country=ruling.country, evidence=evidence_hash(evidence), at=now)
        hand_on = HandOn(ruling.custodian, assigned, TransferReason.RULING, (*held.trail, station))
        try:
            record = self.relay.encode(held, hand_on, hosting, now, ruling=note.decode())
        except ProtocolError:
            await self._keep(tx, row, ruling, NOT_FOLLOWED, now)
            return
        await self.relay.write(tx, held, hand_on, hosting, record, row["verdict"], now)


def desk_name(at: DeskEntry) -> str:
    """Return what tells a desk from another one: its id and its keys."""
    keys = hashlib.sha256("\n".join(sorted(key.public.thumbprint() for key in at.keys)).encode()).hexdigest()
    return f"{at.id} {keys}"
