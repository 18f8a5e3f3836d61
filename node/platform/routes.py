"""What the node serves, as a table: it registers the handlers and is what the OpenAPI description is made from."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from aiohttp import web

from node.platform.apikeys import Caller, Role
from node.platform.apiproblems import ProblemKind

JSON: Final = "application/json"


class Auth(StrEnum):
    """How a caller proves who it is."""

    API_KEY = "api-key"
    HTTP_SIGNATURE = "http-signature"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path or the query, converted to `type` and checked before the handler runs."""

    name: str
    type: Any
    description: str
    where: str = "path"
    required: bool = True
    example: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body. With a `type` it is decoded and checked; without one the handler reads it itself.

    `one_of` are the types the handler tells apart when it reads the body itself; they are described, not decoded here.
    """

    type: Any = None
    one_of: tuple[Any, ...] = ()
    description: str = ""
    media_types: tuple[str, ...] = (JSON,)
    example: Any = None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status code means; `type` None says that there is no schema for the body."""

    description: str
    type: Any = None
    media_type: str | None = JSON
    example: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: who calls, the converted parameters and the decoded body."""

    request: web.Request
    request_id: str
    caller: Caller | None
    parameters: Mapping[str, Any]
    body: Any


Handler: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation. `path` is written as aiohttp and OpenAPI both write it: `/api/v1/items/{item}`.

    `auth` API_KEY needs at least one role, of which the caller must have one; the others have none. `problems` are
    the kinds the handler raises, beside those that the shell answers by itself. ValueError when this does not hold.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    responses: Mapping[int, Answer]
    group: str = "General"
    description: str = ""
    auth: Auth = Auth.API_KEY
    roles: frozenset[Role] = frozenset()
    parameters: tuple[Parameter, ...] = ()
    request: Body | None = None
    problems: tuple[ProblemKind, ...] = ()
    body_bytes_max: int | None = None
    operation_id: str = field(default="")

    def __post_init__(self) -> None:
        """Refuse a route that would be served otherwise than described."""
        if (self.auth is Auth.API_KEY) != bool(self.roles):
            raise ValueError(f"{self.method} {self.path}: roles go with API_KEY, and with it alone")
        in_path = {each.name for each in self.parameters if each.where == "path"}
        if in_path != {part.strip("{}").split(":")[0] for part in self.path.split("/") if part.startswith("{")}:
            raise ValueError(f"{self.method} {self.path}: the path and its parameters differ")
        if not self.responses:
            raise ValueError(f"{self.method} {self.path}: no response is described")
