"""Tells who reported an item first once more who has it, where the proof was refused: with one that counts now.

Says again what was refused and nothing else, by the waits of a refused transfer; and behind it what was said of the
item meanwhile, since nobody believed that either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeGuard

from msgspec.structs import replace

from node.hotline.domain.custody import goes_again_at
from node.hotline.domain.lifecycle import State
from node.hotline.domain.steps import KnownItem
from node.hotline.store import custody, steps, unheard
from node.hotline.store.proofs import Proofs
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Teller, Telling
from node.hotline.store.unheard import Said, Unheard
from node.platform.database import Database, Transaction
from node.platform.fieldcrypto import FieldSealed
from node.platform.telemetry import Logger
from protocol.codes import RecordType, StatusKind
from protocol.merkle import leaf_hash
from protocol.record import Record, parse_record
from protocol.steps import ActionBody, AssessmentBody, StatusBody
from protocol.tlogproof import parse_tlog_proof

_TYPES: Final = (RecordType.STATUS, RecordType.ASSESSMENT, RecordType.ACTION)
#: So long a new receipt is waited for before it is looked again.
_RECEIPT_WAIT: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, repr=False)
class _Told:
    """A record that was said, opened."""

    said: Said
    record: Record


@dataclass(frozen=True, slots=True)
class Reteller:
    """What this flow works with."""

    db: Database
    teller: Teller
    clock_now: Callable[[], datetime]
    log: Logger
    items_max: int

    async def run(self) -> int:
        """Look at every refused status whose time has come; returns how many were looked at."""
        done = 0
        while True:
            seen = await self._page()
            done += seen
            if seen < self.items_max:
                return done

    async def _page(self) -> int:
        """Say again what is due; that, and that it is due no more, are committed together."""
        now = self.clock_now()
        async with self.db.transaction("retell.store") as tx:
            found = await unheard.due(tx, now, self.items_max)
            if not found:
                return 0
            known = await steps.lock_known(tx, [one.item_id for one in found], self.teller.node_id)
            proofs = Proofs(tx, self.teller.vault)
            told: list[Telling] = []
            for one in found:
                try:
                    told += await self._again(tx, proofs, one, known.get(one.item_id), now)
                except FieldSealed:
                    # Altered in the database, or moved from another row: this one is not told again, the others are.
                    await unheard.look_at(tx, one, None)
            await self.teller.tell(tx, told, now)
        return len(found)

    async def _again(
        self, tx: Transaction, proofs: Proofs, one: Unheard, item: KnownItem | None, now: datetime
    ) -> list[Telling]:
        """Return what is said again for one refusal, and write when it is looked at once more."""
        came = await unheard.came_by(tx, one.item_id)
        said = await self._said(tx, one)
        refused = [] if came is None else _of_this_delivery(one, said, came[1])
        if came is None or item is None or not refused or not await _was_ours(tx, item):
            await unheard.look_at(tx, one, None)
            return []
        last = refused[-1]
        again_at = goes_again_at(len(refused), last.said.refused_at or now)
        if again_at is None:
            self._not_believed(one, last)
        if again_at is None or last.record.envelope.handling.retain_until <= now:
            await unheard.look_at(tx, one, None)
            return []
        proof = await proofs.proof(came[0]) if again_at <= now else None
        if proof is None:
            await unheard.look_at(tx, one, again_at if again_at > now else now + _RECEIPT_WAIT)
            return []
        await unheard.look_at(tx, one, None)
        return _again(one, item, last.record, proof, said[said.index(refused[0]) :])

    async def _said(self, tx: Transaction, one: Unheard) -> list[_Told]:
        opened = []
        for record in await unheard.said(tx, one.item_id, one.peer, _TYPES):
            raw = self.teller.vault.open_record("outbox", record.stream, record.idx, record.sealed)
            opened.append(_Told(record, parse_record(raw)))
        return opened

    def _not_believed(self, one: Unheard, last: _Told) -> None:
        """Tell a person that a hotline does not believe who has the item that it reported."""
        self.log.error(
            "who reported an item does not believe who has it",
            action="move.not-believed",
            alarm=True,
            item=str(one.item_id),
            peer=one.peer,
            code=last.said.code,
        )


def _of_this_delivery(one: Unheard, said: Sequence[_Told], transfer: bytes) -> list[_Told]:
    """Return every refused telling that the item came by this transfer; none unless `one` is the last of them.

    What is no such telling, is of another transfer, or has been said again since is not said again.
    """
    tellings = [each for each in said if _delivered_by(each.record) == transfer]
    if not tellings or (tellings[-1].said.stream, tellings[-1].said.idx) != (one.stream, one.idx):
        return []
    return [each for each in tellings if each.said.code is not None]


def _delivered_by(record: Record) -> bytes | None:
    """Return the record hash of the transfer that a status of a delivery proves; None of any other record."""
    body = record.body
    if not isinstance(body, StatusBody) or body.kind is not StatusKind.DELIVERED or body.proof is None:
        return None
    transfer = parse_tlog_proof(body.proof.encode()).extra
    return None if transfer is None else leaf_hash(transfer)


async def _was_ours(tx: Transaction, item: KnownItem) -> bool:
    """Tell whether we have the item, or gave it to another ourselves: not where its giver took it back."""
    if item.state is State.TRANSFERRED:
        chain = (await custody.chains(tx, [item.id])).get(item.id)
        return chain is not None and chain.holder != item.here
    return item.state is State.LEAVING or (item.is_here and item.state is not State.WITHDRAWN)


def _is_step(body: object) -> TypeGuard[AssessmentBody | ActionBody | StatusBody]:
    """Tell whether a record says what a custodian found or did, or that the item is closed."""
    return isinstance(body, AssessmentBody | ActionBody) or (
        isinstance(body, StatusBody) and body.kind is StatusKind.FINAL
    )


def _again(one: Unheard, item: KnownItem, last: Record, proof: bytes, since: Sequence[_Told]) -> list[Telling]:
    """Return the telling with its new proof, and behind it each step that was said of the item since the first."""
    body = last.body
    if not isinstance(body, StatusBody) or body.about is None:
        raise TypeError("what was delivered is said in a status")
    to = Listener(one.peer, item.id, item.case_id, bytes.fromhex(body.about))
    again = [Telling(to, replace(body, proof=proof.decode()), last.envelope.handling)]
    for each in since:
        step = each.record.body
        if _is_step(step) and step not in [told.body for told in again]:
            again.append(Telling(to, step))
    return again
