"""The peer protocol's doors (PROTOCOL sections 4 and 5): every request is verified, every answer signed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from aiohttp import web

from node.clock import Clock, rfc3339
from node.hotline.api.gate import wait_for_turn
from node.hotline.flows.receive import Offer, Receiver
from node.hotline.store import contacts, inbound, outbound
from node.platform.apiproblems import TOO_LARGE, ApiProblem
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.giveway import GiveWay
from node.platform.routes import Answer, Auth, Body, Call, Parameter, Route
from node.platform.signals import Signals
from node.platform.telemetry import Logger, Metrics
from node.platform.web import read_body
from protocol.batch import MEDIA_TYPE
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import PublicKey, SigningKey
from protocol.merkle import TREE_SIZE_MAX
from protocol.profile import Request, Response, Verified, combine_headers, sign_response, verify_request

NOTE_TYPE = "text/plain; charset=utf-8"
JSON_TYPE = "application/json"
#: No sender has more batches in flight (settings); a batch further ahead has lost its predecessors.
_BATCHES_AHEAD_MAX = 16
VERSIONS = ("1.0",)
#: Epochs are counted in a column of four bytes.
_EPOCH_MAX = 2**31 - 1
_NOT_MEMBERS = frozenset({"suspended", "left"})
_ISS = Parameter("iss", str, "The node whose stream it is.", example="fr.hotline.example")
_EPOCH = Parameter("epoch", int, "The epoch of the stream, from 1.", example="1")
_RECEIPT = Answer("A signed note: the checkpoint with the receiver's cosignatures.", media_type="text/plain")


class WellKnownOut(msgspec.Struct, frozen=True):
    """What a node says of itself: versions, limits, the directory in use, and to a member the epoch of our stream."""

    node: str
    versions: list[str]
    limits: dict[str, int]
    directory_version: int
    time: str
    epochs: dict[str, int]


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
    give_way: GiveWay
    metrics: Metrics
    log: Logger
    body_bytes_max: int
    batch_records_max: int
    batch_bytes_max: int
    window_s: int

    def routes(self) -> list[Route]:
        """Return the endpoints of the peer protocol."""
        signed = Auth.HTTP_SIGNATURE
        return [
            Route(
                method="PUT",
                path="/peer/v1/inbox/{iss}/{epoch}/{first}",
                summary="Deliver a batch",
                group="Peer protocol",
                handler=self._inbox,
                auth=signed,
                parameters=(_ISS, _EPOCH, Parameter("first", int, "The index of the first record.", example="0")),
                request=Body(description="A signed checkpoint, then one record a line.", media_types=(MEDIA_TYPE,)),
                body_bytes_max=self.body_bytes_max,
                responses={HTTPStatus.OK: _RECEIPT},
            ),
            Route(
                method="GET",
                path="/peer/v1/streams/{iss}",
                summary="The newest checkpoint held of the caller's stream, with its receipt",
                group="Peer protocol",
                handler=self._stream,
                auth=signed,
                parameters=(_ISS,),
                responses={HTTPStatus.OK: _RECEIPT, HTTPStatus.NOT_FOUND: Answer("Nothing is held.")},
            ),
            Route(
                method="GET",
                path="/peer/v1/receipts/{iss}/{epoch}/{index}",
                summary="The stored receipt that covers an index",
                group="Peer protocol",
                handler=self._receipt,
                auth=signed,
                parameters=(_ISS, _EPOCH, Parameter("index", int, "The index of a record.", example="0")),
                responses={HTTPStatus.OK: _RECEIPT, HTTPStatus.NOT_FOUND: Answer("The index is not held.")},
            ),
            Route(
                method="GET",
                path="/.well-known/hx-node",
                summary="Versions, limits and directory version",
                group="Peer protocol",
                handler=self._well_known,
                auth=Auth.OPEN,
                responses={HTTPStatus.OK: Answer("What the node says of itself.", WellKnownOut)},
            ),
        ]

    async def finish(self, http: web.Request, response: web.Response) -> web.Response:
        """Sign an answer, a problem too, bound to its request."""
        response.headers["hx-directory"] = str(self.directory().version)
        headers = {name.lower(): value for name, value in response.headers.items()}
        body = response.body if isinstance(response.body, bytes) else b""
        request = _request(http, self.base_url, b"")
        plain = Response(response.status, headers, body)
        response.headers.update(sign_response(plain, request, self.http_key, created=int(self.clock.now().timestamp())))
        return response

    def _verify(self, request: Request) -> tuple[str, Verified]:
        """Steps 2 and 3: who signed the request, and that the body is what was signed."""
        now = self.clock.now()
        signer: list[str] = []

        def find_key(keyid: str) -> PublicKey:
            node_id, key = self.directory().http_key(keyid, now)
            signer.append(node_id)
            return key

        try:
            verified = verify_request(request, find_key, now=int(now.timestamp()), window_s=self.window_s)
            self._check_member(signer[-1])
        except ProtocolError as error:
            self._refused(error, signer[-1] if signer else None)
            raise
        return signer[-1], verified

    def _check_member(self, node_id: str) -> None:
        if self.directory().nodes[node_id].state in _NOT_MEMBERS:
            raise ProtocolError("key-revoked", "the node is not a member at present", field="keyid")

    def _refused(self, error: ProtocolError, peer: str | None) -> None:
        self.metrics.problems.labels(code=error.code, direction="given").inc()
        say = self.log.error if error.code == "clock-skew" else self.log.warning
        say("peer request refused", action="peer.refused", code=error.code, peer=peer)

    async def _inbox(self, call: Call) -> web.Response:
        with self.give_way.answering():
            return await self._take_batch(call)

    async def _take_batch(self, call: Call) -> web.Response:
        # 1. Size, before anything is read in full.
        try:
            body = await read_body(call.request, self.body_bytes_max)
        except ApiProblem as refused:
            if refused.kind is not TOO_LARGE:
                raise
            raise ProtocolError("too-large", f"a request holds at most {self.body_bytes_max} bytes") from None
        request = _request(call.request, self.base_url, body)
        peer, verified = self._verify(request)
        iss, epoch = call.parameters["iss"], _number(call, "epoch", low=1, high=_EPOCH_MAX)
        first = _number(call, "first", low=0, high=TREE_SIZE_MAX)

        async def held() -> int:
            async with self.db.transaction("receive.turn") as tx:
                return await inbound.held_size(tx, iss, epoch)

        if iss == peer and first > 0:
            await wait_for_turn(
                peer,
                first,
                ahead_max=self.batch_records_max * _BATCHES_AHEAD_MAX,
                held=held,
                signals=self.signals,
                monotonic=self.clock.monotonic,
            )
        offer = Offer(peer, verified.keyid, verified.nonce, iss, epoch, first, request.body)
        try:
            receipt = await self.receiver.receive(offer, self.directory())
        except DATABASE_ERRORS as error:
            self.log.warning("database not available", action="peer.database", kind=type(error).__name__)
            raise ProtocolError("maintenance", "the store is not available at the moment") from None
        except ProtocolError as error:
            self._refused(error, peer)
            raise
        self.signals.wake(f"received:{peer}")
        self.signals.wake("apply")
        self.metrics.records_received.labels(peer=peer).inc(receipt.records)
        credit = None if receipt.credit is None else min(self.batch_records_max, receipt.credit)
        return _note(receipt.note, credit=credit)

    async def _caller(self, request: Request) -> str:
        """Verify a request that changes nothing, and note that its sender is back."""
        peer, verified = self._verify(request)
        now = self.clock.now()
        async with self.db.transaction("peer.heard") as tx:
            if not await inbound.remember_nonce(tx, verified.keyid, verified.nonce, now):
                raise ProtocolError("replay", "this request was answered before", field="nonce")
            await contacts.heard_from(tx, peer, now)
        return peer

    async def _stream(self, call: Call) -> web.Response:
        """The newest checkpoint and cosignature held of the caller's own stream (anti-entropy)."""
        peer = await self._own_stream(call)
        async with self.db.transaction("peer.read") as tx:
            note = await inbound.newest_receipt(tx, peer)
        return _nothing() if note is None else _note(note)

    async def _receipt(self, call: Call) -> web.Response:
        """The stored receipt that covers an index, byte for byte."""
        peer = await self._own_stream(call)
        epoch = _number(call, "epoch", low=1, high=_EPOCH_MAX)
        index = _number(call, "index", low=0, high=TREE_SIZE_MAX)
        async with self.db.transaction("peer.read") as tx:
            note = await inbound.receipt_for(tx, peer, epoch, index)
        return _nothing() if note is None else _note(note)

    async def _own_stream(self, call: Call) -> str:
        peer = await self._caller(_request(call.request, self.base_url, b""))
        if call.parameters["iss"] != peer:
            raise ProtocolError("wrong-audience", "a stream is known to its two nodes alone", field="iss")
        return peer

    async def _well_known(self, call: Call) -> web.Response:
        """Versions, limits, directory version; and to a member the epoch of our stream to it."""
        epochs: dict[str, int] = {}
        if "signature" in call.request.headers:
            peer = await self._caller(_request(call.request, self.base_url, b""))
            async with self.db.transaction("peer.read") as tx:
                cursor = await outbound.cursor(tx, peer)
            epochs = {} if cursor is None else {peer: cursor.epoch}
        said = WellKnownOut(
            node=self.node_id,
            versions=list(VERSIONS),
            limits={
                "batch_records_max": self.batch_records_max,
                "batch_bytes_max": self.batch_bytes_max,
                "body_bytes_max": self.body_bytes_max,
            },
            directory_version=self.directory().version,
            time=rfc3339(self.clock.now()),
            epochs=epochs,
        )
        return web.Response(body=msgspec.json.encode(said), content_type=JSON_TYPE)


def _request(http: web.Request, base_url: str, body: bytes) -> Request:
    """The request as the signer saw it: the configured base address, never the Host header (PROTOCOL section 4)."""
    return Request(http.method, base_url.rstrip("/") + http.raw_path, combine_headers(http.headers.items()), body)


def _number(call: Call, name: str, *, low: int, high: int) -> int:
    """Return a number of the path; raises ProtocolError for one that no stream can have and no column holds."""
    value: int = call.parameters[name]
    if not low <= value <= high:
        raise ProtocolError("malformed", f"this is not a number from {low} to {high}", field=name)
    return value


def _note(note: bytes, *, credit: int | None = None) -> web.Response:
    headers = {"content-type": NOTE_TYPE} if credit is None else {"content-type": NOTE_TYPE, "hx-credit": str(credit)}
    return web.Response(body=note, headers=headers)


def _nothing() -> web.Response:
    return web.Response(status=HTTPStatus.NOT_FOUND, body=json.dumps({"held": None}).encode(), content_type=JSON_TYPE)
