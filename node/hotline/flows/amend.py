"""Corrects and takes back this hotline's own reports, and tells every hotline that holds them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from node.hotline.domain.lifecycle import RecordRefused, State
from node.hotline.domain.steps import KnownItem
from node.hotline.store import amendments, steps
from node.hotline.store.amendments import Amendments
from node.hotline.store.astray import items_with
from node.hotline.store.telling import Teller, Telling
from node.platform.database import Database, Transaction
from node.platform.ids import new_id
from protocol.codes import WithdrawalReason
from protocol.steps import Corrected, CorrectionBody, WithdrawalBody

_WITH_OTHERS: Final = frozenset({State.SENT, State.TRANSFERRED})


class UnknownItem(LookupError):  # noqa: N818 - names the fact
    """No item of this id."""


@dataclass(frozen=True, slots=True)
class Amender:
    """What this flow works with."""

    db: Database
    teller: Teller
    clock_now: Callable[[], datetime]

    async def withdraw(self, item_id: UUID, reason: WithdrawalReason) -> State:
        """Take the report of one item back and return the item's state; doing it again changes nothing.

        The state and the records that tell it are committed together. Raises UnknownItem, or RecordRefused for
        another hotline's report.
        """
        async with self.db.transaction("withdraw.store") as tx:
            return await self._take_back(tx, await self._locked(tx, item_id), reason, self.clock_now())

    async def astray(self, node: str, among: Collection[UUID] | None) -> Sequence[UUID]:
        """Return which items that we reported are with a hotline that nothing is exchanged with, of all or `among`."""
        async with self.db.transaction("withdraw.read") as tx:
            return await items_with(tx, self.teller.node_id, node, among)

    async def reclaim(self, item_id: UUID, node: str) -> UUID | None:
        """Take the report of an item back from a hotline that nothing is exchanged with, and report its URL anew.

        Returns the item that counts for the URL from now on: a new one of the same case, or that of another report of
        it; None, and nothing changes, when the hotline does not have the item (any more). The old item's end, the
        withdrawal and the new item are committed together, so that one of the two counts at any time.
        """
        now = self.clock_now()
        async with self.db.transaction("withdraw.store") as tx:
            item = await self._locked(tx, item_id)
            if item.state not in _WITH_OTHERS or item.custodian != node or item.is_withdrawn:
                return None
            await self._take_back(tx, item, WithdrawalReason.OTHER, now)
            return await Amendments(tx, self.teller.vault).report_anew(item, new_id(now), now)

    async def _locked(self, tx: Transaction, item_id: UUID) -> KnownItem:
        await amendments.lock_identities(tx, [item_id])
        item = (await steps.lock_known(tx, [item_id], self.teller.node_id)).get(item_id)
        if item is None:
            raise UnknownItem(str(item_id))
        return item

    async def _take_back(self, tx: Transaction, item: KnownItem, reason: WithdrawalReason, now: datetime) -> State:
        after = item.withdrawn(self.teller.node_id, reason.value)
        if after is None:
            return item.state
        writing = Amendments(tx, self.teller.vault)
        await steps.write_known(tx, [after], now)
        await writing.withdraw([(item.id, reason.value)], now)
        told = [
            Telling(one, WithdrawalBody(withdraws=one.report_hash.hex(), reason=reason)) for one in steps.holders(item)
        ]
        await self.teller.tell(tx, told, now)
        if after.state is State.WITHDRAWN and item.state is not State.DUPLICATE:
            await writing.succeed([item.id], now)
        return after.state

    async def correct(self, item_id: UUID, members: Corrected) -> State:
        """Write what the report of an item should have said, and return the item's state.

        What holds for the whole report is told of each of its items, to whoever has it or had it. Whoever gets it later
        is told when this node hears of that (`node.hotline.flows.apply.statuses`). What is said already is not told
        again. Raises UnknownItem, or RecordRefused for another hotline's report or one that was taken back.
        """
        now = self.clock_now()
        here = self.teller.node_id
        async with self.db.transaction("correct.store") as tx:
            known = await steps.lock_known(tx, await amendments.items_of_case(tx, item_id), here)
            item = known.get(item_id)
            if item is None:
                raise UnknownItem(str(item_id))
            item.corrected(here)
            new = await Amendments(tx, self.teller.vault).correct(item_id, item.case_id, members, now)
            told = []
            for one in known.values():
                said = new if one.id == item_id else replace(new, hashes=None)
                if said != Corrected() and _may_correct(one, here):
                    told += [
                        Telling(to, CorrectionBody(corrects=to.report_hash.hex(), members=said))
                        for to in steps.holders(one)
                    ]
            await self.teller.tell(tx, told, now)
        return item.state


def _may_correct(item: KnownItem, here: str) -> bool:
    """Tell whether a correction of this item would be taken."""
    try:
        item.corrected(here)
    except RecordRefused:
        return False
    return True
