"""Sets an analyst's qualification of one item, under the rules of the lifecycle, and releases what may leave."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.assessment import Assessment, reassess
from node.hotline.domain.lifecycle import Event, State, next_state, standing
from node.hotline.store import items
from node.hotline.store.qualification import from_column, to_column
from node.platform.database import Database

#: A state that a qualification leads to has its own reason, or starts afresh with none.
_REASONS = {State.CLOSED: "not-illegal", State.LOCATING: None}


class UnknownItem(LookupError):  # noqa: N818 - names the fact
    """No item of this id."""


@dataclass(frozen=True, slots=True)
class Assessor:
    """What this flow works with."""

    db: Database
    clock_now: Callable[[], datetime]
    forward_unqualified: bool

    async def assess(self, item_id: UUID, assessment: Assessment) -> State:
        """Store the qualification and return the item's new state.

        Raises UnknownItem, AssessmentRefused (a baseline qualification is final) or TransitionRefused (the state does
        not allow it: what was sent is the receiving hotline's to assess).
        """
        now = self.clock_now()
        async with self.db.transaction("assess.store") as tx:
            current = (await items.locked_states(tx, [item_id])).get(item_id)
            if current is None:
                raise UnknownItem(str(item_id))
            settled = reassess(from_column(current["qualification"]), assessment)
            event = Event.QUALIFIED_ILLEGAL if settled.illegal else Event.QUALIFIED_NOT_ILLEGAL
            before = standing(State(current["state"]), received=current["received"])
            state = next_state(before, event, qualified=settled.illegal, forward_unqualified=self.forward_unqualified)
            reason = _REASONS.get(state, current["reason"])
            await items.write_qualifications(tx, [(item_id, to_column(settled) or "{}", state, reason)], now)
            if state is State.READY:
                await tx.notify("dispatch")
            if state is State.LOCATING:
                await items.requeue(tx, [item_id], now)
        return state
