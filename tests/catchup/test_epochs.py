"""A new epoch is taken only where the old one ended, exactly as it is held."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from node.hotline.store.desk import open_equivocations
from node.platform.ids import new_id
from protocol.batch import encode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import sign_checkpoint
from protocol.desk import Contradiction, Equivocation, encode, parse_equivocation
from protocol.directory import Directory
from protocol.epoch import BEGINNING_BYTES_MAX, encode_epoch, ended_epoch
from protocol.errors import ProtocolError
from protocol.evidence import make_proof
from protocol.keys import KeyUse
from protocol.merkle import EMPTY_ROOT, Edge, leaf_hash
from protocol.note import parse_note
from protocol.record import Handling
from tests.hotline.network import station
from tests.peers.simulator import Answer, PeerSimulator
from tests.world import World


@dataclass(slots=True)
class Teller:
    """A peer that begins epochs as a test wants it."""

    peer: PeerSimulator

    def ended(self, epoch: int, records: list[bytes]) -> Checkpoint:
        edge = Edge.EMPTY.extend([leaf_hash(record) for record in records])
        return Checkpoint(StreamId(self.peer.id, self.peer.target.id, epoch).origin(), edge.size, edge.root())

    def first(self, named: Checkpoint) -> bytes:
        now = self.peer.now()
        return encode_epoch(
            named,
            record_id=str(new_id(now)),
            iss=self.peer.id,
            aud=self.peer.target.id,
            now=now,
            handling=Handling("takedown", now + timedelta(days=1)),
        )

    async def tell(
        self, epoch: int, records: list[bytes], *, first: int = 0, history: tuple[bytes, ...] = ()
    ) -> Answer:
        log = self.ended(epoch, [*history, *records])
        keys = self.peer.keys.signing(KeyUse.STREAM)
        note = sign_checkpoint(log, keys, now_s=int(self.peer.now().timestamp())).to_bytes()
        path = f"/peer/v1/inbox/{self.peer.id}/{epoch}/{first}"
        return await self.peer.call("PUT", path, encode_batch(note, records))


async def test_an_epoch_begins_where_the_one_before_ended(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[1]) as nl, aiohttp.ClientSession() as session:
        peer = PeerSimulator(world.nodes[0], world.nodes[1], session)
        await peer.deliver(3)
        teller = Teller(peer)
        held = teller.ended(1, peer.taken)
        good = teller.first(held)

        async def refused(answer: Answer) -> str:
            before = await nl.value("SELECT count(*) FROM inbox")
            assert before == 3
            return str(answer.problem["code"])

        # No beginning, another stream's, one that is not whole, one after the next.
        assert await refused(await teller.tell(2, [peer.report()])) == "malformed"
        other = replace(held, origin=StreamId(peer.id, peer.target.id, 7).origin())
        assert await refused(await teller.tell(2, [teller.first(other)])) == "malformed"
        assert await refused(await teller.tell(2, [peer.report()], first=1, history=(good,))) == "stream-gap"
        assert await refused(await teller.tell(3, [good])) == "malformed"
        # More than is held has to come first; less, or another root, is a second story.
        more = teller.ended(1, [*peer.taken, peer.report()])
        assert await refused(await teller.tell(2, [teller.first(more)])) == "stream-gap"
        assert await nl.value("SELECT count(*) FROM equivocations") == 0
        less = teller.ended(1, peer.taken[:2])
        assert await refused(await teller.tell(2, [teller.first(less)])) == "equivocation"
        assert await nl.value("SELECT count(*) FROM equivocations") == 1
        taken = await teller.tell(2, [good])
        assert taken.status == 200
        # Sent again it is answered with the same receipt; the old epoch still proves what it proved, and is over.
        assert (await teller.tell(2, [good])).body == taken.body
        assert (await peer.get(f"/peer/v1/receipts/{peer.id}/1/2")).body == peer.receipts[-1]
        # A key that was changed meanwhile makes receipts worthless; what the sender signed stays.
        async with nl.node.db.transaction("test.worthless") as tx:
            await tx.execute("UPDATE inbound_batches SET worthless = true WHERE first = 0")
        again = await peer.put(peer.batch(1))
        assert again.problem["code"] == "equivocation"
        assert await nl.value("SELECT count(*) FROM inbox") == 4
        # Both are kept with the record that says where the epoch ended: together they prove it, to anybody.
        async with nl.node.db.transaction("test.read") as tx:
            kept = await open_equivocations(tx, UUID(int=0), 10, "desk", peer.now())
            following = await open_equivocations(tx, kept[0]["id"], 10, "desk", peer.now())
            # The one that had its turn comes after the other.
            assert [row["id"] for row in following] == [kept[1]["id"], kept[0]["id"]]
        shown = [_handed_in(row, nl.node.directory()) for row in kept]
        assert [(one.stream, one.proven) for one in shown] == [(StreamId(peer.id, peer.target.id, 1), True)] * 2
        # Without that record, with one of elsewhere, or with one that agrees, they prove nothing.
        taken_note = parse_note(taken.body)
        agreeing = make_proof(good, 0, (), taken_note.to_bytes())
        for row, ending in ((kept[0], None), (kept[0], kept[1]["ending"]), (kept[1], kept[0]["ending"])):
            with pytest.raises(ProtocolError) as refusal:
                _handed_in({**row, "ending": ending}, nl.node.directory())
            assert (refusal.value.code, refusal.value.field) == ("schema-invalid", "ending")
        with pytest.raises(ProtocolError, match="denies nothing"):
            _handed_in({**kept[0], "offered": taken.body, "ending": agreeing}, nl.node.directory())


def _handed_in(row: Mapping[str, Any], directory: Directory) -> Contradiction:
    """Return what the desk reads of a proof that was kept."""
    ending = None if row["ending"] is None else row["ending"].decode()
    said = Equivocation(
        held=row["held"].decode(), offered=row["offered"].decode(), ending=ending, seen_at=row["seen_at"]
    )
    return parse_equivocation(encode(said), directory)[1]


async def test_an_epoch_may_follow_one_that_carried_nothing(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[1]), aiohttp.ClientSession() as session:
        teller = Teller(PeerSimulator(world.nodes[0], world.nodes[1], session))
        nothing = teller.ended(1, [])
        assert nothing.root == EMPTY_ROOT
        assert (await teller.tell(2, [teller.first(nothing)])).status == 200


async def test_a_node_gets_its_own_records_back_and_nobody_elses(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[1]), aiohttp.ClientSession() as session:
        peer = PeerSimulator(world.nodes[0], world.nodes[1], session)
        await peer.deliver(3)
        answer = await peer.get(f"/peer/v1/inbox/{peer.id}/1?from=1")
        assert answer.body == peer.receipts[-1] + b"\n" + b"".join(record + b"\n" for record in peer.taken[1:])
        nothing = await peer.get(f"/peer/v1/inbox/{peer.id}/1?from=3")
        assert (nothing.status, nothing.body) == (404, b'{"written": 3, "epoch": 1}')
        assert (await peer.get(f"/peer/v1/inbox/{peer.target.id}/1?from=0")).problem["code"] == "wrong-audience"


ORIGIN = "hx/1/fr.hotline.example/nl.hotline.example/1"


def test_only_the_status_of_an_epoch_begins_one() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        ended_epoch(b"{}", ORIGIN)


def test_an_epoch_s_first_record_is_small_enough_for_the_desk() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    stream = StreamId.parse(ORIGIN)
    raw = encode_epoch(
        Checkpoint(ORIGIN, 0, EMPTY_ROOT),
        record_id=str(new_id(now)),
        iss=stream.iss,
        aud=stream.aud,
        now=now,
        handling=Handling("takedown", now),
    )
    assert ended_epoch(raw, ORIGIN).size == 0
    with pytest.raises(ProtocolError, match="malformed"):
        ended_epoch(raw[:-1] + b',"more":"' + b"x" * BEGINNING_BYTES_MAX + b'"}', ORIGIN)
