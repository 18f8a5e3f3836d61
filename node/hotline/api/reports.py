"""`POST /api/v1/reports`: takes one report or a batch, and answers when it is committed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import msgspec
from aiohttp import web

from node.hotline.api.groupcommit import GroupCommit, IntakeUnavailable
from node.hotline.domain.intake import Report, check_batch, check_report
from node.hotline.domain.lifecycle import State
from node.hotline.domain.schema import BatchIn, IntakeFault, IntakeRefused, ReportIn, decode_submission
from node.hotline.flows.intake import ReferenceConflicts, Submission, Taken
from node.platform.apikeys import Role
from node.platform.apiproblems import CONFLICT, INVALID, MALFORMED, UNAVAILABLE, ApiProblem, FieldFault, ProblemKind
from node.platform.giveway import GiveWay
from node.platform.routes import Answer, Body, Call, Route
from node.platform.telemetry import Metrics
from node.platform.web import read_body

_ENCODER = msgspec.json.Encoder()


class TakenItemOut(msgspec.Struct, frozen=True):
    """One URL of the report: `duplicate_of` is the item already known, where it was reported before."""

    id: str
    state: State
    duplicate_of: str | None


class TakenOut(msgspec.Struct, frozen=True):
    """One report: `repeated` when its reference was known and nothing was added; the page's item comes first."""

    case: str
    reference: str | None
    repeated: bool
    items: list[TakenItemOut]


class ReceivedOut(msgspec.Struct, frozen=True):
    """What became of the reports, in the order in which they were sent."""

    reports: list[TakenOut]


def _example(state: State, *, repeated: bool) -> object:
    """An answer for the description: a page and one media file, which was known before."""
    page, known = "0192f7a0-0000-7000-8000-000000000001", "0192f7a0-0000-7000-8000-000000000002"
    items = [
        TakenItemOut(page, state, None),
        TakenItemOut("0192f7a0-0000-7000-8000-000000000003", State.DUPLICATE, known),
    ]
    case = "0192f7a0-0000-7000-8000-000000000000"
    return msgspec.to_builtins(ReceivedOut([TakenOut(case, "2026-000123", repeated, items)]))


@dataclass(frozen=True, slots=True)
class ReportsApi:
    """What the door works with."""

    group_commit: GroupCommit
    give_way: GiveWay
    clock_now: Callable[[], datetime]
    metrics: Metrics
    body_bytes_max: int
    reports_max: int

    def routes(self) -> list[Route]:
        """Return the operations on reports."""
        return [
            Route(
                method="POST",
                path="/api/v1/reports",
                summary="Take reports in",
                description=(
                    'Send one report, or a batch as `{"reports": […]}`. The answer comes when everything is stored; '
                    "a batch is taken whole or not at all. A reference is idempotent: the same report sent again under "
                    "it is answered with what is known, and nothing is added."
                ),
                group="Reports",
                handler=self._post,
                roles=frozenset({Role.INTAKE, Role.ANALYST, Role.ADMIN}),
                request=Body(
                    one_of=(ReportIn, BatchIn),
                    description="One report, or a batch of them.",
                    example={
                        "url": "https://host.example/page",
                        "media": [{"url": "https://img.example/1.jpg"}],
                        "reference": "2026-000123",
                        "channel": "public",
                    },
                ),
                body_bytes_max=self.body_bytes_max,
                responses={
                    HTTPStatus.CREATED: Answer(
                        "Everything is stored.", ReceivedOut, example=_example(State.LOCATING, repeated=False)
                    ),
                    HTTPStatus.OK: Answer(
                        "Every reference was known; nothing was added.",
                        ReceivedOut,
                        example=_example(State.SENT, repeated=True),
                    ),
                },
                problems=(INVALID, CONFLICT, UNAVAILABLE),
            )
        ]

    async def _post(self, call: Call) -> web.StreamResponse:
        with self.give_way.answering(), self.metrics.intake_seconds.time():
            raw = await read_body(call.request, self.body_bytes_max)
            reports, is_batch = self._checked(raw)
            submitter = "api:" + (call.caller.key_id if call.caller is not None else "")
            submissions = [Submission(submitter, report.reference, report) for report in reports]
            try:
                taken = await self.group_commit.submit(submissions)
            except ReferenceConflicts as conflicts:
                raise _conflict(conflicts, is_batch=is_batch) from None
            except IntakeUnavailable:
                raise ApiProblem(
                    UNAVAILABLE, "the store is not available; nothing was taken", headers={"Retry-After": "5"}
                ) from None
        return self._answer(reports, taken)

    def _checked(self, raw: bytes) -> tuple[list[Report], bool]:
        """Return the reports, and whether they came as a batch."""
        try:
            received, is_batch = decode_submission(raw, self.reports_max)
            now = self.clock_now()
            checked = check_batch(received, now) if is_batch else [check_report(received[0], now)]
        except IntakeRefused as refused:
            for error in refused.errors:
                self.metrics.intake_rejected.labels(reason=error.reason).inc()
            faults = tuple(FieldFault(error.field, error.reason, error.detail) for error in refused.errors)
            raise ApiProblem(refusal_kind(refused), _sentence(faults), errors=faults) from None
        return checked, is_batch

    def _answer(self, reports: Sequence[Report], taken: Sequence[Taken]) -> web.StreamResponse:
        self._count(taken)
        body = ReceivedOut([_out(report, one) for report, one in zip(reports, taken, strict=True)])
        status = HTTPStatus.OK if all(one.repeated for one in taken) else HTTPStatus.CREATED
        return web.Response(status=status, body=_ENCODER.encode(body), content_type="application/json")

    def _count(self, taken: Sequence[Taken]) -> None:
        fresh = [one for one in taken if not one.repeated]
        duplicates = sum(item.duplicate_of is not None for one in fresh for item in one.items)
        self.metrics.reports_received.inc(len(fresh))
        self.metrics.items_received.inc(sum(len(one.items) for one in fresh) - duplicates)
        self.metrics.duplicates.inc(duplicates)


def _out(report: Report, taken: Taken) -> TakenOut:
    items = [
        TakenItemOut(str(item.id), State(item.state), None if item.duplicate_of is None else str(item.duplicate_of))
        for item in taken.items
    ]
    return TakenOut(str(taken.case_id), report.reference, taken.repeated, items)


def _conflict(conflicts: ReferenceConflicts, *, is_batch: bool) -> ApiProblem:
    detail = "a reference was used before for another report"
    faults = tuple(
        FieldFault(f"reports[{at}].reference" if is_batch else "reference", "reference-conflict", detail)
        for at in conflicts.positions
    )
    return ApiProblem(CONFLICT, detail, errors=faults)


def refusal_kind(refused: IntakeRefused) -> ProblemKind:
    """Return the kind of problem: a body that is no JSON breaks its format, anything else is a field's value."""
    broken = {IntakeFault.MALFORMED_JSON, IntakeFault.BROKEN_UTF8}
    return MALFORMED if any(error.reason in broken for error in refused.errors) else INVALID


def _sentence(faults: Sequence[FieldFault]) -> str:
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{first.field or 'the body'}: {first.detail}{more}"
