"""The peer protocol's doors (PROTOCOL sections 4 and 5): every request is verified, every answer signed."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from node.clock import Clock, rfc3339
from node.hotline.api.gate import wait_for_turn
from node.hotline.flows.receive import Offer, Receiver
from node.hotline.store import contacts, inbound, outbound
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.signals import Signals
from node.platform.telemetry import Metrics
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import PublicKey, SigningKey
from protocol.problems import REGISTRY, problem_body
from protocol.profile import Request, Response, Verified, sign_response, verify_request

NOTE_TYPE = "text/plain; charset=utf-8"
PROBLEM_TYPE = "application/problem+json"
JSON_TYPE = "application/json"
VERSIONS = ("1.0",)
_NOT_RECEIVING = frozenset({"suspended", "left"})


@dataclass(frozen=True, slots=True)
class PeerApi:
    """What the doors work with."""

    node_id: str
    base_url: str
    db: Database
    receiver: Receiver
    http_key: SigningKey
    directory: Callable[[], Directory]
    clock: Clock
    signals: Signals
    metrics: Metrics
    log: Callable[..., None]
    body_bytes_max: int
    batch_records_max: int
    batch_bytes_max: int
    window_s: int

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the peer protocol."""
        return [
            web.put(r"/peer/v1/inbox/{iss}/{epoch:\d{1,9}}/{first:\d{1,18}}", self._answering(self._inbox)),
            web.get("/peer/v1/streams/{iss}", self._answering(self._stream)),
            web.get(r"/peer/v1/receipts/{iss}/{epoch:\d{1,9}}/{index:\d{1,18}}", self._answering(self._receipt)),
            web.get("/.well-known/hx-node", self._answering(self._well_known)),
        ]

    def _answering(
        self, handle: Callable[[web.Request, Request], Awaitable[Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Turn `handle` into a door: the body bounded, every answer signed, every refusal a problem."""

        async def door(http: web.Request) -> web.Response:
            # 1. Size, before anything is read in full.
            request = Request(http.method, self._target(http), _headers(http), b"")
            try:
                request = Request(request.method, request.target_uri, request.headers, await self._body(http))
                response = await handle(http, request)
            except ProtocolError as error:
                self.metrics.problems.labels(code=error.code, direction="given").inc()
                self.log("peer request refused", action="peer.refused", code=error.code, path=http.path)
                response = _problem(error)
            except DATABASE_ERRORS as error:
                self.log("database error while answering a peer", action="peer.database", kind=type(error).__name__)
                response = _problem(ProtocolError("maintenance", "the store is not available; try again"))
            return self._signed(request, response)

        return door

    def _target(self, http: web.Request) -> str:
        """The configured base address and the request's path: never the Host header (PROTOCOL section 4)."""
        return self.base_url.rstrip("/") + http.raw_path

    async def _body(self, http: web.Request) -> bytes:
        if (http.content_length or 0) > self.body_bytes_max:
            raise ProtocolError("too-large", f"a request holds at most {self.body_bytes_max} bytes")
        parts: list[bytes] = []
        total = 0
        async for part in http.content.iter_chunked(65_536):
            total += len(part)
            if total > self.body_bytes_max:
                raise ProtocolError("too-large", f"a request holds at most {self.body_bytes_max} bytes")
            parts.append(part)
        return b"".join(parts)

    def _signed(self, request: Request, response: Response) -> web.Response:
        headers = {**response.headers, "hx-directory": str(self.directory().version)}
        plain = Response(response.status, headers, response.body)
        added = sign_response(plain, request, self.http_key, created=int(self.clock.now().timestamp()))
        return web.Response(status=response.status, body=response.body, headers={**headers, **added})

    def _verify(self, request: Request) -> tuple[str, Verified]:
        """Steps 2 and 3: who signed the request, and that the body is what was signed."""
        now = self.clock.now()
        signer: list[str] = []

        def find_key(keyid: str) -> PublicKey:
            node_id, key = self.directory().http_key(keyid, now)
            signer.append(node_id)
            return key

        verified = verify_request(request, find_key, now=int(now.timestamp()), window_s=self.window_s)
        if self.directory().nodes[signer[-1]].state in _NOT_RECEIVING:
            raise ProtocolError("key-revoked", "the node is not a member at present", field="keyid")
        return signer[-1], verified

    async def _inbox(self, http: web.Request, request: Request) -> Response:
        peer, verified = self._verify(request)
        iss, epoch, first = http.match_info["iss"], int(http.match_info["epoch"]), int(http.match_info["first"])

        async def held() -> int:
            async with self.db.transaction("receive.turn") as tx:
                return await inbound.held_size(tx, iss, epoch)

        if iss == peer and first > 0:
            await wait_for_turn(peer, first, held=held, signals=self.signals, monotonic=self.clock.monotonic)
        offer = Offer(peer, verified.keyid, verified.nonce, iss, epoch, first, request.body)
        receipt = await self.receiver.receive(offer, self.directory())
        self.signals.wake(f"received:{peer}")
        self.signals.wake("apply")
        self.metrics.records_received.labels(peer=peer).inc(receipt.records)
        headers = {"content-type": NOTE_TYPE, "hx-credit": str(self.batch_records_max)}
        return Response(HTTPStatus.OK, headers, receipt.note)

    async def _caller(self, request: Request) -> str:
        """Verify a request that changes nothing, and note that its sender is back."""
        peer, verified = self._verify(request)
        now = self.clock.now()
        async with self.db.transaction("peer.heard") as tx:
            if not await inbound.remember_nonce(tx, verified.keyid, verified.nonce, now):
                raise ProtocolError("replay", "this request was answered before", field="nonce")
            await contacts.heard_from(tx, peer, now)
        return peer

    async def _stream(self, http: web.Request, request: Request) -> Response:
        """The newest checkpoint and cosignature held of the caller's own stream (anti-entropy)."""
        peer = await self._caller(request)
        if http.match_info["iss"] != peer:
            raise ProtocolError("wrong-audience", "a stream is known to its two nodes alone", field="iss")
        async with self.db.transaction("peer.read") as tx:
            note = await inbound.newest_receipt(tx, peer)
        if note is None:
            return Response(HTTPStatus.NOT_FOUND, {"content-type": JSON_TYPE}, b'{"held":0}')
        return Response(HTTPStatus.OK, {"content-type": NOTE_TYPE}, note)

    async def _receipt(self, http: web.Request, request: Request) -> Response:
        """The stored receipt that covers an index, byte for byte."""
        peer = await self._caller(request)
        if http.match_info["iss"] != peer:
            raise ProtocolError("wrong-audience", "a stream is known to its two nodes alone", field="iss")
        async with self.db.transaction("peer.read") as tx:
            note = await inbound.receipt_for(tx, peer, int(http.match_info["epoch"]), int(http.match_info["index"]))
        if note is None:
            return Response(HTTPStatus.NOT_FOUND, {"content-type": JSON_TYPE}, b'{"receipt":null}')
        return Response(HTTPStatus.OK, {"content-type": NOTE_TYPE}, note)

    async def _well_known(self, http: web.Request, request: Request) -> Response:
        """Versions, limits, directory version; and to a member the epoch of our stream to it."""
        document: dict[str, object] = {
            "node": self.node_id,
            "versions": list(VERSIONS),
            "limits": {
                "batch_records_max": self.batch_records_max,
                "batch_bytes_max": self.batch_bytes_max,
                "body_bytes_max": self.body_bytes_max,
            },
            "directory_version": self.directory().version,
            "time": rfc3339(self.clock.now()),
        }
        if "signature" in http.headers:
            peer = await self._caller(request)
            async with self.db.transaction("peer.read") as tx:
                cursor = await outbound.cursor(tx, peer)
            document["epochs"] = {} if cursor is None else {peer: cursor.epoch}
        return Response(HTTPStatus.OK, {"content-type": JSON_TYPE}, json.dumps(document).encode())


def _headers(http: web.Request) -> dict[str, str]:
    """Lower-case names; several fields of one name are joined as RFC 9110 section 5.3 says."""
    joined: dict[str, str] = {}
    for name, value in http.headers.items():
        lower = name.lower()
        joined[lower] = f"{joined[lower]}, {value}" if lower in joined else value
    return joined


def _problem(error: ProtocolError) -> Response:
    headers = {"content-type": PROBLEM_TYPE}
    return Response(REGISTRY[error.code].status, headers, json.dumps(problem_body(error)).encode())
