"""Writes the cases and items of a peer's reports. Never judges a record; what is somebody else's is refused.

Whoever reports a URL that is known hears at once what was found and done about it so far.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from node.hotline.domain.acceptance import Judged, Refused
from node.hotline.domain.assessment import from_wire
from node.hotline.domain.lifecycle import ENTRIES, Code, Entry, Said, refusal
from node.hotline.store import inbound, intake, steps
from node.hotline.store.intake import CaseRow, ItemRow, Received
from node.hotline.store.qualification import from_text, to_column
from node.hotline.store.telling import Telling
from node.hotline.store.vault import Vault
from node.platform.database import Transaction
from protocol.bodies import ReportBody


@dataclass(frozen=True, slots=True)
class ReportApplier:
    """What reports are written with, for one batch; `told` is what others are to hear of it."""

    node_id: str
    vault: Vault
    told: list[Telling] = field(default_factory=list)

    async def apply(
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
                # In whatever state it is: the table has one row for them all.
                code = Code.ID_CONFLICT
                refused.append(Refused(one.idx, envelope.id, code, "item", refusal(Said.REPORT, code)))
            elif owners.get(UUID(envelope.case), submitter) != submitter:
                sentence = "a case of this id is known from somebody else"
                refused.append(Refused(one.idx, envelope.id, "id-conflict", "case", sentence))
            else:
                taken[item_id] = one
        cases = {UUID(one.record.envelope.case): self.case(one, submitter) for one in taken.values()}
        await intake.copy_cases(tx, list(cases.values()), now)
        await self.write_items(tx, head.peer, [self.item(one, head) for one in taken.values()], now)
        return refused

    async def write_items(self, tx: Transaction, peer: str, rows: Sequence[ItemRow], now: datetime) -> None:
        """Write items that `peer` sent; one whose URL is known already is a duplicate of the first."""
        first: dict[bytes, tuple[UUID, int]] = {}
        for row in rows:
            known, seen = first.get(row.url_digest, (row.id, 0))
            first[row.url_digest] = (known, seen + 1)
        originals = await intake.claim_identities(tx, first) if first else {}
        again = ENTRIES[Entry.REPORTED_AGAIN]
        written = [
            row
            if originals[row.url_digest] == row.id
            else replace(row, duplicate_of=originals[row.url_digest], state=again)
            for row in rows
        ]
        await intake.copy_items(tx, written, now)
        new = {row.id for row in rows}
        # Of what came together nothing was said yet.
        await self._tell_so_far(tx, peer, [row for row in written if row.duplicate_of not in {None, *new}])

    async def _tell_so_far(self, tx: Transaction, peer: str, repeated: Sequence[ItemRow]) -> None:
        """Tell who reported a known URL what its item has come to, as the first who reported it was told."""
        firsts = await steps.lock_known(tx, {row.duplicate_of for row in repeated if row.duplicate_of}, self.node_id)
        for row in repeated:
            first, came = firsts.get(row.duplicate_of or row.id), row.received
            if first is None or came is None:
                continue
            finding = first.own if first.is_here else await steps.found_by(tx, first.id, first.custodian)
            said = first.so_far(finding, theirs=from_text(came.qualification))
            for node in sorted({peer, came.reporter} - {self.node_id}):
                to = steps.Listener(node, row.id, row.case_id, came.report_hash)
                self.told.extend(Telling(to, body) for body in said)

    def case(self, one: Judged, submitter: str) -> CaseRow:
        """Return the case of a report about to be written."""
        body, case_id = _report(one), UUID(one.record.envelope.case)
        seal = self.vault.seal
        sealed = None if one.referrer is None else seal("cases", "referrer_enc", case_id, one.referrer)
        reference = body.reference
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
            wire_reference_enc=None if reference is None else seal("cases", "wire_reference_enc", case_id, reference),
        )

    def item(
        self, one: Judged, head: inbound.ApplyHead, *, reporter: str | None = None, report_hash: bytes | None = None
    ) -> ItemRow:
        """Return the item of a report about to be written, as the peer assigns it to us.

        `reporter` and `report_hash` are given where the peer hands on another hotline's report.
        """
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
                reporter=reporter or head.peer,
                report_hash=report_hash or one.record.leaf_hash,
                hosting_country=body.hosting.country,
                registered_country=body.hosting.registered_country,
                assigned_country=body.hosting.assigned_country,
                confidence=body.hosting.confidence,
                reasons=body.hosting.reasons,
                evidence_enc=seal("items", "evidence_enc", item_id, evidence),
                qualification=to_column(None if body.qualification is None else from_wire(body.qualification)),
            ),
        )


def _report(one: Judged) -> ReportBody:
    if not isinstance(one.record.body, ReportBody):
        raise TypeError("a report has a report's body")
    return one.record.body
