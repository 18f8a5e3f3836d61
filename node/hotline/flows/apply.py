"""Applies the records of peers in stream order and says in `outcome` records what became of each.

A bad record is refused on its own and blocks nothing; an outcome is never answered with an outcome.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from node.hotline.domain.acceptance import Judged, Refused, judge, ranges
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.lifecycle import ENTRIES, Entry
from node.hotline.store import inbound, intake, outbound
from node.hotline.store.intake import CaseRow, ItemRow, Received
from node.hotline.store.qualification import to_column
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.ids import new_ids
from protocol.bodies import OutcomeBody, Qualification, Refusal, ReportBody, split_outcome
from protocol.checkpoint import StreamId
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.merkle import leaf_hash
from protocol.record import Handling, encode_outcome

#: An outcome is about the exchange, not about content: it is kept as long as the stream it speaks of is disputed.
_OUTCOME_RETAIN = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Applier:
    """What this flow works with; one for each process."""

    node_id: str
    db: Database
    vault: Vault
    clock_now: Callable[[], datetime]
    records_max: int

    async def run_once(self, directory: Directory) -> int:
        """Apply up to `records_max` records of one peer; returns how many.

        Items, refusals, the outcome record and the cursor are committed together: if we crash before, the records are
        applied again from the cursor; if we crash after, they are not.
        """
        now = self.clock_now()
        async with self.db.transaction("apply.store") as tx:
            head = await inbound.lock_unapplied(tx)
            if head is None:
                return 0
            rows = await inbound.read(tx, head.stream, head.applied, self.records_max)
            verdicts = [
                judge(
                    idx,
                    self.vault.open_record("inbox", head.stream, idx, sealed),
                    iss=head.peer,
                    aud=self.node_id,
                    directory=directory,
                    now=now,
                )
                for idx, _, sealed in rows
            ]
            refused = [verdict for verdict in verdicts if isinstance(verdict, Refused)]
            judged = [verdict for verdict in verdicts if isinstance(verdict, Judged)]
            reports = [one for one in judged if isinstance(one.record.body, ReportBody)]
            outcomes = [one for one in judged if isinstance(one.record.body, OutcomeBody)]
            refused += await self._apply_reports(tx, head, reports, now)
            refused += await self._apply_outcomes(tx, head, outcomes, now)
            await inbound.finish_apply(
                tx, head, head.applied + len(rows), [(one.idx, one.code, one.field, one.detail) for one in refused], now
            )
            await self._tell(tx, head, judged, refused, now)
        return len(rows)

    async def _apply_reports(
        self, tx: Transaction, head: inbound.ApplyHead, reports: Sequence[Judged], now: datetime
    ) -> list[Refused]:
        """Write the cases and items of reports; an item or case id that is somebody else's is refused."""
        if not reports:
            return []
        submitter = f"peer:{head.peer}"
        known = await intake.known_items(tx, [UUID(one.record.envelope.item) for one in reports])
        owners = await intake.submitters(tx, [UUID(one.record.envelope.case) for one in reports])
        refused: list[Refused] = []
        taken: dict[UUID, Judged] = {}
        for one in reports:
            envelope = one.record.envelope
            item_id = UUID(envelope.item)
            if item_id in known or item_id in taken:
                sentence = "an item of this id was received before"
                refused.append(Refused(one.idx, envelope.id, "id-conflict", "item", sentence))
            elif owners.get(UUID(envelope.case), submitter) != submitter:
                sentence = "a case of this id is known from somebody else"
                refused.append(Refused(one.idx, envelope.id, "id-conflict", "case", sentence))
            else:
                taken[item_id] = one
        cases = {UUID(one.record.envelope.case): self._case(one, submitter) for one in taken.values()}
        await intake.copy_cases(tx, list(cases.values()), now)
        await self._write_items(tx, [self._item(one, head) for one in taken.values()], now)
        return refused

    async def _write_items(self, tx: Transaction, rows: Sequence[ItemRow], now: datetime) -> None:
        first: dict[bytes, tuple[UUID, int]] = {}
        for row in rows:
            known, seen = first.get(row.url_digest, (row.id, 0))
            first[row.url_digest] = (known, seen + 1)
        originals = await intake.claim_identities(tx, first) if first else {}
        again = ENTRIES[Entry.REPORTED_AGAIN]
        await intake.copy_items(
            tx,
            [
                row
                if originals[row.url_digest] == row.id
                else replace(row, duplicate_of=originals[row.url_digest], state=again)
                for row in rows
            ],
            now,
        )

    def _case(self, one: Judged, submitter: str) -> CaseRow:
        body, case_id = _report(one), UUID(one.record.envelope.case)
        sealed = None if one.referrer is None else self.vault.seal("cases", "referrer_enc", case_id, one.referrer)
        return CaseRow(
            id=case_id,
            submitter=submitter,
            reference=None,
            content_digest=b"",
            channel="network",
            received_at=body.received_at,
            reported_at=body.reported_at,
            referrer_enc=sealed,
            note_enc=None,
            reporter_enc=None,
            site_type=body.site_type,
            commerciality=body.commerciality,
            payment_methods=body.payment_methods,
        )

    def _item(self, one: Judged, head: inbound.ApplyHead) -> ItemRow:
        body, envelope, url = _report(one), one.record.envelope, one.url
        if url is None:
            raise TypeError("a judged report has its URL")
        item_id = UUID(envelope.item)
        seal = self.vault.seal
        evidence = json.dumps(body.hosting.evidence, separators=(",", ":"), ensure_ascii=False)
        return ItemRow(
            id=item_id,
            case_id=UUID(envelope.case),
            kind=body.kind,
            page_id=None if body.page is None else UUID(body.page),
            url_enc=seal("items", "url_enc", item_id, url.original),
            normal_enc=None if url.normal == url.original else seal("items", "normal_enc", item_id, url.normal),
            url_digest=self.vault.url_digest(url.normal),
            hashes=json.dumps([{"alg": h.alg, "value": h.value} for h in body.hashes]) if body.hashes else None,
            duplicate_of=None,
            state=ENTRIES[Entry.RECEIVED],
            reason=None,
            qualification=None,
            received=Received(
                stream=head.stream,
                idx=one.idx,
                hosting_country=body.hosting.country,
                registered_country=body.hosting.registered_country,
                assigned_country=body.hosting.assigned_country,
                confidence=body.hosting.confidence,
                reasons=body.hosting.reasons,
                evidence_enc=seal("items", "evidence_enc", item_id, evidence),
                qualification=to_column(_assessment(body.qualification)),
            ),
        )

    async def _apply_outcomes(
        self, tx: Transaction, head: inbound.ApplyHead, outcomes: Sequence[Judged], now: datetime
    ) -> list[Refused]:
        """Note what the peer says became of our records; an outcome about another stream is refused."""
        refused: list[Refused] = []
        for one in outcomes:
            body = one.record.body
            if not isinstance(body, OutcomeBody):
                raise TypeError("an outcome has an outcome's body")
            try:
                await self._apply_outcome(tx, head, body, now)
            except ProtocolError as error:
                refused.append(
                    Refused(one.idx, one.record.envelope.id, error.code, error.field, error.detail, told=False)
                )
        return refused

    async def _apply_outcome(self, tx: Transaction, head: inbound.ApplyHead, body: OutcomeBody, now: datetime) -> None:
        told = StreamId.parse(body.stream)
        if (told.iss, told.aud) != (self.node_id, head.peer):
            raise ProtocolError(
                "handling-violation", "an outcome speaks of our stream to its issuer", field="body.stream"
            )
        stream = await outbound.stream_of(tx, head.peer, told.epoch)
        indices = [last for _, last in (*body.accepted, *body.kept)] + [one.index for one in body.refused]
        if stream is None or any(idx >= stream.next_index for idx in indices):
            raise ProtocolError("schema-invalid", "the outcome speaks of records never sent", field="body.stream")
        if body.refused:
            await outbound.refuse(tx, stream.id, [(one.index, one.code, one.detail) for one in body.refused], now)
        if indices:
            await outbound.note_outcome(tx, stream.id, max(indices) + 1)

    async def _tell(
        self,
        tx: Transaction,
        head: inbound.ApplyHead,
        judged: Sequence[Judged],
        refused: Sequence[Refused],
        now: datetime,
    ) -> None:
        """Append the outcome to our stream back to the peer."""
        bad = {one.idx for one in refused}
        accepted = [one.idx for one in judged if isinstance(one.record.body, ReportBody) and one.idx not in bad]
        kept = [one.idx for one in judged if not isinstance(one.record.body, ReportBody | OutcomeBody)]
        told = sorted((one for one in refused if one.told), key=lambda one: one.idx)
        if not (accepted or kept or told):
            return
        body = OutcomeBody(
            stream=StreamId(head.peer, self.node_id, head.epoch).origin(),
            accepted=ranges(accepted),
            kept=ranges(kept),
            refused=tuple(
                Refusal(index=one.idx, id=one.record_id, code=one.code, detail=one.detail, field=one.field)
                for one in told
            ),
        )
        parts = list(split_outcome(body))
        back = (await outbound.lock_streams(tx, [head.peer]))[head.peer]
        rows = []
        for at, (record_id, part) in enumerate(zip(new_ids(len(parts), now), parts, strict=True)):
            record = encode_outcome(
                part,
                record_id=str(record_id),
                iss=self.node_id,
                aud=head.peer,
                iat=now,
                handling=Handling("takedown", now + _OUTCOME_RETAIN),
            )
            idx = back.next_index + at
            sealed = self.vault.seal_record("outbox", back.id, idx, record)
            rows.append(outbound.OutboxRow(idx, record_id, None, "outcome", leaf_hash(record), sealed))
        await outbound.append(tx, back, rows, now)
        await tx.notify("deliver")


def _report(one: Judged) -> ReportBody:
    if not isinstance(one.record.body, ReportBody):
        raise TypeError("a report has a report's body")
    return one.record.body


def _assessment(qualification: Qualification | None) -> Assessment | None:
    """The sender's qualification, as we keep it beside our own."""
    if qualification is None:
        return None
    flags = qualification.flags
    return Assessment(
        classification=qualification.classification,
        age=qualification.age,
        gender=qualification.gender,
        virtual=None if flags is None else flags.virtual,
        user_generated=None if flags is None else flags.user_generated,
        child_modelling=None if flags is None else flags.child_modelling,
        law=qualification.law,
        at=qualification.at,
        by=qualification.by,
    )
