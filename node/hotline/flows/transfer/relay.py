"""Writes one `transfer` for an item in custody: the original as it was first sent, the trail, the new location.

Never serialises the original anew, and never gives an item to two. What may not travel on is put before the desk.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from node.hotline.domain.assessment import to_wire
from node.hotline.domain.custody import REFUSED_TOO_OFTEN, Contest, HandOn, goes_again_at
from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.store import custody, desk, outbound
from node.hotline.store.amendments import Amendments
from node.hotline.store.custody import Chain, Rehosted
from node.hotline.store.proofs import Proofs
from node.hotline.store.qualification import from_column, is_illegal
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Teller, Telling
from node.hotline.store.vault import Vault
from node.platform.database import Row, Transaction
from node.platform.ids import new_id
from node.platform.telemetry import Logger
from protocol.bodies import Hosting, ReportBody
from protocol.codes import StatusKind, TransferReason
from protocol.custody import PROVABLE_BYTES_MAX, evidence_hash
from protocol.desk import DATABASES_MAX, DatabaseUsed, Statement, encode
from protocol.errors import ProtocolError
from protocol.merkle import leaf_hash
from protocol.record import Handling, Record, encode_step, parse_record
from protocol.steps import Corrected, CorrectionBody, Custody, StatusBody, TransferBody
from protocol.tlogproof import parse_tlog_proof

_EVIDENCE = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True, repr=False)
class Held:
    """An item in our custody as it came to us: the record, its original's proof, and everybody who had it before."""

    row: Row
    came: Record
    original: str
    trail: tuple[Custody, ...]

    @property
    def id(self) -> UUID:
        """The item's id."""
        item_id: UUID = self.row["id"]
        return item_id

    @property
    def reporter(self) -> str:
        """Who sent it first."""
        return self.trail[0].node

    @property
    def by_ruling(self) -> bool:
        """Whether the desk's word gave it to us."""
        body = self.came.body
        return isinstance(body, TransferBody) and body.reason is TransferReason.RULING

    @property
    def predecessor(self) -> str:
        """Who gave it to us."""
        return self.came.envelope.iss


@dataclass(frozen=True, slots=True)
class Relay:
    """What transfers are written with."""

    teller: Teller
    forward_unqualified: bool
    deliver_by_days: int
    log: Logger

    @property
    def node_id(self) -> str:
        """This node."""
        return self.teller.node_id

    @property
    def vault(self) -> Vault:
        """What fields and records are sealed with."""
        return self.teller.vault

    async def held(self, proofs: Proofs, row: Row) -> Held:
        """Return a locked item as it came to us; raises NoReceipt while that cannot be proven."""
        place = await proofs.received(row["received_stream"], row["received_idx"])
        record = parse_record(self.vault.open_record(place.table, place.stream, place.idx, place.sealed))
        body = record.body
        if isinstance(body, TransferBody):
            return Held(row, record, body.original, body.trail)
        if not isinstance(body, ReportBody):
            raise TypeError("an item is received in a report or a transfer")
        proof = await proofs.proof_of_received(place.stream, place.idx)
        hosting = body.hosting
        station = Custody(
            node=record.envelope.iss,
            country=hosting.country,
            evidence=evidence_hash(hosting.evidence),
            at=record.envelope.iat,
        )
        return Held(row, record, proof.decode(), (station,))

    def evidence(self, row: Row) -> dict[str, object]:
        """Return the evidence that an item's row holds."""
        return _EVIDENCE.decode(self.vault.open("items", "evidence_enc", row["id"], row["evidence_enc"]))

    def cleared(self, row: Row) -> bool:
        """Tell whether the item may leave: found illegal here or by who sent it, or forwarded without qualification."""
        illegal = is_illegal(row["qualification"]) or is_illegal(row["peer_qualification"])
        return illegal or self.forward_unqualified

    def encode(
        self, held: Held, hand_on: HandOn, hosting: Hosting, now: datetime, *, ruling: str | None = None
    ) -> bytes:
        """Return the transfer's bytes; raises ProtocolError when the wire could not carry it."""
        envelope = held.came.envelope
        own = from_column(held.row["qualification"]) or from_column(held.row["peer_qualification"])
        record = encode_step(
            TransferBody(
                reason=hand_on.reason,
                hosting=hosting,
                original=held.original,
                trail=hand_on.trail,
                qualification=None if own is None else to_wire(own),
                ruling=ruling,
            ),
            record_id=str(new_id(now)),
            case=envelope.case,
            item=envelope.item,
            iss=self.node_id,
            aud=hand_on.node,
            iat=now,
            handling=Handling(envelope.handling.purpose, envelope.handling.retain_until),
            deliver_by=now + timedelta(days=self.deliver_by_days),
            parent=held.came.leaf_hash.hex(),
            hops=[station.node for station in hand_on.trail[1:]],
        )
        if len(record) > PROVABLE_BYTES_MAX:
            raise ProtocolError("too-large", f"a transfer has at most {PROVABLE_BYTES_MAX} bytes")
        return record

    async def write(
        self,
        tx: Transaction,
        held: Held,
        hand_on: HandOn,
        hosting: Hosting,
        record: bytes,
        verdict: str,
        now: datetime,
        *,
        state: State | None = None,
    ) -> None:
        """Append the transfer and let the item be `leaving`, in the caller's transaction: both or neither.

        `state` is where the item stands, if that is not what its row says.
        """
        state = next_state(
            State(held.row["state"]) if state is None else state,
            Event.HANDED_ON,
            qualified=self.cleared(held.row),
            forward_unqualified=self.forward_unqualified,
        )
        head = (await outbound.lock_streams(tx, [hand_on.node]))[hand_on.node]
        idx = head.next_index
        sealed = self.vault.seal_record("outbox", head.id, idx, record)
        record_id = UUID(parse_record(record).envelope.id)
        await outbound.append(
            tx, head, [outbound.OutboxRow(idx, record_id, held.id, "transfer", leaf_hash(record), sealed)], now
        )
        await custody.given(tx, held.id, Chain(hand_on.node, hand_on.trail, now), now, place=(head.id, idx))
        await custody.rehost(
            tx, self.rehosted(held.row, hosting, state, hand_on.reason, hand_on.node, verdict=verdict), now
        )
        await self._correct(tx, held, hand_on.node, now)
        await tx.notify("deliver")

    async def _correct(self, tx: Transaction, held: Held, to: str, now: datetime) -> None:
        """Tell who gets our own report what was corrected of it: the transfer carries it as it was first sent.

        Of another's report its reporter says so, once it hears who has the item.
        """
        said = await Amendments(tx, self.vault).said_of(held.id) if held.reporter == self.node_id else Corrected()
        if said != Corrected():
            listener = self._listener(held, to)
            body = CorrectionBody(corrects=listener.report_hash.hex(), members=said)
            await self.teller.tell(tx, [Telling(listener, body)], now)

    def _listener(self, held: Held, node: str) -> Listener:
        report = bytes.fromhex(self.original_hash(held))
        return Listener(node, held.id, UUID(held.came.envelope.case), report)

    async def hand_on(
        self, tx: Transaction, held: Held, to: HandOn, now: datetime, *, state: State | None = None
    ) -> None:
        """Hand an item on where it was located, as `write`; it stays, with the reason, if the wire cannot carry it."""
        row = held.row
        hosting = Hosting(
            country=row["hosting_country"],
            registered_country=row["registered_country"],
            assigned_country=to.assigned_country,
            confidence=row["confidence"],
            reasons=tuple(row["verdict_reasons"] or ()),
            evidence=self.evidence(row),
        )
        try:
            record = self.encode(held, to, hosting, now)
        except ProtocolError as error:
            await self._stay(tx, held, State(row["state"]) if state is None else state, error.code, now)
            return
        await self.write(tx, held, to, hosting, record, row["verdict"], now, state=state)

    async def may_go(self, tx: Transaction, row: Row, node: str, type_: str, now: datetime) -> bool:
        """Tell whether a hotline did not refuse an item just now; of one that was refused too often a person hears.

        `type_` is that of the records that gave it the item. Such an item is marked, so that it is told once.
        """
        refusals, last = await custody.refusals(tx, row["id"], node, type_)
        if last is None:
            return True
        again_at = goes_again_at(refusals, last)
        if again_at is None and row["reason"] != REFUSED_TOO_OFTEN:
            self.not_taken(row["id"], node, row["reason"])
            await custody.stand(tx, row["id"], row["state"], REFUSED_TOO_OFTEN, now)
        return again_at is not None and now >= again_at

    async def _stay(self, tx: Transaction, held: Held, state: State, code: str, now: datetime) -> None:
        """Mark an item whose next step cannot be written.

        It is tried again every time that orphans are looked at, and is marked and told of once.
        """
        reason = f"record-{code}"
        if (held.row["state"], held.row["reason"]) != (state, reason):
            self.not_carried(held.id, code)
            await custody.stand(tx, held.id, state, reason, now)

    def not_carried(self, item_id: UUID, code: str) -> None:
        """Tell a person that no record can give an item to its hotline: it has to be told in another way."""
        self.log.error(
            "an item stays, for no record can carry it",
            action="move.not-carried",
            alarm=True,
            item=str(item_id),
            code=code,
        )

    def not_taken(self, item_id: UUID, node: str, code: str | None) -> None:
        """Tell a person that its hotline refuses an item every time; `code` is why, the last time."""
        self.log.error(
            "an item stays, for its hotline refuses it",
            action="move.not-taken",
            alarm=True,
            item=str(item_id),
            peer=node,
            code=code,
        )

    def original_hash(self, held: Held) -> str:
        """Return the record hash of the report as it was first sent."""
        extra = parse_tlog_proof(held.original.encode()).extra
        if extra is None:
            raise TypeError("the original is a proof with its record")
        return leaf_hash(extra).hex()

    async def tell(self, tx: Transaction, held: Held, body: StatusBody, now: datetime) -> None:
        """Tell who sent the item first, and who gave it to us, in the caller's transaction."""
        to = sorted({held.reporter, held.predecessor} - {self.node_id})
        handling = held.came.envelope.handling
        await self.teller.tell(tx, [Telling(self._listener(held, node), body, handling) for node in to], now)

    async def contest(
        self, tx: Transaction, held: Held, contest: Contest, evidence: Mapping[str, object], now: datetime
    ) -> None:
        """Open a dispute, and tell who sent the item and who gave it to us, in the caller's transaction.

        The caller writes that the item is `disputed`. Raises ProtocolError, with nothing written, when the desk would
        not take it.
        """
        dispute_id, envelope = new_id(now), held.came.envelope
        statement = encode(
            Statement(
                dispute=str(dispute_id),
                case=envelope.case,
                item=envelope.item,
                holder=self.node_id,
                other=contest.other,
                code=contest.code,
                received=held.came.leaf_hash.hex(),
                trail=contest.trail,
                databases=_databases(evidence),
                at=now,
            )
        )
        await desk.contest(tx, dispute_id, held.id, contest.code, contest.other, statement, now)
        about = self.original_hash(held)
        await self.tell(tx, held, StatusBody(kind=StatusKind.DISPUTED, at=now, about=about, code=contest.code), now)

    async def contest_held(self, tx: Transaction, held: Held, contest: Contest, now: datetime, *, state: State) -> None:
        """Open a dispute on the evidence that the item has, which is `disputed` from `state` on.

        It stays in `state`, with the reason, if the desk would not take it.
        """
        stays = next_state(state, Event.CONTESTED, qualified=True, forward_unqualified=True)
        try:
            await self.contest(tx, held, contest, self.evidence(held.row), now)
        except ProtocolError as error:
            await self._stay(tx, held, state, error.code, now)
            return
        await custody.stand(tx, held.id, stays, contest.code, now)

    def rehosted(
        self, row: Row, hosting: Hosting, state: State, reason: str | None, node: str, *, verdict: str
    ) -> Rehosted:
        """Return a new location as the item's row will hold it."""
        evidence = msgspec.json.encode(hosting.evidence).decode()
        return Rehosted(
            id=row["id"],
            state=state,
            reason=reason,
            country=hosting.country,
            registered_country=hosting.registered_country,
            assigned_country=hosting.assigned_country,
            assigned_node=node,
            confidence=hosting.confidence,
            verdict=verdict,
            reasons=hosting.reasons,
            evidence_enc=self.vault.seal("items", "evidence_enc", row["id"], evidence),
        )


def _databases(evidence: Mapping[str, object]) -> tuple[DatabaseUsed, ...]:
    """Return the geolocation files that evidence names, as far as they have names that may be told and a day.

    The evidence may be a peer's, who can write anything there.
    """
    listed = evidence.get("databases")
    named = [
        DatabaseUsed(re.sub(r"[^A-Za-z0-9 _-]", "-", one["type"])[:64] or "-", one["built"])
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get("type"), str) and isinstance(one.get("built"), str)
    ]
    return tuple(one for one in named if one.keeps_form())[:DATABASES_MAX]
