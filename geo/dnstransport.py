"""Carries DNS queries over shared UDP sockets, or TCP when an answer does not fit; never reads what it means.

Many queries share a socket, told apart by id and question. Sockets are connected, so the kernel drops what does
not come from the server asked; ids, the socket and its port are random, and a socket is replaced after a number
of queries, so that a forger has both to guess (RFC 5452).
"""

import asyncio
import secrets
from typing import cast

from geo.dnswire import encode_query, is_reply_to

Server = tuple[str, int]

_TCP_CONNECTIONS_MAX = 16
# Queries that may stand in the receive buffer of one server: Linux's default buffer holds some 250 datagrams and drops
# the rest. A query without a reply for so long is being worked on, and stands there no more.
_BURST_QUERIES = 128
_BURST_S = 0.2
_ID_TRIES_MAX = 64


class NoReplyError(Exception):
    """The server gave no usable reply; `reason` is a token (`timeout`, `unreachable`, `malformed`)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Query:
    """A query on its way: what it asked, who waits for it, and its place in the burst until it is given back."""

    __slots__ = ("future", "question", "timer", "window")

    def __init__(self, question: bytes, window: asyncio.Semaphore, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.question = question
        self.future: asyncio.Future[bytes] = loop.create_future()
        self.window: asyncio.Semaphore | None = window
        first_s = min(timeout_s, _BURST_S)
        self.timer = loop.call_later(first_s, self._late, timeout_s - first_s)

    def _late(self, rest_s: float) -> None:
        self.leave_burst()
        if rest_s > 0:
            self.timer = asyncio.get_running_loop().call_later(rest_s, self.fail, "timeout")
        else:
            self.fail("timeout")

    def fail(self, reason: str) -> None:
        if not self.future.done():
            self.future.set_exception(NoReplyError(reason))

    def leave_burst(self) -> None:
        if self.window is not None:
            self.window.release()
            self.window = None

    def end(self) -> None:
        self.timer.cancel()
        self.leave_burst()


class _Port(asyncio.DatagramProtocol):
    """One UDP socket and the queries that wait on it."""

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None
        self.waiting: dict[int, _Query] = {}
        self.sent = 0
        self.strays = 0
        self.retired = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:  # noqa: ARG002 (protocol; the socket is connected)
        query_id = int.from_bytes(data[:2], "big")
        query = self.waiting.get(query_id)
        if query is None or not is_reply_to(data, query_id, query.question):
            self.strays += 1
        elif not query.future.done():
            query.future.set_result(data)

    def error_received(self, exc: Exception) -> None:  # noqa: ARG002 (protocol)
        self._fail_all()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (protocol)
        self._fail_all()

    def _fail_all(self) -> None:
        for query in self.waiting.values():
            query.fail("unreachable")

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class DnsTransport:
    """Asks DNS servers and waits for their replies. Used from one event loop."""

    def __init__(self, *, ports_per_server: int, port_queries_max: int) -> None:
        self._ports_per_server = ports_per_server
        self._port_queries_max = port_queries_max
        self._ports: dict[Server, list[_Port]] = {}
        self._retired: set[_Port] = set()
        self._windows: dict[Server, asyncio.Semaphore] = {}
        self._opening = asyncio.Lock()
        self._tcp_slots = asyncio.Semaphore(_TCP_CONNECTIONS_MAX)
        self._closed = False

    async def ask(self, server: Server, question: bytes, *, edns: bool, timeout_s: float) -> bytes:
        """The reply over UDP. Raises `NoReplyError` when there is none within `timeout_s`."""
        window = self._windows.setdefault(server, asyncio.Semaphore(_BURST_QUERIES))
        await window.acquire()
        query = _Query(question, window, timeout_s)
        try:
            # Nothing is awaited between the choice of a port and its use: an idle one may be closed at any turn.
            port = await self._choose_port(server)
            return await self._exchange(port, query, edns=edns)
        finally:
            query.end()

    async def _exchange(self, port: _Port, query: _Query, *, edns: bool) -> bytes:
        query_id = _free_id(port)
        port.waiting[query_id] = query
        port.sent += 1
        try:
            assert port.transport is not None  # noqa: S101 (set before the endpoint is handed out)
            port.transport.sendto(encode_query(query_id, query.question, edns=edns))
            return await query.future
        finally:
            del port.waiting[query_id]
            self._close_when_idle(port)

    async def ask_tcp(self, server: Server, question: bytes, *, timeout_s: float) -> bytes:
        """The reply over TCP (RFC 7766). Raises `NoReplyError`."""
        query_id = secrets.randbelow(65536)
        query = encode_query(query_id, question, edns=True)
        try:
            async with self._tcp_slots, asyncio.timeout(timeout_s):
                reply = await _exchange_tcp(server, query)
        except TimeoutError:
            raise NoReplyError("timeout") from None
        except (OSError, asyncio.IncompleteReadError):
            raise NoReplyError("unreachable") from None
        if not is_reply_to(reply, query_id, question):
            raise NoReplyError("malformed")
        return reply

    def strays(self) -> int:
        """Datagrams that answered nothing that was asked, on the sockets now open."""
        return sum(port.strays for ports in self._ports.values() for port in ports)

    async def close(self) -> None:
        """Close every socket; what still waits ends as unreachable."""
        self._closed = True
        for port in [*self._retired, *(port for ports in self._ports.values() for port in ports)]:
            port.close()
        self._ports.clear()
        self._retired.clear()
        await asyncio.sleep(0)  # transports tell of their end on the next turn of the loop

    async def _choose_port(self, server: Server) -> _Port:
        ports = self._ports.get(server, ())
        if len(ports) < self._ports_per_server:
            async with self._opening:
                ports = await self._fill(server)
        port = secrets.choice(ports)
        if port.sent >= self._port_queries_max:
            self._ports[server].remove(port)
            port.retired = True
            self._retired.add(port)
            self._close_when_idle(port)
            return await self._choose_port(server)
        return port

    async def _fill(self, server: Server) -> list[_Port]:
        ports = self._ports.setdefault(server, [])
        loop = asyncio.get_running_loop()
        while len(ports) < self._ports_per_server:
            if self._closed:
                raise NoReplyError("unreachable")
            try:
                _, port = await loop.create_datagram_endpoint(_Port, remote_addr=server)
            except OSError:
                raise NoReplyError("unreachable") from None
            ports.append(port)
        return ports

    def _close_when_idle(self, port: _Port) -> None:
        if port.retired and not port.waiting:
            port.close()
            self._retired.discard(port)


def _free_id(port: _Port) -> int:
    for _ in range(_ID_TRIES_MAX):
        query_id = secrets.randbelow(65536)
        if query_id not in port.waiting:
            return query_id
    raise NoReplyError("overloaded")


async def _exchange_tcp(server: Server, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        await writer.drain()
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.close()
