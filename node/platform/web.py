"""The HTTP server every role stands on: it checks who calls, bounds what comes in and answers errors as problems.

Never writes what was sent, or the path that was asked for, into a log line, a metric or an error.
"""

import asyncio
import base64
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import hdrs, web

from node.errors import OperatorError
from node.platform import apiproblems as problem
from node.platform.answers import page_answer, problem_answer, protocol_answer, send_in_pieces, set_headers
from node.platform.apikeys import ApiKeyCheck, Caller, Role
from node.platform.apiproblems import ApiProblem, ProblemKind, decoded
from node.platform.database import DATABASE_ERRORS
from node.platform.listener import ConnectionLimits, serve
from node.platform.listener import Listener as Listener  # noqa: PLC0414 -- who listens gets one, from here
from node.platform.openapi import ApiInfo, describe, render_html, stylesheet_text
from node.platform.routes import JSON, Answer, Auth, Call, Route
from node.platform.sparing import Sparing
from node.platform.telemetry import Logger, Metrics
from node.setting_rules import split_address
from protocol.errors import ProtocolError

#: Called with every answer just before it leaves; the peer protocol signs here.
Finish: TypeAlias = Callable[[web.Request, web.Response], Awaitable[web.Response]]

BODY_TIMEOUT_S: Final = 30.0
BODIES_BYTES_MAX: Final = 134_217_728
_HTTP_KINDS: Final[Mapping[int, ProblemKind]] = {
    404: problem.NOT_FOUND,
    405: problem.METHOD_NOT_ALLOWED,
    413: problem.TOO_LARGE,
    415: problem.UNSUPPORTED_MEDIA_TYPE,
}
_WHOLE: Final = re.compile("-?(?:0|[1-9][0-9]*)")
_CLOSE: Final = {"Connection": "close"}
_SOON: Final = {"Retry-After": "1"}
_REQUEST_ID: Final = web.RequestKey("request_id", str)
_BODY_BYTES: Final = web.RequestKey("body_bytes", int)
_ANSWER: Final = web.RequestKey("answer", ExitStack)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server takes: bytes of one body, seconds for it to arrive, bytes of all bodies held at a time."""

    body_bytes_max: int
    body_timeout_s: float = BODY_TIMEOUT_S
    bodies_bytes_max: int = BODIES_BYTES_MAX


class _Shell:
    """What stands around every handler of one application."""

    def __init__(
        self, log: Logger, metrics: Metrics, limits: Limits, keys: ApiKeyCheck | None, finish: Finish | None
    ) -> None:
        self.log = log
        self.metrics = metrics
        self.limits = limits
        self.keys = keys
        self.finish = finish
        self.bytes_held = 0
        self.sparing = Sparing()

    @web.middleware
    async def around(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer one request, whatever happens, with the same headers, and count it by its route's template."""
        started = perf_counter()
        request[_REQUEST_ID] = secrets.token_hex(8)
        request[_BODY_BYTES] = 0
        resource = request.match_info.route.resource
        route = "(none)" if resource is None else resource.canonical
        with ExitStack() as answer:
            request[_ANSWER] = answer
            try:
                response = await self._guarded(request, route, handler(request))
                if self.finish is not None and isinstance(response, web.Response):
                    response = await self._guarded(request, route, self.finish(request, response))
            finally:
                self.bytes_held -= request[_BODY_BYTES]
            self.metrics.http_requests.labels(route, _method(request), response.status).inc()
            self.metrics.http_seconds.labels(route).observe(perf_counter() - started)
            await send_in_pieces(request, response)
        return response

    async def _guarded(
        self, request: web.Request, route: str, work: Awaitable[web.StreamResponse]
    ) -> web.StreamResponse:
        """Return what `work` answers, or the problem that its failure is."""
        request_id = request[_REQUEST_ID]
        try:
            return await work
        except ApiProblem as error:
            return problem_answer(error, request_id)
        except ProtocolError as error:
            return protocol_answer(error)
        except web.HTTPException as error:
            # Raised by aiohttp itself (no such path or method) before any handler of ours.
            kind = _HTTP_KINDS.get(error.status, problem.MALFORMED)
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return problem_answer(ApiProblem(kind, kind.title, headers=allow), request_id)
        except Exception as error:  # noqa: BLE001 -- logged below, sparingly
            # The server's loop must survive whatever a handler does; it is logged and counted.
            if request.transport is None:
                # The caller hung up, which broke the reading of its body; nobody hears this answer.
                return web.Response(status=problem.MALFORMED.status)
            unavailable = isinstance(error, DATABASE_ERRORS)
            kind = problem.UNAVAILABLE if unavailable else problem.INTERNAL
            self.sparing.say(
                self.log.error,
                "a request failed",
                action="web.unavailable" if unavailable else "web.failed",
                peer=None,
                code=kind.code,
                route=route,
                request_id=request_id,
                exc_info=error,
            )
            detail = "the database did not answer this" if unavailable else "the node failed; its log has more"
            return problem_answer(ApiProblem(kind, detail, headers=_SOON if unavailable else None), request_id)

    def hold(self, request: web.Request, size: int) -> None:
        """Count `size` more bytes of bodies in memory; ApiProblem when it would be too much for the process."""
        if self.bytes_held + size > self.limits.bodies_bytes_max:
            raise ApiProblem(problem.OVERLOADED, "too many bodies are being read at once", headers=_SOON)
        self.bytes_held += size
        request[_BODY_BYTES] += size

    async def caller(self, request: web.Request, route: Route) -> Caller | None:
        """Return who calls, once it is clear that they may; ApiProblem 401 or 403."""
        if route.auth is not Auth.API_KEY:
            return None
        text = _presented_key(request.headers.get(hdrs.AUTHORIZATION, ""))
        found = None if text is None or self.keys is None else await self.keys.caller(text)
        if found is None:
            raise ApiProblem(problem.UNAUTHENTICATED, "send an API key that is valid: Authorization: Bearer hx_…")
        if not found.may(route.roles):
            raise ApiProblem(problem.FORBIDDEN, f"needs one of the roles {', '.join(sorted(route.roles))}")
        return found


_SHELL: Final = web.AppKey("shell", _Shell)
#: What is read of a body that is too large before its connection is cut, in largest bodies.
_BODIES_READ: Final = 2
_CONNECTIONS: Final = ConnectionLimits()


def make_app(
    routes: Sequence[Route],
    *,
    log: Logger,
    metrics: Metrics,
    limits: Limits,
    keys: ApiKeyCheck | None = None,
    finish: Finish | None = None,
) -> web.Application:
    """Return an application that serves exactly `routes`.

    Every route of `Auth.API_KEY` asks `keys`; one of `Auth.HTTP_SIGNATURE` verifies the signature in its handler.
    `finish` sees every answer, problems too, before it leaves. ValueError when a route needs keys and there are none.
    """
    if keys is None and any(route.auth is Auth.API_KEY for route in routes):
        raise ValueError("a route needs API keys and there is no store of them")
    shell = _Shell(log, metrics, limits, keys, finish)
    app = web.Application(middlewares=[shell.around], client_max_size=limits.body_bytes_max)
    app[_SHELL] = shell
    for route in routes:
        app.router.add_route(route.method, route.path, _endpoint(shell, route), expect_handler=_expect(shell, route))
    app.on_response_prepare.append(_add_headers)
    app.on_cleanup.append(_end)
    return app


async def _end(app: web.Application) -> None:
    app[_SHELL].sparing.end()


def _endpoint(shell: _Shell, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    decoder = None
    if route.request is not None and route.request.type is not None:
        decoder = msgspec.json.Decoder(route.request.type)

    async def endpoint(request: web.Request) -> web.StreamResponse:
        caller = await shell.caller(request, route)
        parameters = _parameters(request, route)
        _check_media_type(request, route)
        body = None
        if decoder is not None:
            raw = await read_body(request, route.body_bytes_max)
            body = None if not raw and route.request and not route.request.required else decoded(raw, decoder)
        return await route.handler(Call(request, request[_REQUEST_ID], caller, parameters, body))

    return endpoint


def _expect(shell: _Shell, route: Route) -> Callable[[web.Request], Awaitable[None]]:
    limit = route.body_bytes_max or shell.limits.body_bytes_max

    async def expect(request: web.Request) -> None:
        """Tell the caller to send its body, unless it announces one that will be refused."""
        if request.transport is not None and (request.content_length or 0) <= limit:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    return expect


def answer_of(request: web.Request) -> ExitStack:
    """Return what is closed once the answer has left, but for a little, or cannot leave any more."""
    return request[_ANSWER]


async def read_body(request: web.Request, limit_bytes: int | None = None) -> bytes:
    """Return the whole body, of at most `limit_bytes` (the application's own limit when None).

    A body announced as larger is refused before a byte of it is read, another one as soon as it is; one that does
    not arrive within the time limit, and one that would fill the memory together with those of other requests, too.
    ApiProblem `too-large`, `too-slow`, `overloaded`, `unsupported-media-type`, `malformed`.
    """
    shell = request.app[_SHELL]
    limit = limit_bytes or shell.limits.body_bytes_max
    if hdrs.CONTENT_ENCODING in request.headers:
        # A compressed body has no bound that its length would tell, and no digest that a proxy keeps.
        raise ApiProblem(problem.UNSUPPORTED_MEDIA_TYPE, "a body with a Content-Encoding is not taken")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(shell.limits.body_timeout_s):
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                shell.hold(request, len(part))
                parts.append(part)
    except TimeoutError:
        raise ApiProblem(
            problem.TOO_SLOW, f"the body did not arrive within {shell.limits.body_timeout_s:g} s", headers=_CLOSE
        ) from None
    except web.RequestPayloadError:
        raise ApiProblem(problem.MALFORMED, "the body breaks its transfer coding", headers=_CLOSE) from None
    return b"".join(parts)


def _too_large(limit: int) -> ApiProblem:
    return ApiProblem(problem.TOO_LARGE, f"a body may have at most {limit} bytes", headers=_CLOSE)


def _check_media_type(request: web.Request, route: Route) -> None:
    if route.request is None or (not request.body_exists and not route.request.required):
        return
    if request.content_type not in route.request.media_types:
        raise ApiProblem(
            problem.UNSUPPORTED_MEDIA_TYPE, f"the body must be one of {', '.join(route.request.media_types)}"
        )


def _parameters(request: web.Request, route: Route) -> dict[str, Any]:
    """Return the converted parameters; an unknown one in the query is refused like an unknown field."""
    values: dict[str, Any] = {}
    known = {each.name for each in route.parameters if each.where == "query"}
    if not known.issuperset(request.query):
        raise problem.field_problem("query", "unknown-field", "there is a parameter that this operation does not have")
    for parameter in route.parameters:
        source: Iterable[str] = (
            request.query.getall(parameter.name, ())
            if parameter.where == "query"
            else (request.match_info[parameter.name],)
        )
        given = list(source)
        if len(given) > 1:
            raise problem.field_problem(parameter.name, "repeated", "stands in the query more than once")
        if given:
            values[parameter.name] = _converted(parameter.name, given[0], parameter.type)
        elif parameter.required:
            raise problem.field_problem(parameter.name, "missing", "is required")
    return values


def _converted(name: str, text: str, kind: Any) -> Any:
    if getattr(kind, "__origin__", kind) is int and not _WHOLE.fullmatch(text):
        # One spelling for each number; msgspec takes 1.0 and 1e3 as well.
        raise problem.field_problem(name, "wrong-type", "must be a whole number in decimal digits")
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        fault = problem.fault_of(error)
        raise problem.field_problem(name, fault.reason, fault.detail) from None


def _presented_key(header: str) -> str | None:
    """Return the key in an Authorization header: a bearer token (RFC 6750), or the password of RFC 7617."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")[2]
        except ValueError:
            # What is no base64, no ASCII, or no UTF-8 once it is decoded.
            return None
    return None


def _method(request: web.Request) -> str:
    """Return the method as a label; a caller may invent methods, and labels must stay few."""
    return request.method if request.method in hdrs.METH_ALL else "other"


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    set_headers(response, request.get(_REQUEST_ID, ""))


def with_documentation(
    routes: Sequence[Route], info: ApiInfo, *, prefix: str, roles: frozenset[Role]
) -> tuple[Route, ...]:
    """Return `routes` and three more below `prefix`: `openapi.json`, `docs`, `docs.css`.

    They are for callers with one of `roles`, or for everybody when it is empty.
    The three describe themselves too, so that nothing served is undocumented.
    """
    pages: dict[str, str | bytes] = {}

    async def document(_call: Call) -> web.Response:
        return web.Response(body=pages["document"], content_type=JSON)

    async def page(_call: Call) -> web.Response:
        return page_answer(str(pages["html"]))

    async def style(_call: Call) -> web.Response:
        return web.Response(text=str(pages["css"]), content_type="text/css", charset="utf-8")

    served = (
        ("openapi.json", "This description, as OpenAPI 3.1", document, JSON),
        ("docs", "This description, as a page", page, "text/html"),
        ("docs.css", "The page's stylesheet", style, "text/css"),
    )
    table = (
        *routes,
        *(
            Route(
                method="GET",
                path=f"{prefix}/{name}",
                summary=summary,
                handler=handler,
                responses={200: Answer("The description.", media_type=media_type)},
                group="Documentation",
                auth=Auth.API_KEY if roles else Auth.OPEN,
                roles=roles,
            )
            for name, summary, handler, media_type in served
        ),
    )
    described = describe(info, table)
    pages["document"] = msgspec.json.encode(described)
    pages["html"] = render_html(described, "docs.css")
    pages["css"] = stylesheet_text()
    return table


async def listen(
    app: web.Application,
    address: str,
    *,
    shutdown_s: float,
    tls: ssl.SSLContext | None = None,
    connections: ConnectionLimits = _CONNECTIONS,
) -> Listener:
    """Serve `app` (of `make_app`) on `host:port`; port 0 takes a free one, which `Listener.port` tells.

    A body that was refused is read and thrown away for `connections.linger_s` at most, so that its sender hears the
    answer. OperatorError when the address cannot be had.
    """
    shell = app[_SHELL]
    try:
        return await serve(
            app,
            split_address(address),
            log=shell.log,
            metrics=shell.metrics,
            shutdown_s=shutdown_s,
            tls=tls,
            limits=replace(connections, request_bytes_max=_BODIES_READ * shell.limits.body_bytes_max),
        )
    except OSError as error:
        raise OperatorError(f"{address} cannot be listened on ({error.strerror}).") from None
