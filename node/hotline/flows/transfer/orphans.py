"""Lets items that this hotline holds for another country go to its hotline, once it has one. Looks up no location.

So an item whose transfer was refused goes again, with a proof that is made anew: not at once, and not for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.custody import Contest, HandOn, fate
from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.domain.routing import HOSTING_COUNTRY, Route, Send, competent, countries_elsewhere
from node.hotline.flows.transfer.relay import Relay
from node.hotline.store import custody, desk
from node.hotline.store.proofs import NoReceipt, Proofs
from node.hotline.store.qualification import is_illegal
from node.platform.database import Database, Row, Transaction
from protocol.codes import TransferReason
from protocol.custody import evidence_hash
from protocol.directory import Directory
from protocol.steps import Custody


@dataclass(frozen=True, slots=True)
class Orphans:
    """What this flow works with."""

    db: Database
    relay: Relay
    clock_now: Callable[[], datetime]
    items_max: int

    async def run(self, directory: Directory) -> int:
        """Hand on every orphan whose hotline is in the directory now; returns how many were looked at."""
        own = directory.nodes.get(self.relay.node_id)
        among = countries_elsewhere(directory, self.relay.node_id)
        if own is None or among == []:
            return 0
        done, after = 0, None
        while True:
            seen, after = await self._page(directory, own.countries, among, after)
            done += seen
            if seen < self.items_max:
                return done

    async def _page(
        self, directory: Directory, own: tuple[str, ...], among: list[str] | None, after: UUID | None
    ) -> tuple[int, UUID | None]:
        now = self.clock_now()
        async with self.db.transaction("orphans.store") as tx:
            rows = await custody.orphans(tx, own, among, after, self.items_max)
            proofs = Proofs(tx, self.relay.vault)
            for row in rows:
                route = await self._route(tx, directory, row)
                if isinstance(route, Send) and await self.relay.may_go(tx, row, route.node_id, "transfer", now):
                    await self._go(tx, proofs, row, route, now)
        return len(rows), rows[-1]["id"] if rows else None

    async def _route(self, tx: Transaction, directory: Directory, row: Row) -> Route:
        """Return where an item goes; who failed at it is asked for only where it would go somewhere."""
        own, country, case_id = self.relay.node_id, row["hosting_country"], row["case_id"]
        route = competent(directory, country, case_id, own, frozenset())
        if not isinstance(route, Send):
            return route
        return competent(directory, country, case_id, own, await custody.failed_at(tx, row["id"]))

    async def _go(self, tx: Transaction, proofs: Proofs, row: Row, route: Send, now: datetime) -> None:
        if row["received_stream"] is None:
            # Reported here and never sent: it goes the way of a report.
            state = next_state(
                State(row["state"]),
                Event.DIRECTORY_CHANGED,
                qualified=is_illegal(row["qualification"]),
                forward_unqualified=self.relay.forward_unqualified,
            )
            await custody.stand(tx, row["id"], state, None, now)
            await tx.notify("dispatch")
            return
        try:
            held = await self.relay.held(proofs, row)
        except NoReceipt:
            return
        if held.came.envelope.handling.retain_until <= now or not self.relay.cleared(row):
            return
        if held.by_ruling or await desk.was_ruled(tx, row["id"], held.came.leaf_hash.hex()):
            # Whose it is was decided on this evidence.
            return
        evidence, country = self.relay.evidence(row), row["hosting_country"]
        joined = route.reason == HOSTING_COUNTRY
        station = Custody(node=self.relay.node_id, country=country, evidence=evidence_hash(evidence), at=now)
        reason = TransferReason.HOTLINE_JOINED if joined else TransferReason.FALLBACK
        decided = fate(route, held.trail, station, reason)
        if isinstance(decided, Contest):
            await self.relay.contest_held(tx, held, decided, now, state=State(row["state"]))
        elif isinstance(decided, HandOn):
            await self.relay.hand_on(tx, held, decided, now)
