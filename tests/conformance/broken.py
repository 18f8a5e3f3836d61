"""A node that breaks one rule: a door in front of a real one that holds its keys, and changes what goes through."""

import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from aiohttp import web
from yarl import URL

from protocol.errors import ProtocolError
from protocol.keys import SigningKey
from protocol.problems import MEDIA_TYPE, REGISTRY, problem_body
from protocol.profile import Request, Response, combine_headers, sign_response
from tests.ports import free_port
from tests.world import TestNode

_SIGNATURE = frozenset({"signature", "signature-input", "content-digest", "content-length", "connection"})

Forward = Callable[[Request], Awaitable[Response]]
#: What the door does with a request; `Door.answer` signs what it makes up.
Defect = Callable[["Door", Request], Awaitable[Response]]


@dataclass(slots=True)
class Door:
    """The door: the way to the real node behind it, whose keys sign what is made up here."""

    node: TestNode
    member: TestNode
    session: aiohttp.ClientSession
    seen: dict[object, Response] = field(default_factory=dict)

    async def forward(self, request: Request) -> Response:
        """Ask the real node."""
        async with self.session.request(
            request.method,
            URL(request.target_uri, encoded=True),
            headers={name: value for name, value in request.headers.items() if name not in {"host", "connection"}},
            data=io.BytesIO(request.body),
            allow_redirects=False,
        ) as came:
            return Response(came.status, combine_headers(came.headers.items()), await came.read())

    def sign(self, response: Response, request: Request, key: SigningKey | None = None) -> Response:
        """Sign an answer anew, bound to the request."""
        plain = {name: value for name, value in response.headers.items() if name not in _SIGNATURE}
        bare = replace(response, headers=plain)
        now = int(self.now_s())
        return bare.adding(sign_response(bare, request, key or self.node.keys.http, created=now))

    def now_s(self) -> float:
        return time.time()

    def problem(self, request: Request, error: ProtocolError) -> Response:
        """Answer with a problem of our own."""
        return self.members(request, REGISTRY[error.code].status, problem_body(error))

    def members(self, request: Request, status: int, members: Mapping[str, object]) -> Response:
        body = json.dumps(members).encode()
        return self.sign(Response(status, {"content-type": MEDIA_TYPE, "hx-directory": "1"}, body), request)


@asynccontextmanager
async def broken(
    node: TestNode, member: TestNode, session: aiohttp.ClientSession, defect: Defect
) -> AsyncIterator[str]:
    """Yield the address of a door with a defect."""
    door = Door(node, member, session)

    async def handle(http: web.Request) -> web.StreamResponse:
        request = Request(
            http.method,
            node.settings.base_url + http.raw_path,
            combine_headers(http.headers.items()),
            await http.read(),
        )
        said = await defect(door, request)
        headers = {name: value for name, value in said.headers.items() if name not in {"content-length", "connection"}}
        return web.Response(status=said.status, headers=headers, body=said.body)

    app = web.Application(client_max_size=16_777_216)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
