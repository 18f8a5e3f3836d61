"""Describes the routes as OpenAPI 3.1 and as a page for people; serves nothing that is not in the route table."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

import jinja2
import msgspec

from node.platform.apiproblems import (
    FORBIDDEN,
    INVALID,
    MEDIA_TYPE,
    SHELL_KINDS,
    UNAUTHENTICATED,
    ProblemBody,
    ProblemKind,
)
from node.platform.routes import Answer, Auth, Body, Parameter, Route

_REF: Final = "#/components/schemas/{name}"
_REF_PREFIX: Final = "#/components/schemas/"
_DEPTH_MAX: Final = 6
_LIMITS: Final = (
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("maxItems", "at most {} entries"),
    ("minimum", "at least {}"),
    ("maximum", "at most {}"),
    ("exclusiveMinimum", "above {}"),
    ("exclusiveMaximum", "below {}"),
    ("pattern", "of the form {}"),
)
#: Placeholders of formats, on reserved names only (RFC 2606, RFC 5737).
_FORMAT_EXAMPLES: Final = {
    "uuid": "019376a0-5c00-7000-8000-000000000001",
    "date-time": "2026-11-22T16:00:00.000Z",
    "date": "2026-11-22",
    "uri": "https://site.example/page",
    "byte": "aGVsbG8=",
}
_SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key as bearer token."},
    "basic": {"type": "http", "scheme": "basic", "description": "Any user name, the API key as password."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "HTTP Message Signatures (RFC 9421) with a key of the membership directory; docs/protocol.md.",
    },
}


@dataclass(frozen=True, slots=True)
class ApiInfo:
    """The head of the description."""

    title: str
    version: str
    description: str


def describe(info: ApiInfo, routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `routes`; ValueError when an example does not fit its own schema."""
    types = _Types(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(_plain_path(route.path), {})
        if route.method.lower() in operations:
            raise ValueError(f"{route.method} {route.path} is described twice")
        operations[route.method.lower()] = _operation(route, types)
    groups = list(dict.fromkeys(route.group for route in routes))
    used = {name for route in routes for name in _schemes(route)}
    return {
        "openapi": "3.1.0",
        "info": {"title": info.title, "version": info.version, "description": info.description},
        "tags": [{"name": group} for group in groups],
        "paths": paths,
        "components": {
            "schemas": types.components,
            "securitySchemes": {name: each for name, each in _SECURITY_SCHEMES.items() if name in used},
        },
    }


class _Types:
    """The JSON Schema of every type in the table, made in one go so that shared types are named once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        found: list[Any] = [ProblemBody]
        for route in routes:
            found += [each.type for each in route.parameters]
            found += [each.type for each in route.responses.values() if each.type is not None]
            if route.request is not None and route.request.type is not None:
                found.append(route.request.type)
            if route.request is not None:
                found += route.request.one_of
        schemas, self.components = msgspec.json.schema_components(found, ref_template=_REF)
        self._types = found
        self._schemas = schemas

    def schema(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type that stands in the table."""
        return self._schemas[self._types.index(kind)]


def _plain_path(path: str) -> str:
    """Return the path as OpenAPI writes it, without aiohttp's patterns."""
    return re.sub(r"\{(\w+):[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", r"{\1}", path)


def _operation(route: Route, types: _Types) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.group],
        "summary": route.summary,
        "operationId": route.operation_id or _operation_id(route),
        "parameters": [_parameter(each, types) for each in route.parameters],
        "responses": {str(status): _answer(status, each, types) for status, each in sorted(route.responses.items())},
        "security": _security(route),
    }
    if route.description:
        operation["description"] = route.description
    if route.request is not None:
        operation["requestBody"] = _request_body(route.request, types)
    for kind in _problem_kinds(route):
        answer = operation["responses"].setdefault(
            str(kind.status),
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": types.schema(ProblemBody)}},
            },
        )
        answer["description"] = f"{answer['description']} `{kind.code}`: {kind.title}.".strip()
    return operation


def _operation_id(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", _plain_path(route.path))
    return "_".join([route.method.lower(), *words])


def _problem_kinds(route: Route) -> list[ProblemKind]:
    """Return every kind of problem the operation may answer, by status."""
    kinds = [*route.problems, *SHELL_KINDS]
    if route.parameters or route.request is not None:
        kinds.append(INVALID)
    if route.auth is Auth.API_KEY:
        kinds += [UNAUTHENTICATED, FORBIDDEN]
    if route.request is None:
        body_kinds = {"too-large", "too-slow", "unsupported-media-type", "overloaded"}
        kinds = [kind for kind in kinds if kind.code not in body_kinds or kind in route.problems]
    return sorted(dict.fromkeys(kinds), key=lambda kind: (kind.status, kind.code))


def _parameter(parameter: Parameter, types: _Types) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required,
        "schema": types.schema(parameter.type),
    }
    if parameter.example is not None:
        msgspec.convert(parameter.example, parameter.type, strict=False)
        described["example"] = parameter.example
    return described


def _request_body(body: Body, types: _Types) -> dict[str, Any]:
    content = _content(body.type, body.example, types)
    if body.one_of:
        schemas = [types.schema(kind) for kind in body.one_of]
        content = {**content, "schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}
    described = {"required": body.required, "content": dict.fromkeys(body.media_types, content)}
    return {"description": body.description, **described} if body.description else described


def _answer(status: int, answer: Answer, types: _Types) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description or HTTPStatus(status).phrase}
    if answer.media_type is not None and status != HTTPStatus.NO_CONTENT:
        described["content"] = {answer.media_type: _content(answer.type, answer.example, types)}
    return described


def _content(kind: Any, example: Any, types: _Types) -> dict[str, Any]:
    if kind is None:
        return {} if example is None else {"example": example}
    schema = types.schema(kind)
    if example is None:
        return {"schema": schema, "example": example_of(schema, types.components)}
    # An example that the schema refuses is a mistake in the documentation, found when the table is made.
    msgspec.convert(example, kind)
    return {"schema": schema, "example": example}


def _schemes(route: Route) -> tuple[str, ...]:
    return {Auth.API_KEY: ("bearer", "basic"), Auth.HTTP_SIGNATURE: ("signature",), Auth.OPEN: ()}[route.auth]


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Return the alternatives: roles inside one would all be needed, and any one of ours is enough."""
    roles = sorted(role.value for role in route.roles)
    return [{scheme: [role] if role else []} for scheme in _schemes(route) for role in roles or [""]]


def example_of(schema: Mapping[str, Any], components: Mapping[str, Any], depth: int = 0) -> Any:
    """Return a value of the form `schema` describes: its first example, its default, or a placeholder."""
    inner = _inner(schema, components)
    if inner is not None:
        return example_of(inner, components, depth + 1)
    given = [*schema.get("examples", ()), *schema.get("enum", ())]
    if schema.get("default") not in (None, [], {}, ""):
        given.append(schema["default"])
    if given:
        return given[0]
    kind = schema.get("type")
    if kind == "object":
        members = {} if depth > _DEPTH_MAX else schema.get("properties", {})
        return {name: example_of(each, components, depth + 1) for name, each in members.items()}
    if kind == "array":
        items = None if depth > _DEPTH_MAX else schema.get("items")
        return [example_of(items, components, depth + 1)] if items else []
    placeholders = {"integer": schema.get("minimum", 0), "number": 0.5, "boolean": False, "null": None}
    return placeholders.get(str(kind), _FORMAT_EXAMPLES.get(schema.get("format", ""), "text"))


def _inner(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema that stands for this one: what it refers to, or its first alternative."""
    if "examples" in schema:
        return None
    if "$ref" in schema:
        found: Mapping[str, Any] = components[schema["$ref"].removeprefix(_REF_PREFIX)]
        return found
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    return alternatives[0] if alternatives else None


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of a type's description on the page; `ref` names the schema it links to."""

    text: str
    ref: str = ""


def type_words(schema: Mapping[str, Any]) -> list[Word]:
    """Return what a schema allows, in words."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF_PREFIX)
        return [Word(name, name)]
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if alternatives:
        words: list[Word] = []
        for each in alternatives:
            words += ([Word(" or ")] if words else []) + type_words(each)
        return words
    if "enum" in schema:
        return [Word("one of " if len(schema["enum"]) > 1 else ""), Word(", ".join(map(str, schema["enum"])))]
    kind = schema.get("type", "anything")
    if kind == "array":
        return [Word("list of "), *type_words(schema.get("items", {}))]
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return [Word("object of "), *type_words(schema["additionalProperties"])]
    return [Word(f"{kind} ({schema['format']})" if "format" in schema else str(kind))]


def limit_words(schema: Mapping[str, Any]) -> str:
    """Return the limits of a schema in words."""
    limits = [text.format(schema[name]) for name, text in _LIMITS if name in schema]
    if schema.get("default") not in (None, [], {}, ""):
        limits.append(f"default {json.dumps(schema['default'])}")
    return "; ".join(limits)


def render_html(document: Mapping[str, Any], stylesheet: str) -> str:
    """Return the description as one page without script; `stylesheet` is the address of `stylesheet_text`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("node.platform"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "type_words": type_words,
        "limit_words": limit_words,
        "pretty": lambda value: json.dumps(value, ensure_ascii=False, indent=2),
        "phrase": lambda status: HTTPStatus(int(status)).phrase,
        "roles": lambda security: sorted({role for each in security for roles in each.values() for role in roles}),
        "schemes": lambda security: sorted({name for each in security for name in each}),
        "codes": _code_words,
        "is_problem": lambda answer: list(answer.get("content", ())) == [MEDIA_TYPE],
    }
    groups: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups[operation["tags"][0]].append({"path": path, "method": method.upper(), **operation})
    template = environment.get_template("openapi.html")
    return template.render(document=document, groups=groups, stylesheet=stylesheet, problem_type=MEDIA_TYPE)


def _code_words(text: str) -> list[Word]:
    """Return a text cut at its backquotes: every second word is code, marked by its `ref`."""
    return [Word(part, "code" if index % 2 else "") for index, part in enumerate(text.split("`"))]


def stylesheet_text() -> str:
    """Return the page's stylesheet."""
    return (files("node.platform") / "templates" / "openapi.css").read_text(encoding="utf-8")
