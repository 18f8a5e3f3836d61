"""Notes what peers say of an item's way: who has it now. Moves no item, and takes nobody's word without a proof.

Whoever got an item of ours from somebody else hears what was corrected of its report meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from node.hotline.domain.acceptance import Judged, Refused
from node.hotline.domain.custody import newer, undone
from node.hotline.domain.lifecycle import (
    MARKS,
    UNKNOWN,
    UNSENT,
    Code,
    RecordRefused,
    Said,
    Speaker,
    State,
    by_table,
    refusal,
)
from node.hotline.store import custody, inbound, outbound
from node.hotline.store.amendments import Amendments
from node.hotline.store.custody import Chain
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Telling
from node.hotline.store.vault import Vault
from node.platform.database import Row, Transaction
from protocol.codes import OVER, StatusKind
from protocol.record import Envelope
from protocol.steps import Corrected, CorrectionBody, StatusBody, TransferBody

#: What the kinds say that are read here; another one is a step, or kept.
_SAID: Mapping[StatusKind, Said] = {
    StatusKind.DELIVERED: Said.DELIVERED,
    StatusKind.DISPUTED: Said.DISPUTED,
    StatusKind.RELAY_FAILURE: Said.RELAY_FAILED,
}


@dataclass(frozen=True, slots=True)
class StatusApplier:
    """What statuses are noted with, for one batch; `told` is what others are to hear of it.

    `incomplete` is whether a recovery left somebody out: items may have left of which that is not known here.
    """

    node_id: str
    vault: Vault
    incomplete: bool = False
    told: list[Telling] = field(default_factory=list)

    async def apply(
        self, tx: Transaction, _head: inbound.ApplyHead, statuses: Sequence[Judged], now: datetime
    ) -> list[Refused]:
        """Note who has our items now; what is not about one of ours is refused."""
        if not statuses:
            return []
        ids = [UUID(one.record.envelope.item) for one in statuses]
        rows = await custody.lock(tx, ids)
        refused: list[Refused] = []
        for one, item_id in zip(statuses, ids, strict=True):
            row = rows.get(item_id)
            if _body(one).kind is not StatusKind.DELIVERED:
                if (bad := await self._fact(tx, one, row, now)) is not None:
                    refused.append(bad)
            elif row is None or not await self._is_ours(tx, one, item_id):
                ours = one.given is not None and one.given.reporter == self.node_id
                refused.append(_of_nothing_here(one, Said.DELIVERED, "body.proof", unknown=ours))
            elif self.incomplete and row["state"] in UNSENT:
                refused.append(_of_nothing_here(one, Said.DELIVERED, "body.proof"))
            else:
                await self._delivered(tx, one, row, now)
        return refused

    async def _is_ours(self, tx: Transaction, one: Judged, item_id: UUID) -> bool:
        """Tell whether what was delivered is a report of ours: the very record that stands in a stream of ours."""
        if one.given is None or one.given.reporter != self.node_id:
            return False
        return await outbound.has_report(tx, item_id, one.given.original.leaf_hash)

    async def _delivered(self, tx: Transaction, one: Judged, row: Row, now: datetime) -> None:
        transfer = one.transfer
        if transfer is None or not isinstance(transfer.body, TransferBody):
            raise TypeError("a judged status of a delivery has its transfer")
        known = (await custody.chains(tx, [row["id"]])).get(row["id"])
        made_at = transfer.envelope.iat
        if known is not None and not newer(known.trail, transfer.body.trail, later=made_at > known.given_at):
            return
        holder = transfer.envelope.aud
        nodes = [*(station.node for station in transfer.body.trail), holder]
        taken_back = await custody.taken_back(tx, row["id"], self.node_id, nodes)
        if undone(transfer.body.trail, holder, taken_back) is not None:
            return
        await custody.given(tx, row["id"], Chain(holder, transfer.body.trail, made_at), now)
        await custody.handed_to(tx, row["id"], holder, transfer.body.hosting.assigned_country, now)
        await self._correct(tx, holder, row)

    async def _correct(self, tx: Transaction, holder: str, row: Row) -> None:
        """Tell who has the item now what was corrected of the report, which a transfer carries as it was first sent."""
        said = await Amendments(tx, self.vault).said_of(row["id"])
        if said != Corrected() and row["withdrawn_at"] is None:
            to = Listener(holder, row["id"], row["case_id"], row["report_hash"])
            self.told.append(Telling(to, CorrectionBody(corrects=to.report_hash.hex(), members=said)))

    async def _fact(self, tx: Transaction, one: Judged, row: Row | None, now: datetime) -> Refused | None:
        """Note what the holder of an item says of it: that it is at the desk, or did not get through to another."""
        envelope, body = one.record.envelope, _body(one)
        said = _SAID[body.kind]
        if row is None:
            return _of_nothing_here(one, said, "iss")
        known = (await custody.chains(tx, [row["id"]])).get(row["id"])
        speaker = _speaker(envelope, row, known)
        try:
            state = by_table(State(row["state"]), said, speaker)
        except RecordRefused as bad:
            unknown = speaker is Speaker.STRANGER
            return Refused(one.idx, envelope.id, bad.code, "iss", bad.sentence, unknown=unknown)
        if speaker is Speaker.CUSTODIAN and (mark := MARKS.get((state, said))) is not None:
            if said is Said.DISPUTED and body.code == OVER:
                await custody.unmark(tx, row["id"], mark, now)
            else:
                await custody.stand(tx, row["id"], state, mark, now)
        if said is Said.RELAY_FAILED and body.node is not None and not self._is_here(row):
            await self._took_back(tx, row, known, envelope, body.node, now)
        return None

    def _is_here(self, row: Row) -> bool:
        """Tell whether this hotline has an item, or gives it away: then none who had it takes it by its word alone.

        Who gave it to us takes it back with a withdrawal, which comes first.
        """
        return row["assigned_node"] in {None, self.node_id} or row["state"] == State.LEAVING

    async def _took_back(
        self, tx: Transaction, row: Row, known: Chain | None, envelope: Envelope, taker: str, now: datetime
    ) -> None:
        """Its speaker has the item again that it had given to `taker`, whoever else said, or says later, to have it."""
        giver, at = envelope.iss, envelope.iat
        await custody.took_back(tx, row["id"], giver, taker, at)
        if known is None or (back := undone(known.trail, known.holder, {(giver, taker): at})) is None:
            return
        await custody.given(tx, row["id"], Chain(giver, known.trail[:back], at), now)
        await custody.handed_to(tx, row["id"], giver, row["assigned_country"], now)


def _of_nothing_here(one: Judged, said: Said, where: str, *, unknown: bool = True) -> Refused:
    """Refuse what is said of an item that is not here, or that was not reported from here."""
    code = UNKNOWN[said]
    if not isinstance(code, Code):
        raise TypeError("of what is not here nobody says where it is")
    return Refused(one.idx, one.record.envelope.id, code, where, refusal(said, code), unknown=unknown)


def _speaker(envelope: Envelope, row: Row, known: Chain | None) -> Speaker:
    """Return as whom somebody says something of an item's way: who has it now, who had it, or nobody of its way.

    Who had it, and says it later than the item was given to whoever is known to have it, has it again. What did not
    get through is said in the moment in which the item is handed on to another: that is said by who had it.
    """
    holder = row["assigned_node"] if known is None else known.holder
    if envelope.iss == holder:
        return Speaker.CUSTODIAN
    had_it = {row["assigned_node"]} if known is None else {station.node for station in known.trail[1:]}
    if envelope.iss not in had_it | {row["assigned_node"]}:
        return Speaker.STRANGER
    return Speaker.CUSTODIAN if known is None or envelope.iat > known.given_at else Speaker.FORMER


def _body(one: Judged) -> StatusBody:
    if not isinstance(one.record.body, StatusBody):
        raise TypeError("a status has a status's body")
    return one.record.body


def is_read(one: Judged) -> bool:
    """Tell whether a judged record is a status that is read here."""
    return isinstance(one.record.body, StatusBody) and one.record.body.kind in _SAID
