"""The door of a node that recovers: peers that cannot be called bring what it lost. Serves nothing else."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from node.hotline.api.catchup import FETCHED
from node.hotline.api.peer import EPOCH, JSON_TYPE, PeerApi, note_answer, path_number
from node.hotline.flows.receive import Offer
from node.hotline.recovery import Visits
from node.platform.peerdoor import PeerDoor, member_route
from node.platform.routes import Answer, Body, Call, Parameter, Route
from protocol.batch import MEDIA_TYPE, RETURNED_BYTES_MAX
from protocol.checkpoint import EPOCH_MAX
from protocol.errors import ProtocolError
from protocol.hello import encode_heads, parse_heads
from protocol.merkle import TREE_SIZE_MAX
from protocol.strictjson import JSON_BYTES_MAX

_FIRST = Parameter("first", int, "The index of the first record.", example="0")


@dataclass(frozen=True, slots=True)
class RecoveryApi:
    """What the door works with."""

    node_id: str
    door: PeerDoor
    peers: PeerApi
    visits: Visits

    def routes(self) -> list[Route]:
        """Return what a peer may call; a fetch is answered with `maintenance`, which tells it to say hello."""
        return [
            member_route(
                method="POST",
                path="/peer/v1/hello",
                summary="I am back, and this is what I hold",
                handler=self._hello,
                request=Body(description="How far the caller has both streams."),
                body_bytes_max=JSON_BYTES_MAX,
                responses={HTTPStatus.OK: Answer("How far the callee has both streams, and what it lost.")},
            ),
            member_route(
                method="PUT",
                path="/peer/v1/outbox/{iss}/{epoch}/{first}",
                summary="Bring a node that recovers its own records",
                handler=self._outbox,
                parameters=(Parameter("iss", str, "The node whose stream it is: the callee."), EPOCH, _FIRST),
                request=Body(description="A receipt, then one record a line.", media_types=(MEDIA_TYPE,)),
                body_bytes_max=RETURNED_BYTES_MAX,
                responses={HTTPStatus.OK: Answer("The records are back.")},
            ),
            member_route(
                method="PUT",
                path="/peer/v1/inbox/{iss}/{epoch}/{first}",
                summary="Deliver a batch",
                handler=self._inbox,
                parameters=(Parameter("iss", str, "The node whose stream it is: the caller."), EPOCH, _FIRST),
                request=Body(description="A signed checkpoint, then one record a line.", media_types=(MEDIA_TYPE,)),
                body_bytes_max=self.peers.body_bytes_max,
                responses={HTTPStatus.OK: Answer("The receipt first given.")},
            ),
            member_route(
                method="GET",
                path="/peer/v1/outbox/{aud}/{epoch}",
                summary="Fetch a batch",
                handler=self._closed,
                parameters=FETCHED,
                responses={HTTPStatus.OK: Answer("Never: the streams stand still.")},
            ),
        ]

    def _expect(self, peer: str) -> None:
        if peer not in self.visits.awaited:
            raise ProtocolError("maintenance", "this node recovers, and waits for others")

    async def _hello(self, call: Call) -> web.Response:
        async with self.door.said(call.request, JSON_BYTES_MAX) as (peer, body):
            self._expect(peer)
            ours = await self.visits.greeted(peer, parse_heads(body, caller=peer, callee=self.node_id))
        return web.Response(body=encode_heads(ours), content_type=JSON_TYPE)

    async def _outbox(self, call: Call) -> web.Response:
        async with self.door.said(call.request, RETURNED_BYTES_MAX) as (peer, body):
            self._expect(peer)
            if call.parameters["iss"] != self.node_id:
                raise ProtocolError("wrong-audience", "the records are another node's", field="iss")
            epoch = path_number(call, "epoch", low=1, high=EPOCH_MAX)
            first = path_number(call, "first", low=0, high=TREE_SIZE_MAX)
            size = await self.visits.brought(peer, epoch, first, body)
        return web.Response(body=json.dumps({"held": size}).encode(), content_type=JSON_TYPE)

    async def _inbox(self, call: Call) -> web.Response:
        async with self.door.message(call.request, self.peers.body_bytes_max) as came:
            self._expect(came.peer)
            epoch = path_number(call, "epoch", low=1, high=EPOCH_MAX)
            first = path_number(call, "first", low=0, high=TREE_SIZE_MAX)
            keyid, nonce = came.verified.keyid, came.verified.nonce
            offer = Offer(came.peer, keyid, nonce, call.parameters["iss"], epoch, first, came.body)
            try:
                receipt = await self.peers.receiver.receive(offer, self.peers.directory())
            except ProtocolError:
                await self.visits.refused(came.peer, epoch, first)
                raise
        self.visits.moved()
        return note_answer(receipt.note, credit=receipt.credit)

    async def _closed(self, call: Call) -> web.Response:
        async with self.door.asked(call.request):
            raise ProtocolError("maintenance", "this node's streams stand still until it is recovered")
