"""The sender's side: whatever a receiver does, the decision is the specified one, and everything arrives exactly once.

The receiver is a simulated peer that really verifies and signs. After each misdeed it behaves, and `arrived` shows
that it then holds every record once, in order, and that the sender holds verified receipts for all of them.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from aiohttp import web

from node.clock import rfc3339
from node.hotline.domain.delivery import KEY_PROBLEMS_QUIET
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import verify_checkpoint, verify_cosignature
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.note import parse_note
from protocol.problems import REGISTRY
from tests.peers.conftest import OpenInbox
from tests.peers.inbox import (
    Arrival,
    Inbox,
    Step,
    answer_signed_by,
    answer_to_another_request,
    garbage,
    hangs_up,
    honest,
    receipt_for,
    receipt_signed_by,
    receipt_without_the_sender,
    refuses,
    says,
    signs,
    takes,
    waits_for,
)
from tests.peers.network import Hub, add_key, edit_keys
from tests.peers.simulator import PeerSimulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = SigningKey(Algorithm.ED25519, b"stranger" * 4)
NEW_RECEIPT_KEYS = [SigningKey(algorithm, b"receipt2" * 4) for algorithm in Algorithm]


async def arrived(hub: Hub, peer: PeerSimulator, inbox: Inbox, records: Sequence[bytes]) -> None:
    """Wait for the last receipt; then each record is held once, in order, and proven to the sender."""
    await hub.until(
        "SELECT c.acked_size = s.next_index AND s.next_index = $2 AS met FROM outbound_streams s "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1",
        peer.id,
        len(records),
    )
    assert inbox.records == list(records)
    rows = await hub.rows(
        "SELECT r.size, r.note FROM receipts r JOIN outbound_streams s ON s.id = r.stream WHERE s.peer = $1 "
        "ORDER BY r.size",
        peer.id,
    )
    assert rows[-1]["size"] == len(records)
    for row in rows:
        check_receipt(hub, peer, row["size"], row["note"])
    contact = await hub.row("SELECT failures, retry_at, last_problem FROM peers WHERE node_id = $1", peer.id)
    assert (contact["failures"], contact["retry_at"], contact["last_problem"]) == (0, None, None)


def check_receipt(hub: Hub, peer: PeerSimulator, size: int, raw: bytes) -> None:
    """Raise unless the receipt is signed by the sender and cosigned by the peer, with every key of both."""
    note = parse_note(raw)
    covered = Checkpoint.parse(note.text)
    assert (covered.origin, covered.size) == (StreamId(hub.id, peer.id, 1).origin(), size)
    ours = [key.public() for key in hub.node.keys.signing(KeyUse.STREAM)]
    theirs = [key.public() for key in peer.keys.signing(KeyUse.RECEIPT)]
    verify_checkpoint(note, covered, ours)
    verify_cosignature(note, covered, f"{peer.id}/receipt", theirs)


def decisions(hub: Hub, peer: PeerSimulator) -> list[tuple[str, bool]]:
    """Return what the sender logged of batches not taken: (code, alarm)."""
    return [(line["code"], line["alarm"]) for line in hub.logged(action="deliver.failed", peer=peer.id)]


def with_root(root: bytes, size: int | None = None) -> Callable[[Arrival], Checkpoint]:
    return lambda arrival: Checkpoint(
        arrival.checkpoint.origin, arrival.checkpoint.size if size is None else size, root
    )


def other_origin(arrival: Arrival) -> Checkpoint:
    own = arrival.checkpoint
    return Checkpoint(StreamId("other.hotline.example", arrival.inbox.stream.aud, 1).origin(), own.size, own.root)


# An answer that is not provably the peer's, or none: try again after a while.
MISDEEDS: list[tuple[str, Callable[[PeerSimulator, Hub], Step], str, bool]] = [
    ("unsigned-200", lambda _p, _h: says(200, b"thanks"), "answer-bad-signature", False),
    ("unsigned-404", lambda _p, _h: says(404, b"nobody here"), "answer-bad-signature", False),
    ("unsigned-500", lambda _p, _h: says(500, b"oh"), "answer-bad-signature", False),
    ("unsigned-503", lambda _p, _h: says(503, b"back soon"), "unreachable-gateway", False),
    ("redirect", lambda _p, _h: says(307, location="http://elsewhere.invalid/"), "answer-bad-signature", False),
    (
        "no-ascii",
        lambda _p, _h: says(200, b"", **{"signature": "\xff", "signature-input": "\xff"}),
        "answer-malformed",
        False,
    ),
    ("no-http", lambda _p, _h: garbage(b"\x00\x01 no http at all\r\n\r\n"), "unreachable-disconnected", False),
    (
        "half-an-answer",
        lambda _p, _h: garbage(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
        "unreachable-disconnected",
        False,
    ),
    ("stranger's-answer", lambda _p, _h: answer_signed_by(STRANGER), "answer-unknown-key", False),
    ("sender's-own-key", lambda _p, hub: answer_signed_by(hub.node.keys.http), "answer-unknown-key", False),
    ("answer-to-another-request", lambda _p, _h: answer_to_another_request(), "answer-bad-signature", False),
    ("far-too-long", lambda _p, _h: signs(200, bytes(4_194_305)), "answer-too-large", False),
    # An answer of the peer that is no receipt for what was sent: a person should know.
    ("signed-garbage", lambda _p, _h: signs(200, b"thanks"), "bad-receipt", True),
    ("signed-nothing", lambda _p, _h: signs(200, b""), "bad-receipt", True),
    (
        "receipt-without-ml-dsa",
        lambda peer, _h: receipt_signed_by(peer.keys.signing(KeyUse.RECEIPT)[:1]),
        "bad-receipt",
        True,
    ),
    (
        "receipt-by-stream-keys",
        lambda peer, _h: receipt_signed_by(peer.keys.signing(KeyUse.STREAM)),
        "bad-receipt",
        True,
    ),
    ("receipt-by-a-stranger", lambda _p, _h: receipt_signed_by([STRANGER]), "bad-receipt", True),
    ("receipt-for-another-root", lambda _p, _h: receipt_for(with_root(b"r" * 32)), "bad-receipt", True),
    ("receipt-for-more", lambda _p, _h: receipt_for(with_root(b"r" * 32, 99)), "bad-receipt", True),
    ("receipt-for-less", lambda _p, _h: receipt_for(with_root(b"r" * 32, 3)), "bad-receipt", True),
    ("receipt-for-another-stream", lambda _p, _h: receipt_for(other_origin), "bad-receipt", True),
    ("receipt-without-the-sender", lambda _p, _h: receipt_without_the_sender(), "bad-receipt", True),
]


@pytest.mark.parametrize(("step", "code", "alarm"), [case[1:] for case in MISDEEDS], ids=[case[0] for case in MISDEEDS])
async def test_after_a_misdeed_everything_arrives_once(
    sender: Hub, open_inbox: OpenInbox, step: Callable[[PeerSimulator, Hub], Step], code: str, *, alarm: bool
) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(step(peer, sender), honest, step(peer, sender))
    records = await sender.queue(peer, 20)
    await arrived(sender, peer, inbox, records)
    met = decisions(sender, peer)
    assert met == [(code, alarm)] * 2


@pytest.mark.parametrize("after_taking", [False, True], ids=["before-taking", "response-lost"])
async def test_a_connection_that_breaks_off_loses_and_doubles_nothing(
    sender: Hub, open_inbox: OpenInbox, *, after_taking: bool
) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(hangs_up(after_taking=after_taking), honest, honest, hangs_up(after_taking=after_taking))
    records = await sender.queue(peer, 20)
    await arrived(sender, peer, inbox, records)
    assert list(inbox.receipts) == [8, 16, 20]
    # The HTTP client may send a request again by itself, which a receiver that took it before calls a replay.
    assert {code for code, _ in decisions(sender, peer)} <= {"unreachable-disconnected", "replay"}


async def test_an_answer_signed_by_another_member_counts_for_nothing(sender: Hub, open_inbox: OpenInbox) -> None:
    other = await sender.peer()
    peer, inbox = await open_inbox(sender)
    inbox.does(answer_signed_by(other.keys.http), receipt_signed_by(other.keys.signing(KeyUse.RECEIPT)))
    records = await sender.queue(peer, 3)
    await arrived(sender, peer, inbox, records)
    assert decisions(sender, peer) == [("answer-unknown-key", False), ("bad-receipt", True)]


#: Problems after which a person is told.
ALARMS = {
    "equivocation",
    "root-mismatch",
    "wrong-audience",
    "malformed",
    "clock-skew",
}


@pytest.mark.parametrize("code", sorted(REGISTRY))
async def test_every_problem_of_the_registry_is_survived(sender: Hub, open_inbox: OpenInbox, code: str) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(refuses(code))
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    assert decisions(sender, peer) == [(code, code in ALARMS)]
    # Only what speaks of size is answered with another cut.
    assert inbox.arrivals[1] == ((0, 4) if code in {"too-large", "over-quota"} else (0, 8))


async def test_a_refusal_of_our_keys_is_an_alarm_only_when_it_goes_on(sender: Hub, open_inbox: OpenInbox) -> None:
    """Around a change of keys the peer's directory or clock may be behind: that passes, and nobody need look."""
    peer, inbox = await open_inbox(sender)
    code = "unknown-key"
    inbox.does(*[refuses(code)] * (KEY_PROBLEMS_QUIET + 1))
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    assert decisions(sender, peer) == [(code, False)] * KEY_PROBLEMS_QUIET + [(code, True)]


async def test_a_slow_peer_is_asked_again_and_answers_with_the_same_receipt(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    answered = asyncio.Event()
    inbox.does(waits_for(answered))
    records = await sender.queue(peer, 3)
    try:
        await arrived(sender, peer, inbox, records)
    finally:
        answered.set()
    assert decisions(sender, peer) == [("unreachable-timeout", False)]
    assert list(inbox.receipts) == [3]


async def test_credit_cuts_the_next_batch_and_receipts_let_it_grow(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(refuses("over-quota", credit=3))
    records = await sender.queue(peer, 20)
    await arrived(sender, peer, inbox, records)
    assert inbox.arrivals == [(0, 8), (0, 3), (3, 6), (9, 8), (17, 3)]
    assert decisions(sender, peer) == [("over-quota", False)]


async def test_the_credit_in_a_receipt_bounds_what_follows(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(takes(credit=2), takes(credit=0), takes(credit=500))
    records = await sender.queue(peer, 20)
    await arrived(sender, peer, inbox, records)
    assert inbox.arrivals == [(0, 8), (8, 2), (10, 1), (11, 8), (19, 1)]
    assert decisions(sender, peer) == []


async def test_credit_that_the_peer_did_not_sign_is_no_credit(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(takes(credit=1, signed=False))
    records = await sender.queue(peer, 16)
    await arrived(sender, peer, inbox, records)
    assert inbox.arrivals == [(0, 8), (8, 8)]


async def test_credit_counts_even_beside_a_retry_after(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(refuses("over-quota", headers={"retry-after": "600"}, credit=2))
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    assert inbox.arrivals[:2] == [(0, 8), (0, 2)]


async def test_maintenance_with_credit_left_is_used(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(refuses("maintenance", credit=1))
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    assert inbox.arrivals[:2] == [(0, 8), (0, 1)]


async def test_too_large_is_halved_down_to_one_record_then_told_to_a_person(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(*(refuses("too-large") for _ in range(4)))
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    assert inbox.arrivals == [(0, 8), (0, 4), (0, 2), (0, 1), (0, 8)]
    assert decisions(sender, peer) == [*[("too-large", False)] * 3, ("too-large", True)]


async def test_a_peer_restored_from_a_backup_gets_again_what_it_lost(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    inbox.forget(3)
    records += await sender.queue(peer, 2)
    await arrived(sender, peer, inbox, records)
    # What it had receipted comes in the cut of that time, so that the receipt of that time is its own again.
    assert inbox.arrivals[1:] == [(8, 2), (3, 5), (8, 2)]
    assert decisions(sender, peer) == [("stream-gap", False)]


async def test_a_peer_restored_after_an_outage_gets_again_what_it_lost(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    await inbox.close()
    records += await sender.queue(peer, 2)
    # Several attempts fail before it is back.
    await sender.until("SELECT failures > 2 AS met FROM peers WHERE node_id = $1", peer.id)
    inbox.forget(0)
    await inbox.listen()
    await arrived(sender, peer, inbox, records)
    assert ("stream-gap", False) in decisions(sender, peer)


async def test_a_gap_that_cannot_be_skips_nothing(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(refuses("stream-gap", expected=5), refuses("stream-gap", expected=0), refuses("stream-gap", expected=99))
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    assert inbox.arrivals == [(0, 8)] * 4
    assert decisions(sender, peer) == [("stream-gap", True)] * 3


async def test_a_peer_that_rewinds_for_ever_is_left_alone_in_between(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    records = await sender.queue(peer, 8)
    await arrived(sender, peer, inbox, records)
    inbox.does(*(refuses("stream-gap", expected=expected) for expected in (7, 6, 5, 4)))
    records += await sender.queue(peer, 1)
    await arrived(sender, peer, inbox, records)
    # One rewind at once, then a pause; the next attempt begins where the receipts end.
    assert inbox.arrivals[1:] == [(8, 1), (7, 1), (8, 1), (5, 3), (8, 1)]


async def test_a_peer_that_stops_listening_gets_everything_when_it_is_back(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender, listen=False)
    records = await sender.queue(peer, 20)
    await sender.until("SELECT failures > 1 AS met FROM peers WHERE node_id = $1", peer.id)
    assert {code for code, _ in decisions(sender, peer)} == {"unreachable-connect"}
    await inbox.listen()
    await arrived(sender, peer, inbox, records)


async def test_a_receipt_given_before_the_keys_were_changed_is_still_one(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    # The receipt is signed a minute before the keys change, and comes with the repeat after it.
    inbox.now = lambda: sender.clock.now() - timedelta(seconds=60)
    changed = asyncio.Event()

    async def change_keys(arrival: Arrival) -> web.StreamResponse:
        arrival.take()
        edit_keys(peer.node, "receipt", state="retired", retired_at=rfc3339(sender.clock.now()))
        for key in NEW_RECEIPT_KEYS:
            add_key(peer.node, "receipt", key, sender.clock.now())
        await sender.new_directory()
        changed.set()
        return arrival.hang_up()

    inbox.does(change_keys)
    records = await sender.queue(peer, 8)
    await changed.wait()
    await arrived(sender, peer, inbox, records)


@pytest.mark.parametrize("record_bytes", [61_440, 58_190, 52_380], ids=["17-in-a-batch", "18", "20"])
async def test_large_records_stay_within_the_bytes_of_a_batch(
    fast_sender: Hub, open_inbox: OpenInbox, record_bytes: int
) -> None:
    """So many records of this size nearly fill a batch that there is hardly room for the checkpoint before them."""
    peer, inbox = await open_inbox(fast_sender)
    records = await fast_sender.queue(peer, 1, evidence_bytes=1)
    bare = len(records[0])
    records += await fast_sender.queue(peer, 40, evidence_bytes=record_bytes - bare + 1)
    assert {len(record) for record in records[1:]} == {record_bytes}
    await arrived(fast_sender, peer, inbox, records)
    assert decisions(fast_sender, peer) == []


STORM: tuple[Callable[[], Step], ...] = (
    lambda: honest,
    lambda: hangs_up(after_taking=True),
    lambda: hangs_up(after_taking=False),
    lambda: refuses("over-quota", credit=5),
    lambda: refuses("too-large"),
    lambda: refuses("maintenance"),
    lambda: refuses("stream-gap", expected=0),
    lambda: says(500),
    lambda: signs(200, b"thanks"),
    lambda: receipt_signed_by([STRANGER]),
)


@pytest.mark.parametrize("seed", range(2))
async def test_a_storm_of_faults_with_three_batches_in_flight(
    fast_sender: Hub, open_inbox: OpenInbox, seed: int
) -> None:
    draw = random.Random(seed)  # noqa: S311 - the same storm every time
    peer, inbox = await open_inbox(fast_sender)
    inbox.does(*(draw.choice(STORM)() for _ in range(25)))
    records = await fast_sender.queue(peer, 300)
    records += await fast_sender.queue(peer, 700)
    await arrived(fast_sender, peer, inbox, records)


async def test_a_gap_that_does_not_say_where_is_only_tried_again(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender)
    inbox.does(refuses("stream-gap", expected="3"), refuses("stream-gap", expected=-1))
    records = await sender.queue(peer, 3)
    await arrived(sender, peer, inbox, records)
    assert decisions(sender, peer) == [("stream-gap", False)] * 2
