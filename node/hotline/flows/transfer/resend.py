"""Lets reports go again that their hotline refused as not its own, routed anew. Refused in any other way, they stay.

One of the two directories was too old: the report goes after the waits of a refused transfer, and not for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from node.hotline.domain.custody import REFUSED_TOO_OFTEN
from node.hotline.domain.lifecycle import Code, Event, State, next_state
from node.hotline.domain.routing import Send, competent
from node.hotline.flows.transfer.relay import Relay
from node.hotline.store import custody, items
from node.hotline.store.qualification import is_illegal
from node.platform.database import Database, Row, Transaction
from protocol.directory import Directory

_REASONS: Final = (Code.NOT_COMPETENT, REFUSED_TOO_OFTEN)


@dataclass(frozen=True, slots=True)
class Resender:
    """What this flow works with."""

    db: Database
    relay: Relay
    clock_now: Callable[[], datetime]
    items_max: int

    async def run(self, directory: Directory, *, at_once: bool = False) -> int:
        """Let every report go whose time has come, or that is another's by now; returns how many.

        `at_once` when the directory is new: then each goes, however often and however lately it was refused.
        """
        done, after = 0, None
        while True:
            seen, went, after = await self._page(directory, after, at_once=at_once)
            done += went
            if seen < self.items_max:
                return done

    async def _page(self, directory: Directory, after: UUID | None, *, at_once: bool) -> tuple[int, int, UUID | None]:
        now = self.clock_now()
        async with self.db.transaction("resend.store") as tx:
            rows = await items.lock_refused(tx, _REASONS, after, self.items_max)
            went = 0
            for row in rows:
                if at_once or await self._may_go(tx, directory, row, now):
                    await self._go(tx, row, now)
                    went += 1
            if went:
                await tx.notify("dispatch")
        return len(rows), went, rows[-1]["id"] if rows else None

    async def _may_go(self, tx: Transaction, directory: Directory, row: Row, now: datetime) -> bool:
        """Tell whether an item is not, by this directory, that hotline's again which refused it just now."""
        failed = await custody.failed_at(tx, row["id"])
        route = competent(directory, row["hosting_country"], row["case_id"], self.relay.node_id, failed)
        return not isinstance(route, Send) or await self.relay.may_go(tx, row, route.node_id, "report", now)

    async def _go(self, tx: Transaction, row: Row, now: datetime) -> None:
        state = next_state(
            State(row["state"]),
            Event.GOES_AGAIN,
            qualified=is_illegal(row["qualification"]),
            forward_unqualified=self.relay.forward_unqualified,
        )
        await custody.stand(tx, row["id"], state, None, now)
