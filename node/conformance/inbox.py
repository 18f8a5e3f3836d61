"""A member's inbox for the stream of one node: verifies, stores, signs receipts; does otherwise where that is planned.

Each batch that arrives uses up one planned step; without one it does what PROTOCOL section 6 says. It holds everything
in memory, and is no node.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from node.platform.keyfiles import NodeKeys
from protocol.batch import decode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, verify_checkpoint
from protocol.epoch import ended_epoch
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, PublicKey, SignatureInvalid, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note, parse_note
from protocol.problems import REGISTRY, problem_body
from protocol.profile import Request, Response, combine_headers, sign_response, verify_request

NOTE_TYPE: Final = "text/plain; charset=utf-8"
_BODY_BYTES_MAX: Final = 8_388_608


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
        signer = key or self.inbox.keys.http
        added = sign_response(
            Response(status, named, body), to or self.request, signer, created=int(self.inbox.now().timestamp())
        )
        return web.Response(status=status, body=body, headers={**named, **added})

    def refuse(self, error: ProtocolError, headers: Mapping[str, str] | None = None) -> web.Response:
        """Return the signed problem of an error."""
        body = json.dumps(problem_body(error)).encode()
        return self.answer(REGISTRY[error.code].status, body, content_type="application/problem+json", headers=headers)

    def receipt(self, checkpoint: Checkpoint, note: Note, keys: Sequence[SigningKey] | None = None) -> bytes:
        """Cosign any checkpoint with our receipt keys, or with others."""
        mine = self.inbox.keys.signing(KeyUse.RECEIPT) if keys is None else keys
        name = f"{self.inbox.stream.aud}/receipt"
        return cosign(note, checkpoint, name, mine, now_s=int(self.inbox.now().timestamp())).to_bytes()

    def hang_up(self) -> web.Response:
        """Close the connection without an answer."""
        if self.http.transport is not None:
            self.http.transport.abort()
        return web.Response()


Step = Callable[[Arrival], Awaitable[web.StreamResponse]]


async def honest(arrival: Arrival) -> web.StreamResponse:
    """Take a batch and answer as the specification wants it."""
    try:
        return arrival.answer(200, arrival.take())
    except ProtocolError as error:
        return arrival.refuse(error)


@dataclass(slots=True)
class Inbox:
    """What we hold of one stream to us, and the server in front of it, at the address `base_url`.

    `sender_http` and `sender_stream` are the keys that the directory lists for the stream's sender. `stream`, `records`
    and `receipts` are of the newest epoch; `ended` holds records and receipts of those before.
    """

    stream: StreamId
    base_url: str
    keys: NodeKeys
    sender_http: Collection[PublicKey]
    sender_stream: Sequence[PublicKey]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    plan: deque[Step] = field(default_factory=deque)
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    receipts: dict[int, bytes] = field(default_factory=dict)
    ended: dict[int, tuple[list[bytes], dict[int, bytes]]] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def listen(self, address: tuple[str, int] | None = None) -> None:
        """Serve on the address that the directory names, or on `address`; OSError when that cannot be had."""
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_put("/peer/v1/inbox/{iss}/{epoch}/{first}", self._put)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        parts = urlsplit(self.base_url)
        host, port = (parts.hostname, parts.port) if address is None else address
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Take no more connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def does(self, *steps: Step) -> None:
        """Plan what happens to the next batches, in this order."""
        self.plan.extend(steps)

    def everything(self) -> list[bytes]:
        """Return the records of all epochs."""
        return [*(raw for records, _ in self.ended.values() for raw in records), *self.records]

    def forget(self, size: int) -> None:
        """Be restored from a backup that held only so many records."""
        del self.records[size:]
        self.receipts = {held: note for held, note in self.receipts.items() if held <= size}

    async def _put(self, http: web.Request) -> web.StreamResponse:
        body = await http.read()
        request = Request(http.method, self.base_url + http.raw_path, combine_headers(http.headers.items()), body)
        verified = verify_request(request, self._senders_key, now=int(self.now().timestamp()))
        raw_note, records = decode_batch(body)
        note = parse_note(raw_note)
        checkpoint = Checkpoint.parse(note.text)
        stream = StreamId.parse(checkpoint.origin)
        if (stream.iss, stream.aud) != (self.stream.iss, self.stream.aud):
            raise ProtocolError("wrong-audience", "not the stream that is awaited here", field="origin")
        arrival = Arrival(self, http, request, verified.nonce, int(http.match_info["first"]), note, checkpoint, records)
        self.arrivals.append((arrival.first, len(records)))
        self.requests.append(request)
        step = self.plan.popleft() if self.plan else honest
        return await step(arrival)

    def _senders_key(self, keyid: str) -> PublicKey:
        for public in self.sender_http:
            if keyid == public.thumbprint():
                return public
        raise ProtocolError("unknown-key", "not the sender's http key", field="keyid")

    def take(self, arrival: Arrival) -> bytes:
        """Check and store a batch and return its receipt (PROTOCOL section 6); raises ProtocolError."""
        if arrival.nonce in self.nonces:
            raise ProtocolError("replay", "this request was answered before", field="nonce")
        first, end = arrival.first, arrival.first + len(arrival.records)
        if arrival.checkpoint.size != end:
            raise ProtocolError("malformed", "the size is not the first index plus the records", field="size")
        epoch = StreamId.parse(arrival.checkpoint.origin).epoch
        records, receipts = self._of_epoch(epoch)
        if first > len(records):
            raise ProtocolError("stream-gap", "records are missing here", extra={"expected": len(records)})
        if epoch > self.stream.epoch:
            self._check_beginning(arrival.records[0], epoch)
        held = records[first:end]
        if held != arrival.records[: len(held)]:
            raise ProtocolError("equivocation", "the sender tells another story", extra={"size": end})
        leaves = [leaf_hash(one) for one in [*records[:first], *arrival.records]]
        if Edge.EMPTY.extend(leaves).root() != arrival.checkpoint.root:
            raise ProtocolError("root-mismatch", "the records do not lead to the signed root", field="root")
        try:
            verify_checkpoint(arrival.note, arrival.checkpoint, self.sender_stream)
        except SignatureInvalid:
            raise ProtocolError("bad-signature", "not signed by every stream key of the sender") from None
        self.nonces.add(arrival.nonce)
        if held:
            return receipts[min(size for size in receipts if size > first)]
        return self._keep(arrival, epoch, end)

    def _keep(self, arrival: Arrival, epoch: int, end: int) -> bytes:
        """Store what passed all checks, and return its receipt."""
        if epoch < self.stream.epoch:
            raise ProtocolError("equivocation", "this epoch had ended", extra={"size": end})
        if epoch > self.stream.epoch:
            self.ended[self.stream.epoch] = self.records, self.receipts
            self.stream, self.records, self.receipts = replace(self.stream, epoch=epoch), [], {}
        self.records += arrival.records
        self.receipts[end] = arrival.receipt(arrival.checkpoint, arrival.note)
        self.changed.set()
        return self.receipts[end]

    def _of_epoch(self, epoch: int) -> tuple[list[bytes], dict[int, bytes]]:
        """Return what is held of an epoch: its records, and its receipts by size."""
        if epoch == self.stream.epoch:
            return self.records, self.receipts
        return self.ended.get(epoch, ([], {}))

    def _check_beginning(self, raw: bytes, epoch: int) -> None:
        """Check what an epoch says of the end of the one before; nothing is held of that at the start of a run."""
        before = replace(self.stream, epoch=epoch - 1).origin()
        named = ended_epoch(raw, before)
        records, _ = self._of_epoch(epoch - 1)
        edge = Edge.EMPTY.extend(map(leaf_hash, records))
        if not records:
            return
        if named.size > edge.size:
            raise ProtocolError("stream-gap", "records of the epoch before are missing here", extra={"expected": 0})
        if named != Checkpoint(before, edge.size, edge.root()):
            raise ProtocolError("equivocation", "the epoch denies the one before", extra={"size": named.size})
