"""A small API of every kind of route, for the tests of the shell and of its description."""

import enum
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from node.platform.answers import json_answer
from node.platform.apikeys import Role
from node.platform.apiproblems import CONFLICT, NOT_FOUND, ApiProblem
from node.platform.openapi import ApiInfo
from node.platform.routes import Answer, Auth, Body, Call, Parameter, Route
from node.platform.web import read_body
from protocol.errors import ProtocolError

INFO = ApiInfo(
    "Hotline API",
    "0.1.0",
    "What machines say to this node.\n\nEvery answer carries `X-Request-Id`; an error is an RFC 9457 problem.",
)


class Channel(enum.StrEnum):
    PUBLIC = "public"
    NETWORK = "network"


class Media(msgspec.Struct, forbid_unknown_fields=True):
    """One content item of a report."""

    url: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=8192,
            description="The address as it was received.",
            examples=["https://site.example/a.jpg"],
        ),
    ]


class Report(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody reports: a page and what is on it."""

    channel: Annotated[Channel, msgspec.Meta(description="How the report came.")]
    reference: Annotated[str, msgspec.Meta(max_length=8, description="The submitter's own reference; `idempotent`.")]
    media: Annotated[list[Media], msgspec.Meta(max_length=3, description="Content items of the page.")] = []
    count: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    case: UUID | None = None


class Taken(msgspec.Struct):
    """What became of a report."""

    reference: str
    items: int
    caller: str = ""


async def take(call: Call) -> web.Response:
    report: Report = call.body
    if report.reference == "known":
        raise ApiProblem(CONFLICT, "this reference belongs to another report")
    caller = "" if call.caller is None else call.caller.name
    return json_answer(Taken(report.reference, len(report.media), caller), status=201)


async def show(call: Call) -> web.Response:
    if call.parameters.get("limit") == 13:
        raise RuntimeError("https://files.example/secret")
    if call.parameters.get("limit") == 14:
        raise OSError("connection to the database lost")
    if call.parameters.get("limit") == 15:
        raise ApiProblem(NOT_FOUND, "there is no such item")
    return json_answer({"item": str(call.parameters["item"]), "limit": call.parameters.get("limit", 10)})


async def health(_call: Call) -> web.Response:
    return json_answer({"status": "ok"})


async def inbox(call: Call) -> web.Response:
    body = await read_body(call.request)
    if body == b"refuse":
        raise ProtocolError("stream-gap", "records before these are missing", extra={"expected": 7})
    return json_answer({"bytes": len(body)})


ROUTES = (
    Route(
        method="POST",
        path="/api/v1/reports",
        summary="Take a report in",
        description="The answer is durable: it leaves after the commit.\n\nThe same `reference` twice adds nothing.",
        handler=take,
        group="Reports",
        roles=frozenset({Role.INTAKE, Role.ADMIN}),
        request=Body(Report, description="One report."),
        responses={201: Answer("The report is stored.", Taken)},
        problems=(CONFLICT,),
    ),
    Route(
        method="GET",
        path="/api/v1/items/{item}",
        summary="Show an item",
        handler=show,
        group="Items",
        roles=frozenset({Role.ANALYST}),
        parameters=(
            Parameter("item", UUID, "Id of the item."),
            Parameter(
                "limit",
                Annotated[int, msgspec.Meta(ge=1, le=100)],
                "Steps shown at most.",
                where="query",
                required=False,
                example="10",
            ),
        ),
        responses={200: Answer("The item.", dict[str, str | int])},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="PUT",
        path="/peer/v1/inbox/{iss}",
        summary="Deliver a batch",
        handler=inbox,
        group="Peers",
        auth=Auth.HTTP_SIGNATURE,
        parameters=(Parameter("iss", str, "The sending node."),),
        request=Body(media_types=("application/vnd.hx.batch",), description="A signed batch."),
        responses={200: Answer("The batch is stored.")},
    ),
    Route(
        method="GET",
        path="/healthz",
        summary="Is the process alive",
        handler=health,
        group="Health",
        auth=Auth.OPEN,
        responses={200: Answer("It is.", dict[str, str])},
    ),
)
