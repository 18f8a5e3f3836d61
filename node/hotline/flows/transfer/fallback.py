"""Takes back what a peer did not receipt in time, or cannot take any more, and lets it go another way.

What nobody else is competent for stays in the stream of a peer that may come back, and is delivered then.
Nothing is taken out of a stream: a withdrawal follows the record there, so that a peer that comes back late reads both
and has nothing. The negative evidence is kept, and told to who sent the item first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from node.hotline.domain.absence import NOT_LISTED, absence
from node.hotline.domain.custody import LATE, Contest, HandOn, fate
from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.domain.routing import Undeliverable, competent, countries_elsewhere
from node.hotline.flows.transfer.relay import Held, Relay
from node.hotline.store import custody, outbound
from node.hotline.store.custody import Chain, Stale
from node.hotline.store.proofs import NoReceipt, Proofs
from node.hotline.store.qualification import is_illegal
from node.platform.database import Database, Row, Transaction
from node.platform.ids import new_id
from protocol.codes import NodeState, StatusKind, TransferReason, WithdrawalReason
from protocol.custody import evidence_hash
from protocol.directory import Directory
from protocol.merkle import leaf_hash
from protocol.record import encode_step, parse_record
from protocol.steps import Custody, StatusBody, WithdrawalBody

#: What is taken back though nobody else is competent: nothing is ever delivered there.
_FOR_GOOD: Final = frozenset({NOT_LISTED, NodeState.LEFT.value})


@dataclass(frozen=True, slots=True)
class Fallback:
    """What this flow works with."""

    db: Database
    relay: Relay
    clock_now: Callable[[], datetime]
    items_max: int

    async def run(self, directory: Directory, *, late: bool = True) -> int:
        """Take back what can go another way, or not come to its peer any more; returns how many items.

        `late` False spares peers whose only fault is that time has passed, which they may not have been asked in.
        """
        async with self.db.transaction("fallback.read") as tx:
            backlog = await outbound.peers_with_backlog(tx)
        done = 0
        for peer in backlog:
            code = absence(directory, peer) or LATE
            among = None if code in _FOR_GOOD else countries_elsewhere(directory, peer)
            if among == [] or (code == LATE and not late):
                continue
            after: UUID | None = None
            while True:
                seen, taken, after = await self._page(directory, peer, code, among, after)
                done += taken
                if seen < self.items_max:
                    break
        return done

    async def _page(
        self, directory: Directory, peer: str, code: str, among: list[str] | None, after: UUID | None
    ) -> tuple[int, int, UUID | None]:
        """Take back some items; `among` are the countries for which there is somebody else, None for all.

        The evidence, the withdrawal, the item's way home and its new transfer are committed together.
        """
        now = self.clock_now()
        before = now - timedelta(days=self.relay.deliver_by_days) if code == LATE else None
        async with self.db.transaction("fallback.store") as tx:
            found = await custody.stale(tx, peer, before, among, after, self.items_max)
            rows = await custody.lock(tx, [one.item_id for one in found])
            proofs = Proofs(tx, self.relay.vault)
            done = 0
            for one in found:
                row = rows[one.item_id]
                if code in _FOR_GOOD or await self._is_anothers(tx, directory, row, peer):
                    done += await self._take_back(tx, proofs, one, row, code, directory, now)
            if done:
                await tx.notify("dispatch")
                await tx.notify("deliver")
        return len(found), done, found[-1].item_id if found else None

    async def _is_anothers(self, tx: Transaction, directory: Directory, row: Row, peer: str) -> bool:
        """Tell whether somebody is competent for an item beside `peer` and those that failed at it before."""
        failed = await custody.failed_at(tx, row["id"]) | {peer}
        route = competent(directory, row["hosting_country"], row["case_id"], self.relay.node_id, failed)
        return not isinstance(route, Undeliverable)

    async def _take_back(
        self, tx: Transaction, proofs: Proofs, one: Stale, row: Row, code: str, directory: Directory, now: datetime
    ) -> bool:
        record = parse_record(self.relay.vault.open_record("outbox", one.stream, one.idx, one.sealed))
        due = record.envelope.deliver_by
        if code == LATE and due is not None and due > now:
            return False
        try:
            held = None if one.type == "report" else await self.relay.held(proofs, row)
        except NoReceipt:
            return False
        await custody.relay_failed(tx, one, code, now)
        if held is None:
            await self._withdraw(tx, one, record.envelope.case, one.leaf_hash.hex(), now)
            state = next_state(
                State(row["state"]),
                Event.RELAY_FAILED,
                qualified=is_illegal(row["qualification"]),
                forward_unqualified=self.relay.forward_unqualified,
            )
            await custody.stand(tx, row["id"], state, code, now)
            return True
        about = self.relay.original_hash(held)
        await self._withdraw(tx, one, record.envelope.case, about, now)
        failure = StatusBody(
            kind=StatusKind.RELAY_FAILURE,
            at=now,
            about=about,
            node=one.peer,
            code=code,
            since=one.since,
            attempts=one.attempts,
        )
        await self.relay.tell(tx, held, failure, now)
        await self._elsewhere(tx, held, code, directory, now)
        return True

    async def _elsewhere(self, tx: Transaction, held: Held, code: str, directory: Directory, now: datetime) -> None:
        """The item is ours again, and goes to whoever is competent beside those that failed, or stays."""
        row = held.row
        qualified = is_illegal(row["qualification"])
        state = next_state(State(row["state"]), Event.RETURNED, qualified=qualified, forward_unqualified=False)
        own = self.relay.node_id
        await custody.given(tx, held.id, Chain(own, held.trail, now), now)
        await custody.come_back(tx, held.id, state, code, own, now)
        country = row["hosting_country"]
        route = competent(directory, country, row["case_id"], own, await custody.failed_at(tx, held.id))
        evidence = self.relay.evidence(row)
        station = Custody(node=own, country=country, evidence=evidence_hash(evidence), at=now)
        decided = fate(route, held.trail, station, TransferReason.FALLBACK)
        if isinstance(decided, Contest):
            await self.relay.contest_held(tx, held, decided, now, state=state)
        elif isinstance(decided, HandOn):
            await self.relay.hand_on(tx, held, decided, now, state=state)
        else:
            await custody.stand(tx, held.id, state, route.reason, now)

    async def _withdraw(self, tx: Transaction, one: Stale, case: str, withdraws: str, now: datetime) -> None:
        """Let the stream to the peer say that what stands in it is taken back."""
        head = (await outbound.lock_streams(tx, [one.peer]))[one.peer]
        record_id = new_id(now)
        stale = parse_record(self.relay.vault.open_record("outbox", one.stream, one.idx, one.sealed)).envelope
        record = encode_step(
            WithdrawalBody(withdraws=withdraws, reason=WithdrawalReason.REROUTED),
            record_id=str(record_id),
            case=case,
            item=str(one.item_id),
            iss=self.relay.node_id,
            aud=one.peer,
            iat=now,
            handling=stale.handling,
            parent=withdraws,
        )
        sealed = self.relay.vault.seal_record("outbox", head.id, head.next_index, record)
        row = outbound.OutboxRow(head.next_index, record_id, one.item_id, "withdrawal", leaf_hash(record), sealed)
        await outbound.append(tx, head, [row], now)
