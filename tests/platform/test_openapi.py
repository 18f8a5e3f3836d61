"""The description of the API: valid, complete and legible."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from node.platform.apikeys import Role
from node.platform.openapi import describe, example_of, render_html, stylesheet_text, type_words
from node.platform.routes import Answer, Auth, Body, Parameter, Route
from node.platform.web import with_documentation
from tests.platform.sample_api import INFO, ROUTES, Report, health


@pytest.fixture
def document() -> dict[str, Any]:
    """The description of the sample API with its own documentation routes, as it is served."""
    table = with_documentation(ROUTES, INFO, prefix="/api", roles=frozenset({Role.READER}))
    return describe(INFO, table)


def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    again = json.loads(json.dumps(document))
    assert [str(error) for error in OpenAPIV31SpecValidator(again).iter_errors()] == []


def test_it_names_every_route_and_nothing_else(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    own = {("GET", f"/api/{name}") for name in ("openapi.json", "docs", "docs.css")}
    assert described == {(route.method, route.path) for route in ROUTES} | own


def test_any_one_role_is_enough(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/v1/reports"]["post"]
    assert operation["security"] == [
        {"bearer": ["admin"]},
        {"bearer": ["intake"]},
        {"basic": ["admin"]},
        {"basic": ["intake"]},
    ]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert document["paths"]["/peer/v1/inbox/{iss}"]["put"]["security"] == [{"signature": []}]


def test_the_problems_a_caller_may_meet_are_described(document: dict[str, Any]) -> None:
    answers = document["paths"]["/api/v1/reports"]["post"]["responses"]
    assert list(answers) == ["201", "400", "401", "403", "408", "409", "413", "415", "422", "500", "503"]
    assert "`conflict`" in answers["409"]["description"]
    assert "413" not in document["paths"]["/healthz"]["get"]["responses"]
    assert "401" not in document["paths"]["/healthz"]["get"]["responses"]


def test_examples_fit_their_own_schema(document: dict[str, Any]) -> None:
    body = document["paths"]["/api/v1/reports"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"]["media"] == [{"url": "https://site.example/a.jpg"}]
    assert isinstance(msgspec.convert(body["example"], Report), Report)


def test_an_example_that_its_schema_refuses_is_found_at_once() -> None:
    wrong = replace(ROUTES[0], request=Body(Report, example={"channel": "public"}))
    with pytest.raises(msgspec.ValidationError):
        describe(INFO, [wrong])
    wrong = replace(ROUTES[3], path="/x/{id}", parameters=(Parameter("id", UUID, "An id.", example="no id"),))
    with pytest.raises(msgspec.ValidationError):
        describe(INFO, [wrong])


def test_a_route_that_would_be_served_otherwise_than_described_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="roles go with API_KEY"):
        replace(ROUTES[0], roles=frozenset())
    with pytest.raises(ValueError, match="roles go with API_KEY"):
        replace(ROUTES[3], roles=frozenset({Role.READER}))
    with pytest.raises(ValueError, match="the path and its parameters differ"):
        replace(ROUTES[1], parameters=())
    with pytest.raises(ValueError, match="no response"):
        replace(ROUTES[0], responses={})
    with pytest.raises(ValueError, match="described twice"):
        describe(INFO, [ROUTES[0], ROUTES[0]])


def test_a_pattern_in_a_path_is_ours_alone() -> None:
    route = Route(
        method="GET",
        path="/api/v1/tiles/{tile:[0-9]{3}}",
        summary="A tile",
        handler=health,
        auth=Auth.OPEN,
        parameters=(Parameter("tile", str, "Its number."),),
        responses={204: Answer("")},
    )
    document = describe(INFO, [route])
    operation = document["paths"]["/api/v1/tiles/{tile}"]["get"]
    assert operation["operationId"] == "get_api_v1_tiles_tile"
    assert operation["responses"]["204"] == {"description": "No Content"}


class Page(HTMLParser):
    """What is on a page: ids, links, elements and words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_shows_every_operation_and_schema_and_its_links_lead_somewhere(document: dict[str, Any]) -> None:
    page = Page(render_html(document, "docs.css"))
    for path, operations in document["paths"].items():
        assert path in page.words
        for operation in operations.values():
            assert operation["operationId"] in page.ids
            assert operation["summary"] in page.words
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) - {f"#{each}" for each in page.ids} == {"docs.css"}


def test_the_page_needs_no_script_and_no_inline_style(document: dict[str, Any]) -> None:
    page = Page(render_html(document, "docs.css"))
    assert page.tags.isdisjoint({"script", "style", "iframe", "img", "form"})
    assert not any(name == "style" or name.startswith("on") for name in page.attributes)
    assert "url(" not in stylesheet_text()
    assert "@import" not in stylesheet_text()


def test_what_comes_from_the_table_is_escaped() -> None:
    route = replace(ROUTES[3], summary="<script>alert(1)</script>", description='`<b>` & "quotes"')
    html = render_html(describe(INFO, [route]), "docs.css")
    assert "<script>" not in html
    assert "<code>&lt;b&gt;</code>" in html


def test_types_are_put_into_words() -> None:
    def words(kind: Any) -> str:
        (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
        return "".join(word.text for word in type_words(schema))

    assert words(list[Report]) == "list of Report"
    assert words(UUID | None) == "string (uuid) or null"
    assert words(dict[str, int]) == "object of integer"
    assert words(Any) == "anything"


def test_a_schema_that_contains_itself_has_an_example() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    assert example_of(schema, {"Node": schema})
