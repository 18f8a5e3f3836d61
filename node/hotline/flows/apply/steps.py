"""Applies what peers say of items: qualifications, actions, corrections, withdrawals, ends. Never judges a body.

An offence against the rules is refused and changes nothing; a repeat is taken and changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from node.hotline.domain.acceptance import Judged, Proven, Refused
from node.hotline.domain.assessment import from_wire
from node.hotline.domain.lifecycle import RecordRefused, Said, Speaker, State
from node.hotline.domain.steps import SAID, Done, KnownItem
from node.hotline.store import amendments, custody, inbound, steps
from node.hotline.store.amendments import Amendments
from node.hotline.store.proofs import Proofs
from node.hotline.store.steps import ActionRow, AssessmentRow
from node.hotline.store.telling import Telling
from node.hotline.store.vault import Vault
from node.platform.database import Transaction
from protocol.bodies import OutcomeBody, ReportBody
from protocol.codes import StatusKind, WithdrawalReason
from protocol.custody import PROVABLE_BYTES_MAX
from protocol.errors import ProtocolError
from protocol.record import Record, UnknownBody
from protocol.steps import ActionBody, AssessmentBody, Corrected, CorrectionBody, StatusBody, Step, WithdrawalBody

#: The reason of an item whose giver had no receipt of ours.
REROUTED: Final = WithdrawalReason.REROUTED.value


@dataclass(frozen=True, slots=True)
class _HandedOn:
    """A withdrawal for the hotline that we passed the item on to: with its proof, or with where its proof is made."""

    to: steps.Listener
    body: WithdrawalBody
    idx: int
    rerouted: bool = False


@dataclass(slots=True)
class _Batch:
    """What the records of one transaction come to; an item is here as the last of them left it."""

    known: dict[UUID, KnownItem]
    changed: set[UUID] = field(default_factory=set)
    assessments: list[AssessmentRow] = field(default_factory=list)
    actions: list[ActionRow] = field(default_factory=list)
    withdrawn: list[tuple[UUID, str]] = field(default_factory=list)
    succeeded: list[UUID] = field(default_factory=list)
    corrected: list[tuple[KnownItem, Corrected]] = field(default_factory=list)
    relayed: list[tuple[UUID, Step]] = field(default_factory=list)
    handed_on: list[_HandedOn] = field(default_factory=list)
    given_back: list[KnownItem] = field(default_factory=list)

    def put(self, item: KnownItem) -> None:
        self.known[item.id] = item
        self.changed.add(item.id)


_SAID: Mapping[type, Said] = {StatusBody: Said.FINAL, CorrectionBody: Said.CORRECTED, WithdrawalBody: Said.WITHDRAWN}


def is_applied(body: ReportBody | OutcomeBody | Step | UnknownBody) -> bool:
    """Whether a record of this body changes something here; a step that does not is kept."""
    if isinstance(body, StatusBody):
        return body.kind is StatusKind.FINAL
    return isinstance(body, AssessmentBody | ActionBody | CorrectionBody | WithdrawalBody)


@dataclass(frozen=True, slots=True)
class StepApplier:
    """What steps are applied with, for one batch; `told` is what others are to hear of it."""

    node_id: str
    vault: Vault
    told: list[Telling] = field(default_factory=list)

    async def apply(
        self, tx: Transaction, head: inbound.ApplyHead, said: Sequence[Judged], now: datetime
    ) -> list[Refused]:
        """Apply steps in their order; return those that are refused, each with its reason."""
        items = [UUID(one.record.envelope.item) for one in said]
        if any(isinstance(one.record.body, WithdrawalBody) for one in said):
            await amendments.lock_identities(tx, items)
        batch = _Batch(await steps.lock_known(tx, items, self.node_id))
        refused: list[Refused] = []
        for one in said:
            envelope = one.record.envelope
            try:
                self._apply_one(batch, head.peer, one)
            except RecordRefused as error:
                refused.append(Refused(one.idx, envelope.id, error.code, None, error.sentence))
            except ProtocolError as error:
                unknown = isinstance(error, _Unknown)
                refused.append(Refused(one.idx, envelope.id, error.code, error.field, error.detail, unknown=unknown))
        await self._write(tx, batch, now)
        self.told.extend(await self._relayed(tx, batch.relayed))
        self.told.extend(await self._handed_on(tx, head, batch.handed_on))
        return refused

    def _apply_one(self, batch: _Batch, peer: str, one: Judged) -> None:
        record, body = one.record, one.record.body
        item = _item_of(batch.known, peer, record)
        if isinstance(body, AssessmentBody):
            assessment = from_wire(body.qualification)
            after = item.assessed(peer, assessment)
            if after is not None:
                batch.put(after)
                batch.assessments.append(AssessmentRow(item.id, peer, assessment, record.leaf_hash))
                batch.relayed.append((item.id, body))
        elif isinstance(body, ActionBody):
            done = Done(peer, body.action, body.at, body.by, body.reason)
            after = item.acted(done)
            if after is not None:
                batch.put(after)
                batch.actions.append(ActionRow(item.id, done, record.leaf_hash))
                batch.relayed.append((item.id, body))
        elif isinstance(body, CorrectionBody):
            _check_about(body.corrects, item, "body.corrects")
            batch.put(item.corrected(peer))
            batch.corrected.append((item, body.members))
        elif isinstance(body, WithdrawalBody):
            self._withdraw(batch, peer, one, item, body)
        elif isinstance(body, StatusBody):
            _check_about(body.about, item, "body.about")
            batch.put(item.told_final(peer, body.code or ""))

    def _withdraw(self, batch: _Batch, peer: str, one: Judged, item: KnownItem, body: WithdrawalBody) -> None:
        """Take a report back: on the reporter's own word, or on its proven word that a holder hands on.

        Who gave the item to us and had no receipt of that in time takes back what it gave, on its own word.
        """
        _check_about(body.withdraws, item, "body.withdraws")
        speaker = item.speaker(Said.WITHDRAWN, peer)
        if speaker is Speaker.REPORTER:
            if len(one.record.raw) > PROVABLE_BYTES_MAX:
                raise ProtocolError("too-large", f"a withdrawal has at most {PROVABLE_BYTES_MAX} bytes")
            # Its own word needs none, and what it adds is handed on to nobody.
            body = replace(body, proof=None)
        rerouted = speaker is Speaker.GIVER and body.reason is WithdrawalReason.REROUTED and body.proof is None
        if speaker is not Speaker.REPORTER and not rerouted:
            self._check_proof(item, body, one.proven)
        if rerouted and item.was_here_before:
            self._give_back(batch, peer, one, item, body)
            return
        after = item.withdrawn(peer, body.reason.value)
        if after is None:
            return
        batch.put(after)
        batch.withdrawn.append((item.id, body.reason.value))
        if after.state is State.WITHDRAWN and item.state is not State.DUPLICATE:
            batch.succeeded.append(item.id)
        to = steps.holder(item)
        if to is not None and to.node != peer:
            batch.handed_on.append(_HandedOn(to, body, one.idx, rerouted=rerouted))

    def _give_back(self, batch: _Batch, peer: str, one: Judged, item: KnownItem, body: WithdrawalBody) -> None:
        """What had been here before is its giver's again; whom we handed it on to meanwhile has it no more."""
        after = item.given_back(peer)
        if after is None:
            return
        batch.put(after)
        batch.given_back.append(after)
        to = steps.holder(item)
        if to is not None and to.node not in {peer, after.assigned_node}:
            batch.handed_on.append(_HandedOn(to, body, one.idx, rerouted=True))

    def _check_proof(self, item: KnownItem, body: WithdrawalBody, proven: Proven | ProtocolError | None) -> None:
        """Require that the first reporter itself withdrew this very report."""
        if proven is None:
            raise ProtocolError("handling-violation", "only the reporter withdraws without a proof", field="body.proof")
        if isinstance(proven, ProtocolError):
            raise proven
        if proven != Proven(item.reporter or "", str(item.id), body.withdraws):
            raise ProtocolError(
                "handling-violation", "the proof is not of the reporter's withdrawal of this item", field="body.proof"
            )

    async def _write(self, tx: Transaction, batch: _Batch, now: datetime) -> None:
        writing = Amendments(tx, self.vault)
        if batch.changed:
            await steps.write_known(tx, [batch.known[item_id] for item_id in sorted(batch.changed)], now)
        if batch.assessments:
            await steps.append_assessments(tx, batch.assessments, now)
        if batch.actions:
            await steps.append_actions(tx, batch.actions, now)
        for item, members in batch.corrected:
            await writing.correct(item.id, item.case_id, members, now)
        if batch.withdrawn:
            await writing.withdraw(batch.withdrawn, now)
        if batch.succeeded:
            await writing.succeed(batch.succeeded, now)
        for one in batch.given_back:
            await custody.come_back(tx, one.id, one.state, REROUTED, one.custodian, now)

    async def _relayed(self, tx: Transaction, said: Sequence[tuple[UUID, Step]]) -> list[Telling]:
        """Those whose reports are linked to an item that is another hotline's hear of it: to them this node has it."""
        if not said:
            return []
        linked = await steps.listeners_of_duplicates(tx, [item_id for item_id, _ in said])
        return [Telling(listener, body) for item_id, body in said for listener in linked.get(item_id, ())]

    async def _handed_on(
        self, tx: Transaction, head: inbound.ApplyHead, withdrawals: Sequence[_HandedOn]
    ) -> list[Telling]:
        """Whoever we passed an item on to hears that it is withdrawn, and can prove that its reporter said so."""
        proofs = Proofs(tx, self.vault)
        told = []
        for one in withdrawals:
            proof = one.body.proof
            if proof is None and not one.rerouted:
                proof = (await proofs.proof_of_received(head.stream, one.idx)).decode()
            body = WithdrawalBody(withdraws=one.body.withdraws, reason=one.body.reason, proof=proof)
            told.append(Telling(one.to, body))
        return told


class _Unknown(ProtocolError):  # noqa: N818 - names the fact
    """No item is here that the sender of a step has to do with."""


def _item_of(known: dict[UUID, KnownItem], peer: str, record: Record) -> KnownItem:
    """Return the item that a step is about; a stranger to an item learns no more than that it may not speak of it."""
    envelope = record.envelope
    item = known.get(UUID(envelope.item))
    if item is None or item.speaker(_said(record.body), peer) is Speaker.STRANGER:
        raise _Unknown(
            "not-competent", "no item of this id is known here that this hotline has to do with", field="item"
        )
    if item.case_id != UUID(envelope.case):
        raise ProtocolError("id-conflict", "the item belongs to another case", field="case")
    _check_about(envelope.parent, item, "parent")
    return item


def _said(body: object) -> Said:
    """What matters of a step for who may say it."""
    if isinstance(body, ActionBody):
        return SAID[body.action]
    return _SAID.get(type(body), Said.ASSESSED_ILLEGAL)


def _check_about(record_hash: str | None, item: KnownItem, name: str) -> None:
    """Require that a step names the report of its item."""
    if item.report_hash is None or record_hash != item.report_hash.hex():
        raise ProtocolError("id-conflict", "this is not the record hash of the item's report", field=name)
