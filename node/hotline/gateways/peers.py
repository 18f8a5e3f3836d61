"""Calls to peers: one batch out, one verified answer back. Never raises for what a peer does; never retries."""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from node.clock import Clock, parse_rfc3339
from node.hotline.domain.delivery import BatchAnswer, Problem, ReceiptAnswer
from node.platform.httpclient import PeerAnswer, PeerAnswerInvalid, PeerClient, PeerUnreachable
from node.platform.membership import VERSION_HEADER
from protocol.batch import MEDIA_TYPE
from protocol.directory import DeskEntry, Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.keys import PublicKey
from protocol.problems import RemoteProblem, parse_problem

#: A million seconds, or a billion records, is beyond any limit.
_NUMBER = re.compile("[0-9]{1,9}", re.ASCII)
_TAKEN = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT})


#: A receipt: a note with a few signature lines of either side, ML-DSA-44's of some 3.3 kB each. With it the memory of a
#: delivery is bounded by what it sends.
_RECEIPT_BYTES_MAX = 131_072
#: A clock that is further off is as wrong as one that is off by a day, and its peer may say any year.
_SKEW_S_MAX = 86_400


class PeerGateway:
    """The door to every peer's endpoints."""

    def __init__(
        self,
        client: PeerClient,
        clock: Clock,
        directory: Callable[[], Directory],
        own_id: str,
        heard: Callable[[str | None, str], None] = lambda _version, _peer: None,
    ) -> None:
        """Take the signing client, where a peer's keys are found, and who hears of a peer's directory version."""
        self._heard = heard
        self._client = client
        self._clock = clock
        self._directory = directory
        self._own_id = own_id

    async def put_batch(self, peer: NodeEntry, epoch: int, first_index: int, body: bytes) -> BatchAnswer:
        """PUT one batch to the peer's inbox and return its receipt or what went wrong."""
        path = f"/peer/v1/inbox/{self._own_id}/{epoch}/{first_index}"
        answer = await self.call(
            peer, "PUT", path, headers={"content-type": MEDIA_TYPE}, body=body, answer_bytes_max=_RECEIPT_BYTES_MAX
        )
        if isinstance(answer, Problem):
            return BatchAnswer(None, answer, answer.clock_skew_s)
        return BatchAnswer(answer.body, credit=_whole(answer.headers.get("hx-credit")))

    async def call(
        self,
        peer: NodeEntry | DeskEntry,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        answer_bytes_max: int | None = None,
    ) -> PeerAnswer | Problem:
        """Return the peer's verified answer, or what went wrong; "there is nothing" (404, no problem) is an answer."""
        url = peer.base_url.rstrip("/") + path
        try:
            answer = await self._client.call(
                method, url, self._keys_of(peer.id), headers=headers, body=body, answer_bytes_max=answer_bytes_max
            )
        except PeerUnreachable as error:
            return Problem(f"unreachable-{error.kind}")
        except PeerAnswerInvalid as error:
            # A peer whose own clock is wrong cannot say so in an answer that we would believe.
            return Problem("clock-skew" if error.code == "clock-skew" else f"answer-{error.code}")
        self._heard(answer.headers.get(VERSION_HEADER), peer.id)
        nothing = answer.status == HTTPStatus.NOT_FOUND and answer.headers.get("content-type") == "application/json"
        return answer if answer.status in _TAKEN or nothing else self._refusal(answer)

    async def newest_receipt(self, peer: NodeEntry, epoch: int) -> ReceiptAnswer:
        """Ask the peer how far it holds an epoch of our stream."""
        return await self._receipt(peer, f"/peer/v1/streams/{self._own_id}?epoch={epoch}")

    async def given_receipt(self, peer: NodeEntry, epoch: int, index: int) -> ReceiptAnswer:
        """Ask the peer for the receipt that it first gave for the record at `index` of our stream."""
        return await self._receipt(peer, f"/peer/v1/receipts/{self._own_id}/{epoch}/{index}")

    async def _receipt(self, peer: NodeEntry, path: str) -> ReceiptAnswer:
        answer = await self.call(peer, "GET", path, answer_bytes_max=_RECEIPT_BYTES_MAX)
        if isinstance(answer, Problem):
            return ReceiptAnswer(None, answer)
        return ReceiptAnswer(answer.body if answer.status == HTTPStatus.OK else None)

    def _keys_of(self, peer_id: str) -> Callable[[str], PublicKey]:
        """Find keys of exactly this peer: another member's valid signature is no answer of this one."""

        def find_key(keyid: str) -> PublicKey:
            node_id, key = self._directory().http_key(keyid, self._clock.now())
            if node_id != peer_id:
                raise ProtocolError("unknown-key", "the answer is signed by another node", field="keyid")
            return key

        return find_key

    def _refusal(self, answer: PeerAnswer) -> Problem:
        remote = parse_problem(answer.body)
        return Problem(
            code=remote.code,
            retry_after_s=_whole(answer.headers.get("retry-after")),
            expected=_count(remote, "expected"),
            credit=_count(remote, "credit"),
            clock_skew_s=self._skew_s(remote) if remote.code == "clock-skew" else None,
        )

    def _skew_s(self, remote: RemoteProblem) -> int | None:
        """Return how far the peer's clock is ahead of ours, in seconds, of which a day is told at most."""
        theirs = remote.extra.get("server_time")
        if not isinstance(theirs, str):
            return None
        try:
            ahead_s = round((parse_rfc3339(theirs) - self._clock.now()).total_seconds())
        except ValueError:
            return None
        return max(-_SKEW_S_MAX, min(ahead_s, _SKEW_S_MAX))


def _count(remote: RemoteProblem, member: str) -> int | None:
    value = remote.extra.get(member)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _whole(header: str | None) -> int | None:
    """Return the number of a Retry-After (its date form is not used by HX/1) or HX-Credit, or None."""
    return int(header) if header is not None and _NUMBER.fullmatch(header) else None
