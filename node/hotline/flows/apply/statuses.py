"""Notes what peers say of an item's way: who has it now. Moves no item, and takes nobody's word without a proof.

Whoever got an item of ours from somebody else hears what was corrected of its report meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from node.hotline.domain.acceptance import Judged, Refused
from node.hotline.domain.acts import overlaid
from node.hotline.domain.custody import newer
from node.hotline.domain.lifecycle import State
from node.hotline.store import custody, inbound, outbound
from node.hotline.store.custody import Chain
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Telling
from node.hotline.store.vault import Vault
from node.platform.database import Row, Transaction
from protocol.codes import StatusKind
from protocol.record import Envelope, parse_record
from protocol.steps import Corrected, CorrectionBody, StatusBody, TransferBody

#: The kinds that are read here; what another one says is kept.
KINDS = frozenset({StatusKind.DELIVERED, StatusKind.DISPUTED, StatusKind.RELAY_FAILURE})
#: Where an item stands here while another hotline has it and is not done.
_WITH_OTHERS = frozenset({State.SENT, State.TRANSFERRED})


@dataclass(frozen=True, slots=True)
class StatusApplier:
    """What statuses are noted with, for one batch; `told` is what others are to hear of it."""

    node_id: str
    vault: Vault
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
            if _kind(one) is not StatusKind.DELIVERED:
                if (bad := await self._fact(tx, one, row, now)) is not None:
                    refused.append(bad)
            elif one.given is None or one.given.reporter != self.node_id or row is None:
                sentence = "the item was not reported from here"
                refused.append(Refused(one.idx, one.record.envelope.id, "handling-violation", "body.proof", sentence))
            else:
                await self._delivered(tx, one, row, now)
        return refused

    async def _delivered(self, tx: Transaction, one: Judged, row: Row, now: datetime) -> None:
        transfer = one.transfer
        if transfer is None or not isinstance(transfer.body, TransferBody):
            raise TypeError("a judged status of a delivery has its transfer")
        known = (await custody.chains(tx, [row["id"]])).get(row["id"])
        made_at = transfer.envelope.iat
        if known is not None and not newer(known.trail, transfer.body.trail, later=made_at > known.given_at):
            return
        holder = transfer.envelope.aud
        await custody.given(tx, row["id"], Chain(holder, transfer.body.trail, made_at), now)
        await custody.handed_to(tx, row["id"], holder, transfer.body.hosting.assigned_country, now)
        await self._correct(tx, holder, row)

    async def _correct(self, tx: Transaction, holder: str, row: Row) -> None:
        """Tell who has the item now what was corrected of the report, which a transfer carries as it was first sent."""
        said = Corrected()
        for one in await outbound.corrections(tx, row["id"]):
            body = parse_record(self.vault.open_record("outbox", one["stream"], one["idx"], one["record_enc"])).body
            if isinstance(body, CorrectionBody):
                said = overlaid(said, body.members)
        if said != Corrected() and row["withdrawn_at"] is None:
            to = Listener(holder, row["id"], row["case_id"], row["report_hash"])
            self.told.append(Telling(to, CorrectionBody(corrects=to.report_hash.hex(), members=said)))

    async def _fact(self, tx: Transaction, one: Judged, row: Row | None, now: datetime) -> Refused | None:
        """Note what the holder of an item says of it: that it is at the desk, or did not get through to another."""
        envelope, body = one.record.envelope, one.record.body
        if not isinstance(body, StatusBody):
            raise TypeError("a status has a status's body")
        known = None if row is None else (await custody.chains(tx, [row["id"]])).get(row["id"])
        holders = set() if known is None else {known.holder, *(station.node for station in known.trail[1:])}
        if row is None or envelope.iss not in holders | {row["assigned_node"]}:
            return Refused(one.idx, envelope.id, "not-competent", "iss", "this hotline does not have the item")
        if not _is_news(envelope, row, known):
            return None
        if body.kind is StatusKind.DISPUTED:
            if row["state"] in _WITH_OTHERS:
                await custody.stand(tx, row["id"], row["state"], "disputed", now)
            return None
        if row["state"] == State.SENT:
            await custody.stand(tx, row["id"], row["state"], StatusKind.RELAY_FAILURE, now)
        if known is not None and known.holder == body.node and known.trail[-1].node == envelope.iss:
            # It took the item back, whatever the other one said of having it.
            await custody.given(tx, row["id"], Chain(envelope.iss, known.trail[:-1], envelope.iat), now)
            await custody.handed_to(tx, row["id"], envelope.iss, row["assigned_country"], now)
        return None


def _is_news(envelope: Envelope, row: Row, known: Chain | None) -> bool:
    """Tell whether who says something of an item has it now, or had it later than whoever is known to have it.

    What did not get through is said in the moment in which it is handed on to another: that is no news.
    """
    holder = row["assigned_node"] if known is None else known.holder
    return envelope.iss == holder or known is None or envelope.iat > known.given_at


def _kind(one: Judged) -> StatusKind | None:
    return one.record.body.kind if isinstance(one.record.body, StatusBody) else None


def is_read(one: Judged) -> bool:
    """Tell whether a judged record is a status that is read here."""
    return isinstance(one.record.body, StatusBody) and one.record.body.kind in KINDS
