"""The peer protocol's doors (PROTOCOL sections 4 and 5): every request is verified, every answer signed."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from node.clock import Clock, rfc3339
from node.hotline.api.admission import Admission
from node.hotline.api.gate import wait_for_turn
from node.hotline.flows.receive import Offer, Receiver
from node.hotline.store import inbound, outbound
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.giveway import GiveWay
from node.platform.peerdoor import Message, PeerDoor, member_route
from node.platform.routes import Answer, Auth, Body, Call, Parameter, Route
from node.platform.signals import Signals
from node.platform.telemetry import Logger, Metrics
from protocol.batch import MEDIA_TYPE
from protocol.checkpoint import EPOCH_MAX
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.merkle import TREE_SIZE_MAX
from protocol.versions import speaks

NOTE_TYPE = "text/plain; charset=utf-8"
JSON_TYPE = "application/json"
#: No sender has more batches in flight (settings); a batch further ahead has lost its predecessors.
_BATCHES_AHEAD_MAX = 16

_ISS = Parameter("iss", str, "The node whose stream it is.", example="fr.hotline.example")
EPOCH: Final = Parameter("epoch", int, "The epoch of the stream, from 1.", example="1")
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
    door: PeerDoor
    db: Database
    receiver: Receiver
    admission: Admission
    directory: Callable[[], Directory]
    clock: Clock
    signals: Signals
    give_way: GiveWay
    metrics: Metrics
    log: Logger
    body_bytes_max: int
    batch_records_max: int
    batch_bytes_max: int

    def routes(self) -> list[Route]:
        """Return the endpoints of the peer protocol."""
        return [
            member_route(
                method="PUT",
                path="/peer/v1/inbox/{iss}/{epoch}/{first}",
                summary="Deliver a batch",
                handler=self._inbox,
                parameters=(_ISS, EPOCH, Parameter("first", int, "The index of the first record.", example="0")),
                request=Body(description="A signed checkpoint, then one record a line.", media_types=(MEDIA_TYPE,)),
                body_bytes_max=self.body_bytes_max,
                responses={HTTPStatus.OK: _RECEIPT},
            ),
            member_route(
                method="GET",
                path="/peer/v1/streams/{iss}",
                summary="The newest checkpoint held of the caller's stream, with its receipt",
                handler=self._stream,
                parameters=(
                    _ISS,
                    Parameter("epoch", int, "Of this epoch; else of the newest.", where="query", required=False),
                ),
                responses={HTTPStatus.OK: _RECEIPT, HTTPStatus.NOT_FOUND: Answer("Nothing is held.")},
            ),
            member_route(
                method="GET",
                path="/peer/v1/receipts/{iss}/{epoch}/{index}",
                summary="The stored receipt that covers an index",
                handler=self._receipt,
                parameters=(_ISS, EPOCH, Parameter("index", int, "The index of a record.", example="0")),
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

    async def _inbox(self, call: Call) -> web.Response:
        # Steps 1 to 3 of the checking order are the door's.
        with self.give_way.answering():
            async with self.door.message(call.request, self.body_bytes_max) as came:
                return await self._receive(call, came)

    async def _receive(self, call: Call, came: Message) -> web.Response:
        peer, verified = came.peer, came.verified
        iss, epoch = call.parameters["iss"], path_number(call, "epoch", low=1, high=EPOCH_MAX)
        first = path_number(call, "first", low=0, high=TREE_SIZE_MAX)

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
        offer = Offer(peer, verified.keyid, verified.nonce, iss, epoch, first, came.body)
        try:
            async with self.admission.turn(peer, len(came.body)):
                receipt = await self.receiver.receive(offer, self.directory())
        except DATABASE_ERRORS as error:
            say, kind = self.log.warning, type(error).__name__
            self.door.sparing.say(say, "database not available", action="peer.database", peer=peer, code=kind)
            raise ProtocolError("maintenance", "the store is not available at the moment") from None
        except ProtocolError as error:
            self.door.refused(error, peer)
            raise
        self.signals.wake(f"received:{peer}")
        self.signals.wake("apply")
        self.metrics.records_received.labels(peer=peer).inc(receipt.records)
        return note_answer(receipt.note, credit=receipt.credit)

    async def _stream(self, call: Call) -> web.Response:
        """The newest checkpoint and cosignature held of the caller's own stream (anti-entropy)."""
        async with self._own_stream(call) as peer:
            epoch = path_number(call, "epoch", low=1, high=EPOCH_MAX) if "epoch" in call.parameters else None
            async with self.db.transaction("peer.read") as tx:
                note = await inbound.newest_receipt(tx, peer, epoch)
        return nothing_held() if note is None else note_answer(note)

    async def _receipt(self, call: Call) -> web.Response:
        """The stored receipt that covers an index, byte for byte."""
        async with self._own_stream(call) as peer:
            epoch = path_number(call, "epoch", low=1, high=EPOCH_MAX)
            index = path_number(call, "index", low=0, high=TREE_SIZE_MAX)
            async with self.db.transaction("peer.read") as tx:
                note = await inbound.receipt_for(tx, peer, epoch, index)
        return nothing_held() if note is None else note_answer(note)

    @asynccontextmanager
    async def _own_stream(self, call: Call) -> AsyncIterator[str]:
        async with self.door.asked(call.request) as peer:
            if call.parameters["iss"] != peer:
                raise ProtocolError("wrong-audience", "a stream is known to its two nodes alone", field="iss")
            yield peer

    async def _well_known(self, call: Call) -> web.Response:
        """Versions, limits, directory version; and to a member the epoch of our stream to it."""
        epochs: dict[str, int] = {}
        if "signature" in call.request.headers:
            async with self.door.asked(call.request) as peer, self.db.transaction("peer.read") as tx:
                epoch = await outbound.newest_epoch(tx, peer)
            epochs = {} if epoch is None else {peer: epoch}
        said = WellKnownOut(
            node=self.node_id,
            versions=list(speaks().spoken),
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


def path_number(call: Call, name: str, *, low: int, high: int) -> int:
    """Return a number of the path; raises ProtocolError for one that no stream can have and no column holds."""
    value: int = call.parameters[name]
    if not low <= value <= high:
        raise ProtocolError("malformed", f"this is not a number from {low} to {high}", field=name)
    return value


def note_answer(note: bytes, *, credit: int | None = None) -> web.Response:
    """Return the answer that is a signed note."""
    headers = {"content-type": NOTE_TYPE} if credit is None else {"content-type": NOTE_TYPE, "hx-credit": str(credit)}
    return web.Response(body=note, headers=headers)


def nothing_held() -> web.Response:
    """Return the answer that nothing is held."""
    return web.Response(status=HTTPStatus.NOT_FOUND, body=json.dumps({"held": None}).encode(), content_type=JSON_TYPE)
