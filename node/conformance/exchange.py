"""Sends a request as it is and keeps what came back, believed or not; what is wrong with its signature is noted.

Never judges the content of an answer: that is the checks' work.
"""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from yarl import URL

from node.platform.httpclient import ANSWER_BYTES_MAX
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import PublicKey
from protocol.profile import Request, Response, combine_headers, verify_response

_PART_BYTES: Final = 65_536
_TRIES_MAX: Final = 6
_PAUSE_S_MAX: Final = 10


def open_session(*, timeout_s: float, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    """Return a session that opens a connection for each request, so that none is ever sent twice by the library."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0, ssl=True if tls is None else tls),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


class NoAnswer(Exception):  # noqa: N818 -- names the fact
    """Nothing came back that is HTTP; the text says what happened, without an address."""


class Fault(StrEnum):
    """What is wrong with the signature of an answer."""

    UNSIGNED = "it is not signed"
    UNBOUND = "it is not bound to its request"
    INVALID = "its signature does not verify"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came. `fault` is None when it is provably the node's, to this very request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    fault: Fault | None = None
    reason: str = ""

    def members(self) -> dict[str, Any]:
        """Return the members of a JSON object, none when the body is something else."""
        try:
            tree = json.loads(self.body)
        except ValueError:
            return {}
        return tree if isinstance(tree, dict) else {}


@dataclass(slots=True)
class Exchange:
    """The way to the tested node: at `address`, signed for `target_url`; `answers` are all that came, in order."""

    session: aiohttp.ClientSession
    node_id: str
    target_url: str
    address: str
    directory: Directory
    now: Callable[[], datetime]
    answers: list[Answer] = field(default_factory=list)

    async def send(self, request: Request, *, chunked: bool = False) -> Answer:
        """Send a request and return its answer; raises NoAnswer.

        A node that says we ask too often (PROTOCOL section 6, back-pressure) is asked again when it says.
        """
        for _ in range(_TRIES_MAX):
            answer = await self._send(request, chunked=chunked)
            pause_s = answer.headers.get("retry-after", "")
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS or not pause_s.isdigit():
                break
            await asyncio.sleep(min(int(pause_s), _PAUSE_S_MAX))
        return answer

    async def _send(self, request: Request, *, chunked: bool) -> Answer:
        url = self.address + request.target_uri.removeprefix(self.target_url)
        try:
            async with self.session.request(
                request.method,
                URL(url, encoded=True),
                headers=request.headers,
                data=_pieces(request.body) if chunked else io.BytesIO(request.body),
                allow_redirects=False,
            ) as came:
                body = await came.content.read(ANSWER_BYTES_MAX + 1)
                response = Response(came.status, combine_headers(came.headers.items()), body)
        except TimeoutError:
            raise NoAnswer("the node did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"no answer arrived ({type(error).__name__})") from None
        answer = self._judged(response, request)
        self.answers.append(answer)
        return answer

    def _judged(self, response: Response, request: Request) -> Answer:
        fault, reason = None, ""
        try:
            verify_response(response, request, self._key, now=int(self.now().timestamp()))
        except ProtocolError as error:
            fault, reason = _fault(response, error), f"{error.code}, {error.detail}"
        return Answer(response.status, response.headers, response.body, fault, reason)

    def _key(self, keyid: str) -> PublicKey:
        """Find a key of exactly the tested node."""
        node_id, key = self.directory.http_key(keyid, self.now())
        if node_id != self.node_id:
            raise ProtocolError("unknown-key", "the answer is signed by another node", field="keyid")
        return key


def _fault(response: Response, error: ProtocolError) -> Fault:
    if "signature" not in response.headers or "signature-input" not in response.headers:
        return Fault.UNSIGNED
    if error.detail.startswith("not covered") and ";req" in error.detail:
        return Fault.UNBOUND
    return Fault.INVALID


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), _PART_BYTES):
        yield body[at : at + _PART_BYTES]
