"""Callers that drip, hang or flood, over raw sockets: each is cut within its limit, and others are served meanwhile."""

import asyncio
import gc
import io
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from node.platform.listener import HEAD_BYTES_MAX, ConnectionLimits, Listener
from node.platform.routes import Answer, Auth, Body, Call, Route
from node.platform.telemetry import Metrics, make_logger
from node.platform.web import Limits, listen, make_app, read_body
from tests.certificates import Authority
from tests.hotline.network import eventually
from tests.patience import stretched

Handler = Callable[[Call], Awaitable[web.Response]]
QUICK = ConnectionLimits(head_timeout_s=0.4, write_timeout_s=0.5, linger_s=0.1)
ANSWER_BYTES = 8_388_608
GET = b"GET /small HTTP/1.1\r\nHost: node.test\r\n\r\n"
PUT = b"PUT /take HTTP/1.1\r\nHost: node.test\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\n"
BIG = b"GET /big HTTP/1.1\r\nHost: node.test\r\n\r\n"


async def _small(_call: Call) -> web.Response:
    return web.Response(body=b"small")


async def _big(_call: Call) -> web.Response:
    return web.Response(body=bytes(ANSWER_BYTES))


async def _take(call: Call) -> web.Response:
    return web.Response(body=str(len(await read_body(call.request))).encode())


class Served:
    """A door with limits, and what it counted."""

    def __init__(self, listener: Listener, metrics: Metrics) -> None:
        self.listener = listener
        self.metrics = metrics
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("hotline_connections_cut_total", {"reason": reason}) or 0.0

    def socket(self) -> socket.socket:
        """A connection that the test reads and writes by itself, with a small window."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        return made

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self.listener.host, self.listener.port)
        self._writers.append(writer)
        return reader, writer

    async def hang_up(self) -> None:
        """Close every connection that was made."""
        for writer in self._writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def is_served(self) -> None:
        """A caller at a normal pace gets its answer now."""
        reader, writer = await self.connect()
        writer.write(GET)
        async with asyncio.timeout(stretched(5)):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


@asynccontextmanager
async def door(
    limits: ConnectionLimits = QUICK, *, body_timeout_s: float = 5.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    def route(method: str, name: str, handler: Handler, body: Body | None = None) -> Route:
        answers = {200: Answer("It.")}
        return Route(
            method=method,
            path=f"/{name}",
            summary=name,
            handler=handler,
            group="Test",
            auth=Auth.OPEN,
            request=body,
            responses=answers,
        )

    text = Body(media_types=("text/plain",), description="Bytes.")
    routes = [route("GET", "small", _small), route("GET", "big", _big), route("PUT", "take", _take, text)]
    metrics = Metrics.create()
    app = make_app(
        routes,
        log=make_logger("error", "json", io.StringIO()),
        metrics=metrics,
        limits=Limits(body_bytes_max=1_000_000, body_timeout_s=body_timeout_s),
    )
    listener = await listen(app, "127.0.0.1:0", shutdown_s=1.0, tls=tls, connections=limits)
    served = Served(listener, metrics)
    try:
        yield served
    finally:
        await served.hang_up()
        await listener.close()


async def until_cut(served: Served, reason: str, count: int = 1) -> None:
    async def cut() -> bool:
        return served.cut(reason) >= count

    await eventually(cut)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Return what came before the connection was closed."""
    got = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(stretched(10)):
            while part := await reader.read(65536):
                got += part
    return got


@pytest.mark.parametrize("begin", [b"", b"GET /small HTTP/1.1\r\n", b"GET /small HTTP/1.1\r\nX-A: "])
async def test_a_head_that_is_never_finished_is_cut_and_others_are_served(begin: bytes) -> None:
    async with door() as served:
        callers = [await served.connect() for _ in range(20)]
        for _, writer in callers:
            writer.write(begin)
        await served.is_served()
        await until_cut(served, "head-slow", len(callers))
        for reader, _ in callers:
            assert await closed(reader) == b""
        await served.is_served()


async def test_a_head_that_drips_is_cut_as_one_that_stops() -> None:
    async with door() as served:
        reader, writer = await served.connect()
        writer.write(b"GET /small HTTP/1.1\r\nX-Slow: ")
        dripping = asyncio.ensure_future(_dripping(writer))
        await until_cut(served, "head-slow")
        assert await closed(reader) == b""
        dripping.cancel()


async def _dripping(writer: asyncio.StreamWriter) -> None:
    turn = asyncio.Event()
    with suppress(ConnectionError):
        while True:
            writer.write(b"a")
            await writer.drain()
            asyncio.get_running_loop().call_later(0.03, turn.set)
            await turn.wait()
            turn.clear()


async def test_the_second_request_of_a_connection_has_its_own_time() -> None:
    async with door() as served:
        reader, writer = await served.connect()
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"small")
        # Idle for longer than a head may take is fine: nothing was begun.
        await _ticks(served, 0.6)
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"small")
        writer.write(GET[:-4])
        await until_cut(served, "head-slow")
        assert await closed(reader) == b""


async def _ticks(served: Served, seconds: float) -> None:
    """Let the door look around for a while."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def over() -> bool:
        return loop.time() > end

    await eventually(over)
    assert served.cut("head-slow") == 0


async def test_a_head_without_end_is_cut_by_its_size() -> None:
    async with door(ConnectionLimits()) as served:
        reader, writer = await served.connect()
        with suppress(ConnectionError):
            writer.write(b"GET /small HTTP/1.1\r\n")
            for at in range(60):
                writer.write(b"X-%d: " % at + b"a" * 4000 + b"\r\n")
                await writer.drain()
        assert b"200" not in await closed(reader)
        assert HEAD_BYTES_MAX < 60 * 4000
        await served.is_served()


async def test_a_body_that_drips_is_told_and_cut() -> None:
    async with door(body_timeout_s=0.4) as served:
        reader, writer = await served.connect()
        writer.write(
            b"PUT /take HTTP/1.1\r\nHost: node.test\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\n"
        )
        dripping = asyncio.ensure_future(_dripping(writer))
        await served.is_served()
        assert (await closed(reader)).startswith(b"HTTP/1.1 408")
        dripping.cancel()


@pytest.mark.parametrize("asks", [BIG, BIG * 5])
async def test_an_answer_that_is_never_read_is_cut(asks: bytes) -> None:
    async with door() as served:
        caller = served.socket()
        with caller:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(caller, (served.listener.host, served.listener.port))
            await loop.sock_sendall(caller, asks)
            await served.is_served()
            await until_cut(served, "unread")
        await served.is_served()


async def test_an_answer_that_is_read_at_a_normal_pace_is_not_cut() -> None:
    async with door() as served:
        reader, writer = await served.connect()
        writer.write(BIG.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert len(await closed(reader)) > ANSWER_BYTES
        assert served.cut("unread") == 0


async def test_half_of_a_connection_is_no_connection() -> None:
    """A caller that closed its side for writing before its head was whole can ask nothing any more."""
    async with door() as served:
        reader, writer = await served.connect()
        writer.write(b"GET /sm")
        writer.write_eof()
        assert await closed(reader) == b""


async def test_connections_over_the_limit_are_closed_at_once_and_leave_room_when_they_go() -> None:
    async with door(ConnectionLimits(connections_max=8, per_address_max=5)) as served:
        callers = [await served.connect() for _ in range(5)]
        for reader, writer in callers:
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await served.connect()
        assert await closed(reader) == b""
        await until_cut(served, "too-many")
        for _, writer in callers:
            writer.close()

        async def served_again() -> bool:
            with suppress(ConnectionError, AssertionError):
                await served.is_served()
                return True
            return False

        await eventually(served_again)


async def test_a_handshake_that_never_comes_holds_no_more_than_its_place(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    async with door(ConnectionLimits(per_address_max=3), tls=context) as served:
        callers = [await served.connect() for _ in range(4)]
        await until_cut(served, "too-many")
        for _, writer in callers:
            writer.close()
        await until_cut(served, "handshake", 3)


async def test_a_refused_body_is_not_read_for_ever() -> None:
    async with door() as served:
        reader, writer = await served.connect()
        with suppress(ConnectionError):
            writer.write(PUT.replace(b"Content-Length: 999", b"Transfer-Encoding: chunked"))
            for _ in range(100):
                writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
                await writer.drain()
        assert (await closed(reader)).startswith((b"HTTP/1.1 413", b""))
        await until_cut(served, "body-size")
        await served.is_served()


@pytest.mark.parametrize("turns", range(6))
async def test_who_connects_while_the_door_closes_is_closed_too(turns: int) -> None:
    """However far the loop has come with a connection when the listener ends, its socket is not left to the collector.

    The kernel makes the connection at once; each turn of the loop takes it one step on.
    """
    with socket.socket() as caller, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with door(ConnectionLimits()) as served:
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", served.listener.port))
            for _ in range(turns):
                await asyncio.sleep(0)
            await served.listener.close()
        gc.collect()
        assert [str(one.message) for one in warned] == []
        with suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(caller, 1) == b""
