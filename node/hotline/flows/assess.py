"""Sets an analyst's qualification of one item, under the rules of the lifecycle, and releases what may leave.

What others know of the item they are told in the same transaction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.assessment import Assessment, to_wire
from node.hotline.domain.lifecycle import State
from node.hotline.domain.steps import KnownItem
from node.hotline.store import items, steps
from node.hotline.store.qualification import to_column
from node.hotline.store.telling import Teller, Telling
from node.platform.database import Database, Transaction
from protocol.steps import AssessmentBody


class UnknownItem(LookupError):  # noqa: N818 - names the fact
    """No item of this id."""


@dataclass(frozen=True, slots=True)
class Assessor:
    """What this flow works with."""

    db: Database
    teller: Teller
    clock_now: Callable[[], datetime]
    forward_unqualified: bool

    async def assess(self, item_id: UUID, assessment: Assessment) -> State:
        """Store the qualification and return the item's new state.

        Raises UnknownItem, AssessmentRefused (a baseline qualification is final), TransitionRefused (the state does
        not allow it) or RecordRefused (what stands is another hotline's to change, or final).
        """
        now = self.clock_now()
        async with self.db.transaction("assess.store") as tx:
            item = (await steps.lock_known(tx, [item_id], self.teller.node_id)).get(item_id)
            if item is None:
                raise UnknownItem(str(item_id))
            if item.is_known_to_others:
                return await self._as_record(tx, item, assessment, now)
            after = item.qualified(assessment, forward_unqualified=self.forward_unqualified)
            settled, state = after.own, after.state
            await items.write_qualifications(tx, [(item_id, to_column(settled) or "{}", state, after.reason)], now)
            if settled is not None and settled is not item.own:
                # Whoever else reported the URL holds us for its custodian.
                others = (await steps.listeners_of_duplicates(tx, [item_id])).get(item_id, ())
                body = AssessmentBody(qualification=to_wire(settled))
                await self.teller.tell(tx, [Telling(one, body) for one in others], now)
                await self._note(tx, item, settled, None, now)
            if state is State.READY:
                await tx.notify("dispatch")
            if state is State.LOCATING:
                await items.requeue(tx, [item_id], now)
        return state

    async def _as_record(self, tx: Transaction, item: KnownItem, assessment: Assessment, now: datetime) -> State:
        """Qualify what others know of: those who sent it hear of it, or the hotline that we sent it to."""
        after = item.assessed(item.here, assessment)
        if after is None:
            return item.state
        await steps.write_known(tx, [after], now)
        others = await steps.listeners_of_duplicates(tx, [item.id])
        to = [*steps.listeners(item), *others.get(item.id, ())]
        holder = steps.holder(item)
        if holder is not None:
            to = [holder]
        body = AssessmentBody(qualification=to_wire(assessment))
        hashes = await self.teller.tell(tx, [Telling(one, body) for one in to], now)
        await self._note(tx, item, assessment, hashes[0] if hashes else None, now)
        return after.state

    async def _note(
        self, tx: Transaction, item: KnownItem, assessment: Assessment, record_hash: bytes | None, now: datetime
    ) -> None:
        row = steps.AssessmentRow(item.id, item.here, assessment, record_hash)
        await steps.append_assessments(tx, [row], now)
