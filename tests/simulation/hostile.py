"""A member of the network that does not keep to the protocol: it signs garbage, forges, repeats, tells two stories."""

import asyncio
import base64
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from node.platform.httpclient import PeerUnreachable
from node.platform.ids import new_ids
from protocol.batch import MEDIA_TYPE, decode_batch, encode_batch
from protocol.bodies import Hosting, OutcomeBody, Qualification, Refusal, ReportBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import Channel, Classification, Kind
from protocol.cosignature import cosign, sign_checkpoint
from protocol.errors import ProtocolError
from protocol.keys import KeyUse, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.problems import problem_body
from protocol.profile import Request, Response, sign_request, sign_response
from protocol.record import Handling, encode_outcome, encode_report, parse_record
from tests.simulation import members
from tests.simulation.services import START

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True)
class _Told:
    """What it says to one node: its records, and how many of them that node has receipted."""

    records: list[bytes] = field(default_factory=list)
    acked: int = 0


@dataclass(slots=True)
class Hostile:
    """One hostile member; `mode` is how it treats what is sent to it."""

    world: "World"
    id: str
    mode: str
    told: dict[str, _Told] = field(default_factory=dict)
    given: set[UUID] = field(default_factory=set)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Take its own chances."""
        self.rng = random.Random(f"hostile {self.world.plan.seed}")

    # What it answers.

    async def answer(self, request: Request) -> Response:
        """Answer what is sent to it, in its own way."""
        if self.mode == "silent":
            await asyncio.Event().wait()
        if self.mode == "dead":
            raise PeerUnreachable("connect", "the peer does not take connections")
        if self.mode == "garbage":
            return Response(200, {"content-type": "text/plain"}, self.rng.randbytes(200))
        try:
            raw_note, records = decode_batch(request.body)
            note = parse_note(raw_note)
            self.given |= {UUID(parse_record(record).envelope.item) for record in records}
        except ProtocolError:
            return self._signed(request, Response(404, {"content-type": "application/json"}, b"{}"))
        checkpoint = Checkpoint.parse(note.text)
        if self.mode == "rewind":
            return self._problem(request, ProtocolError("stream-gap", "no", extra={"expected": 0}))
        if self.mode == "starve":
            return self._problem(request, ProtocolError("over-quota", "no", extra={"credit": 0}))
        if self.mode == "forge":
            leaves = [leaf_hash(self.rng.randbytes(5)) for _ in range(checkpoint.size)]
            checkpoint = Checkpoint(checkpoint.origin, checkpoint.size, Edge.EMPTY.extend(leaves).root())
            note = sign_checkpoint(checkpoint, self._keys(KeyUse.STREAM), now_s=self._now_s())
        name = StreamId.parse(checkpoint.origin).receipt_name()
        receipt = cosign(note, checkpoint, name, self._keys(KeyUse.RECEIPT), now_s=self._now_s())
        return self._signed(request, Response(200, {"content-type": "text/plain"}, receipt.to_bytes()))

    def _problem(self, request: Request, error: ProtocolError) -> Response:
        body = msgspec.json.encode(problem_body(error))
        return self._signed(request, Response(409, {"content-type": "application/problem+json"}, body))

    def _signed(self, request: Request, response: Response) -> Response:
        key = members.keys_of(self.id).http
        return response.adding(sign_response(response, request, key, created=self._now_s()))

    def _keys(self, use: KeyUse) -> tuple[SigningKey, ...]:
        return members.keys_of(self.id).signing(use)

    def _now_s(self) -> int:
        return int((START + timedelta(seconds=self.world.loop.time())).timestamp())

    def was_given(self, item: UUID) -> bool:
        """Tell whether a record of this item was sent here."""
        return item in self.given

    # What it says.

    async def attack(self, kind: str, target: str) -> None:
        """Do one thing to one node."""
        if kind == "replay":
            await self._replay(target)
        elif kind == "flood":
            await asyncio.gather(*(self._put(target, self.id, 0, self.rng.randbytes(300)) for _ in range(25)))
        elif kind == "garbage":
            await self._put(target, self.id, 0, self.rng.randbytes(self.rng.randrange(500)))
        elif kind == "impersonate":
            victim = self.rng.choice([one for one in self.world.stations if one != target] or [target])
            batch = self._batch(StreamId(victim, target, 1), [], [b"{}"])
            await self._refused(target, victim, 0, batch)
        elif kind == "wrong-root":
            told = self.told.setdefault(target, _Told())
            stream = StreamId(self.id, target, 1)
            note = self._note(stream, [leaf_hash(b"another")] * (told.acked + 1))
            await self._refused(target, self.id, told.acked, encode_batch(note, [b"{}"]))
        elif kind == "equivocate":
            await self._equivocate(target)
        else:
            await self._tell(target, self._records(target))

    async def steal(self, target: str) -> None:
        """Ask in the name of the node whose old keys these are."""
        receiver = self.world.stations[target]
        known = self.world.checks.versions.get(target, 1)
        request = Request("GET", f"https://{target}/peer/v1/streams/{self.id}", {}, b"")
        nonce = base64.b64encode(self.rng.randbytes(16)).decode()
        headers = sign_request(request, members.keys_of(self.id).http, created=self._now_s(), nonce=nonce)
        answer = await self._exchange(request.adding(headers))
        # Where the clock is behind, the keys count for longer; and who recovers has no such door, and looks at no key.
        serves = receiver.run is not None and receiver.run.node is not None
        told = serves and known >= self.world.rekeyed_in and receiver.clock.ahead_s >= 0
        if answer is not None and answer.status in {200, 404} and told:
            self.world.violated("I5", f"{target} answered a caller with a retired key of {self.id}")

    async def _tell(self, target: str, records: list[bytes]) -> None:
        """Say records that can be taken as a batch, and go on from where the last batch was receipted."""
        told = self.told.setdefault(target, _Told())
        told.records += records
        for _ in range(3):
            until = min(len(told.records), told.acked + self.world.plan.batch_records_max)
            if until == told.acked:
                return
            leaves = [leaf_hash(record) for record in told.records[: told.acked]]
            batch = self._batch(StreamId(self.id, target, 1), leaves, told.records[told.acked : until])
            answer = await self._put(target, self.id, told.acked, batch)
            if answer is None or answer.status != 200:
                return
            told.acked = max(told.acked, Checkpoint.parse(parse_note(answer.body).text).size)

    async def _equivocate(self, target: str) -> None:
        """Sign another story of what was receipted."""
        told = self.told.setdefault(target, _Told())
        if not told.acked:
            await self._tell(target, self._records(target))
        if not told.acked:
            return
        at = self.rng.randrange(told.acked)
        leaves = [leaf_hash(record) for record in told.records[:at]]
        batch = self._batch(StreamId(self.id, target, 1), leaves, [b'{"other":1}'])
        if target in self.world.restores.ever:
            # What it had receipted may be lost, and its giver be left out of the recovery.
            await self._put(target, self.id, at, batch)
        else:
            await self._refused(target, self.id, at, batch)

    async def _replay(self, target: str) -> None:
        """Send again what it saw on the wire."""
        seen = [request for _, to, request in self.world.network.captured if to == target]
        if seen:
            await self._exchange(self.rng.choice(seen))

    async def _refused(self, target: str, iss: str, first: int, batch: bytes) -> None:
        answer = await self._put(target, iss, first, batch)
        if answer is not None and answer.status == 200:
            self.world.violated("I5", f"{target} took a batch that proves nothing")

    async def _put(self, target: str, iss: str, first: int, body: bytes) -> Response | None:
        request = Request("PUT", f"https://{target}/peer/v1/inbox/{iss}/1/{first}", {"content-type": MEDIA_TYPE}, body)
        nonce = base64.b64encode(self.rng.randbytes(16)).decode()
        headers = sign_request(request, members.keys_of(self.id).http, created=self._now_s(), nonce=nonce)
        return await self._exchange(request.adding(headers))

    async def _exchange(self, request: Request) -> Response | None:
        try:
            return await self.world.network.exchange(self.id, request, 8.0)
        except PeerUnreachable:
            return None

    def _batch(self, stream: StreamId, leaves: list[bytes], records: list[bytes]) -> bytes:
        return encode_batch(self._note(stream, [*leaves, *map(leaf_hash, records)]), records)

    def _note(self, stream: StreamId, leaves: list[bytes]) -> bytes:
        edge = Edge.EMPTY.extend(leaves)
        checkpoint = Checkpoint(stream.origin(), edge.size, edge.root())
        return sign_checkpoint(checkpoint, self._keys(KeyUse.STREAM), now_s=self._now_s()).to_bytes()

    def _records(self, target: str) -> list[bytes]:
        """Some records, good and bad."""
        kinds = ("good", "good", "garbage", "other-country", "other-audience", "other-issuer", "known-item", "outcome")
        return [self._record(self.rng.choice(kinds), target) for _ in range(self.rng.randint(1, 4))]

    def _record(self, kind: str, target: str) -> bytes:
        now = START + timedelta(seconds=self.world.loop.time())
        record_id, case, item = (str(one) for one in new_ids(3, now))
        handling = Handling("takedown", now + timedelta(days=30))
        if kind == "garbage":
            return b'{"v":1,"type":"report","n":%d}' % self.rng.randrange(1000)
        if kind == "outcome":
            body = OutcomeBody(
                stream=StreamId(target, self.id, 1).origin(),
                accepted=(),
                kept=(),
                refused=(
                    Refusal(index=self.rng.randrange(40), id=None, code="not-competent", detail="no", field=None),
                ),
            )
            return encode_outcome(body, record_id=record_id, iss=self.id, aud=target, iat=now, handling=handling)
        others = [one for one in self.world.stations if one != target]
        country = self.world.stations[target].country
        known = [row["id"] for row in self.world.stations[target].disk.rows("items")]
        if kind == "known-item" and known:
            item = str(self.rng.choice(known))
        return encode_report(
            ReportBody(
                url=f"https://{record_id}.hostile.example/",
                kind=Kind.PAGE,
                channel=Channel.PUBLIC,
                received_at=now,
                qualification=Qualification(classification=Classification.BASELINE, at=now),
                hosting=Hosting(
                    country="JP" if kind == "other-country" else country,
                    assigned_country="JP" if kind == "other-country" else country,
                    confidence=95,
                    reasons=(),
                    evidence={},
                ),
            ),
            record_id=record_id,
            case=case,
            item=item,
            iss=others[0] if kind == "other-issuer" and others else self.id,
            aud=others[0] if kind == "other-audience" and others else target,
            iat=now,
            handling=handling,
        )
