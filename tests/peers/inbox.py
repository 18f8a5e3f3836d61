"""The half of a simulated peer that takes batches: the conformance client's inbox, and the ways it misbehaves."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from node.conformance import inbox
from node.conformance.inbox import NOTE_TYPE, Arrival, Step, honest
from protocol.checkpoint import Checkpoint, StreamId
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, SigningKey
from protocol.note import Note, parse_note
from tests.world import TestNode

__all__ = ["Arrival", "Inbox", "Step", "honest"]


class Inbox(inbox.Inbox):
    """What a simulated peer holds of the stream of one node."""

    def __init__(
        self, node: TestNode, sender: TestNode, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        http = [sender.keys.http.public()]
        stream = [key.public() for key in sender.keys.signing(KeyUse.STREAM)]
        super().__init__(StreamId(sender.id, node.id, 1), node.settings.base_url, node.keys, http, stream, now)


# Steps.


def refuses(code: str, *, headers: Mapping[str, str] | None = None, **extra: object) -> Step:
    """Answer with a signed problem and take nothing."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        return arrival.refuse(ProtocolError(code, "as the test wants it", extra=extra), headers)

    return step


def says(status: int, body: bytes = b"", content_type: str = NOTE_TYPE, **headers: str) -> Step:
    """Answer without a signature, as a proxy or a stranger would, and take nothing."""

    async def step(_arrival: Arrival) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"content-type": content_type, **headers})

    return step


def signs(status: int, body: bytes) -> Step:
    """Answer anything under our true signature, and take nothing."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        return arrival.answer(status, body)

    return step


def takes(*, credit: int, signed: bool = True) -> Step:
    """Take the batch and say how much more can come; unsigned, somebody on the way says it."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        said = {"hx-credit": str(credit)}
        answer = arrival.answer(200, arrival.take(), headers=said if signed else None)
        answer.headers.update(said)
        return answer

    return step


def garbage(arrival_bytes: bytes) -> Step:
    """Answer with bytes that are no HTTP."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        if arrival.http.transport is not None:
            arrival.http.transport.write(arrival_bytes)
        return arrival.hang_up()

    return step


def answer_signed_by(key: SigningKey) -> Step:
    """Take the batch, and have the answer signed by another key than ours."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        return arrival.answer(200, arrival.take(), key=key)

    return step


def answer_to_another_request() -> Step:
    """Take the batch, and bind the answer to a request that was never sent."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        other = replace(arrival.request, headers={**arrival.request.headers, "signature": "hx=:AAAA:"})
        return arrival.answer(200, arrival.take(), to=other)

    return step


def receipt_signed_by(keys: Sequence[SigningKey]) -> Step:
    """Take the batch, and give a receipt cosigned by other keys than all of our receipt keys."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        arrival.take()
        return arrival.answer(200, arrival.receipt(arrival.checkpoint, arrival.note, keys))

    return step


def receipt_for(change: Callable[[Arrival], Checkpoint]) -> Step:
    """Take the batch, and give a receipt, truly signed, for another checkpoint."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        arrival.take()
        other = change(arrival)
        return arrival.answer(200, arrival.receipt(other, Note(other.text(), arrival.note.signatures)))

    return step


def receipt_without_the_sender() -> Step:
    """Take the batch, and give a receipt from which the sender's own signature lines are gone."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        note = parse_note(arrival.take())
        ours = tuple(one for one in note.signatures if one.name == f"{arrival.inbox.stream.aud}/receipt")
        return arrival.answer(200, Note(note.text, ours).to_bytes())

    return step


def hangs_up(*, after_taking: bool) -> Step:
    """Close the connection without an answer: before anything is stored, or when all of it is."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        if after_taking:
            arrival.take()
        return arrival.hang_up()

    return step


def waits_for(event: asyncio.Event) -> Step:
    """Take the batch, and answer only when the test says so."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        receipt = arrival.take()
        await event.wait()
        return arrival.answer(200, receipt)

    return step
