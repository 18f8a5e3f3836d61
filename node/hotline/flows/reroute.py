"""Gives items that nobody was competent for another chance when the membership directory changes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.store import items
from node.hotline.store.qualification import is_illegal
from node.platform.database import Database


@dataclass(frozen=True, slots=True)
class Rerouter:
    """What this flow works with."""

    db: Database
    clock_now: Callable[[], datetime]
    items_max: int
    forward_unqualified: bool

    async def run(self) -> int:
        """Make every undeliverable item ready again; returns how many. Those still undeliverable come back so."""
        done, after = 0, None
        while True:
            moved, after = await self._page(after)
            done += moved
            if moved < self.items_max:
                return done

    async def _page(self, after: UUID | None) -> tuple[int, UUID | None]:
        now = self.clock_now()
        async with self.db.transaction("reroute.store") as tx:
            rows = await items.lock_undeliverable(tx, after, self.items_max)
            moves = [
                items.Move(
                    row["id"],
                    next_state(
                        State.UNDELIVERABLE,
                        Event.DIRECTORY_CHANGED,
                        qualified=is_illegal(row["qualification"]),
                        forward_unqualified=self.forward_unqualified,
                    ),
                    None,
                    None,
                    None,
                )
                for row in rows
            ]
            if moves:
                await items.write_routes(tx, moves, now)
                await tx.notify("dispatch")
        return len(moves), moves[-1].id if moves else None
