"""Takes items into custody that a peer hands on, and tells who sent them first. Never judges a record's proof.

An item that is in custody here already, or is another one under the same id, is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec.structs import replace as replace_struct

from node.hotline.domain.acceptance import Judged, Refused
from node.hotline.domain.custody import goes_on
from node.hotline.domain.lifecycle import (
    Code,
    RecordRefused,
    Said,
    Speaker,
    State,
    after_transfer,
    by_table,
    refusal,
)
from node.hotline.flows.apply.reports import ReportApplier
from node.hotline.store import custody, inbound, intake
from node.hotline.store.custody import Chain, Returned
from node.hotline.store.proofs import Proofs
from node.hotline.store.qualification import is_illegal
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Telling
from node.hotline.store.vault import Vault
from node.platform.database import Row, Transaction
from protocol.codes import StatusKind
from protocol.custody import Given
from protocol.steps import StatusBody, TransferBody

#: Who gives an item has it, says its proof, whoever had it as far as this node knows.
_GIVER: Final = Speaker.CUSTODIAN


@dataclass(slots=True)
class TransferApplier:
    """What transfers are applied with, for one batch.

    Others are to hear who has an item (`delivered`), and behind that what has come of one whose URL was known (`told`).
    """

    node_id: str
    vault: Vault
    delivered: list[Telling] = field(default_factory=list)
    told: list[Telling] = field(default_factory=list)

    async def apply(
        self, tx: Transaction, head: inbound.ApplyHead, transfers: Sequence[Judged], now: datetime
    ) -> list[Refused]:
        """Write the items of transfers, and what is to be told of them; returns what is refused."""
        if not transfers:
            return []
        ids = [UUID(one.record.envelope.item) for one in transfers]
        rows = await custody.lock(tx, ids)
        chains = await custody.chains(tx, list(rows))
        owners = await intake.submitters(tx, [UUID(one.record.envelope.case) for one in transfers])
        proofs = Proofs(tx, self.vault)
        refused: list[Refused] = []
        seen: set[UUID] = set()
        for one, item_id in zip(transfers, ids, strict=True):
            given, case_id = _given(one), UUID(one.record.envelope.case)
            owner, chain = owners.get(case_id), chains.get(item_id)
            bad = self._refusal(one, given, rows.get(item_id), owner, chain)
            if bad is None and item_id in seen:
                bad = Refused(one.idx, one.record.envelope.id, "id-conflict", "item", "the item came twice at once")
            if bad is not None:
                refused.append(bad)
                continue
            seen.add(item_id)
            row = rows.get(item_id)
            if row is None:
                await self._new(tx, head, one, given, now)
                # The case is that reporter's from now on, for what comes behind it in the same batch, too.
                owners[case_id] = f"peer:{given.reporter}"
            else:
                await self._again(tx, head, one, row, now)
            await self._chain(tx, one, item_id, chain, now)
            await self._tell(proofs, head, one, given, now)
        return refused

    def _refusal(
        self, one: Judged, given: Given, row: Row | None, owner: str | None, chain: Chain | None
    ) -> Refused | None:
        """Return why the item cannot be taken by what is here already."""
        ours = given.reporter == self.node_id
        where, sentence = "item", None
        if row is None:
            if ours:
                where, sentence = "body.original", "no such item was ever reported from here"
            elif owner not in {None, f"peer:{given.reporter}"}:
                where, sentence = "case", "a case of this id is known from somebody else"
        elif row["case_id"] != UUID(one.record.envelope.case) or self._origin(owner) != given.reporter:
            sentence = "an item of this id is known from somebody else"
        elif row["state"] == State.LEAVING and not _follows(one, chain):
            sentence = refusal(Said.TRANSFER, Code.ID_CONFLICT)
        else:
            try:
                by_table(State(row["state"]), Said.TRANSFER, _GIVER)
            except RecordRefused as bad:
                sentence = bad.sentence
        if sentence is None:
            return None
        return Refused(one.idx, one.record.envelope.id, Code.ID_CONFLICT, where, sentence)

    def _origin(self, owner: str | None) -> str:
        """Return who reported an item that is here: a peer, or this hotline."""
        if owner is not None and owner.startswith("peer:"):
            return owner.removeprefix("peer:")
        return self.node_id

    def _as_report(self, one: Judged, given: Given) -> Judged:
        """Return the transfer as the report would read if it were made now."""
        body = _body(one)
        report = replace_struct(given.report, hosting=body.hosting, qualification=body.qualification)
        return replace(one, record=replace(one.record, body=report))

    async def _new(self, tx: Transaction, head: inbound.ApplyHead, one: Judged, given: Given, now: datetime) -> None:
        reports, said = ReportApplier(self.node_id, self.vault, self.told), self._as_report(one, given)
        await intake.copy_cases(tx, [reports.case(said, f"peer:{given.reporter}")], now)
        item = reports.item(said, head, reporter=given.reporter, report_hash=given.original.leaf_hash)
        await reports.write_items(tx, head.peer, [item], now)

    async def _again(self, tx: Transaction, head: inbound.ApplyHead, one: Judged, row: Row, now: datetime) -> None:
        given = _given(one)
        item = ReportApplier(self.node_id, self.vault).item(
            self._as_report(one, given), head, reporter=given.reporter, report_hash=given.original.leaf_hash
        )
        if item.received is None:
            raise TypeError("what a peer sends is received")
        qualified = is_illegal(row["qualification"])
        state = after_transfer(State(row["state"]), _GIVER, qualified=qualified)
        await custody.take_back(tx, Returned(row["id"], state, self.node_id, item.received), now)

    async def _chain(self, tx: Transaction, one: Judged, item_id: UUID, known: Chain | None, now: datetime) -> None:
        body = _body(one)
        if known is None or len(known.trail) < len(body.trail):
            await custody.given(tx, item_id, Chain(self.node_id, body.trail, one.record.envelope.iat), now)

    async def _tell(self, proofs: Proofs, head: inbound.ApplyHead, one: Judged, given: Given, now: datetime) -> None:
        """Whoever sent the item first hears who has it now, unless it gave it to us itself or is this hotline."""
        if given.reporter in {head.peer, self.node_id}:
            return
        proof = await proofs.proof_of_received(head.stream, one.idx)
        envelope, report = one.record.envelope, given.original.leaf_hash
        body = StatusBody(
            kind=StatusKind.DELIVERED, at=now, about=report.hex(), node=self.node_id, proof=proof.decode()
        )
        to = Listener(given.reporter, UUID(envelope.item), UUID(envelope.case), report)
        self.delivered.append(Telling(to, body, envelope.handling))


def _follows(one: Judged, known: Chain | None) -> bool:
    """Tell whether a transfer goes on from ours, whose receipt is on its way: who got that gives the item back."""
    return known is not None and goes_on(known.trail, known.holder, _body(one).trail)


def _body(one: Judged) -> TransferBody:
    if not isinstance(one.record.body, TransferBody):
        raise TypeError("a transfer has a transfer's body")
    return one.record.body


def _given(one: Judged) -> Given:
    if one.given is None:
        raise TypeError("a judged transfer has its original")
    return one.given
