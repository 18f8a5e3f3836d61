"""Calls to the network's desk: disputes and contradictions in, rulings out. Never raises for what the desk does."""

from http import HTTPStatus
from uuid import UUID

import msgspec

from node.hotline.domain.delivery import DISPUTE_UNKNOWN, Problem
from node.hotline.gateways.peers import PeerGateway
from protocol.directory import DeskEntry

_JSON = {"content-type": "application/json"}
_ANSWER_BYTES_MAX = 16_384


class DeskGateway:
    """The door to the desk."""

    def __init__(self, peers: PeerGateway) -> None:
        """Take the gateway that signs calls and verifies answers."""
        self._peers = peers

    async def dispute(self, desk: DeskEntry, statement: bytes) -> Problem | None:
        """Hand a dispute in; None when the desk has it."""
        answer = await self._peers.call(
            desk, "POST", "/peer/v1/disputes", headers=_JSON, body=statement, answer_bytes_max=_ANSWER_BYTES_MAX
        )
        return answer if isinstance(answer, Problem) else None

    async def equivocation(self, desk: DeskEntry, body: bytes) -> Problem | None:
        """Hand a contradiction in; None when the desk has it."""
        answer = await self._peers.call(
            desk, "POST", "/peer/v1/equivocations", headers=_JSON, body=body, answer_bytes_max=_ANSWER_BYTES_MAX
        )
        return answer if isinstance(answer, Problem) else None

    async def ruling(self, desk: DeskEntry, dispute: UUID) -> bytes | Problem | None:
        """Return the desk's ruling as it signed it, or None while there is none.

        A desk that has no such dispute, since it is another or was restored, is a problem of code DISPUTE_UNKNOWN.
        """
        answer = await self._peers.call(desk, "GET", f"/peer/v1/disputes/{dispute}", answer_bytes_max=_ANSWER_BYTES_MAX)
        if isinstance(answer, Problem):
            return answer
        if answer.status == HTTPStatus.OK:
            return answer.body
        return None if _holds(answer.body) else Problem(DISPUTE_UNKNOWN)


def _holds(body: bytes) -> bool:
    """Say whether an answer without a ruling says that the desk has the dispute."""
    try:
        return msgspec.json.decode(body, type=_NoRuling).held
    except msgspec.MsgspecError:
        return True


class _NoRuling(msgspec.Struct):
    held: bool = True
