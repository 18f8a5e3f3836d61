"""`/api/v1/items/{item}/actions` and the like: what this hotline does about an item. Never shows content."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from node.hotline.api.reports import refusal_kind
from node.hotline.domain.acts import check_action, check_correction
from node.hotline.domain.lifecycle import RecordRefused, State
from node.hotline.domain.schema import (
    ActionIn,
    CorrectionIn,
    IntakeRefused,
    WithdrawalIn,
    decode_action,
    decode_correction,
    decode_withdrawal,
)
from node.hotline.flows import act, amend
from node.hotline.flows.act import Actor
from node.hotline.flows.amend import Amender
from node.platform.apikeys import Role
from node.platform.apiproblems import CONFLICT, INVALID, NOT_FOUND, ApiProblem, FieldFault
from node.platform.routes import Answer, Body, Call, Parameter, Route
from node.platform.web import read_body
from protocol.codes import WithdrawalReason

_ENCODER: Final = msgspec.json.Encoder()
_BODY_BYTES_MAX: Final = 65_536
_ANALYSTS: Final = frozenset({Role.ANALYST, Role.ADMIN})
_EXAMPLE_ID: Final = "0192f7a0-0000-7000-8000-000000000001"
_ITEM: Final = Parameter("item", UUID, "The id of the item.", example=_EXAMPLE_ID)
_Read = TypeVar("_Read")


class ActedOut(msgspec.Struct, frozen=True):
    """The item's state afterwards."""

    id: str
    state: State


@dataclass(frozen=True, slots=True)
class ActsApi:
    """What the doors work with."""

    actor: Actor
    amender: Amender
    clock_now: Callable[[], datetime]

    def routes(self) -> list[Route]:
        """Return the operations that change items."""
        return [
            Route(
                method="POST",
                path="/api/v1/items/{item}/actions",
                summary="Record an action",
                description=(
                    "What this hotline did about an item that is assigned to it; whoever sent the item is told. "
                    "`removed`, `unavailable` and `not-illegal` are final and close the item. Each action counts "
                    "once; the same one again succeeds and changes nothing."
                ),
                group="Items",
                handler=self._act,
                roles=_ANALYSTS,
                parameters=(_ITEM,),
                request=Body(
                    one_of=(ActionIn,),
                    description="The action.",
                    example={"action": "hoster-notified", "by": "analyst-7"},
                ),
                body_bytes_max=_BODY_BYTES_MAX,
                responses={HTTPStatus.OK: _answer("The action is recorded.", State.KEPT)},
                problems=(NOT_FOUND, CONFLICT, INVALID),
            ),
            Route(
                method="POST",
                path="/api/v1/items/{item}/corrections",
                summary="Correct a report",
                description=(
                    "What this hotline's own report should have said; what is left out stays. All but the hashes hold "
                    "for the whole report. Every hotline that has an item of it is told."
                ),
                group="Items",
                handler=self._correct,
                roles=_ANALYSTS,
                parameters=(_ITEM,),
                request=Body(one_of=(CorrectionIn,), description="The correction.", example={"site_type": "forum"}),
                body_bytes_max=_BODY_BYTES_MAX,
                responses={HTTPStatus.OK: _answer("The correction is written.", State.SENT)},
                problems=(NOT_FOUND, CONFLICT, INVALID),
            ),
            Route(
                method="POST",
                path="/api/v1/items/{item}/withdrawal",
                summary="Take a report back",
                description=(
                    "Takes this hotline's own report of one item back; every hotline that holds it is told. Doing it "
                    "again succeeds and changes nothing. A `done` item stays done."
                ),
                group="Items",
                handler=self._withdraw,
                roles=_ANALYSTS,
                parameters=(_ITEM,),
                request=Body(one_of=(WithdrawalIn,), description="Why.", example={"reason": "reported-in-error"}),
                body_bytes_max=_BODY_BYTES_MAX,
                responses={HTTPStatus.OK: _answer("The report is taken back.", State.WITHDRAWN)},
                problems=(NOT_FOUND, CONFLICT, INVALID),
            ),
        ]

    async def _act(self, call: Call) -> web.StreamResponse:
        raw = await read_body(call.request, _BODY_BYTES_MAX)
        asked = _checked(lambda: check_action(decode_action(raw), self.clock_now()))
        return await _done(call, lambda item_id: self.actor.act(item_id, asked))

    async def _correct(self, call: Call) -> web.StreamResponse:
        raw = await read_body(call.request, _BODY_BYTES_MAX)
        members = _checked(lambda: check_correction(decode_correction(raw)))
        return await _done(call, lambda item_id: self.amender.correct(item_id, members))

    async def _withdraw(self, call: Call) -> web.StreamResponse:
        raw = await read_body(call.request, _BODY_BYTES_MAX)
        given = _checked(lambda: decode_withdrawal(raw))
        return await _done(call, lambda item_id: self.amender.withdraw(item_id, WithdrawalReason(given.reason)))


def _answer(sentence: str, state: State) -> Answer:
    return Answer(sentence, ActedOut, example=msgspec.to_builtins(ActedOut(_EXAMPLE_ID, state)))


async def _done(call: Call, what: Callable[[UUID], Awaitable[State]]) -> web.StreamResponse:
    """Do something to the call's item; what stands against it is a problem that says what the state is."""
    item_id = call.parameters["item"]
    try:
        state = await what(item_id)
    except (act.UnknownItem, amend.UnknownItem):
        raise ApiProblem(NOT_FOUND, "there is no item of this id") from None
    except RecordRefused as refused:
        raise ApiProblem(CONFLICT, refused.sentence) from None
    return _json(ActedOut(str(item_id), state))


def _checked(read: Callable[[], _Read]) -> _Read:
    """Return what `read` makes of the body, or its faults as a problem."""
    try:
        return read()
    except IntakeRefused as refused:
        faults = tuple(FieldFault(error.field, error.reason, error.detail) for error in refused.errors)
        sentence = f"{faults[0].field or 'the body'}: {faults[0].detail}"
        raise ApiProblem(refusal_kind(refused), sentence, errors=faults) from None


def _json(value: object) -> web.Response:
    return web.Response(body=_ENCODER.encode(value), content_type="application/json")
