"""Calls to peers: one batch out, one verified answer back. Never raises for what a peer does; never retries."""

from collections.abc import Callable

from node.clock import Clock, parse_rfc3339
from node.hotline.domain.delivery import BatchAnswer, Problem
from node.platform.httpclient import PeerAnswer, PeerAnswerInvalid, PeerClient, PeerUnreachable
from protocol.batch import MEDIA_TYPE
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.keys import PublicKey
from protocol.problems import RemoteProblem, parse_problem


class PeerGateway:
    """The door to every peer's endpoints."""

    def __init__(self, client: PeerClient, clock: Clock, directory: Callable[[], Directory], own_id: str) -> None:
        """Take the signing client, and where a peer's keys are found."""
        self._client = client
        self._clock = clock
        self._directory = directory
        self._own_id = own_id

    async def put_batch(self, peer: NodeEntry, epoch: int, first_index: int, body: bytes) -> BatchAnswer:
        """PUT one batch to the peer's inbox and return its receipt or what went wrong."""
        url = f"{peer.base_url.rstrip('/')}/peer/v1/inbox/{self._own_id}/{epoch}/{first_index}"
        try:
            answer = await self._client.call(
                "PUT", url, self._keys_of(peer.id), headers={"content-type": MEDIA_TYPE}, body=body
            )
        except PeerUnreachable as error:
            return BatchAnswer(None, Problem(f"unreachable-{error.kind}"))
        except PeerAnswerInvalid as error:
            # A peer whose own clock is wrong cannot say so in an answer that we would believe.
            return BatchAnswer(None, Problem("clock-skew" if error.code == "clock-skew" else f"answer-{error.code}"))
        if answer.status in {200, 201}:
            return BatchAnswer(answer.body)
        return self._refusal(answer)

    def _keys_of(self, peer_id: str) -> Callable[[str], PublicKey]:
        """Find keys of exactly this peer: another member's valid signature is no answer of this one."""

        def find_key(keyid: str) -> PublicKey:
            node_id, key = self._directory().http_key(keyid, self._clock.now())
            if node_id != peer_id:
                raise ProtocolError("unknown-key", "the answer is signed by another node", field="keyid")
            return key

        return find_key

    def _refusal(self, answer: PeerAnswer) -> BatchAnswer:
        remote = parse_problem(answer.body)
        problem = Problem(
            code=remote.code,
            retry_after_s=_retry_after_s(answer.headers.get("retry-after")),
            expected=_count(remote, "expected"),
            credit=_count(remote, "credit"),
        )
        return BatchAnswer(None, problem, self._skew_s(remote) if remote.code == "clock-skew" else None)

    def _skew_s(self, remote: RemoteProblem) -> int | None:
        """Return how far the peer's clock is ahead of ours, in seconds."""
        theirs = remote.extra.get("server_time")
        if not isinstance(theirs, str):
            return None
        try:
            return round((parse_rfc3339(theirs) - self._clock.now()).total_seconds())
        except ValueError:
            return None


def _count(remote: RemoteProblem, member: str) -> int | None:
    value = remote.extra.get(member)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _retry_after_s(header: str | None) -> float | None:
    """Return the delay of a Retry-After in seconds; its date form is not used by HX/1."""
    return float(header) if header is not None and header.isdigit() and len(header) <= 6 else None  # noqa: PLR2004 - a million seconds is beyond any cap
