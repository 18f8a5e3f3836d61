"""Records what this hotline did about an item it has custody of, and tells those who sent it; a final action closes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.lifecycle import State
from node.hotline.domain.steps import Done, KnownItem
from node.hotline.store import steps
from node.hotline.store.telling import Teller, Telling
from node.platform.database import Database
from protocol.codes import FINAL_ACTIONS, StatusKind
from protocol.steps import StatusBody, Step


class UnknownItem(LookupError):  # noqa: N818 - names the fact
    """No item of this id."""


@dataclass(frozen=True, slots=True)
class Actor:
    """What this flow works with."""

    db: Database
    teller: Teller
    clock_now: Callable[[], datetime]

    async def act(self, item_id: UUID, asked: ActionAsked) -> State:
        """Record the action and return the item's state; the same action again changes nothing.

        The action, the state and the records that tell it are committed together. Raises UnknownItem, or
        RecordRefused where the rules are against it (docs/protocol.md, section 3).
        """
        now = self.clock_now()
        here = self.teller.node_id
        async with self.db.transaction("act.store") as tx:
            item = (await steps.lock_known(tx, [item_id], here)).get(item_id)
            if item is None:
                raise UnknownItem(str(item_id))
            done = _done(item, asked, here, now)
            after = item.acted(done)
            if after is None:
                return item.state
            await steps.write_known(tx, [after], now)
            others = await steps.listeners_of_duplicates(tx, [item_id])
            told = [
                Telling(listener, body)
                for listener in (*steps.listeners(item), *others.get(item_id, ()))
                for body in _said(done, listener, now)
            ]
            hashes = await self.teller.tell(tx, told, now)
            row = steps.ActionRow(item_id, done, hashes[0] if hashes else None)
            await steps.append_actions(tx, [row], now)
        return after.state


def _done(item: KnownItem, asked: ActionAsked, here: str, now: datetime) -> Done:
    """Return the action; one that is recorded already and differs at most in a time that was not said is that one."""
    at = now if asked.at is None else asked.at
    # As a record writes it: a repeat is compared with what was said.
    done = Done(here, asked.action, _whole_ms(at), asked.by, asked.reason)
    for earlier in item.actions:
        if asked.at is None and Done(here, asked.action, earlier.at, asked.by, asked.reason) == earlier:
            return earlier
    return done


def _whole_ms(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _said(done: Done, listener: steps.Listener, now: datetime) -> tuple[Step, ...]:
    """A final action is told twice: what was done, and that the item is closed."""
    if done.action not in FINAL_ACTIONS:
        return (done.body(),)
    final = StatusBody(kind=StatusKind.FINAL, at=now, about=listener.report_hash.hex(), code=done.action.value)
    return done.body(), final
