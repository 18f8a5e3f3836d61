"""Locates what waits in the queue: leases items, asks DNS and the databases, writes the verdicts.

Never holds a transaction while it asks; a worker that dies loses its lease, and another takes the items.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from geo.verdict import Verdict, VerdictKind
from node.hotline.domain.delivery import backoff_s
from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.domain.urls import UrlRefused, located_name, parse_reported_url
from node.hotline.store import items
from node.hotline.store.qualification import is_illegal
from node.hotline.store.vault import Vault
from node.platform.database import Database, Row
from node.platform.fieldcrypto import FieldSealed

#: Longer than any round of questions to DNS takes with its retries.
LEASE_S = 120.0
#: A retry is never further away than this: a name server that is down comes back within hours.
_RETRY_CAP_S = 6 * 3600.0

#: What becomes of an item whose row was damaged: it is left to a person, and holds up nobody.
_UNREADABLE = Verdict(VerdictKind.NOT_HOSTED, None, None, 0, ("unreadable",), {})

_EVENTS = {
    VerdictKind.HOSTED: Event.LOCATED_HOSTED,
    VerdictKind.PROXIED: Event.LOCATED_PROXIED,
    VerdictKind.NO_COUNTRY: Event.LOCATED_NONE,
    VerdictKind.UNLOCATED: Event.LOCATION_FAILED,
    VerdictKind.NOT_HOSTED: Event.LOCATION_FAILED,
    VerdictKind.RETRY: Event.LOCATION_FAILED,
}


@dataclass(frozen=True, slots=True)
class Locating:
    """What this flow works with; one for each process."""

    db: Database
    vault: Vault
    locate: Callable[[Sequence[str]], Awaitable[Sequence[Verdict]]]
    observe: Callable[[str], None]
    clock_now: Callable[[], datetime]
    draw: Callable[[], float]
    items_max: int
    attempts_max: int
    retry_base_s: float
    forward_unqualified: bool

    async def run_once(self) -> int:
        """Locate one lease of items; returns how many were taken (0: nothing is due)."""
        async with self.db.transaction("locate.lease") as tx:
            leased = await items.lease_for_location(tx, self.clock_now(), LEASE_S, self.items_max)
        if not leased:
            return 0
        hosts = {it.id: host for it in leased if (host := self._host(it)) is not None}
        verdicts = dict(zip(hosts, await self.locate(list(hosts.values())), strict=True))
        await self._store([(it, verdicts.get(it.id, _UNREADABLE)) for it in leased])
        return len(leased)

    async def recall(self) -> int:
        """Make due what waits for longer than any wait is: it was queued by a clock ahead of ours; returns how many."""
        async with self.db.transaction("locate.recall") as tx:
            recalled = await items.recall_queued(
                tx, self.clock_now(), lease_s=LEASE_S, base_s=self.retry_base_s, cap_s=_RETRY_CAP_S
            )
            if recalled:
                await tx.notify("locate")
        return recalled

    def _host(self, it: items.ToLocate) -> str | None:
        """The host of an item, or None when its URL does not open any more (altered, or moved from another row)."""
        try:
            return located_name(parse_reported_url(self.vault.open("items", "url_enc", it.id, it.url_enc)))
        except (FieldSealed, UrlRefused):
            return None

    async def _store(self, found: Sequence[tuple[items.ToLocate, Verdict]]) -> None:
        now = self.clock_now()
        located: list[items.Located] = []
        postponed: list[tuple[UUID, datetime]] = []
        async with self.db.transaction("locate.store") as tx:
            current = await items.locked_states(tx, [it.id for it, _ in found])
            for it, verdict in found:
                if verdict.kind is VerdictKind.RETRY and it.attempts + 1 < self.attempts_max:
                    # At least half the step: a name server in trouble is not asked again at once.
                    step = backoff_s(
                        it.attempts, base_s=self.retry_base_s, cap_s=_RETRY_CAP_S, draw=self._at_least_half
                    )
                    postponed.append((it.id, now + timedelta(seconds=step)))
                elif current[it.id]["state"] == State.LOCATING:
                    located.append(self._located(it.id, verdict, current[it.id]))
            if located:
                await items.write_verdicts(tx, located, now)
                if any(row.state == State.READY for row in located):
                    await tx.notify("dispatch")
            if postponed:
                await items.postpone_location(tx, postponed)
            settled = {row.id for row in located} | {row[0] for row in postponed}
            await items.leave_queue(tx, [it.id for it, _ in found if it.id not in settled])
        for _, verdict in found:
            self.observe(verdict.kind)

    def _at_least_half(self) -> float:
        return 0.5 + self.draw() / 2

    def _located(self, item_id: UUID, verdict: Verdict, current: Row) -> items.Located:
        state = next_state(
            State.LOCATING,
            _EVENTS[verdict.kind],
            qualified=is_illegal(current["qualification"]),
            forward_unqualified=self.forward_unqualified,
        )
        hosted = verdict.kind is VerdictKind.HOSTED
        evidence = json.dumps(verdict.evidence, separators=(",", ":"), ensure_ascii=False)
        return items.Located(
            id=item_id,
            state=state,
            reason=None if hosted else (verdict.reasons[0] if verdict.reasons else verdict.kind),
            hosting_country=verdict.country if hosted else None,
            registered_country=verdict.registered_country if hosted else None,
            confidence=verdict.confidence,
            verdict=verdict.kind,
            reasons=verdict.reasons,
            evidence_enc=self.vault.seal("items", "evidence_enc", item_id, evidence),
        )
