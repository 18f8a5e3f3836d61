"""Takes reports in: writes cases and items, links duplicates, answers a repeated reference with what is known.

Never answers before the commit; many reports share one transaction.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from node.hotline.domain.assessment import Assessment, Merge, merge, to_wire
from node.hotline.domain.intake import Report, ReportedItem
from node.hotline.domain.lifecycle import ENTRIES, Entry, Event, State, next_state
from node.hotline.store import intake, items, steps
from node.hotline.store.intake import CaseRow, ItemRow
from node.hotline.store.qualification import from_column, to_column
from node.hotline.store.telling import Teller, Telling
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.ids import new_ids
from protocol.steps import AssessmentBody

#: A state that a qualification leads to has its own reason, or starts afresh with none.
_REASONS = {State.CLOSED: "not-illegal", State.LOCATING: None}
_NOT_QUALIFIED_BY_A_REPORT = frozenset(
    {State.SENT, State.DECLINED, State.DONE, State.WITHDRAWN, State.ASSIGNED, State.DUPLICATE}
)


@dataclass(frozen=True, slots=True)
class Submission:
    """One checked report and who hands it in; `reference` is the submitter's own, or a derived one."""

    submitter: str
    reference: str | None
    report: Report


@dataclass(frozen=True, slots=True)
class TakenItem:
    """What became of one URL."""

    id: UUID
    state: str
    duplicate_of: UUID | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one report; `repeated` when its reference was known and nothing was added."""

    case_id: UUID
    items: tuple[TakenItem, ...]
    repeated: bool


@dataclass(frozen=True, slots=True)
class ReferenceConflict:
    """The submitter used this reference before, for another report; nothing was added."""

    case_id: UUID


class ReferenceConflicts(Exception):  # noqa: N818 - names the fact
    """Some of the submissions, by `positions`, use references that stand for other reports; nothing was written."""

    def __init__(self, positions: Sequence[int]) -> None:
        """Take the positions, from 0."""
        super().__init__(f"{len(positions)} references are in use")
        self.positions = tuple(positions)


@dataclass(slots=True)
class _Draft:
    """A report on its way into rows."""

    submission: Submission
    case: CaseRow
    rows: list[ItemRow]
    assessments: list[Assessment | None]


@dataclass(frozen=True, slots=True)
class Intake:
    """What this flow works with; one for each process."""

    db: Database
    vault: Vault
    teller: Teller
    clock_now: Callable[[], datetime]
    forward_unqualified: bool

    async def take_in(self, submissions: Sequence[Submission]) -> list[Taken | ReferenceConflict]:
        """Write all submissions in one transaction and return what became of each, in their order.

        If we crash before the commit nothing is there, and the submitter, who has no answer, sends again; if we crash
        after it, the repeat is answered from what is there.
        """
        now = self.clock_now()
        drafts = self._draft(submissions, now)
        async with self.db.transaction("intake.store") as tx:
            known = await self._write(tx, drafts, now)
        return [known.get(draft.case.id) or _taken(draft) for draft in drafts]

    async def take_in_whole(self, submissions: Sequence[Submission]) -> list[Taken]:
        """As `take_in`, all of them or none: raises ReferenceConflicts, and nothing is written."""
        now = self.clock_now()
        drafts = self._draft(submissions, now)
        taken: list[Taken] = []
        conflicts: list[int] = []
        async with self.db.transaction("intake.store") as tx:
            known = await self._write(tx, drafts, now)
            for at, draft in enumerate(drafts):
                answer = known.get(draft.case.id) or _taken(draft)
                if isinstance(answer, Taken):
                    taken.append(answer)
                else:
                    conflicts.append(at)
            if conflicts:
                raise ReferenceConflicts(conflicts)
        return taken

    async def _write(
        self, tx: Transaction, drafts: Sequence[_Draft], now: datetime
    ) -> dict[UUID, Taken | ReferenceConflict]:
        """Write what is new; return what is known of the others, by the draft's case id."""
        fresh = await intake.insert_cases(tx, [draft.case for draft in drafts], now)
        await self._store_items(tx, [draft for draft in drafts if draft.case.id in fresh], now)
        return await self._known(tx, [draft for draft in drafts if draft.case.id not in fresh])

    def _draft(self, submissions: Sequence[Submission], now: datetime) -> list[_Draft]:
        case_ids = new_ids(len(submissions), now)
        # In their order, so that a repeat, read back by id, is answered in the order of the report.
        item_ids = iter(sorted(new_ids(sum(len(one.report.items) for one in submissions), now), key=_number))
        seal = self.vault.seal
        drafts = []
        for case_id, submission in zip(case_ids, submissions, strict=True):
            report = submission.report
            referrer = None if report.referrer is None else report.referrer.original
            case = CaseRow(
                id=case_id,
                submitter=submission.submitter,
                reference=submission.reference,
                content_digest=self.vault.content_digest(_content(report)),
                channel=report.channel,
                received_at=report.received_at,
                reported_at=report.reported_at,
                referrer_enc=None if referrer is None else seal("cases", "referrer_enc", case_id, referrer),
                note_enc=None if report.note is None else seal("cases", "note_enc", case_id, report.note),
                reporter_enc=None
                if report.reporter_email is None
                else seal("cases", "reporter_enc", case_id, report.reporter_email),
                site_type=report.site_type,
                commerciality=report.commerciality,
                payment_methods=tuple(report.payment_methods),
            )
            rows: list[ItemRow] = []
            for item in report.items:
                page_id = rows[0].id if rows else None
                rows.append(self._row(next(item_ids), case_id, page_id, item))
            drafts.append(_Draft(submission, case, rows, [item.assessment for item in report.items]))
        return drafts

    def _row(self, item_id: UUID, case_id: UUID, page_id: UUID | None, item: ReportedItem) -> ItemRow:
        url = item.url
        seal = self.vault.seal
        closed = item.assessment is not None and not item.assessment.illegal
        return ItemRow(
            id=item_id,
            case_id=case_id,
            kind=item.kind,
            page_id=page_id,
            url_enc=seal("items", "url_enc", item_id, url.original),
            normal_enc=None if url.normal == url.original else seal("items", "normal_enc", item_id, url.normal),
            url_digest=self.vault.url_digest(url.normal),
            hashes=json.dumps([{"alg": h.algorithm, "value": h.value} for h in item.hashes]) if item.hashes else None,
            duplicate_of=None,
            state=ENTRIES[Entry.REPORTED_NOT_ILLEGAL if closed else Entry.REPORTED],
            reason="not-illegal" if closed else None,
            qualification=to_column(item.assessment),
        )

    async def _store_items(self, tx: Transaction, drafts: Iterable[_Draft], now: datetime) -> None:
        drafts = list(drafts)
        first: dict[bytes, tuple[UUID, int]] = {}
        for draft in drafts:
            for row in draft.rows:
                known, seen = first.get(row.url_digest, (row.id, 0))
                first[row.url_digest] = (known, seen + 1)
        if not first:
            return
        originals = await intake.claim_identities(tx, first)
        brought: dict[UUID, list[Assessment]] = {}
        for draft in drafts:
            for at, row in enumerate(draft.rows):
                original = originals[row.url_digest]
                if original == row.id:
                    continue
                draft.rows[at] = replace(row, duplicate_of=original, state=ENTRIES[Entry.REPORTED_AGAIN], reason=None)
                assessment = draft.assessments[at]
                if assessment is not None:
                    brought.setdefault(original, []).append(assessment)
        await intake.copy_items(tx, [row for draft in drafts for row in draft.rows], now)
        if brought:
            await self._merge(tx, brought, now)

    async def _merge(self, tx: Transaction, brought: dict[UUID, list[Assessment]], now: datetime) -> None:
        """Let a qualification that came with a duplicate count for the item already known."""
        moved: list[tuple[UUID, str, str, str | None]] = []
        said: dict[UUID, AssessmentBody] = {}
        current = await items.locked_states(tx, list(brought))
        acted = await items.acted_on(tx, list(brought))
        for item_id, arriving in brought.items():
            state = State(current[item_id]["state"])
            held = from_column(current[item_id]["qualification"])
            best, changed = held, False
            for assessment in arriving:
                best, outcome = merge(best, assessment, acted=item_id in acted)
                changed = changed or outcome is Merge.TAKEN
            # What was sent is the peer's to assess; what a peer assigned to us is qualified by a person here.
            if best is None or not changed or current[item_id]["received"] or state in _NOT_QUALIFIED_BY_A_REPORT:
                continue
            event = Event.QUALIFIED_ILLEGAL if best.illegal else Event.QUALIFIED_NOT_ILLEGAL
            after = next_state(state, event, qualified=best.illegal, forward_unqualified=self.forward_unqualified)
            reason = _REASONS.get(after, current[item_id]["reason"])
            moved.append((item_id, to_column(best) or "{}", after, reason))
            said[item_id] = AssessmentBody(qualification=to_wire(best))
        if moved:
            await items.write_qualifications(tx, moved, now)
            # Peers who reported the URL hold us for its custodian.
            others = await steps.listeners_of_duplicates(tx, list(said))
            told = [Telling(one, said[item_id]) for item_id, found in sorted(others.items()) for one in found]
            await self.teller.tell(tx, told, now)
            await items.requeue(tx, [row[0] for row in moved if row[2] == State.LOCATING], now)
            await tx.notify("dispatch")

    async def _known(self, tx: Transaction, drafts: Sequence[_Draft]) -> dict[UUID, Taken | ReferenceConflict]:
        """Find the earlier reports under repeated references; answers are keyed by the draft's case id."""
        answers: dict[UUID, Taken | ReferenceConflict] = {}
        for submitter in sorted({draft.case.submitter for draft in drafts}):
            mine = [draft for draft in drafts if draft.case.submitter == submitter]
            earlier = await intake.cases_by_reference(tx, submitter, [draft.case.reference or "" for draft in mine])
            members = await intake.items_of_cases(tx, [case_id for case_id, _ in earlier.values()])
            for draft in mine:
                case_id, digest = earlier[draft.case.reference or ""]
                if digest != draft.case.content_digest:
                    answers[draft.case.id] = ReferenceConflict(case_id)
                    continue
                found = members.get(case_id, ())
                taken = tuple(TakenItem(row["id"], row["state"], row["duplicate_of"]) for row in found)
                answers[draft.case.id] = Taken(case_id, taken, repeated=True)
        return answers


def _number(item_id: UUID) -> int:
    """The id as a number; comparing those is several times as fast as comparing ids."""
    return item_id.int


def _taken(draft: _Draft) -> Taken:
    return Taken(
        draft.case.id, tuple(TakenItem(row.id, row.state, row.duplicate_of) for row in draft.rows), repeated=False
    )


def _content(report: Report) -> str:
    """What makes two reports under one reference the same: the URLs named, as identities, and how each is qualified."""
    return "\n".join(
        f"{item.url.normal}\t{item.assessment.classification if item.assessment else ''}" for item in report.items
    )
