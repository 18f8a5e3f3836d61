"""The description that a node serves: valid, complete, true to what is served, and its examples work."""

from typing import Any

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from node.hotline.api.groupcommit import GroupCommit
from node.hotline.serve import api_routes
from node.platform.apikeys import Role
from node.platform.routes import Auth
from node.platform.web import Limits, make_app
from tests.api.door import ITEMS, Door

DOCUMENT = "/api/openapi.json"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def door(shared_door: Door) -> Door:
    """One node for all of these."""
    return shared_door


async def served(door: Door) -> dict[str, Any]:
    reply = await door.ask("GET", DOCUMENT, role=Role.READER)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    document: dict[str, Any] = reply.json()
    return document


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """A validator of one schema of the document, which may refer to the others."""
    whole = Resource.from_contents(document, default_specification=DRAFT202012)
    registry = Registry().with_resource("urn:document", whole)
    anchored = {"$id": "urn:document", **schema, "components": document["components"]}
    return Draft202012Validator(anchored, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER)


async def test_the_served_document_is_valid(door: Door) -> None:
    document = await served(door)
    assert document["openapi"].startswith("3.1")
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


async def test_what_is_served_is_described_and_nothing_else(door: Door) -> None:
    document = await served(door)
    described = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    routes = api_routes(door.node, GroupCommit(door.node.store.intake(), reports_max=1))
    app: web.Application = make_app(
        [route for route in routes if route.auth is Auth.OPEN],
        log=door.node.log,
        metrics=door.node.metrics,
        limits=Limits(body_bytes_max=1),
    )
    assert len(app.router.routes()) == 2
    assert described == {(route.method, route.path) for route in routes}
    # And the running door knows each of them: none answers "there is nothing here".
    for method, path in described:
        reply = await door.ask(method, path.replace("{item}", "x"), role=None)
        assert reply.status in {200, 401}, (method, path)


async def test_each_operation_says_who_may_call_and_what_it_may_answer(door: Door) -> None:
    document = await served(door)
    routes = {
        (route.method, route.path): route
        for route in api_routes(door.node, GroupCommit(door.node.store.intake(), reports_max=1))
    }
    seen: set[str] = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = routes[method.upper(), path]
            roles = {role for each in operation["security"] for names in each.values() for role in names}
            assert roles == {role.value for role in route.roles}
            assert operation["summary"]
            assert operation["operationId"] not in seen
            seen.add(operation["operationId"])
            assert {str(status) for status in route.responses} <= operation["responses"].keys()
            if route.auth is Auth.API_KEY:
                assert {"401", "403"} <= operation["responses"].keys()
            for answer in operation["responses"].values():
                assert answer["description"]


async def test_every_example_fits_its_schema(door: Door) -> None:
    document = await served(door)
    checked = 0
    for operations in document["paths"].values():
        for operation in operations.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for media in (each for body in bodies for each in body.get("content", {}).values()):
                if "schema" in media and "example" in media:
                    errors = [
                        error.message for error in validator(document, media["schema"]).iter_errors(media["example"])
                    ]
                    assert errors == [], operation["operationId"]
                    checked += 1
            for parameter in operation["parameters"]:
                if "example" in parameter:
                    assert validator(document, parameter["schema"]).is_valid(parameter["example"])
                    checked += 1
    assert checked >= 10


async def test_the_schema_that_is_described_is_the_one_that_validates(door: Door) -> None:
    """What the description refuses the node refuses, and what the example shows it takes."""
    document = await served(door)
    operation = document["paths"]["/api/v1/reports"]["post"]
    media = operation["requestBody"]["content"]["application/json"]
    check = validator(document, media["schema"])
    example = media["example"]
    assert (await door.report(example)).status == 201
    assert (await door.report({"reports": [{**example, "reference": "other"}]})).status == 201
    refused: tuple[dict[str, Any], ...] = (
        {**example, "colour": "blue"},
        {**example, "url": 7},
        {**example, "channel": "unknown"},
        {**example, "media": "text"},
        {**example, "note": "x" * 4001},
        {**example, "qualification": {}},
        {**example, "hashes": [{"algorithm": "crc32", "value": "00"}]},
        {name: value for name, value in example.items() if name != "url"},
        {"reports": []},
        {"reports": [{}]},
    )
    for wrong in refused:
        assert not check.is_valid(wrong), wrong
        (await door.report(wrong)).errors(422, "invalid")


async def test_answers_are_as_they_are_described(door: Door) -> None:
    document = await served(door)

    def check(method: str, path: str, status: int, body: object) -> None:
        schema = document["paths"][path][method]["responses"][str(status)]["content"]
        ((_, media),) = schema.items()
        assert list(validator(document, media["schema"]).iter_errors(body)) == []

    taken = await door.report({"url": "https://host.example/x", "reference": "R"})
    check("post", "/api/v1/reports", 201, taken.json())
    check(
        "post", "/api/v1/reports", 200, (await door.report({"url": "https://host.example/x", "reference": "R"})).json()
    )
    check("post", "/api/v1/reports", 422, (await door.report({"url": "x"})).json())
    check(
        "post", "/api/v1/reports", 409, (await door.report({"url": "https://other.example/x", "reference": "R"})).json()
    )
    check("get", "/api/v1/items", 200, (await door.ask("GET", ITEMS)).json())
    item = taken.json()["reports"][0]["items"][0]["id"]
    check("get", "/api/v1/items/{item}", 200, (await door.ask("GET", f"{ITEMS}/{item}")).json())
    found = await door.ask("POST", f"{ITEMS}/search", {"url": "https://host.example/x"})
    check("post", "/api/v1/items/search", 200, found.json())
    qualified = await door.ask("PATCH", f"{ITEMS}/{item}/assessment", {"classification": "national"})
    check("patch", "/api/v1/items/{item}/assessment", 200, qualified.json())
    check("get", "/api/v1/status", 200, (await door.ask("GET", "/api/v1/status")).json())
    check("get", "/healthz", 200, (await door.ask("GET", "/healthz")).json())
    check("get", "/readyz", 200, (await door.ask("GET", "/readyz")).json())
    unknown = await door.ask("GET", f"{ITEMS}/{'0' * 8}-0000-7000-8000-{'0' * 12}")
    check("get", "/api/v1/items/{item}", 404, unknown.json())
    check("get", "/api/v1/items", 401, (await door.ask("GET", ITEMS, role=None)).json())
    check("get", "/api/v1/items", 403, (await door.ask("GET", ITEMS, role=Role.INTAKE)).json())
