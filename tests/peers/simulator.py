"""A peer that really signs, and misbehaves on request: its keys, its log, the batches and requests it makes.

Never decides what is right: it says what it is told to say, and checks that each answer is signed and bound to its
request. Its other half, which takes batches, is `tests.peers.inbox`.
"""

import asyncio
import base64
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from node.platform.ids import new_id
from node.platform.keyfiles import NodeKeys
from protocol.batch import encode_batch
from protocol.bodies import Hosting, OutcomeBody, Qualification, Refusal, ReportBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import Channel, Classification, Kind
from protocol.cosignature import sign_checkpoint, verify_checkpoint, verify_cosignature
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, PublicKey, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.profile import (
    NONCE_BYTES,
    Request,
    Response,
    combine_headers,
    sign_request,
    verify_response,
)
from protocol.record import Handling, encode_outcome, encode_report
from tests.world import TestNode

BATCH_TYPE = "application/vnd.hx.batch"
RETAIN = timedelta(days=30)

#: Changes a request on its way; used before or after it is signed.
Change = Callable[[Request], Request]


def fresh_nonce() -> str:
    return base64.b64encode(os.urandom(NONCE_BYTES)).decode()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it will be sent; `dataclasses.replace` spoils any part of it."""

    first: int
    records: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: bytes
    framed: bytes | None = None

    @property
    def body(self) -> bytes:
        return encode_batch(self.note, self.records) if self.framed is None else self.framed


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


@dataclass(slots=True)
class PeerSimulator:
    """One simulated peer, listed in the directory with the keys it signs with; `target` is the node under test.

    `taken` is its log as far as the target has receipted it.
    """

    node: TestNode
    target: TestNode
    session: aiohttp.ClientSession
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    taken: list[bytes] = field(default_factory=list)
    receipts: list[bytes] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.node.id

    @property
    def keys(self) -> NodeKeys:
        return self.node.keys

    @property
    def stream(self) -> StreamId:
        """Our stream to the target."""
        return StreamId(self.id, self.target.id, 1)

    # Records.

    def report(self, *, url: str = "", country: str = "", evidence_bytes: int = 0, **envelope: Any) -> bytes:
        """A good report to the target; `envelope` are further arguments of `encode_report`."""
        now = self.now()
        assigned = country or self.target.settings.countries[0]
        evidence: dict[str, object] = {"padding": "x" * evidence_bytes} if evidence_bytes else {}
        body = ReportBody(
            url=url or f"http://{new_id(now)}.host.example/page",
            kind=Kind.PAGE,
            channel=Channel.PUBLIC,
            received_at=now,
            qualification=Qualification(classification=Classification.NATIONAL, at=now),
            hosting=Hosting(
                country=assigned,
                assigned_country=assigned,
                confidence=90,
                reasons=("databases-agree",),
                evidence=evidence,
            ),
        )
        made = {
            "record_id": str(new_id(now)),
            "case": str(new_id(now)),
            "item": str(new_id(now)),
            "iss": self.id,
            "aud": self.target.id,
            "iat": now,
            "handling": Handling("takedown", now + RETAIN),
            "deliver_by": now + RETAIN,
            **envelope,
        }
        return encode_report(body, **made)

    def spoiled(self, **members: Any) -> bytes:
        """A report that no honest encoder makes: members of the envelope, or `body__<name>`, set to other values."""
        tree = json.loads(self.report())
        for path, value in members.items():
            *above, name = path.split("__")
            place = tree
            for part in above:
                place = place[part]
            place[name] = value
        return json.dumps(tree, separators=(",", ":")).encode()

    def outcome(
        self,
        *,
        accepted: Sequence[tuple[int, int]] = (),
        refused: Sequence[tuple[int, str]] = (),
        stream: StreamId | None = None,
    ) -> bytes:
        """An outcome about the target's stream to us: ranges accepted, (index, code) refused."""
        now = self.now()
        told = stream or StreamId(self.target.id, self.id, 1)
        body = OutcomeBody(
            stream=told.origin(),
            accepted=tuple(accepted),
            kept=(),
            refused=tuple(Refusal(index=idx, id=None, code=code, detail="not taken here") for idx, code in refused),
        )
        handling = Handling("takedown", now + RETAIN)
        return encode_outcome(
            body, record_id=str(new_id(now)), iss=self.id, aud=self.target.id, iat=now, handling=handling
        )

    def reports(self, count: int) -> list[bytes]:
        return [self.report() for _ in range(count)]

    # Batches.

    def batch(
        self,
        records: Sequence[bytes] | int = 1,
        *,
        first: int | None = None,
        origin: str | None = None,
        size: int | None = None,
        root: bytes | None = None,
        keys: Sequence[SigningKey] | None = None,
        history: Sequence[bytes] | None = None,
    ) -> Batch:
        """The next records (or so many fresh reports) after what is taken; each part can be given another value."""
        said = tuple(self.reports(records) if isinstance(records, int) else records)
        before = list(self.taken if history is None else history)
        start = len(before) if first is None else first
        edge = Edge.EMPTY.extend(leaf_hash(one) for one in [*before[:start], *said])
        checkpoint = Checkpoint(
            origin or self.stream.origin(),
            edge.size if size is None else size,
            edge.root() if root is None else root,
        )
        return Batch(start, said, checkpoint, self.sign(checkpoint, keys))

    def cut(self, first: int, end: int) -> Batch:
        """A batch of what is taken already, in any cut."""
        return self.batch(self.taken[first:end], first=first)

    def ahead(self, gap: int, records: int = 1) -> Batch:
        """A batch that leaves out `gap` records of our log."""
        between = self.reports(gap)
        return self.batch(records, history=[*self.taken, *between])

    def sign(self, checkpoint: Checkpoint, keys: Sequence[SigningKey] | None = None) -> bytes:
        stream_keys = self.keys.signing(KeyUse.STREAM) if keys is None else keys
        return sign_checkpoint(checkpoint, stream_keys, now_s=int(self.now().timestamp())).to_bytes()

    # Requests.

    def inbox_path(self, first: int | str, *, iss: str | None = None, epoch: int | str = 1) -> str:
        return f"/peer/v1/inbox/{iss or self.id}/{epoch}/{first}"

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

    def signed(
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
        **signing: Any,
    ) -> Request:
        headers = {"content-type": BATCH_TYPE} if body or method == "PUT" else {}
        request = Request(method, self.target.settings.base_url + path, headers, body)
        request = request if before is None else before(request)
        created = int(self.now().timestamp()) + shift_s
        with_headers = sign_request(
            request, key or self.keys.http, created=created, nonce=nonce or fresh_nonce(), **signing
        )
        request = request.adding(with_headers)
        return request if after is None else after(request)

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


def without(*names: str) -> Change:
    """Take headers away."""

    def change(request: Request) -> Request:
        return replace(request, headers={name: value for name, value in request.headers.items() if name not in names})

    return change


def with_headers(**values: str) -> Change:
    """Put other values in headers; underscores stand for hyphens."""
    return lambda request: request.adding({name.replace("_", "-"): value for name, value in values.items()})


def with_body(body: bytes) -> Change:
    return lambda request: replace(request, body=body)
