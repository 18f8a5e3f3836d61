"""The doors by which a peer finds out what it misses, and gets it (PROTOCOL section 5). Decides nothing."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from node.clock import Clock
from node.hotline.api.admission import Admission
from node.hotline.api.peer import EPOCH, JSON_TYPE, path_number
from node.hotline.flows.give_back import GiveBack
from node.hotline.flows.greet import Greeter
from node.hotline.flows.offer import Offered, Offerer
from node.hotline.flows.settle import Settler
from node.platform.peerdoor import PeerDoor, member_route
from node.platform.routes import Answer, Body, Call, Parameter, Route
from node.platform.signals import Signals
from node.platform.trust import Freshness
from node.platform.web import answer_of
from protocol.batch import MEDIA_TYPE
from protocol.checkpoint import EPOCH_MAX
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.hello import encode_heads, parse_heads
from protocol.merkle import TREE_SIZE_MAX
from protocol.note import NOTE_BYTES_MAX
from protocol.strictjson import JSON_BYTES_MAX

#: Longest wait that a caller may ask for; below what proxies between two nodes allow.
WAIT_S_MAX = 25
#: Requests of one caller that wait for a record.
_WAITS_PER_PEER_MAX = 4
#: Who waits looks again so often, should a wake-up get lost.
_LOOK_AGAIN_S = 1.0
_FROM = Parameter("from", int, "The index of the first record wanted.", where="query", example="0")
_RECORDS_MAX = 1000
#: What a fetch says.
FETCHED = (
    Parameter("aud", str, "The node that the stream is for.", example="fr.hotline.example"),
    EPOCH,
    _FROM,
    Parameter("wait", int, "Seconds to wait for a record.", where="query", required=False),
    Parameter("records", int, "The most records wanted.", where="query", required=False),
)
_BATCH = Answer("A signed checkpoint, or a receipt, then one record a line.", media_type=MEDIA_TYPE)


class Waiting:
    """Counts who waits for a record, so that no caller holds more than a few requests open."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: Counter[str] = Counter()
        self.ended = False

    def end(self) -> None:
        """Let nobody wait any more: the node ends."""
        self.ended = True

    @contextmanager
    def place(self, peer: str) -> Iterator[bool]:
        """Yield whether `peer` may wait: a caller with too many requests open is answered at once."""
        self._waiting[peer] += 1
        try:
            yield self._waiting[peer] <= _WAITS_PER_PEER_MAX
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]


@dataclass(frozen=True, slots=True)
class CatchupApi:
    """What the doors work with."""

    node_id: str
    door: PeerDoor
    greeter: Greeter
    offerer: Offerer
    settler: Settler
    give_back: GiveBack
    directory: Callable[[], Directory]
    clock: Clock
    signals: Signals
    waiting: Waiting
    admission: Admission

    def routes(self) -> list[Route]:
        """Return the endpoints of catching up."""
        return [
            member_route(
                method="POST",
                path="/peer/v1/hello",
                summary="I am back, and this is what I hold",
                handler=self._hello,
                request=Body(description="How far the caller has both streams."),
                body_bytes_max=JSON_BYTES_MAX,
                responses={HTTPStatus.OK: Answer("How far the callee has both streams.")},
            ),
            member_route(
                method="GET",
                path="/peer/v1/outbox/{aud}/{epoch}",
                summary="Fetch a batch",
                handler=self._outbox,
                parameters=FETCHED,
                responses={HTTPStatus.OK: _BATCH, HTTPStatus.NOT_FOUND: Answer("Nothing follows this index.")},
            ),
            member_route(
                method="GET",
                path="/peer/v1/inbox/{iss}/{epoch}",
                summary="Get back one's own records",
                handler=self._inbox,
                parameters=(
                    Parameter("iss", str, "The node whose stream it is: the caller.", example="fr.hotline.example"),
                    EPOCH,
                    _FROM,
                ),
                responses={HTTPStatus.OK: _BATCH, HTTPStatus.NOT_FOUND: Answer("Nothing follows this index.")},
            ),
            member_route(
                method="PUT",
                path="/peer/v1/receipts/{iss}/{epoch}/{size}",
                summary="Bring the receipt for what was fetched",
                handler=self._settle,
                parameters=(
                    Parameter("iss", str, "The node whose stream it is: the callee.", example="nl.hotline.example"),
                    EPOCH,
                    Parameter("size", int, "The size that the receipt covers.", example="1"),
                ),
                request=Body(description="A signed note.", media_types=("text/plain",)),
                body_bytes_max=NOTE_BYTES_MAX,
                responses={HTTPStatus.OK: Answer("The receipt is kept.")},
            ),
        ]

    async def _hello(self, call: Call) -> web.Response:
        """The caller is back: nothing that went wrong before counts any more, and both sides compare."""
        async with self.door.said(call.request, JSON_BYTES_MAX) as (peer, body):
            ours = await self.greeter.welcome(peer, parse_heads(body, caller=peer, callee=self.node_id))
        self.signals.wake("deliver")
        self.signals.wake("pull")
        return web.Response(body=encode_heads(ours), content_type=JSON_TYPE)

    async def _outbox(self, call: Call) -> web.Response:
        """The bytes that a push would carry; a caller may wait a while for the first record."""
        async with self.door.asked(call.request) as peer:
            if call.parameters["aud"] != peer:
                raise ProtocolError("wrong-audience", "a stream is known to its two nodes alone", field="aud")
            self._refuse_if_expired()
            epoch = path_number(call, "epoch", low=1, high=EPOCH_MAX)
            first = path_number(call, "from", low=0, high=TREE_SIZE_MAX)
            wait_s = path_number(call, "wait", low=0, high=WAIT_S_MAX) if "wait" in call.parameters else 0
            most = _RECORDS_MAX
            if "records" in call.parameters:
                most = path_number(call, "records", low=1, high=_RECORDS_MAX)
            offered = await self._offered(call, peer, epoch, first, most)
        with self.waiting.place(peer) as may_wait:
            deadline = self.clock.monotonic() + (wait_s if may_wait else 0)
            while offered.body is None:
                left_s = deadline - self.clock.monotonic()
                # A later epoch is what the caller is to ask for next.
                over = left_s <= 0 or self.waiting.ended or _hung_up(call.request)
                if over or offered.epoch > epoch or offered.written > first:
                    said = {"written": offered.written, "epoch": offered.epoch}
                    return web.Response(
                        status=HTTPStatus.NOT_FOUND, body=json.dumps(said).encode(), content_type=JSON_TYPE
                    )
                # Who waits keeps nobody from anything.
                await self.signals.wait("outbox", min(_LOOK_AGAIN_S, left_s))
                self._refuse_if_expired()
                async with self.admission.turn(peer, 0, asks=True):
                    offered = await self._offered(call, peer, epoch, first, most)
        return web.Response(body=offered.body, content_type=MEDIA_TYPE)

    async def _offered(self, call: Call, peer: str, epoch: int, first: int, most: int) -> Offered:
        offered = await self.offerer.offer(peer, epoch, first, most)
        if offered.body is not None:
            size, answer = len(offered.body), answer_of(call.request)
            self.admission.give(peer, "outbox", epoch, first, offered.until, size, answer)
        return offered

    def _refuse_if_expired(self) -> None:
        """Give no record away once who may have it is not known any more (PROTOCOL section 2); raises ProtocolError."""
        if self.door.membership.freshness() is Freshness.EXPIRED:
            raise ProtocolError(
                "directory-stale", "the directory here has expired, and nothing leaves until it is renewed"
            )

    async def _inbox(self, call: Call) -> web.Response:
        """The caller's own records as they are held here, under the receipts that were given for them."""
        async with self.door.asked(call.request) as peer:
            if call.parameters["iss"] != peer:
                raise ProtocolError("wrong-audience", "a stream is known to its two nodes alone", field="iss")
            epoch = path_number(call, "epoch", low=1, high=EPOCH_MAX)
            first = path_number(call, "from", low=0, high=TREE_SIZE_MAX)
            kept = await self.give_back.held(peer, epoch, first)
            if kept.body is None:
                said = json.dumps({"written": kept.held, "epoch": kept.epoch}).encode()
                return web.Response(status=HTTPStatus.NOT_FOUND, body=said, content_type=JSON_TYPE)
            size, answer = len(kept.body), answer_of(call.request)
            self.admission.give(peer, "inbox", epoch, first, kept.until, size, answer)
        return web.Response(body=kept.body, content_type=MEDIA_TYPE)

    async def _settle(self, call: Call) -> web.Response:
        """The receipt is verified as one that answers a push."""
        async with self.door.said(call.request, NOTE_BYTES_MAX) as (peer, note):
            receipted = await self._settled(call, peer, note)
        return web.Response(body=json.dumps({"receipted": receipted}).encode(), content_type=JSON_TYPE)

    async def _settled(self, call: Call, peer: str, note: bytes) -> int:
        if call.parameters["iss"] != self.node_id:
            raise ProtocolError("wrong-audience", "the receipt is for another node", field="iss")
        epoch = path_number(call, "epoch", low=1, high=EPOCH_MAX)
        size = path_number(call, "size", low=1, high=TREE_SIZE_MAX)
        receipted = await self.settler.settle(peer, epoch, size, note, self.directory())
        # What goes on costs nothing.
        self.admission.give(peer, "receipts", epoch, size - 1, size, 0, answer_of(call.request))
        return receipted


def _hung_up(request: web.Request) -> bool:
    """Tell whether nobody is there any more to be answered."""
    return request.transport is None or request.transport.is_closing()
