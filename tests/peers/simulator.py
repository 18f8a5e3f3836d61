"""A peer that really signs, and misbehaves on request: its keys, its log, the batches and requests it makes.

Never decides what is right: it says what it is told to say, and checks that each answer is signed and bound to its
request. What it says is made by the conformance client's speaker; its other half, which takes batches, is
`tests.peers.inbox`.
"""

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from node.conformance.speaker import Batch, Change, Speaker, fresh_nonce, with_body, with_headers, without
from protocol.checkpoint import Checkpoint
from protocol.cosignature import verify_checkpoint, verify_cosignature
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, PublicKey, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.profile import Request, Response, combine_headers, verify_response
from tests.world import TestNode

__all__ = ["Answer", "Batch", "Change", "PeerSimulator", "fresh_nonce", "with_body", "with_headers", "without"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose signature verified: by the key of the node that was called, for the request that was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"].startswith("application/problem+json"), self.body[:200]
        members: dict[str, Any] = json.loads(self.body)
        return members


class PeerSimulator(Speaker):
    """One simulated peer, listed in the directory with the keys it signs with; `target` is the node under test."""

    def __init__(
        self,
        node: TestNode,
        target: TestNode,
        session: aiohttp.ClientSession,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        settings = target.settings
        super().__init__(node.id, node.keys, target.id, settings.base_url, settings.countries[0], now)
        self.node = node
        self.target = target
        self.session = session
        self.receipts: list[bytes] = []

    # Requests.

    async def put(self, batch: Batch, *, path: str | None = None, **how: Any) -> Answer:
        """Send a batch; `how` as in `call`."""
        return await self.call("PUT", path or self.inbox_path(batch.first), batch.body, **how)

    async def get(self, path: str, **how: Any) -> Answer:
        return await self.call("GET", path, **how)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        key: SigningKey | None = None,
        shift_s: int = 0,
        nonce: str | None = None,
        before: Change | None = None,
        after: Change | None = None,
        chunked: bool = False,
        **signing: Any,
    ) -> Answer:
        """Sign and send a request and return its verified answer.

        `key` signs instead of our http key, `shift_s` moves `created`, `before` changes the request before it is
        signed, `after` once it is; `signing` are further arguments of `sign_request`.
        """
        request = self.signed(
            method, path, body, key=key, shift_s=shift_s, nonce=nonce, before=before, after=after, **signing
        )
        return await self.exchange(request, chunked=chunked)

    async def exchange(self, request: Request, *, chunked: bool = False) -> Answer:
        """Send a request as it is and return the answer; AssertionError unless it is the target's, to this request."""

        async def pieces() -> Any:
            for at in range(0, len(request.body), 65_536):
                yield request.body[at : at + 65_536]

        async with self.session.request(
            request.method,
            URL(request.target_uri, encoded=True),
            headers=request.headers,
            data=pieces() if chunked else io.BytesIO(request.body),
            allow_redirects=False,
        ) as answer:
            body = await answer.read()
            response = Response(answer.status, combine_headers(answer.headers.items()), body)
        self.check_signed(response, request)
        return Answer(response.status, response.headers, response.body)

    def check_signed(self, response: Response, request: Request) -> None:
        """Raise AssertionError unless the answer is signed by the target and bound to the request."""
        try:
            verify_response(response, request, self._targets_key, now=int(self.now().timestamp()))
        except ProtocolError as error:
            raise AssertionError(f"the answer ({response.status}) is not the target's: {error}") from error

    def _targets_key(self, keyid: str) -> PublicKey:
        public = self.target.keys.http.public()
        if keyid != public.thumbprint():
            raise ProtocolError("unknown-key", "not the target's http key", field="keyid")
        return public

    async def send_part(self, request: Request, bytes_sent: int) -> bytes:
        """Announce a whole body, send only the first part of it, close our side; return what comes back."""
        parts = urlsplit(request.target_uri)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [f"{request.method} {parts.path} HTTP/1.1", f"host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        lines += [f"content-length: {len(request.body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + request.body[:bytes_sent])
        writer.write_eof()
        heard = await reader.read()
        writer.close()
        await writer.wait_closed()
        return heard

    # What a good peer does.

    async def deliver(self, batch: Batch | Sequence[bytes] | int = 1, **how: Any) -> bytes:
        """Send a batch, expect its receipt, verify it and remember it; returns the receipt."""
        sent = batch if isinstance(batch, Batch) else self.batch(batch)
        answer = await self.put(sent, **how)
        assert answer.status == 200, answer.body
        covered = self.check_receipt(answer.body)
        assert covered.size >= sent.checkpoint.size
        end = sent.first + len(sent.records)
        self.taken = [*self.taken[: sent.first], *sent.records, *self.taken[end:]]
        assert Edge.EMPTY.extend(leaf_hash(one) for one in self.taken[: covered.size]).root() == covered.root
        self.receipts.append(answer.body)
        return answer.body

    def check_receipt(self, raw: bytes) -> Checkpoint:
        """Return what a receipt covers; raises SignatureInvalid unless both sides signed it with every key."""
        note = parse_note(raw)
        covered = Checkpoint.parse(note.text)
        assert covered.origin == self.stream.origin()
        verify_checkpoint(note, covered, [key.public() for key in self.keys.signing(KeyUse.STREAM)])
        receipt_keys = [key.public() for key in self.target.keys.signing(KeyUse.RECEIPT)]
        verify_cosignature(note, covered, f"{self.target.id}/receipt", receipt_keys)
        return covered
