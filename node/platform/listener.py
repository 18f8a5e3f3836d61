"""Listens on one address and bounds what connections cost: how many, from where, and how slow they may be.

Knows no route and reads no body. A connection over a limit is closed without an answer: who floods or drips is not
owed one, and whoever speaks HTTP at a normal pace never meets these limits.
"""

import asyncio
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from node.platform import apiproblems as problem
from node.platform.answers import problem_answer, set_headers
from node.platform.apiproblems import ApiProblem
from node.platform.telemetry import Logger, Metrics

#: Bounds a connection on which nothing is asked.
KEEPALIVE_S: Final = 75.0
LINGER_S: Final = 2.0
HANDSHAKE_S: Final = 10.0
HEAD_FIELDS_MAX: Final = 64
FIELD_BYTES_MAX: Final = 8190
#: Read ahead of a body, twice that at most, on each connection.
READ_BYTES_MAX: Final = 65_536
#: Of a head that is not whole yet; whole ones are bounded by their fields.
HEAD_BYTES_MAX: Final = 65_536
#: What a caller has to read of a waiting answer within the write timeout, or the rest of it.
_READ_BYTES_MIN: Final = 16_384
_BACKLOG: Final = 256
#: When the process has no file descriptor left, accepting rests so long.
_EXHAUSTED_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one listener bears: connections in all and from one address, seconds for a head and for reading an answer.

    A reverse proxy is one address.
    """

    connections_max: int = 1024
    per_address_max: int = 256
    head_timeout_s: float = 10.0
    write_timeout_s: float = 30.0
    linger_s: float = LINGER_S
    #: Of one request with its body. A refused body is read on for a while, so that its sender hears why; not for ever.
    request_bytes_max: int | None = None


class Connection(RequestHandler):
    """A connection that is watched, and answers what is not HTTP as a problem.

    aiohttp would quote the bytes that were sent, and log them; and it waits without end for a head that was begun and
    for an answer to be read.
    """

    __slots__ = (
        "_begun",
        "_body_bytes",
        "_door",
        "_head_bytes",
        "_head_since",
        "_host",
        "_unread",
        "_unread_since",
        "_wire",
    )

    def __init__(self, door: "_Door", host: str, server: web.Server, **options: Any) -> None:
        """Count for `host` at `door` until the connection is lost."""
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._door = door
        self._host = host
        self._begun = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._head_since = 0.0
        self._unread = 0
        self._unread_since: float | None = None
        #: aiohttp lets go of its own reference when it begins to close, which flushes, and takes as long as the caller
        #: likes.
        self._wire: asyncio.Transport | None = None

    @property
    def begun(self) -> bool:
        """Whether the connection was made: its TLS handshake, if any, is done."""
        return self._begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to be watched."""
        super().connection_made(transport)
        self._begun = True
        self._wire = cast("asyncio.Transport", transport)
        self._door.connections.add(self)
        # The first request is due at once: an open connection that says nothing is no better than one that drips.
        self._head_since, self._head_bytes = self._loop.time(), 1

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count no more."""
        super().connection_lost(exc)
        self._wire = None
        if self in self._door.connections:
            self._door.connections.discard(self)
            self._door.left(self._host)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; those of a head that is not whole are counted, and those of a body."""
        seen = self._request_count
        super().data_received(data)
        if self._request_count != seen:
            self._head_bytes = self._body_bytes = 0
        elif not self._is_idle():
            self._body_bytes += len(data)
            most = self._door.limits.request_bytes_max
            if most is not None and self._body_bytes > most:
                self.cut("body-size")
        else:
            if not self._head_bytes:
                self._head_since = self._loop.time()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.cut("head-size")

    def resume_writing(self) -> None:
        """Go on with an answer: what waited of it was read, but for a little."""
        super().resume_writing()
        self._unread, self._unread_since = 0, None

    def look(self, now_s: float, limits: ConnectionLimits) -> None:
        """Cut a connection that has been too slow by `now_s`."""
        if self._head_bytes and self._is_idle() and now_s - self._head_since > limits.head_timeout_s:
            self.cut("head-slow")
            return
        waiting = 0 if self._wire is None else self._wire.get_write_buffer_size()
        if not waiting:
            self._unread, self._unread_since = 0, None
        elif self._unread_since is None or waiting <= self._unread - _READ_BYTES_MIN:
            self._unread, self._unread_since = waiting, now_s
        elif now_s - self._unread_since > limits.write_timeout_s:
            self.cut("unread")
        else:
            self._unread = max(self._unread, waiting)

    def cut(self, reason: str) -> None:
        """Close without waiting for anything."""
        self._door.metrics.connections_cut.labels(reason=reason).inc()
        wire = self._wire
        # Nobody may write any more: an aborted transport of uvloop does not say that it is closing.
        self.force_close()
        if wire is not None:
            wire.abort()

    def _is_idle(self) -> bool:
        """Whether no request is in hand and none is complete."""
        return self._waiter is not None and not self._messages

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's signature; it quotes what was sent
    ) -> web.StreamResponse:
        """Return the answer to a request that no handler saw, or whose handling broke outside of the shell."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        failed = status >= problem.INTERNAL.status
        if failed:
            self._door.log.error("a connection failed", action="web.failed", exc_info=exc)
        kind = problem.INTERNAL if failed else problem.MALFORMED
        self._door.metrics.http_requests.labels("(broken)", "other", kind.status).inc()
        request_id = secrets.token_hex(8)
        response = problem_answer(ApiProblem(kind, kind.title, headers={"Connection": "close"}), request_id)
        set_headers(response, request_id)
        return response


class _Door:
    """Counts the connections of one listener and looks after them."""

    def __init__(self, limits: ConnectionLimits, log: Logger, metrics: Metrics) -> None:
        self.limits = limits
        self.log = log
        self.metrics = metrics
        self.connections: set[Connection] = set()
        self._by_address: Counter[str] = Counter()

    def may_enter(self, host: str) -> bool:
        """Count one more connection from `host`, unless it is one too many."""
        limits = self.limits
        if self._by_address.total() >= limits.connections_max or self._by_address[host] >= limits.per_address_max:
            if not self._by_address[host]:
                # Reading made an entry; those of strangers must not stay.
                del self._by_address[host]
            self.metrics.connections_cut.labels(reason="too-many").inc()
            return False
        self._by_address[host] += 1
        return True

    def left(self, host: str) -> None:
        """Count one connection from `host` less."""
        self._by_address[host] -= 1
        if not self._by_address[host]:
            del self._by_address[host]

    async def watch(self) -> None:
        """Look at every connection again and again; never ends by itself."""
        limits = self.limits
        every_s = min(1.0, limits.head_timeout_s / 4, limits.write_timeout_s / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_s)
            now_s = loop.time()
            for connection in list(self.connections):
                connection.look(now_s, limits)


class _Server(web.Server):
    """Makes connections of ours."""

    def __init__(self, door: _Door, like: web.Server, options: Mapping[str, Any]) -> None:
        super().__init__(like.request_handler, request_factory=like.request_factory)
        self._door = door
        self._options = options

    def connection(self, host: str) -> Connection:
        """Return a new connection from `host`."""
        return Connection(self._door, host, self, **self._options)


class _Runner(web.AppRunner):
    """Runs an application over connections of ours."""

    __slots__ = ("_door", "_options")

    def __init__(self, app: web.Application, shutdown_s: float, door: _Door, options: Mapping[str, Any]) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=shutdown_s)
        self._door = door
        self._options = options

    async def _make_server(self) -> web.Server:
        return _Server(self._door, await super()._make_server(), self._options)


class _Site(web.BaseSite):
    """Accepts connections itself, so that one too many is closed before a handshake is spent on it."""

    __slots__ = ("_door", "_host", "_port", "_sockets", "_stopped", "_tasks")

    def __init__(self, runner: _Runner, door: _Door, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(runner, ssl_context=tls, backlog=_BACKLOG)
        self._door = door
        self._host = host
        self._port = port
        self._sockets: list[socket.socket] = []
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """Aiohttp's name of a site."""
        return f"{self._host}:{self._port}"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        """Listen; OSError when the address cannot be had."""
        await super().start()
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in {(one[0], one[4]) for one in found}:
            listening = socket.create_server(address, family=family, backlog=_BACKLOG)
            listening.setblocking(False)
            self._sockets.append(listening)
        for listening in self._sockets:
            self._watch(listening)
        self._spawn(self._door.watch())

    async def stop(self) -> None:
        """Take no more connections; those that are there stay the runner's."""
        self._stopped = True
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        await super().stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _watch(self, listening: socket.socket) -> None:
        """Take connections as they come; never in a task, which could end with one in its hand."""
        if not self._stopped:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        try:
            accepted, address = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            # There are no more descriptors: it stays readable, so it is left alone for a moment.
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            loop.call_later(_EXHAUSTED_S, self._watch, listening)
            return
        host = str(address[0])
        if not self._door.may_enter(host):
            accepted.close()
            return
        server = self._runner.server
        if not isinstance(server, _Server):
            raise TypeError("the runner makes our servers")
        made = server.connection(host)

        def begun(_task: asyncio.Task[None]) -> None:
            # Also of a task that was told to end before it did anything.
            if not made.begun:
                accepted.close()
                self._door.left(host)

        self._spawn(self._begin(accepted, made)).add_done_callback(begun)

    async def _begin(self, accepted: socket.socket, made: Connection) -> None:
        tls = {} if self._ssl_context is None else {"ssl_handshake_timeout": HANDSHAKE_S}
        try:
            accepted.setblocking(False)
            with suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: made, accepted, ssl=self._ssl_context, **tls
            )
        except (OSError, EOFError, ValueError):
            # A handshake that failed or took too long; nothing was said that could be answered.
            self._door.metrics.connections_cut.labels(reason="handshake").inc()


class Listener:
    """An application being served on one address; made by `serve`."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        """Take what `serve` started."""
        self._runner = runner
        self.host = host
        self.port = port

    @property
    def base_url(self) -> str:
        """The address as the start of a URL, for a listener without TLS."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def close(self) -> None:
        """Take no more connections, let requests finish within the shutdown time, then cut them off."""
        await self._runner.cleanup()


async def serve(
    app: web.Application,
    address: tuple[str, int],
    *,
    log: Logger,
    metrics: Metrics,
    shutdown_s: float,
    tls: ssl.SSLContext | None,
    limits: ConnectionLimits,
) -> Listener:
    """Serve `app` on `address`; port 0 takes a free one, which `Listener.port` tells. OSError when it cannot be had."""
    options = {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": KEEPALIVE_S,
        "lingering_time": limits.linger_s,
        "read_bufsize": READ_BYTES_MAX,
        "max_headers": HEAD_FIELDS_MAX,
        "max_line_size": FIELD_BYTES_MAX,
        "max_field_size": FIELD_BYTES_MAX,
    }
    door = _Door(limits, log, metrics)
    runner = _Runner(app, shutdown_s, door, options)
    await runner.setup()
    site = _Site(runner, door, *address, tls)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    return Listener(runner, *site.address)
