"""`/api/v1/items/{item}/move` and `…/chain`: another location of an item, and who has had it. Never shows its URL."""

from dataclasses import dataclass
from http import HTTPStatus
from uuid import UUID

import msgspec
from aiohttp import web

from node.clock import rfc3339
from node.hotline.domain.lifecycle import State, TransitionRefused
from node.hotline.flows.transfer.relocate import Asker, LocationRefused, UnknownItem
from node.hotline.store import custody
from node.platform.apikeys import Role
from node.platform.apiproblems import CONFLICT, INVALID, NOT_FOUND, ApiProblem, field_problem
from node.platform.database import Database
from node.platform.routes import Answer, Body, Call, Parameter, Route

_ENCODER = msgspec.json.Encoder()
_BODY_BYTES_MAX = 4096
_READERS = frozenset({Role.READER, Role.ANALYST, Role.ADMIN})
_ANALYSTS = frozenset({Role.ANALYST, Role.ADMIN})
_EXAMPLE_ID = "0192f7a0-0000-7000-8000-000000000001"
_ITEM = Parameter("item", UUID, "The id of the item.", example=_EXAMPLE_ID)


class MoveIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the item is hosted now. Without a member the node looks itself; a country is a person's word."""

    country: str | None = None
    ip: str | None = None


class MoveOut(msgspec.Struct, frozen=True):
    """The wish is stored; the item's state at this moment."""

    id: str
    state: State


class StationOut(msgspec.Struct, frozen=True):
    """One hotline that had the item, where it believed it hosted, the hash of its evidence, until when."""

    node: str
    country: str | None
    evidence: str
    at: str


class ChainOut(msgspec.Struct, frozen=True):
    """Who has the item now, and who had it before, the first reporter first."""

    id: str
    holder: str
    trail: list[StationOut]


_MOVED = MoveOut(_EXAMPLE_ID, State.KEPT)
_CHAIN = ChainOut(
    _EXAMPLE_ID,
    "de.hotline.example",
    [
        StationOut("fr.hotline.example", "NL", "0f" * 32, "2026-11-22T16:00:00.000Z"),
        StationOut("nl.hotline.example", "DE", "f0" * 32, "2026-11-23T09:30:00.000Z"),
    ],
)


@dataclass(frozen=True, slots=True)
class MovesApi:
    """What the doors work with."""

    db: Database
    asker: Asker

    def routes(self) -> list[Route]:
        """Return the operations on where an item is."""
        return [
            Route(
                method="POST",
                path="/api/v1/items/{item}/move",
                summary="Look at an item's location anew, or set it",
                description=(
                    "An item that turns out to be hosted in another country goes to that country's hotline, in one "
                    "transfer; until its receipt is here it stays this hotline's."
                ),
                group="Items",
                handler=self._move,
                roles=_ANALYSTS,
                parameters=(_ITEM,),
                request=Body(MoveIn, description="Where it is hosted now.", example={"ip": "203.0.113.7"}),
                body_bytes_max=_BODY_BYTES_MAX,
                responses={
                    HTTPStatus.ACCEPTED: Answer(
                        "Stored; the node does it next.", MoveOut, example=msgspec.to_builtins(_MOVED)
                    )
                },
                problems=(NOT_FOUND, CONFLICT, INVALID),
            ),
            Route(
                method="GET",
                path="/api/v1/items/{item}/chain",
                summary="Show who has had an item",
                description="Known once it changed hands, at the hotline that reported it and at all that had it.",
                group="Items",
                handler=self._chain,
                roles=_READERS,
                parameters=(_ITEM,),
                responses={HTTPStatus.OK: Answer("The chain.", ChainOut, example=msgspec.to_builtins(_CHAIN))},
                problems=(NOT_FOUND, INVALID),
            ),
        ]

    async def _move(self, call: Call) -> web.StreamResponse:
        item_id = call.parameters["item"]
        try:
            state = await self.asker.ask(item_id, call.body.country, call.body.ip)
        except UnknownItem:
            raise ApiProblem(NOT_FOUND, "there is no item of this id") from None
        except LocationRefused as refused:
            raise field_problem(refused.field, "not-a-location", refused.sentence) from None
        except TransitionRefused as refused:
            raise ApiProblem(CONFLICT, str(refused)) from None
        body = _ENCODER.encode(MoveOut(str(item_id), state))
        return web.Response(status=HTTPStatus.ACCEPTED, body=body, content_type="application/json")

    async def _chain(self, call: Call) -> web.StreamResponse:
        item_id = call.parameters["item"]
        async with self.db.transaction("items.chain") as tx:
            known = (await custody.chains(tx, [item_id])).get(item_id)
        if known is None:
            raise ApiProblem(NOT_FOUND, "no item of this id has changed hands")
        said = ChainOut(
            str(item_id),
            known.holder,
            [StationOut(one.node, one.country, one.evidence, rfc3339(one.at)) for one in known.trail],
        )
        return web.Response(body=_ENCODER.encode(said), content_type="application/json")
