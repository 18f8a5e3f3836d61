"""Calls by which two nodes find out what each misses, and get it. Never raises for what a peer does; never retries."""

from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from node.hotline.domain.delivery import Problem
from node.hotline.gateways.peers import PeerGateway
from node.platform.httpclient import PeerAnswer
from protocol.batch import MEDIA_TYPE
from protocol.directory import NodeEntry
from protocol.errors import ProtocolError
from protocol.hello import Heads, encode_heads, parse_heads

_JSON = "application/json"
_NOTE = "text/plain; charset=utf-8"


class _Nothing(msgspec.Struct):
    written: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a peer had from an index on: a batch (`body`), or nothing, and then the newest epoch of its stream."""

    body: bytes | None
    epoch: int | None = None


class CatchupGateway:
    """The door to the endpoints of catching up."""

    def __init__(self, peers: PeerGateway, own_id: str) -> None:
        """Take the gateway that signs calls and verifies answers."""
        self._peers = peers
        self._own_id = own_id

    async def hello(self, peer: NodeEntry, heads: Heads) -> Heads | Problem:
        """Say that we are here and what we hold; return what the peer says."""
        answer = await self._peers.call(
            peer, "POST", "/peer/v1/hello", headers={"content-type": _JSON}, body=encode_heads(heads)
        )
        if isinstance(answer, Problem):
            return answer
        try:
            return parse_heads(answer.body, caller=peer.id, callee=self._own_id)
        except ProtocolError as error:
            return Problem(f"answer-{error.code}")

    async def newest_receipt(self, peer: NodeEntry, epoch: int) -> bytes | Problem | None:
        """Return the newest receipt that the peer holds of one epoch of our stream, or None."""
        return _note(await self._peers.call(peer, "GET", f"/peer/v1/streams/{self._own_id}?epoch={epoch}"))

    async def receipt(self, peer: NodeEntry, epoch: int, index: int) -> bytes | Problem | None:
        """Return the receipt that covers one index of our stream, or None when the peer does not hold it."""
        return _note(await self._peers.call(peer, "GET", f"/peer/v1/receipts/{self._own_id}/{epoch}/{index}"))

    async def fetch(
        self, peer: NodeEntry, epoch: int, first: int, *, wait_s: int = 0, records_max: int
    ) -> Fetched | Problem:
        """Fetch up to `records_max` records that the peer has for us from `first` on; it may think for `wait_s` s."""
        wait = f"&wait={wait_s}" if wait_s else ""
        path = f"/peer/v1/outbox/{self._own_id}/{epoch}?from={first}{wait}&records={records_max}"
        return _fetched(await self._peers.call(peer, "GET", path))

    async def fetch_own(self, peer: NodeEntry, epoch: int, first: int) -> Fetched | Problem:
        """Fetch what the peer holds of our own stream from `first` on."""
        return _fetched(await self._peers.call(peer, "GET", f"/peer/v1/inbox/{self._own_id}/{epoch}?from={first}"))

    async def put_receipt(self, peer: NodeEntry, epoch: int, size: int, note: bytes) -> Problem | None:
        """Bring a receipt for what was fetched to the peer whose stream it is of; None when it took it."""
        answer = await self._peers.call(
            peer,
            "PUT",
            f"/peer/v1/receipts/{peer.id}/{epoch}/{size}",
            headers={"content-type": _NOTE},
            body=note,
        )
        return answer if isinstance(answer, Problem) else None

    async def bring_back(self, peer: NodeEntry, epoch: int, first: int, body: bytes) -> Problem | None:
        """Bring a peer its own records as we hold them, to one that lost them; None when it took them."""
        path = f"/peer/v1/outbox/{peer.id}/{epoch}/{first}"
        answer = await self._peers.call(peer, "PUT", path, headers={"content-type": MEDIA_TYPE}, body=body)
        return answer if isinstance(answer, Problem) else None


def _note(answer: PeerAnswer | Problem) -> bytes | Problem | None:
    if isinstance(answer, Problem):
        return answer
    return None if answer.status == HTTPStatus.NOT_FOUND else answer.body


def _fetched(answer: PeerAnswer | Problem) -> Fetched | Problem:
    if isinstance(answer, Problem):
        return answer
    if answer.status == HTTPStatus.OK:
        return Fetched(answer.body) if answer.headers.get("content-type") == MEDIA_TYPE else Problem("answer-malformed")
    try:
        nothing = msgspec.json.decode(answer.body, type=_Nothing)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem("answer-malformed")
    return Fetched(None, nothing.epoch)
