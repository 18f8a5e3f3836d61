"""Calls to a peer, against a real server on the loopback that really signs and misbehaves on request."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web

from node.platform.httpclient import PeerAnswer, PeerAnswerInvalid, PeerClient, PeerUnreachable, make_session
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, PublicKey, SigningKey
from protocol.profile import Request, Response, combine_headers, sign_response, verify_request
from tests.platform.manual_clock import ManualClock

OURS = SigningKey(Algorithm.ED25519, b"\x01" * 32)
THEIRS = SigningKey(Algorithm.ED25519, b"\x02" * 32)
STRANGER = SigningKey(Algorithm.ED25519, b"\x03" * 32)
NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)

Handle = Callable[["Peer", web.Request, bytes], Awaitable[web.StreamResponse]]


def their_key(keyid: str) -> PublicKey:
    if keyid != THEIRS.public().thumbprint():
        raise ProtocolError("unknown-key", "not a key of this peer")
    return THEIRS.public()


def our_key(keyid: str) -> PublicKey:
    assert keyid == OURS.public().thumbprint()
    return OURS.public()


class Peer:
    """A peer whose answers a test chooses."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.base_url = ""
        self.nonces: list[str] = []
        self.signer = THEIRS
        self.created = int(NOW.timestamp())

    async def serve(self, request: web.Request) -> web.StreamResponse:
        return await self.handle(self, request, await request.read())

    def received(self, request: web.Request, body: bytes) -> Request:
        return Request(request.method, self.base_url + request.raw_path, combine_headers(request.headers.items()), body)

    def signed(self, request: web.Request, body: bytes, answer: bytes, status: int = 200) -> web.Response:
        received = self.received(request, body)
        self.nonces.append(verify_request(received, our_key, now=int(NOW.timestamp())).nonce)
        headers = {"content-type": "text/plain"}
        response = Response(status, headers, answer)
        added = sign_response(response, received, self.signer, created=self.created)
        return web.Response(status=status, body=answer, headers={**headers, **added})


@asynccontextmanager
async def peer(handle: Handle) -> AsyncIterator[Peer]:
    made = Peer(handle)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


async def call(
    base_url: str, path: str = "/x", body: bytes = b"", *, timeout_s: float = 5.0, answer_bytes_max: int = 1000
) -> PeerAnswer:
    async with make_session(timeout_s=timeout_s) as session:
        client = PeerClient(session, lambda: OURS, ManualClock(NOW), answer_bytes_max=answer_bytes_max)
        headers = {"content-type": "text/plain"} if body else None
        return await client.call("PUT" if body else "GET", base_url + path, their_key, headers=headers, body=body)


async def echo(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
    return served.signed(request, body, b"got " + body)


async def test_a_signed_call_brings_a_verified_answer() -> None:
    async with peer(echo) as served:
        answer = await call(served.base_url, "/peer/v1/inbox/a%20b?from=1", b"records")
        await call(served.base_url)
    assert (answer.status, answer.body) == (200, b"got records")
    assert answer.keyid == THEIRS.public().thumbprint()
    assert answer.created == int(NOW.timestamp())
    assert len(set(served.nonces)) == 2


async def test_a_problem_is_an_answer_like_any_other() -> None:
    async def refuse(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
        return served.signed(request, body, b"no", 409)

    async with peer(refuse) as served:
        assert (await call(served.base_url)).status == 409


async def test_a_redirect_is_not_followed() -> None:
    async def elsewhere(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
        assert request.path == "/x"
        response = served.signed(request, body, b"", 307)
        response.headers["Location"] = served.base_url + "/elsewhere"
        return response

    async with peer(elsewhere) as served:
        assert (await call(served.base_url)).status == 307


async def test_no_cookie_is_kept_and_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    async def cookies(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
        seen.extend((request.headers.get("Cookie"), request.headers.get("User-Agent")))
        response = served.signed(request, body, b"ok")
        response.set_cookie("track", "1")
        return response

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with peer(cookies) as served, make_session(timeout_s=5) as session:
        client = PeerClient(session, lambda: OURS, ManualClock(NOW))
        for _ in range(2):
            await client.call("GET", served.base_url + "/x", their_key)
    assert seen == [None, None, None, None]


async def unsigned(_served: Peer, _request: web.Request, _body: bytes) -> web.StreamResponse:
    return web.Response(text="trust me")


async def altered(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
    response = served.signed(request, body, b"all stored")
    response.body = b"not stored"
    return response


async def another_status(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
    response = served.signed(request, body, b"ok", 503)
    response.set_status(200)
    return response


async def by_a_stranger(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
    served.signer = STRANGER
    return served.signed(request, body, b"ok")


async def by_a_wrong_clock(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
    served.created -= 600
    return served.signed(request, body, b"ok")


async def signed_twice(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
    response = served.signed(request, body, b"ok")
    response.headers.add("Signature", response.headers["Signature"])
    return response


async def answer_to_another_request(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
    received = served.received(request, body)
    other = Request(received.method, received.target_uri + "/y", received.headers, body)
    headers = {"content-type": "text/plain"}
    added = sign_response(Response(200, headers, b"ok"), other, THEIRS, created=served.created)
    return web.Response(body=b"ok", headers={**headers, **added})


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        (unsigned, "bad-signature"),
        (altered, "digest-mismatch"),
        (another_status, "bad-signature"),
        (by_a_stranger, "unknown-key"),
        (by_a_wrong_clock, "clock-skew"),
        (signed_twice, "malformed"),
        (answer_to_another_request, "bad-signature"),
    ],
)
async def test_an_answer_that_is_not_provably_the_peers_is_not_believed(handle: Handle, code: str) -> None:
    async with peer(handle) as served:
        with pytest.raises(PeerAnswerInvalid) as caught:
            await call(served.base_url)
    assert (caught.value.code, caught.value.status) == (code, 200)
    assert "127.0.0.1" not in f"{caught.value}"


async def test_an_unsigned_gateway_error_is_no_answer_of_the_peer() -> None:
    async def gateway(_served: Peer, _request: web.Request, _body: bytes) -> web.StreamResponse:
        return web.Response(status=502, text="bad gateway")

    async with peer(gateway) as served:
        with pytest.raises(PeerUnreachable) as caught:
            await call(served.base_url)
    assert caught.value.kind == "gateway"


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_is_read_no_further_than_the_limit(*, announced: bool) -> None:
    async def endless(_served: Peer, request: web.Request, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        if announced:
            response.content_length = 10**9
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response

    async with peer(endless) as served:
        with pytest.raises(PeerAnswerInvalid) as caught:
            await call(served.base_url)
    assert caught.value.code == "too-large"


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async def packed(served: Peer, request: web.Request, body: bytes) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        response = served.signed(request, body, b"\x1f\x8b not really gzip")
        response.headers["Content-Encoding"] = "gzip"
        return response

    async with peer(packed) as served:
        assert (await call(served.base_url)).body == b"\x1f\x8b not really gzip"


async def test_a_peer_that_does_not_answer_is_not_waited_for() -> None:
    leave = asyncio.Event()

    async def silent(_served: Peer, _request: web.Request, _body: bytes) -> web.StreamResponse:
        await leave.wait()
        return web.Response()

    async with peer(silent) as served:
        with pytest.raises(PeerUnreachable) as caught:
            await call(served.base_url, timeout_s=0.1)
        leave.set()
    assert caught.value.kind == "timeout"


async def test_a_port_that_nobody_listens_on_and_a_name_that_does_not_exist() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(PeerUnreachable) as caught:
            await call(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert caught.value.kind == "connect"
    assert "127.0.0.1" not in f"{caught.value} {caught.value.sentence}"
    assert caught.value.__suppress_context__


async def test_a_connection_that_breaks_within_the_answer() -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    async with server:
        with pytest.raises(PeerUnreachable) as caught:
            await call(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert caught.value.kind == "disconnected"


async def test_a_peer_that_speaks_no_tls_where_it_should() -> None:
    async with peer(echo) as served:
        with pytest.raises(PeerUnreachable) as caught:
            await call(served.base_url.replace("http:", "https:"))
    assert caught.value.kind == "tls"
