"""What the tested node says became of our records: its outcomes, as they come in or are fetched."""

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

from node.conformance.exchange import Answer, Exchange
from node.conformance.inbox import Inbox
from node.conformance.speaker import Speaker
from protocol.batch import decode_batch
from protocol.bodies import OutcomeBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, verify_checkpoint
from protocol.errors import ProtocolError
from protocol.keys import KeyUse
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note, parse_note
from protocol.record import parse_record

#: How long the node may hold a request for records that are not there yet.
_WAIT_S: Final = 5


@dataclass(frozen=True, slots=True)
class Told:
    """What an outcome says of one record: `accepted`, `kept` or the code of its refusal."""

    verdict: str
    field: str | None = None


class Outcomes(Protocol):
    """A way on which the node's stream to us arrives."""

    async def about(self, origin: str, index: int) -> Told | None:
        """Return what the node says of a record of the stream `origin`; None when it says nothing in time."""

    async def known(self, origin: str, index: int) -> Told | None:
        """Return what the node has said of a record by now."""


@dataclass(slots=True)
class Delivered:
    """Outcomes that the node delivers to our inbox."""

    inbox: Inbox
    wait_s: float

    async def about(self, origin: str, index: int) -> Told | None:
        """Return what the node says of a record; None when it says nothing in time."""
        try:
            async with asyncio.timeout(self.wait_s):
                while (told := find(self.inbox.everything(), origin, index)) is None:
                    self.inbox.changed.clear()
                    await self.inbox.changed.wait()
        except TimeoutError:
            return None
        return told

    async def known(self, origin: str, index: int) -> Told | None:
        """Return what the node has said of a record by now."""
        return find(self.inbox.everything(), origin, index)


@dataclass(slots=True)
class Fetched:
    """Outcomes that we fetch from the node's outbox, verified as a batch that is pushed would be.

    `records` is what was fetched by now of `epoch`, `before` that of the epochs before it; `offered` is False once the
    node said that it has no outbox.
    """

    speaker: Speaker
    exchange: Exchange
    wait_s: float
    records: list[bytes] = field(default_factory=list)
    offered: bool = True
    note: bytes = b""
    epoch: int = 1
    before: list[bytes] = field(default_factory=list)

    async def about(self, origin: str, index: int) -> Told | None:
        """Return what the node says of a record; None when it says nothing in time."""
        try:
            async with asyncio.timeout(self.wait_s):
                while (told := find([*self.before, *self.records], origin, index)) is None and self.offered:
                    await self.fetch(wait_s=_WAIT_S)
        except TimeoutError:
            return None
        return told

    async def known(self, origin: str, index: int) -> Told | None:
        """Return what the node has said of a record by now."""
        return find([*self.before, *self.records], origin, index)

    async def fetch(self, *, wait_s: int = 0) -> Answer:
        """Fetch what follows; raises ProtocolError or SignatureInvalid when that is no batch of the node's stream."""
        first = len(self.records)
        path = f"/peer/v1/outbox/{self.speaker.id}/{self.epoch}?from={first}&wait={wait_s}"
        answer = await self.exchange.send(self.speaker.signed("GET", path))
        if answer.status == HTTPStatus.NOT_FOUND:
            newest = answer.members().get("epoch")
            self.offered = type(newest) is int
            if type(newest) is int and newest > self.epoch:
                # The node recovered: what it says goes on in the epochs behind.
                self.before, self.records, self.epoch = [*self.before, *self.records], [], self.epoch + 1
                return await self.fetch(wait_s=wait_s)
        if answer.status == HTTPStatus.OK:
            note, records = self.opened(answer.body)
            self.records += records
            self.note = note
        return answer

    def opened(self, body: bytes) -> tuple[bytes, list[bytes]]:
        """Return note and records of a fetched batch; raises as `fetch`."""
        raw, records = decode_batch(body)
        note = parse_note(raw)
        covered = Checkpoint.parse(note.text)
        edge = Edge.EMPTY.extend(map(leaf_hash, [*self.records, *records]))
        if StreamId.parse(covered.origin) != StreamId(self.exchange.node_id, self.speaker.id, self.epoch):
            raise ProtocolError("wrong-audience", "it is not the node's stream to us", field="origin")
        if (edge.size, edge.root()) != (covered.size, covered.root):
            raise ProtocolError("root-mismatch", "the records do not lead to the signed root", field="root")
        now = self.speaker.now()
        keys = self.exchange.directory.verification_keys(self.exchange.node_id, KeyUse.STREAM, now)
        verify_checkpoint(note, covered, keys)
        return raw, records

    def receipt(self) -> tuple[int, bytes]:
        """Return the size of what was fetched last, and our receipt for it."""
        note = parse_note(self.note)
        covered = Checkpoint.parse(note.text)
        keys = self.speaker.keys.signing(KeyUse.RECEIPT)
        name, now_s = f"{self.speaker.id}/receipt", int(self.speaker.now().timestamp())
        ours = Note(note.text, tuple(one for one in note.signatures if one.name == covered.origin))
        return covered.size, cosign(ours, covered, name, keys, now_s=now_s).to_bytes()


def find(records: list[bytes], origin: str, index: int) -> Told | None:
    """Return what the outcomes among `records` say of a record of the stream `origin`."""
    for raw in records:
        try:
            body = parse_record(raw).body
        except ProtocolError:
            continue
        if not isinstance(body, OutcomeBody) or body.stream != origin:
            continue
        for verdict, ranges in (("accepted", body.accepted), ("kept", body.kept)):
            if any(first <= index <= last for first, last in ranges):
                return Told(verdict)
        for one in body.refused:
            if one.index == index:
                return Told(one.code, one.field)
    return None
