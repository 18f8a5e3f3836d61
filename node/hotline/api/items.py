"""`/api/v1/items`: what is known of an item, its assessment and its proof. URLs are shown defanged."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from uuid import UUID

import msgspec
from aiohttp import web

from node.clock import rfc3339
from node.hotline.api.reports import refusal_kind
from node.hotline.domain.assessment import AssessmentRefused
from node.hotline.domain.intake import check_assessment
from node.hotline.domain.lifecycle import RecordRefused, State, TransitionRefused
from node.hotline.domain.schema import AssessmentIn, IntakeRefused, decode_assessment
from node.hotline.domain.urls import UrlRefused, defang, parse_reported_url
from node.hotline.flows.assess import Assessor, UnknownItem
from node.hotline.flows.prove import NothingToProve, Prover
from node.hotline.store import items, steps
from node.hotline.store.vault import Vault
from node.platform.apikeys import Role
from node.platform.apiproblems import CONFLICT, INVALID, NOT_FOUND, ApiProblem, FieldFault, field_problem
from node.platform.database import Database, Row
from node.platform.routes import Answer, Body, Call, Parameter, Route
from node.platform.telemetry import withhold
from node.platform.web import read_body
from protocol.codes import Action, ActionReason, Channel, Classification, Kind, WithdrawalReason

_ENCODER = msgspec.json.Encoder()
_BODY_BYTES_MAX = 65_536
_PAGE_MAX = 200
_READERS = frozenset({Role.READER, Role.ANALYST, Role.ADMIN})
_ANALYSTS = frozenset({Role.ANALYST, Role.ADMIN})
_EXAMPLE_ID = "0192f7a0-0000-7000-8000-000000000001"
_ITEM = Parameter("item", UUID, "The id of the item.", example=_EXAMPLE_ID)


class FoundThereOut(msgspec.Struct, frozen=True):
    """One qualification: whose, what, when it was made and when this node noted it."""

    node: str
    classification: Classification
    at: str
    by: str | None
    recorded_at: str


class DoneOut(msgspec.Struct, frozen=True):
    """One action: whose, what, when it was done and when this node noted it."""

    node: str
    action: Action
    at: str
    by: str | None
    reason: ActionReason | None
    recorded_at: str


class ItemOut(msgspec.Struct, frozen=True):
    """One item. `url` is defanged; times are RFC 3339 in UTC; what is not known is null."""

    id: str
    case: str
    kind: Kind
    state: State
    reason: str | None
    hosting_country: str | None
    assigned_country: str | None
    assigned_node: str | None
    confidence: int | None
    verdict: str | None
    classification: Classification | None
    duplicate_of: str | None
    created_at: str
    updated_at: str
    url: str | None = None
    times_seen: int | None = None
    channel: Channel | None = None
    reference: str | None = None
    withdrawn_at: str | None = None
    withdrawn_reason: WithdrawalReason | None = None
    assessments: list[FoundThereOut] | None = None
    actions: list[DoneOut] | None = None


class ItemsOut(msgspec.Struct, frozen=True):
    """A page of items in the order of their ids; `next` is the `after` of the next page, or null."""

    items: list[ItemOut]
    next: str | None


class AssessedOut(msgspec.Struct, frozen=True):
    """The item's state after the assessment."""

    id: str
    state: State


class SearchIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The URL that is looked for; it stands in the body because a URL of ours never holds one."""

    url: str


class FoundOut(msgspec.Struct, frozen=True):
    """The first item known under the URL, or null."""

    item: str | None


_EXAMPLE = ItemOut(
    id=_EXAMPLE_ID,
    case="0192f7a0-0000-7000-8000-000000000000",
    kind=Kind.PAGE,
    state=State.SENT,
    reason="hosting-country",
    hosting_country="NL",
    assigned_country="NL",
    assigned_node="nl.hotline.example",
    confidence=95,
    verdict="hosted",
    classification=Classification.NATIONAL,
    duplicate_of=None,
    created_at="2026-11-22T16:00:00.000Z",
    updated_at="2026-11-22T16:00:02.000Z",
)
_EXAMPLE_WHOLE = msgspec.structs.replace(
    _EXAMPLE,
    url="hxxps://host[.]example/…",
    times_seen=2,
    channel=Channel.PUBLIC,
    reference="2026-000123",
    assessments=[
        FoundThereOut(
            "nl.hotline.example", Classification.NATIONAL, "2026-11-22T17:00:00.000Z", "analyst-7", _EXAMPLE.updated_at
        )
    ],
    actions=[
        DoneOut(
            "nl.hotline.example",
            Action.HOSTER_NOTIFIED,
            "2026-11-22T17:05:00.000Z",
            "analyst-7",
            None,
            "2026-11-22T17:05:01.000Z",
        )
    ],
)


@dataclass(frozen=True, slots=True)
class ItemsApi:
    """What the doors work with."""

    db: Database
    vault: Vault
    assessor: Assessor
    prover: Prover
    clock_now: Callable[[], datetime]

    def routes(self) -> list[Route]:
        """Return the operations on items."""
        return [
            Route(
                method="GET",
                path="/api/v1/items",
                summary="List items",
                description="The work queues are states: `waiting` for qualification, `origin-lookup`, `assigned`, …",
                group="Items",
                handler=self._list,
                roles=_READERS,
                parameters=(
                    Parameter("state", State, "Only items in this state.", where="query", required=False),
                    Parameter("after", UUID, "Only items after this id.", where="query", required=False),
                    Parameter("limit", int, "At most so many (1 to 200).", where="query", required=False),
                ),
                responses={
                    HTTPStatus.OK: Answer(
                        "A page of items.", ItemsOut, example=_said(ItemsOut([_EXAMPLE], _EXAMPLE_ID))
                    )
                },
                problems=(INVALID,),
            ),
            Route(
                method="POST",
                path="/api/v1/items/search",
                summary="Find an item by its URL",
                group="Items",
                handler=self._search,
                roles=_READERS,
                request=Body(
                    SearchIn,
                    description="The URL, in any spelling a browser would take.",
                    example={"url": "https://host.example/page"},
                ),
                responses={HTTPStatus.OK: Answer("The item, or null.", FoundOut, example=_said(FoundOut(_EXAMPLE_ID)))},
                problems=(INVALID,),
            ),
            Route(
                method="GET",
                path="/api/v1/items/{item}",
                summary="Show an item",
                group="Items",
                handler=self._show,
                roles=_READERS,
                parameters=(_ITEM,),
                responses={HTTPStatus.OK: Answer("The item.", ItemOut, example=_said(_EXAMPLE_WHOLE))},
                problems=(NOT_FOUND, INVALID),
            ),
            Route(
                method="PATCH",
                path="/api/v1/items/{item}/assessment",
                summary="Set an item's qualification",
                description=(
                    "Qualified as illegal, a located item hosted abroad leaves for the competent hotline; not illegal "
                    "closes it. A baseline qualification is final."
                ),
                group="Items",
                handler=self._assess,
                roles=_ANALYSTS,
                parameters=(_ITEM,),
                request=Body(
                    one_of=(AssessmentIn,), description="The qualification.", example={"classification": "national"}
                ),
                body_bytes_max=_BODY_BYTES_MAX,
                responses={
                    HTTPStatus.OK: Answer(
                        "The qualification is stored.",
                        AssessedOut,
                        example=_said(AssessedOut(_EXAMPLE_ID, State.READY)),
                    )
                },
                problems=(NOT_FOUND, CONFLICT, INVALID),
            ),
            Route(
                method="GET",
                path="/api/v1/items/{item}/proof",
                summary="Get the proof of an item's record",
                description="A C2SP tlog-proof with the record in it; `hotline verify` checks it offline.",
                group="Items",
                handler=self._prove,
                roles=_ANALYSTS,
                parameters=(_ITEM,),
                responses={HTTPStatus.OK: Answer("The proof.", None, media_type="text/plain")},
                problems=(NOT_FOUND, INVALID),
            ),
        ]

    async def _list(self, call: Call) -> web.StreamResponse:
        limit = call.parameters.get("limit")
        limit = _PAGE_MAX if limit is None else limit
        if not 1 <= limit <= _PAGE_MAX:
            raise field_problem("limit", "out-of-range", f"is 1 to {_PAGE_MAX}")
        async with self.db.transaction("items.page") as tx:
            rows = await items.page(tx, call.parameters.get("state"), call.parameters.get("after"), limit)
        following = str(rows[-1]["id"]) if len(rows) == limit else None
        return _json(ItemsOut([_item(row) for row in rows], following))

    async def _search(self, call: Call) -> web.StreamResponse:
        try:
            url = parse_reported_url(call.body.url)
        except UrlRefused as refused:
            raise field_problem("url", refused.reason, refused.sentence) from None
        async with self.db.transaction("items.search") as tx:
            found = await items.find_by_digest(tx, self.vault.url_digest(url.normal))
        return _json(FoundOut(None if found is None else str(found)))

    async def _show(self, call: Call) -> web.StreamResponse:
        item_id = call.parameters["item"]
        async with self.db.transaction("items.show") as tx:
            row = await items.item(tx, item_id)
            assessments = await steps.assessments_of(tx, item_id)
            actions = await steps.actions_of(tx, item_id)
        if row is None:
            raise ApiProblem(NOT_FOUND, "there is no item of this id")
        url = self.vault.open("items", "url_enc", item_id, row["url_enc"])
        reference = self.vault.reference(row["case_id"], row["wire_reference_enc"], row["reference"])
        shown = _item(
            row,
            url=defang(parse_reported_url(url).normal),
            # A peer may have put anything there.
            reference=None if reference is None else withhold(reference),
        )
        return _json(
            msgspec.structs.replace(
                shown,
                assessments=[_found_there(one) for one in assessments],
                actions=[_done(one) for one in actions],
            )
        )

    async def _assess(self, call: Call) -> web.StreamResponse:
        raw = await read_body(call.request, _BODY_BYTES_MAX)
        try:
            assessment = check_assessment(decode_assessment(raw), self.clock_now())
        except IntakeRefused as refused:
            faults = tuple(FieldFault(error.field, error.reason, error.detail) for error in refused.errors)
            sentence = f"{faults[0].field or 'the body'}: {faults[0].detail}"
            raise ApiProblem(refusal_kind(refused), sentence, errors=faults) from None
        try:
            state = await self.assessor.assess(call.parameters["item"], assessment)
        except UnknownItem:
            raise ApiProblem(NOT_FOUND, "there is no item of this id") from None
        except AssessmentRefused as refused:
            raise ApiProblem(CONFLICT, refused.sentence) from None
        except (TransitionRefused, RecordRefused) as refused:
            raise ApiProblem(CONFLICT, str(refused)) from None
        return _json(AssessedOut(str(call.parameters["item"]), state))

    async def _prove(self, call: Call) -> web.StreamResponse:
        try:
            proof = await self.prover.prove(call.parameters["item"])
        except NothingToProve as nothing:
            raise ApiProblem(NOT_FOUND, str(nothing)) from None
        return web.Response(body=proof, content_type="text/plain", charset="utf-8")


def _said(value: object) -> object:
    """Return an example as the description shows it."""
    return msgspec.to_builtins(value)


def _json(value: object) -> web.Response:
    return web.Response(body=_ENCODER.encode(value), content_type="application/json")


def _item(row: Row, *, url: str | None = None, reference: str | None = None) -> ItemOut:
    qualification = row["qualification"]
    whole = url is not None
    return ItemOut(
        id=str(row["id"]),
        case=str(row["case_id"]),
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        reason=row["reason"],
        hosting_country=row["hosting_country"],
        assigned_country=row["assigned_country"],
        assigned_node=row["assigned_node"],
        confidence=row["confidence"],
        verdict=row["verdict"],
        classification=None if qualification is None else Classification(qualification["classification"]),
        duplicate_of=None if row["duplicate_of"] is None else str(row["duplicate_of"]),
        created_at=rfc3339(row["created_at"]),
        updated_at=rfc3339(row["updated_at"]),
        url=url,
        times_seen=row["times_seen"] if whole else None,
        channel=Channel(row["channel"]) if whole else None,
        reference=reference,
        withdrawn_at=rfc3339(row["withdrawn_at"]) if whole and row["withdrawn_at"] else None,
        withdrawn_reason=WithdrawalReason(row["withdrawn_reason"]) if whole and row["withdrawn_reason"] else None,
    )


def _found_there(row: Row) -> FoundThereOut:
    found = row["qualification"]
    return FoundThereOut(
        node=row["node"],
        classification=Classification(found["classification"]),
        at=rfc3339(datetime.fromisoformat(found["at"])),
        by=found.get("by"),
        recorded_at=rfc3339(row["recorded_at"]),
    )


def _done(row: Row) -> DoneOut:
    return DoneOut(
        node=row["node"],
        action=Action(row["action"]),
        at=rfc3339(row["at"]),
        by=row["by"],
        reason=None if row["reason"] is None else ActionReason(row["reason"]),
        recorded_at=rfc3339(row["recorded_at"]),
    )
