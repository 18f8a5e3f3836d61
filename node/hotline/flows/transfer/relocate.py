"""Looks at the location of an item anew, or takes a person's word for it, and moves the item on if it is another's.

Never holds a transaction while it asks; what is asked for is a row, so no crash forgets it.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from uuid import UUID

import msgspec

from geo.verdict import Verdict, VerdictKind
from node.clock import rfc3339
from node.hotline.domain.custody import (
    NOT_CLEARED,
    NOT_LOCATED,
    NOT_MOVED,
    NOT_PROVEN,
    REFUSED_TOO_OFTEN,
    RETENTION_OVER,
    Contest,
    Stay,
    fate,
)
from node.hotline.domain.delivery import backoff_s
from node.hotline.domain.lifecycle import HELD, Event, State, TransitionRefused, next_state
from node.hotline.domain.routing import Send, competent
from node.hotline.domain.urls import UrlRefused, located_name, parse_reported_url
from node.hotline.flows.transfer.relay import Held, Relay
from node.hotline.store import custody, items
from node.hotline.store.custody import Asked
from node.hotline.store.proofs import NoReceipt, Proofs
from node.hotline.store.qualification import is_illegal
from node.hotline.store.vault import Vault
from node.platform.database import Database, Row, Transaction
from node.platform.fieldcrypto import FieldSealed
from protocol.bodies import Hosting
from protocol.codes import COUNTRIES, TransferReason
from protocol.custody import evidence_hash
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.steps import Custody

#: Longer than any round of questions to DNS takes with its retries.
LEASE_S = 120.0
_RETRY_CAP_S = 6 * 3600.0
#: The reason of a verdict that a person gave.
SET = "set"
_SURE = 100

_UNREADABLE = Verdict(VerdictKind.NOT_HOSTED, None, None, 0, ("unreadable",), {})


class UnknownItem(LookupError):  # noqa: N818 - names the fact
    """No item of this id."""


class LocationRefused(ValueError):  # noqa: N818 - names the fact
    """A country or an address that is none; `field` says which, `sentence` why."""

    def __init__(self, field: str, sentence: str) -> None:
        """Name the field; the value is not repeated."""
        super().__init__(f"{field}: {sentence}")
        self.field = field
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Asker:
    """Takes the wish for another location."""

    db: Database
    vault: Vault
    clock_now: Callable[[], datetime]
    forward_unqualified: bool

    async def ask(self, item_id: UUID, country: str | None, ip: str | None) -> State:
        """Ask for another location of an item, or give it; returns the item's state once that is stored.

        Without `country` and `ip` the host is located anew. A country alone is a person's word; an address is located.
        Raises UnknownItem, LocationRefused, or TransitionRefused for an item that is not ours to move.
        """
        country, ip = _checked(country, ip)
        sealed = None if ip is None else self.vault.seal("relocations", "ip_enc", item_id, ip)
        now = self.clock_now()
        async with self.db.transaction("move.ask") as tx:
            row = (await custody.lock(tx, [item_id])).get(item_id)
            if row is None:
                raise UnknownItem(str(item_id))
            state = State(row["state"])
            if row["received_stream"] is not None:
                if state not in HELD:
                    raise TransitionRefused(state, Event.RELOCATE)
                await custody.ask(tx, item_id, country, sealed, now)
                return state
            state = next_state(
                state,
                Event.RELOCATE,
                qualified=is_illegal(row["qualification"]),
                forward_unqualified=self.forward_unqualified,
            )
            await custody.stand(tx, item_id, state, None, now)
            if country is None and ip is None:
                await items.requeue(tx, [item_id], now)
            else:
                await custody.ask(tx, item_id, country, sealed, now)
        return state


@dataclass(frozen=True, slots=True)
class Relocator:
    """What this flow works with; one for each process."""

    db: Database
    relay: Relay
    locate: Callable[[Sequence[str]], Awaitable[Sequence[Verdict]]]
    clock_now: Callable[[], datetime]
    draw: Callable[[], float]
    items_max: int
    attempts_max: int
    retry_base_s: float

    async def recall(self) -> int:
        """Make due what waits for longer than any wait is: it was asked by a clock ahead of ours; returns how many."""
        async with self.db.transaction("move.recall") as tx:
            recalled = await custody.recall(
                tx, self.clock_now(), lease_s=LEASE_S, base_s=self.retry_base_s, cap_s=_RETRY_CAP_S
            )
            if recalled:
                await tx.notify("move")
        return recalled

    async def run_once(self, directory: Directory) -> int:
        """Look at one lease of items; returns how many were taken (0: nothing is due).

        The new location, the transfer and its index are committed together: if we crash before, the item is still in
        the queue and ours; if we crash after, its transfer is in the stream.
        """
        async with self.db.transaction("move.lease") as tx:
            leased = await custody.lease(tx, self.clock_now(), LEASE_S, self.items_max)
        if not leased:
            return 0
        verdicts = await self._verdicts(leased)
        now = self.clock_now()
        async with self.db.transaction("move.store") as tx:
            rows = await custody.lock(tx, [one.id for one in leased])
            proofs = Proofs(tx, self.relay.vault)
            later: list[tuple[UUID, datetime]] = []
            for one in leased:
                verdict, row = verdicts[one.id], rows[one.id]
                may_wait = one.attempts + 1 < self.attempts_max
                if verdict.kind is VerdictKind.RETRY and may_wait:
                    later.append(self._later(one, now))
                elif row["received_stream"] is None:
                    await self._settle_own(tx, row, verdict, now)
                elif State(row["state"]) in HELD:
                    try:
                        await self._settle(tx, proofs, row, verdict, directory, now)
                    except NoReceipt:
                        # Who sent it is to send it again first.
                        if may_wait:
                            later.append(self._later(one, now))
                        else:
                            await custody.stand(tx, row["id"], row["state"], NOT_PROVEN, now)
            await custody.postpone(tx, later)
            await custody.answered(tx, [one.id for one in leased if one.id not in {row[0] for row in later}])
        return len(leased)

    def _later(self, one: Asked, now: datetime) -> tuple[UUID, datetime]:
        step = backoff_s(one.attempts, base_s=self.retry_base_s, cap_s=_RETRY_CAP_S, draw=self._draw)
        return one.id, now + timedelta(seconds=step)

    def _draw(self) -> float:
        # At least half the step: a name server in trouble is not asked again at once.
        return 0.5 + self.draw() / 2

    async def _verdicts(self, leased: Sequence[Asked]) -> dict[UUID, Verdict]:
        said = {one.id: self._said(one) for one in leased if one.country is not None}
        names = {one.id: name for one in leased if one.country is None and (name := self._name(one)) is not None}
        found = dict(zip(names, await self.locate(list(names.values())), strict=True)) if names else {}
        return {one.id: said.get(one.id) or found.get(one.id, _UNREADABLE) for one in leased}

    def _said(self, one: Asked) -> Verdict:
        ip = self._ip(one)
        word = {"country": one.country} | ({} if ip is None else {"ip": ip})
        evidence: dict[str, object] = {"at": rfc3339(self.clock_now()), "set": word}
        return Verdict(VerdictKind.HOSTED, one.country, None, _SURE, (SET,), evidence)

    def _ip(self, one: Asked) -> str | None:
        return None if one.ip_enc is None else self.relay.vault.open("relocations", "ip_enc", one.id, one.ip_enc)

    def _name(self, one: Asked) -> str | None:
        try:
            if one.ip_enc is not None:
                return self._ip(one)
            return located_name(parse_reported_url(self.relay.vault.open("items", "url_enc", one.id, one.url_enc)))
        except (FieldSealed, UrlRefused):
            return None

    async def _settle_own(self, tx: Transaction, row: Row, verdict: Verdict, now: datetime) -> None:
        """An item of our own goes the way of a report."""
        if State(row["state"]) is not State.LOCATING:
            return
        hosted = verdict.kind is VerdictKind.HOSTED
        state = next_state(
            State.LOCATING,
            Event.LOCATED_HOSTED if hosted else Event.LOCATION_FAILED,
            qualified=is_illegal(row["qualification"]),
            forward_unqualified=self.relay.forward_unqualified,
        )
        evidence = json.dumps(verdict.evidence, separators=(",", ":"), ensure_ascii=False)
        located = items.Located(
            id=row["id"],
            state=state,
            reason=None if hosted else NOT_LOCATED,
            hosting_country=verdict.country,
            registered_country=verdict.registered_country,
            confidence=verdict.confidence,
            verdict=verdict.kind,
            reasons=verdict.reasons,
            evidence_enc=self.relay.vault.seal("items", "evidence_enc", row["id"], evidence),
        )
        await items.write_verdicts(tx, [located], now)
        if state is State.READY:
            await tx.notify("dispatch")

    async def _settle(
        self, tx: Transaction, proofs: Proofs, row: Row, verdict: Verdict, directory: Directory, now: datetime
    ) -> None:
        """An item in our custody stays, moves on, or goes to the desk."""
        if verdict.country is None:
            await custody.stand(tx, row["id"], row["state"], NOT_LOCATED, now)
        elif verdict.country == row["hosting_country"] and row["reason"] != REFUSED_TOO_OFTEN:
            await custody.stand(tx, row["id"], row["state"], NOT_MOVED, now)
        elif not self.relay.cleared(row):
            await custody.stand(tx, row["id"], row["state"], NOT_CLEARED, now)
        else:
            await self._move(tx, await self.relay.held(proofs, row), verdict, directory, now)

    async def _move(self, tx: Transaction, held: Held, verdict: Verdict, directory: Directory, now: datetime) -> None:
        country = verdict.country
        if country is None:
            raise TypeError("what moves has a country")
        row = held.row
        route = competent(directory, country, row["case_id"], self.relay.node_id)
        assigned = route.assigned_country if isinstance(route, Send) else row["assigned_country"]
        hosting = Hosting(
            country=country,
            registered_country=verdict.registered_country,
            assigned_country=assigned,
            confidence=verdict.confidence,
            reasons=verdict.reasons,
            evidence=verdict.evidence,
        )
        station = Custody(node=self.relay.node_id, country=country, evidence=evidence_hash(verdict.evidence), at=now)
        reason = TransferReason.WRONG_LOCATION if SET in verdict.reasons else TransferReason.MOVED
        decided = fate(route, held.trail, station, reason)
        stays = State(row["state"])
        if isinstance(route, Send) and held.came.envelope.handling.retain_until <= now:
            decided = Stay(RETENTION_OVER)
        if isinstance(decided, Contest):
            hosting = msgspec.structs.replace(hosting, assigned_country=row["assigned_country"])
            try:
                await self.relay.contest(tx, held, decided, verdict.evidence, now)
            except ProtocolError as error:
                self.relay.not_carried(held.id, error.code)
                decided = Stay(f"record-{error.code}")
            else:
                stays = next_state(stays, Event.CONTESTED, qualified=True, forward_unqualified=True)
                decided = Stay(decided.code)
        if not isinstance(decided, Stay):
            try:
                record = self.relay.encode(held, decided, hosting, now)
            except ProtocolError as error:
                self.relay.not_carried(held.id, error.code)
                decided = Stay(f"record-{error.code}")
            else:
                await self.relay.write(tx, held, decided, hosting, record, verdict.kind, now)
                return
        rehosted = self.relay.rehosted(row, hosting, stays, decided.reason, self.relay.node_id, verdict=verdict.kind)
        await custody.rehost(tx, rehosted, now)


def _checked(country: str | None, ip: str | None) -> tuple[str | None, str | None]:
    if country is not None and country not in COUNTRIES:
        raise LocationRefused("country", "is a country of ISO 3166-1 as two capital letters")
    if ip is None:
        return country, None
    try:
        return country, str(ip_address(ip))
    except ValueError:
        raise LocationRefused("ip", "is an IPv4 or IPv6 address") from None
