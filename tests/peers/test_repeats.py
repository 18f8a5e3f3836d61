"""Repeats, other cuts, batches at once, and a stream that tells two stories."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest

from node.hotline.api.health import warnings_of
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.hotline.store.inbound import EQUIVOCATIONS_MAX
from protocol.checkpoint import Checkpoint
from protocol.cosignature import verify_checkpoint
from protocol.keys import KeyUse
from protocol.note import parse_note
from tests.peers.network import Hub
from tests.peers.simulator import Answer, Batch, PeerSimulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

CUTS = (5, 9, 12)


async def held_in_cuts(hub: Hub) -> PeerSimulator:
    """Return a peer of whom twelve records are held, in batches that end at CUTS."""
    peer = await hub.peer()
    for begin, end in zip((0, *CUTS), CUTS, strict=False):
        await peer.deliver(end - begin)
    return peer


def first_receipt(peer: PeerSimulator, index: int) -> bytes:
    """Return the receipt of the batch that a record came in."""
    return peer.receipts[sum(cut <= index for cut in CUTS)]


async def test_the_same_batch_again_is_answered_with_the_stored_receipt(hub: Hub) -> None:
    peer = await hub.peer()
    batch = peer.batch(3)
    receipt = await peer.deliver(batch)
    before = await hub.holdings(peer)
    for _ in range(3):
        assert (await peer.put(batch)).body == receipt
    # Signed anew, at another time, it is still the same batch.
    assert (await peer.put(peer.cut(0, 3))).body == receipt
    after = await hub.holdings(peer)
    assert (after.size, after.records, after.batches) == (before.size, before.records, before.batches)


async def test_every_other_cut_is_answered_with_a_stored_receipt_byte_for_byte(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    before = await hub.holdings(peer)
    for first in range(12):
        for end in range(first + 1, 13):
            answer = await peer.put(peer.cut(first, end))
            assert answer.status == 200
            assert answer.body == first_receipt(peer, first), (first, end)
    after = await hub.holdings(peer)
    assert (after.size, after.records, after.batches) == (12, 12, 3)
    assert after.nonces == before.nonces + 78


async def test_a_cut_that_extends_leads_to_the_old_receipt_and_then_to_a_new_one(hub: Hub) -> None:
    """One receipt covers a record (PROTOCOL, I3): what is held keeps its own, what is new gets one of its own."""
    peer = await held_in_cuts(hub)
    new = peer.reports(4)
    for first in range(12):
        answer = await peer.put(peer.batch([*peer.taken[first:], *new], first=first))
        assert answer.body == first_receipt(peer, first)
        assert (await hub.holdings(peer)).size == 12
    receipt = await peer.deliver(new)
    assert peer.check_receipt(receipt).size == 16
    assert (await hub.holdings(peer)).batches == 4


async def test_a_repeat_that_nobody_signed_is_no_repeat(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    repeat = peer.cut(2, 7)
    stranger = await hub.peer()
    unsigned = replace(repeat, note=peer.sign(repeat.checkpoint, stranger.keys.signing(KeyUse.STREAM)))
    await hub.refuses(peer, peer.put(unsigned), "bad-signature")


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_three_batches_at_once_are_taken_in_whatever_order_they_come(hub: Hub, order: tuple[int, ...]) -> None:
    peer = await hub.peer()
    await peer.deliver(1)
    batches: list[Batch] = []
    said = list(peer.taken)
    for _ in range(3):
        batches.append(peer.batch(2, history=said))
        said += batches[-1].records
    hub.clock.haste = 1.0
    try:
        answers = await asyncio.gather(*(peer.put(batches[at]) for at in order))
    finally:
        hub.clock.haste = 100.0
    assert {at: answer.status for at, answer in zip(order, answers, strict=True)} == {0: 200, 1: 200, 2: 200}
    for at, answer in zip(order, answers, strict=True):
        assert peer.check_receipt(answer.body) == batches[at].checkpoint
    assert (await hub.holdings(peer)).size == 7


async def test_the_same_batch_twice_at_once_is_stored_once(hub: Hub) -> None:
    peer = await hub.peer()
    batch = peer.batch(5)
    answers = await asyncio.gather(*(peer.put(batch) for _ in range(6)))
    assert len({answer.body for answer in answers}) == 1
    held = await hub.holdings(peer)
    assert (held.size, held.records, held.batches) == (5, 5, 1)


# Two stories.


def other_leaf(peer: PeerSimulator) -> Batch:
    """Another record at the third index, truly signed."""
    return peer.batch([peer.report(), *peer.taken[3:]], first=2)


def other_leaf_and_more(peer: PeerSimulator) -> Batch:
    """Another record at the last held index, with new ones behind it."""
    return peer.batch(peer.reports(3), first=11)


def other_root(peer: PeerSimulator) -> Batch:
    """The records as they are held, under another root of that size."""
    return peer.batch(peer.taken[9:12], first=9, root=b"another root of this size, 32 by")


def other_root_in_between(peer: PeerSimulator) -> Batch:
    """Another root at a size that lies within a stored batch."""
    return peer.batch(peer.taken[5:7], first=5, root=b"another root of this size, 32 by")


@pytest.mark.parametrize("story", [other_leaf, other_leaf_and_more, other_root, other_root_in_between])
async def test_a_second_story_is_refused_and_both_checkpoints_are_kept(
    hub: Hub, story: Callable[[PeerSimulator], Batch]
) -> None:
    peer = await held_in_cuts(hub)
    offered = story(peer)
    problem = await hub.refuses(peer, peer.put(offered), "equivocation")
    assert problem["size"] == offered.checkpoint.size
    proof = await hub.row("SELECT origin, size, held, offered FROM equivocations WHERE peer = $1", peer.id)
    assert (proof["origin"], proof["size"]) == (peer.stream.origin(), offered.checkpoint.size)
    assert proof["offered"] == offered.note
    assert proof["held"] in peer.receipts
    for raw in (proof["held"], proof["offered"]):
        # Both are the sender's own word, with every key it has.
        note = parse_note(raw)
        told = Checkpoint.parse(note.text)
        verify_checkpoint(note, told, [key.public() for key in peer.keys.signing(KeyUse.STREAM)])
        assert told.origin == peer.stream.origin()


async def test_the_same_second_story_is_kept_once(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    offered = other_root(peer)
    for _ in range(3):
        await hub.problem(peer.put(offered), "equivocation")
    count = await hub.row("SELECT count(*) AS kept FROM equivocations WHERE peer = $1", peer.id)
    assert count["kept"] == 1


async def test_of_many_second_stories_the_first_are_kept_and_the_others_counted(hub: Hub) -> None:
    peer, more = await hub.peer(), 4
    await peer.deliver(EQUIVOCATIONS_MAX + more)
    for size in range(1, EQUIVOCATIONS_MAX + more + 1):
        other = peer.batch(size, first=0, history=[])
        for _ in range(2 if size == 1 else 1):
            await hub.problem(peer.put(other), "equivocation")
    kept = await hub.rows("SELECT size FROM equivocations WHERE peer = $1 ORDER BY size", peer.id)
    assert [row["size"] for row in kept] == list(range(1, EQUIVOCATIONS_MAX + 1))
    await Jobs(hub.node, Rounds(hub.node))._gauges()
    said = f"{peer.id} told two stories: {EQUIVOCATIONS_MAX} proofs of it are stored, and {more} more were seen"
    assert said in warnings_of(hub.node)


async def test_who_told_a_second_story_is_named_by_health_and_metrics(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    jobs = Jobs(hub.node, Rounds(hub.node))
    await jobs._gauges()
    assert not [one for one in warnings_of(hub.node) if peer.id in one]
    gauge = f'hotline_equivocations{{peer="{peer.id}"}}'
    assert gauge not in hub.node.metrics.render().decode()
    await hub.problem(peer.put(other_root(peer)), "equivocation")
    await jobs._gauges()
    assert f"{peer.id} told two stories: 1 proofs of it are stored" in warnings_of(hub.node)
    assert f"{gauge} 1.0" in hub.node.metrics.render().decode()


async def test_a_second_story_that_is_not_signed_accuses_nobody(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    stranger = await hub.peer()
    forged = other_leaf(peer)
    forged = replace(forged, note=peer.sign(forged.checkpoint, stranger.keys.signing(KeyUse.STREAM)))
    await hub.refuses(peer, peer.put(forged), "bad-signature")
    assert await hub.rows("SELECT 1 FROM equivocations WHERE peer = $1", peer.id) == []


async def test_a_wrong_copy_under_the_true_root_accuses_nobody(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    wrong_copy = replace(peer.cut(2, 6), records=(*peer.taken[2:5], peer.report()))
    await hub.refuses(peer, peer.put(wrong_copy), "root-mismatch", field="root")
    assert await hub.rows("SELECT 1 FROM equivocations WHERE peer = $1", peer.id) == []


# What can be asked afterwards.


async def test_receipts_and_the_newest_checkpoint_can_be_read_byte_for_byte(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    for index in range(12):
        answer = await peer.get(f"/peer/v1/receipts/{peer.id}/1/{index}")
        assert (answer.status, answer.body) == (200, first_receipt(peer, index))
    answer = await peer.get(f"/peer/v1/streams/{peer.id}")
    assert (answer.status, answer.body) == (200, peer.receipts[-1])


@pytest.mark.parametrize("place", ["1/12", "1/9223372036854775807", "2/0", "2147483647/0"])
async def test_a_receipt_that_is_not_held_is_said_to_be_so(hub: Hub, place: str) -> None:
    peer = await held_in_cuts(hub)
    answer = await peer.get(f"/peer/v1/receipts/{peer.id}/{place}")
    assert (answer.status, answer.body) == (404, b'{"held": null}')


@pytest.mark.parametrize(
    ("place", "field"),
    [("1/9223372036854775808", "index"), ("1/-1", "index"), ("2147483648/0", "epoch"), ("0/0", "epoch")],
)
async def test_a_place_that_no_stream_has_is_malformed(hub: Hub, place: str, field: str) -> None:
    peer = await held_in_cuts(hub)
    await hub.problem(peer.get(f"/peer/v1/receipts/{peer.id}/{place}"), "malformed", field=field)


async def test_a_stream_is_shown_to_its_own_node_only(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    other = await hub.peer()
    for path in (f"/peer/v1/receipts/{peer.id}/1/0", f"/peer/v1/streams/{peer.id}"):
        await hub.problem(other.get(path), "wrong-audience", field="iss")
    answer = await other.get(f"/peer/v1/streams/{other.id}")
    assert answer.status == 404


async def test_reading_is_verified_like_any_request(hub: Hub) -> None:
    peer = await held_in_cuts(hub)
    path = f"/peer/v1/streams/{peer.id}"
    request = peer.signed("GET", path)
    assert (await peer.exchange(request)).status == 200
    await hub.problem(peer.exchange(request), "replay", field="nonce")
    await hub.problem(peer.get(path, shift_s=-400), "clock-skew", field="signature-input")
    unsigned = replace(request, headers={"hx-version": "1"})
    await hub.problem(peer.exchange(unsigned), "bad-signature", field="signature-input")


async def test_a_member_learns_the_epoch_of_our_stream_to_it_and_others_do_not(hub: Hub) -> None:
    peer = await hub.peer()
    await peer.deliver([peer.spoiled(type="later")])
    await hub.applied(peer)
    answer = await peer.get("/.well-known/hx-node")
    assert b'"epochs":{"%s":1}' % peer.id.encode() in answer.body
    stranger: Answer = await peer.exchange(replace(peer.signed("GET", "/.well-known/hx-node"), headers={}))
    assert b'"epochs":{}' in stranger.body
