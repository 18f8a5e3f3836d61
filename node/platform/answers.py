"""The answers of the HTTP server: JSON, pages and problems, with the headers that keep browsers from helping."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import hdrs, web

from node.platform import apiproblems as problem
from node.platform.apiproblems import ApiProblem
from node.platform.routes import JSON
from protocol.errors import ProtocolError
from protocol.problems import REGISTRY, problem_body

#: Of an answer that is written at once; what is not read of it is held besides what the system holds.
PIECE_BYTES: Final = 65_536
_CHALLENGES: Final = ('Bearer realm="hotline"', 'Basic realm="hotline", charset="UTF-8"')
_SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


def set_headers(response: web.StreamResponse, request_id: str) -> None:
    """Put the headers that every answer carries where the answer has no stricter or looser one of its own."""
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = request_id
    # Nobody needs the versions of what we run on.
    response.headers[hdrs.SERVER] = "hotline"


async def send_in_pieces(request: web.Request, response: web.StreamResponse) -> None:
    """Send a large answer as far as its caller reads it: a connection holds two pieces of its own, never the whole.

    A small one is left to be sent as always. A connection that is lost meanwhile is no error.
    """
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes) or len(body) <= PIECE_BYTES:
        return
    with suppress(ConnectionError):
        writer = await response.prepare(request)
        if writer is None:
            raise TypeError("an answer is sent once")
        whole = memoryview(body)
        for at in range(0, len(body), PIECE_BYTES):
            await writer.write(whole[at : at + PIECE_BYTES])
            await writer.drain()
        # Response's own would write the body once more.
        await web.StreamResponse.write_eof(response)


def problem_answer(error: ApiProblem, request_id: str) -> web.Response:
    """Return the RFC 9457 answer to `error`."""
    response = web.Response(
        status=error.kind.status,
        body=error.body(request_id),
        content_type=problem.MEDIA_TYPE,
        headers=error.headers,
    )
    if error.kind is problem.UNAUTHENTICATED:
        for challenge in _CHALLENGES:
            response.headers.add(hdrs.WWW_AUTHENTICATE, challenge)
    if error.headers.get("Connection") == "close":
        response.force_close()
    return response


def protocol_answer(error: ProtocolError) -> web.Response:
    """Return the RFC 9457 answer of the peer protocol to `error` (PROTOCOL section 8); not yet signed.

    Its member `retry_after`, in seconds, stands in the header field of that name too.
    """
    later = error.extra.get("retry_after")
    return web.Response(
        status=REGISTRY[error.code].status,
        body=msgspec.json.encode(problem_body(error)),
        content_type=problem.MEDIA_TYPE,
        headers=None if later is None else {hdrs.RETRY_AFTER: str(later)},
    )


def json_answer(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return `value` as JSON."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type=JSON, headers=headers)


def page_answer(html: str) -> web.Response:
    """Return a page that may load styles and images of ours and nothing else."""
    return web.Response(
        text=html, content_type="text/html", charset="utf-8", headers={"Content-Security-Policy": _PAGE_POLICY}
    )
