"""The door that members call: verifies who signed a request, signs every answer. Knows no endpoint and no table."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from aiohttp import web

from node.clock import Clock
from node.platform.apiproblems import TOO_LARGE, ApiProblem
from node.platform.membership import VERSION_HEADER
from node.platform.routes import Auth, Route
from node.platform.sparing import Sparing
from node.platform.telemetry import Logger, Metrics
from node.platform.trust import Freshness
from node.platform.web import read_body
from protocol.codes import NodeState
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import PublicKey, SigningKey
from protocol.profile import (
    Request,
    Response,
    Verified,
    combine_headers,
    sign_response,
    verify_request,
    verify_request_body,
    verify_request_head,
)

#: An operation for members alone: the door verifies who signed the request.
member_route: Final = partial(Route, group="Peer protocol", auth=Auth.HTTP_SIGNATURE)

#: Whoever is over its quota hears so no sooner: a connection of it costs one refusal in this time.
_REFUSED_AFTER_S: Final = 1.0

_NOT_MEMBERS = frozenset({NodeState.SUSPENDED, NodeState.LEFT})


class Members(Protocol):
    """Who the members are for whoever opens the door: a node's `Membership`, or what a coordinator publishes."""

    def current(self) -> Directory:
        """Return the directory in use."""

    def freshness(self) -> Freshness:
        """Say how far it can be relied on."""

    def hint(self, header: str | None, peer_id: str) -> None:
        """Hear which version a member says that it has."""


#: Told a member's verified request that changes nothing else; remembers its nonce, or raises ProtocolError `replay`.
Heard = Callable[[str, Verified], Awaitable[None]]


def _admit(_peer: str) -> None:
    """Take everybody's requests, however many."""


def _no_doubt() -> None:
    """Look for no newer directory."""


def at_once(_peer: str) -> AbstractAsyncContextManager[None]:
    """Answer everybody's questions, however many."""
    return nullcontext()


def _room(_peer: str, _size: int) -> AbstractContextManager[None]:
    """Take everybody's bodies, as many as the listener holds."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Message:
    """A member's request whose head and body were verified."""

    peer: str
    verified: Verified
    body: bytes


@dataclass(frozen=True, slots=True)
class PeerDoor:
    """What verifying and signing works with; `base_url` is the address that requests are signed for."""

    base_url: str
    http_key: Callable[[], SigningKey]
    membership: Members
    clock: Clock
    metrics: Metrics
    log: Logger
    window_s: int
    heard: Heard
    #: Told who signed a request; raises ProtocolError `over-quota` when that is one too many.
    admit: Callable[[str], None] = _admit
    #: Holds room for a body of so many bytes of a peer; raises ProtocolError `over-quota` without it.
    room: Callable[[str, int], AbstractContextManager[None]] = _room
    #: Whose turn it is to have a question answered; raises ProtocolError `over-quota` when that is one too many.
    turn: Callable[[str], AbstractAsyncContextManager[None]] = at_once
    #: Told when a request is signed by a key that is not known here.
    doubt: Callable[[], None] = _no_doubt
    sparing: Sparing = field(default_factory=Sparing)

    async def finish(self, http: web.Request, response: web.Response) -> web.Response:
        """Sign an answer, a problem too, bound to its request."""
        response.headers[VERSION_HEADER] = str(self.membership.current().version)
        headers = {name.lower(): value for name, value in response.headers.items()}
        body = response.body if isinstance(response.body, bytes) else b""
        plain = Response(response.status, headers, body)
        created = int(self.clock.now().timestamp())
        response.headers.update(sign_response(plain, self.request(http), self.http_key(), created=created))
        return response

    def request(self, http: web.Request, body: bytes = b"") -> Request:
        """The request as the signer saw it: the configured base address, never the Host header (PROTOCOL section 4)."""
        return Request(
            http.method, self.base_url.rstrip("/") + http.raw_path, combine_headers(http.headers.items()), body
        )

    @asynccontextmanager
    async def message(self, http: web.Request, bytes_max: int) -> AsyncIterator[Message]:
        """Yield a request with a body of at most `bytes_max` bytes: steps 1 to 3 of the checking order.

        Room for the body is held while the block runs. Raises ProtocolError, and ApiProblem as `read_body` does.
        """
        # 1. Size, before anything is read.
        announced = http.content_length
        if (announced or 0) > bytes_max:
            raise _too_large(bytes_max)
        # 2. Request signature, over the head: no byte of a stranger's body is read.
        head = self.request(http)
        peer, verified = await self._let_in(head, has_body=http.body_exists)
        with self.room(peer, bytes_max if announced is None else announced):
            try:
                body = await read_body(http, bytes_max)
            except ApiProblem as refused:
                if refused.kind is not TOO_LARGE:
                    raise
                raise _too_large(bytes_max) from None
            # 3. Digest.
            self._check_body(head, body, peer)
            yield Message(peer, verified, body)

    @asynccontextmanager
    async def said(self, http: web.Request, bytes_max: int) -> AsyncIterator[tuple[str, bytes]]:
        """Yield who sent a request that stores nothing of its own, and its body; otherwise as `message`.

        It is its sender's turn then, and that it is back is noted before.
        """
        async with self.message(http, bytes_max) as came, self._turn(came.peer):
            await self.heard(came.peer, came.verified)
            yield came.peer, came.body

    def _check_body(self, head: Request, body: bytes, peer: str) -> None:
        try:
            verify_request_body(Request(head.method, head.target_uri, head.headers, body))
        except ProtocolError as error:
            self.refused(error, peer)
            raise

    def verify(self, request: Request, *, has_body: bool | None = None) -> tuple[str, Verified]:
        """Return who signed the request: steps 2 and 3 of the checking order. Raises ProtocolError.

        `has_body`: only step 2, for the body is still to come, or there is none.
        """
        now = self.clock.now()
        signer: list[str] = []

        def find_key(keyid: str) -> PublicKey:
            node_id, key = self.membership.current().http_key(keyid, now)
            signer.append(node_id)
            return key

        try:
            verified = _verified(
                request, find_key, has_body=has_body, now_s=int(now.timestamp()), window_s=self.window_s
            )
            self._check_member(signer[-1])
            self.admit(signer[-1])
        except ProtocolError as error:
            if error.code == "unknown-key":
                self.doubt()
            if error.code == "unknown-key" and self.membership.freshness() is not Freshness.FRESH:
                # It may be a new member's, or a member's new one; who has heard of it for so long cannot say.
                error = ProtocolError(
                    "directory-stale", "the directory here is too old to know this key", field="keyid"
                )
            self.refused(error, signer[-1] if signer else None)
            raise error from None
        self.membership.hint(request.headers.get(VERSION_HEADER), signer[-1])
        return signer[-1], verified

    @asynccontextmanager
    async def asked(self, http: web.Request) -> AsyncIterator[str]:
        """Yield who sent a request without a body, in its turn; that it is back is noted before."""
        peer, verified = await self._let_in(self.request(http))
        async with self._turn(peer):
            await self.heard(peer, verified)
            yield peer

    @asynccontextmanager
    async def _turn(self, peer: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as place:
            try:
                await place.enter_async_context(self.turn(peer))
            except ProtocolError as error:
                self.refused(error, peer)
                await _slow_down(error)
                raise
            yield

    async def _let_in(self, request: Request, *, has_body: bool | None = None) -> tuple[str, Verified]:
        try:
            return self.verify(request, has_body=has_body)
        except ProtocolError as error:
            await _slow_down(error)
            raise

    def refused(self, error: ProtocolError, peer: str | None) -> None:
        """Count a refusal, and log it unless there were many of its kind in the last minute."""
        self.metrics.problems.labels(code=error.code, direction="given").inc()
        say = self.log.error if error.code == "clock-skew" else self.log.warning
        self.sparing.say(say, "peer request refused", action="peer.refused", peer=peer, code=error.code)

    def _check_member(self, node_id: str) -> None:
        entry = self.membership.current().nodes.get(node_id)
        if entry is None:
            # The desk, which answers and never asks.
            raise ProtocolError("unknown-key", "the key is no member's", field="keyid")
        if entry.state in _NOT_MEMBERS:
            raise ProtocolError("key-revoked", "the node is not a member at present", field="keyid")


async def _slow_down(error: ProtocolError) -> None:
    """Let a member that asks for too much wait for its refusal, for to verify and to sign it is work, too."""
    if error.code == "over-quota":
        await asyncio.sleep(_REFUSED_AFTER_S)


def _too_large(bytes_max: int) -> ProtocolError:
    return ProtocolError("too-large", f"this request holds at most {bytes_max} bytes")


def _verified(
    request: Request, find_key: Callable[[str], PublicKey], *, has_body: bool | None, now_s: int, window_s: int
) -> Verified:
    if has_body is None:
        return verify_request(request, find_key, now=now_s, window_s=window_s)
    return verify_request_head(request, find_key, has_body=has_body, now=now_s, window_s=window_s)
