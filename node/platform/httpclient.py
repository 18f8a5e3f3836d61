"""Calls a peer: signs the request, bounds and verifies the answer; follows no redirect, keeps no cookie, no proxy.

Never puts the address it called into an error: a peer is named by its node id, by whoever called.
"""

import base64
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from node.clock import Clock
from protocol.errors import ProtocolError
from protocol.keys import PublicKey, SigningKey
from protocol.profile import (
    NONCE_BYTES,
    WINDOW_S,
    Request,
    Response,
    combine_headers,
    sign_request,
    verify_response,
)

ANSWER_BYTES_MAX: Final = 4_194_304
CONNECT_TIMEOUT_S: Final = 10.0
CONNECTIONS_PER_PEER_MAX: Final = 8
_KEEPALIVE_S: Final = 30.0
_HEADERS_MAX: Final = 64
_HEADER_BYTES_MAX: Final = 8190
#: What a gateway in front of a node answers on its own, unsigned, when it cannot reach the node.
_GATEWAY_STATUSES: Final = frozenset({502, 503, 504})


class PeerUnreachable(Exception):  # noqa: N818 -- names the fact: nothing that the peer said arrived
    """No answer of the peer arrived; it may or may not have acted on the request.

    `kind`: `dns`, `connect`, `tls`, `timeout`, `disconnected` or `gateway`.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        """Say what happened, without an address."""
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class PeerAnswerInvalid(Exception):  # noqa: N818 -- names the fact: an answer came and cannot be believed
    """An answer arrived that is not provably the peer's; nothing in it may be acted on.

    `code` is one of `protocol.problems.REGISTRY` (`bad-signature`, `clock-skew`, `digest-mismatch`, `too-large`, …),
    `status` the HTTP status that came with it.
    """

    def __init__(self, code: str, sentence: str, *, status: int) -> None:
        """Say what is wrong with the answer, without its content."""
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.status = status


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """An answer whose signature verified. `created` is when the peer signed it, in seconds since 1970, by its clock.

    `headers` are those that the signature covers: another one may be anybody's word.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    keyid: str
    created: int


def make_session(*, timeout_s: float, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """Return a session for calls to every peer, to be closed by the caller; a slow peer holds up no other.

    `timeout_s` bounds a whole call. `tls` replaces the system's trust store and may hold a client certificate.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            limit_per_host=CONNECTIONS_PER_PEER_MAX,
            keepalive_timeout=_KEEPALIVE_S,
            ssl=True if tls is None else tls,
        ),
        timeout=aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        max_headers=_HEADERS_MAX,
        max_line_size=_HEADER_BYTES_MAX,
        max_field_size=_HEADER_BYTES_MAX,
    )
    # A request that aiohttp sends again by itself, after a connection broke, carries the same nonce and is refused as a
    # replay; ours is signed anew. There is no public switch for this.
    session._retry_connection = False  # noqa: SLF001
    return session


class PeerClient:
    """Makes signed calls over one session, which stays its owner's to close."""

    __slots__ = ("_answer_bytes_max", "_clock", "_key", "_said", "_session", "_window_s")

    def __init__(
        self,
        session: aiohttp.ClientSession,
        http_key: Callable[[], SigningKey],
        clock: Clock,
        *,
        window_s: int = WINDOW_S,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        said: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Sign with what `http_key` returns at the time.

        Answers have to be made within `window_s` of our clock and have at most `answer_bytes_max`.
        `said` are headers of every request that nothing is decided on, and so are not signed.
        """
        self._session = session
        self._key = http_key
        self._clock = clock
        self._window_s = window_s
        self._answer_bytes_max = answer_bytes_max
        self._said = said

    async def call(
        self,
        method: str,
        target_uri: str,
        find_key: Callable[[str], PublicKey],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        answer_bytes_max: int | None = None,
    ) -> PeerAnswer:
        """Return the peer's verified answer, of whatever status.

        It has at most `answer_bytes_max` bytes, where that is less than what this client takes.

        `target_uri` is absolute and already percent-encoded; it is sent as it is signed. `find_key` returns the key of
        a keyid if it is one of *the peer that is called*, and raises ProtocolError otherwise. A body needs a
        `content-type` among `headers` (lower-case names).
        Raises PeerUnreachable or PeerAnswerInvalid.
        """
        request = Request(method, target_uri, {"accept-encoding": "identity", **self._said(), **(headers or {})}, body)
        now = int(self._clock.now().timestamp())
        nonce = base64.b64encode(os.urandom(NONCE_BYTES)).decode("ascii")
        request = request.adding(sign_request(request, self._key(), created=now, nonce=nonce))
        answer = await self._exchange(request, min(answer_bytes_max or self._answer_bytes_max, self._answer_bytes_max))
        if "signature" not in answer.headers and answer.status in _GATEWAY_STATUSES:
            raise PeerUnreachable("gateway", f"a gateway in front of the peer answered {answer.status}")
        now = int(self._clock.now().timestamp())
        try:
            verified = verify_response(answer, request, find_key, now=now, window_s=self._window_s)
        except ProtocolError as error:
            raise PeerAnswerInvalid(
                error.code, f"the peer's answer does not verify: {error.detail}", status=answer.status
            ) from None
        said = {name: value for name, value in answer.headers.items() if name in verified.covered}
        return PeerAnswer(answer.status, said, answer.body, verified.keyid, verified.created)

    async def _exchange(self, request: Request, limit: int) -> Response:
        # The causes are dropped: aiohttp's errors carry the address in their text.
        try:
            async with self._session.request(
                request.method,
                URL(request.target_uri, encoded=True),
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
            ) as answer:
                body = await _read(answer, limit)
                return Response(answer.status, _headers(answer.headers), body)
        except (aiohttp.ClientError, OSError) as error:
            kind, sentence = _failure(error)
            raise PeerUnreachable(kind, sentence) from None


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    parts: list[bytes] = []
    size = answer.content_length or 0
    if size <= limit:
        size = 0
        async for part in answer.content.iter_any():
            size += len(part)
            if size > limit:
                break
            parts.append(part)
    if size > limit:
        # The connection cannot be used again with the rest of this answer in it.
        answer.close()
        raise PeerAnswerInvalid("too-large", f"the answer has more than {limit} bytes", status=answer.status)
    return b"".join(parts)


def _headers(lines: "CIMultiDictProxy[str]") -> dict[str, str]:
    return combine_headers(lines.items())


def _failure(error: Exception) -> tuple[str, str]:
    """Return kind and sentence of a call that brought no answer, most particular kind first."""
    if isinstance(error, TimeoutError):
        return "timeout", "the peer did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns", "the peer's host name does not resolve"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "tls", "no secure connection to the peer could be made"
    if isinstance(error, (aiohttp.ClientConnectorError, ConnectionRefusedError)):
        return "connect", "the peer does not take connections"
    return "disconnected", "the connection broke before the peer's whole answer arrived"
