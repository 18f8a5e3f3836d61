"""The half of a simulated peer that takes batches: verifies, stores, signs receipts, and misbehaves as planned.

Each batch that arrives uses up one planned step; without one it does what PROTOCOL section 6 says.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from aiohttp import web

from protocol.batch import decode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, verify_checkpoint
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, PublicKey, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note, parse_note
from protocol.problems import REGISTRY, problem_body
from protocol.profile import Request, Response, combine_headers, sign_response, verify_request
from tests.world import TestNode

NOTE_TYPE = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Arrival:
    """One batch that arrived, its request verified; a step answers it."""

    inbox: "Inbox"
    http: web.Request
    request: Request
    nonce: str
    first: int
    note: Note
    checkpoint: Checkpoint
    records: list[bytes]

    def take(self) -> bytes:
        """Store the batch as an honest receiver does and return its receipt; raises ProtocolError."""
        return self.inbox.take(self)

    def answer(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = NOTE_TYPE,
        headers: Mapping[str, str] | None = None,
        key: SigningKey | None = None,
        to: Request | None = None,
    ) -> web.Response:
        """Return a signed answer; `key` signs instead of our http key, `to` is another request it is bound to."""
        named = {"content-type": content_type, **(headers or {})}
        signer = key or self.inbox.node.keys.http
        added = sign_response(
            Response(status, named, body), to or self.request, signer, created=int(self.inbox.now().timestamp())
        )
        return web.Response(status=status, body=body, headers={**named, **added})

    def refuse(self, error: ProtocolError, headers: Mapping[str, str] | None = None) -> web.Response:
        body = json.dumps(problem_body(error)).encode()
        return self.answer(REGISTRY[error.code].status, body, content_type="application/problem+json", headers=headers)

    def receipt(self, checkpoint: Checkpoint, note: Note, keys: Sequence[SigningKey] | None = None) -> bytes:
        """Cosign any checkpoint with our receipt keys, or with others."""
        mine = self.inbox.node.keys.signing(KeyUse.RECEIPT) if keys is None else keys
        name = f"{self.inbox.node.id}/receipt"
        return cosign(note, checkpoint, name, mine, now_s=int(self.inbox.now().timestamp())).to_bytes()

    def hang_up(self) -> web.Response:
        """Close the connection without an answer."""
        if self.http.transport is not None:
            self.http.transport.abort()
        return web.Response()


Step = Callable[[Arrival], Awaitable[web.StreamResponse]]


async def honest(arrival: Arrival) -> web.StreamResponse:
    try:
        return arrival.answer(200, arrival.take())
    except ProtocolError as error:
        return arrival.refuse(error)


@dataclass(slots=True)
class Inbox:
    """What a simulated peer holds of the stream of one node, and the server in front of it."""

    node: TestNode
    sender: TestNode
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    plan: deque[Step] = field(default_factory=deque)
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    receipts: dict[int, bytes] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def listen(self) -> None:
        """Serve on the address that the directory names."""
        app = web.Application(client_max_size=8_388_608)
        app.router.add_put("/peer/v1/inbox/{iss}/{epoch}/{first}", self._put)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        address = urlsplit(self.node.settings.base_url)
        await web.TCPSite(self._runner, address.hostname, address.port).start()

    async def close(self) -> None:
        """Take no more connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def does(self, *steps: Step) -> None:
        """Plan what happens to the next batches, in this order."""
        self.plan.extend(steps)

    def forget(self, size: int) -> None:
        """Be restored from a backup that held only so many records."""
        del self.records[size:]
        self.receipts = {held: note for held, note in self.receipts.items() if held <= size}

    async def _put(self, http: web.Request) -> web.StreamResponse:
        body = await http.read()
        target = self.node.settings.base_url + http.raw_path
        request = Request(http.method, target, combine_headers(http.headers.items()), body)
        verified = verify_request(request, self._senders_key, now=int(self.now().timestamp()))
        raw_note, records = decode_batch(body)
        note = parse_note(raw_note)
        checkpoint = Checkpoint.parse(note.text)
        assert StreamId.parse(checkpoint.origin) == StreamId(self.sender.id, self.node.id, 1)
        arrival = Arrival(self, http, request, verified.nonce, int(http.match_info["first"]), note, checkpoint, records)
        self.arrivals.append((arrival.first, len(records)))
        self.requests.append(request)
        step = self.plan.popleft() if self.plan else honest
        return await step(arrival)

    def _senders_key(self, keyid: str) -> PublicKey:
        public = self.sender.keys.http.public()
        if keyid != public.thumbprint():
            raise ProtocolError("unknown-key", "not the sender's http key", field="keyid")
        return public

    def take(self, arrival: Arrival) -> bytes:
        if arrival.nonce in self.nonces:
            raise ProtocolError("replay", "this request was answered before", field="nonce")
        first, end = arrival.first, arrival.first + len(arrival.records)
        assert arrival.checkpoint.size == end
        if first > len(self.records):
            raise ProtocolError("stream-gap", "records are missing here", extra={"expected": len(self.records)})
        held = self.records[first:end]
        assert held == arrival.records[: len(held)], "the sender tells another story"
        leaves = [leaf_hash(one) for one in [*self.records[:first], *arrival.records]]
        assert Edge.EMPTY.extend(leaves).root() == arrival.checkpoint.root
        keys = [key.public() for key in self.sender.keys.signing(KeyUse.STREAM)]
        verify_checkpoint(arrival.note, arrival.checkpoint, keys)
        self.nonces.add(arrival.nonce)
        if held:
            return self.receipts[min(size for size in self.receipts if size > first)]
        self.records += arrival.records
        self.receipts[end] = arrival.receipt(arrival.checkpoint, arrival.note)
        return self.receipts[end]


# Steps.


def refuses(code: str, *, headers: Mapping[str, str] | None = None, **extra: object) -> Step:
    """Answer with a signed problem and take nothing."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        return arrival.refuse(ProtocolError(code, "as the test wants it", extra=extra), headers)

    return step


def says(status: int, body: bytes = b"", content_type: str = NOTE_TYPE, **headers: str) -> Step:
    """Answer without a signature, as a proxy or a stranger would, and take nothing."""

    async def step(_arrival: Arrival) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"content-type": content_type, **headers})

    return step


def signs(status: int, body: bytes) -> Step:
    """Answer anything under our true signature, and take nothing."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        return arrival.answer(status, body)

    return step


def garbage(arrival_bytes: bytes) -> Step:
    """Answer with bytes that are no HTTP."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        if arrival.http.transport is not None:
            arrival.http.transport.write(arrival_bytes)
        return arrival.hang_up()

    return step


def answer_signed_by(key: SigningKey) -> Step:
    """Take the batch, and have the answer signed by another key than ours."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        return arrival.answer(200, arrival.take(), key=key)

    return step


def answer_to_another_request() -> Step:
    """Take the batch, and bind the answer to a request that was never sent."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        other = replace(arrival.request, headers={**arrival.request.headers, "signature": "hx=:AAAA:"})
        return arrival.answer(200, arrival.take(), to=other)

    return step


def receipt_signed_by(keys: Sequence[SigningKey]) -> Step:
    """Take the batch, and give a receipt cosigned by other keys than all of our receipt keys."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        arrival.take()
        return arrival.answer(200, arrival.receipt(arrival.checkpoint, arrival.note, keys))

    return step


def receipt_for(change: Callable[[Arrival], Checkpoint]) -> Step:
    """Take the batch, and give a receipt, truly signed, for another checkpoint."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        arrival.take()
        other = change(arrival)
        return arrival.answer(200, arrival.receipt(other, Note(other.text(), arrival.note.signatures)))

    return step


def receipt_without_the_sender() -> Step:
    """Take the batch, and give a receipt from which the sender's own signature lines are gone."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        note = parse_note(arrival.take())
        ours = tuple(one for one in note.signatures if one.name == f"{arrival.inbox.node.id}/receipt")
        return arrival.answer(200, Note(note.text, ours).to_bytes())

    return step


def hangs_up(*, after_taking: bool) -> Step:
    """Close the connection without an answer: before anything is stored, or when all of it is."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        if after_taking:
            arrival.take()
        return arrival.hang_up()

    return step


def waits_for(event: asyncio.Event) -> Step:
    """Take the batch, and answer only when the test says so."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        receipt = arrival.take()
        await event.wait()
        return arrival.answer(200, receipt)

    return step
