"""Makes of a request on the virtual network what the server's parser hands to an application; no socket is opened."""

import asyncio
from typing import Any, cast

import aiohttp
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from protocol.profile import Request


class _Wire:
    """Stands where the socket's protocol and writer stand; nothing is written to it."""

    def __init__(self) -> None:
        self.transport = self
        self.writer = self
        self.peername = self.sockname = ("192.0.2.1", 1)
        self.ssl_context = None
        self.output_size = 0
        self.max_line_size = self.max_field_size = 8190

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def is_closing(self) -> bool:
        return False

    async def ignore(self, *_values: object) -> None:
        """Take what a large answer is written with."""

    write_headers = write = drain = write_eof = ignore


def incoming(app: web.Application, request: Request) -> web.Request:
    """Return the request as the server's parser hands it to the application."""
    loop = asyncio.get_running_loop()
    payload = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    payload.feed_data(request.body)
    payload.feed_eof()
    path = "/" + request.target_uri.split("/", 3)[3]
    headers = CIMultiDictProxy(CIMultiDict({**request.headers, "content-length": str(len(request.body))}))
    raw = tuple((name.encode(), value.encode()) for name, value in headers.items())
    message = RawRequestMessage(
        request.method, path, HttpVersion11, headers, raw, False, None, False, False, URL(path, encoded=True)
    )
    wire = cast("Any", _Wire())
    return web.Request(message, payload, wire, wire, cast("Any", None), loop, client_max_size=app._client_max_size)
