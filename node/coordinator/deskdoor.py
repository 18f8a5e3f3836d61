"""The doors of the network's desk (PROTOCOL section 5). Decides nothing."""

from dataclasses import dataclass
from http import HTTPStatus
from uuid import UUID

import msgspec
from aiohttp import web

from node.coordinator.desk import Desk
from node.platform.peerdoor import PeerDoor, member_route
from node.platform.routes import Answer, Body, Call, Parameter, Route
from protocol.desk import EQUIVOCATION_BYTES_MAX, STATEMENT_BYTES_MAX
from protocol.errors import ProtocolError

_JSON_TYPE = "application/json"
_NOTE_TYPE = "text/plain; charset=utf-8"
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class DeskApi:
    """What the doors work with."""

    door: PeerDoor
    desk: Desk

    def routes(self) -> list[Route]:
        """Return the endpoints of the desk."""
        return [
            member_route(
                method="POST",
                path="/peer/v1/disputes",
                summary="Hand a dispute in at the desk",
                handler=self._dispute,
                request=Body(description="Whose item it may be, and why; no URL."),
                body_bytes_max=STATEMENT_BYTES_MAX,
                responses={HTTPStatus.OK: Answer("The desk has it.")},
            ),
            member_route(
                method="GET",
                path="/peer/v1/disputes/{dispute}",
                summary="The desk's ruling",
                handler=self._ruling,
                parameters=(Parameter("dispute", UUID, "The id of the dispute.", example=_EXAMPLE),),
                responses={
                    HTTPStatus.OK: Answer("The signed ruling.", media_type="text/plain"),
                    HTTPStatus.NOT_FOUND: Answer("There is no ruling."),
                },
            ),
            member_route(
                method="POST",
                path="/peer/v1/equivocations",
                summary="Hand in two checkpoints that contradict each other",
                handler=self._equivocation,
                request=Body(description="The checkpoint receipted and the one offered."),
                body_bytes_max=EQUIVOCATION_BYTES_MAX,
                responses={HTTPStatus.OK: Answer("The desk has them.")},
            ),
        ]

    async def _dispute(self, call: Call) -> web.Response:
        async with self.door.said(call.request, STATEMENT_BYTES_MAX) as (caller, body):
            self._check_desk()
            case_id = await self.desk.take_dispute(caller, body)
        return web.Response(body=_ENCODER.encode({"dispute": str(case_id)}), content_type=_JSON_TYPE)

    async def _equivocation(self, call: Call) -> web.Response:
        async with self.door.said(call.request, EQUIVOCATION_BYTES_MAX) as (caller, body):
            self._check_desk()
            await self.desk.take_equivocation(caller, body)
        return web.Response(body=_ENCODER.encode({"kept": True}), content_type=_JSON_TYPE)

    async def _ruling(self, call: Call) -> web.Response:
        async with self.door.asked(call.request) as caller:
            self._check_desk()
            found = await self.desk.ruling(caller, call.parameters["dispute"])
        if found.ruling is None:
            said = {"ruling": None, "held": found.held}
            return web.Response(status=HTTPStatus.NOT_FOUND, body=_ENCODER.encode(said), content_type=_JSON_TYPE)
        return web.Response(body=found.ruling, headers={"content-type": _NOTE_TYPE})

    def _check_desk(self) -> None:
        desk = self.desk.directory().desk
        if desk is None or desk.id != self.desk.node_id:
            raise ProtocolError("wrong-audience", "the network's desk is another")


_EXAMPLE = "0192f7a0-0000-7000-8000-000000000009"
