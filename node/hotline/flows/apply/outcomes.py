"""Notes what a peer says became of our records. Never answers an outcome, or two nodes would answer for ever.

What is told of a transfer that was refused goes to those who are to hear of the item.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from node.hotline.domain.acceptance import NEVER_SENT, NOT_READ, Judged, Refused
from node.hotline.store import custody, inbound, outbound, steps
from node.hotline.store.telling import Telling
from node.platform.database import Row, Transaction
from protocol.bodies import OutcomeBody, Refusal
from protocol.checkpoint import StreamId
from protocol.codes import StatusKind
from protocol.errors import ProtocolError
from protocol.steps import StatusBody


def _not_read(idx: int) -> Refusal:
    """Return what it comes to that an item was given to a hotline that keeps the record unread: nobody there acts."""
    return Refusal(index=idx, id=None, code=NOT_READ, detail="the hotline cannot read the record, and keeps it")


@dataclass(slots=True)
class OutcomeApplier:
    """What outcomes are noted with, for one batch; `told` is what others are to hear of it."""

    node_id: str
    told: list[Telling] = field(default_factory=list)

    async def apply(
        self, tx: Transaction, head: inbound.ApplyHead, outcomes: Sequence[Judged], now: datetime
    ) -> list[Refused]:
        """Note what the peer says became of our records; an outcome about another stream is refused."""
        refused: list[Refused] = []
        for one in outcomes:
            body = one.record.body
            if not isinstance(body, OutcomeBody):
                raise TypeError("an outcome has an outcome's body")
            try:
                await self._apply_one(tx, head, body, now)
            except ProtocolError as error:
                refused.append(
                    Refused(one.idx, one.record.envelope.id, error.code, error.field, error.detail, told=False)
                )
        return refused

    async def _apply_one(self, tx: Transaction, head: inbound.ApplyHead, body: OutcomeBody, now: datetime) -> None:
        told = StreamId.parse(body.stream)
        if (told.iss, told.aud) != (self.node_id, head.peer):
            raise ProtocolError(
                "handling-violation", "an outcome speaks of our stream to its issuer", field="body.stream"
            )
        stream = await outbound.stream_of(tx, head.peer, told.epoch)
        indices = [last for _, last in (*body.accepted, *body.kept)] + [one.index for one in body.refused]
        if stream is None or any(idx >= stream.next_index for idx in indices):
            raise ProtocolError("schema-invalid", NEVER_SENT, field="body.stream")
        refused = [*body.refused, *map(_not_read, await outbound.unread(tx, stream.id, body.kept))]
        if refused:
            back = await custody.handed_on(tx, stream.id, [one.index for one in refused])
            await outbound.refuse(tx, stream.id, [(one.index, one.code, one.detail) for one in refused], now)
            await self._tell(tx, head.peer, refused, back, now)
        if indices:
            await outbound.note_outcome(tx, stream.id, max(indices) + 1)

    async def _tell(
        self, tx: Transaction, peer: str, refused: Sequence[Refusal], back: Sequence[Row], now: datetime
    ) -> None:
        """Who reported an item first, and who gave it to us, hear that it is here again, and why."""
        if not back:
            return
        codes = {one.index: one.code for one in refused}
        known = await steps.lock_known(tx, [row["item_id"] for row in back], self.node_id)
        for row in back:
            self.told += [
                Telling(
                    to,
                    StatusBody(
                        kind=StatusKind.RELAY_FAILURE,
                        at=now,
                        about=to.report_hash.hex(),
                        node=peer,
                        code=codes[row["idx"]],
                        since=row["created_at"],
                        attempts=1,
                    ),
                )
                for to in steps.listeners(known[row["item_id"]])
            ]
