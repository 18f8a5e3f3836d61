"""What the directory says of a key decides, at once: states and windows of http and stream keys, states of nodes."""

import os
from collections.abc import Callable
from datetime import timedelta

import pytest

from node.clock import rfc3339
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.receipt import open_receipt
from tests.peers.network import Hub, add_key, edit_keys
from tests.peers.simulator import PeerSimulator
from tests.world import TestNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG_AGO = "2026-02-01T00:00:00.000Z"


def new_key(algorithm: Algorithm = Algorithm.ED25519) -> SigningKey:
    return SigningKey(algorithm, os.urandom(32))


async def changed(hub: Hub, change: Callable[[TestNode], None]) -> PeerSimulator:
    """Return a peer of whom two records are held, and whose directory entry is then changed."""
    peer = await hub.peer()
    await peer.deliver(2)
    change(peer.node)
    await hub.new_directory()
    return peer


def replaced(use: str, **members: str) -> Callable[[TestNode], None]:
    """Put all keys of a use in another state, with new ones beside them."""

    def change(node: TestNode) -> None:
        algorithms = {key["algorithm"] for key in node.entry["keys"] if key["use"] == use}
        edit_keys(node, use, None, **members)
        for algorithm in sorted(algorithms):
            add_key(node, use, new_key(Algorithm(algorithm)), LONG_AGO)

    return change


def in_state(state: str) -> Callable[[TestNode], None]:
    return lambda node: node.entry.update(state=state)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(replaced("http", state="retired", retired_at=LONG_AGO), "key-revoked", id="retired"),
        pytest.param(
            replaced("http", state="compromised", compromised_since=LONG_AGO), "key-revoked", id="compromised"
        ),
        pytest.param(replaced("http", state="next"), "unknown-key", id="not-yet-in-force"),
        pytest.param(in_state("suspended"), "key-revoked", id="suspended-node"),
        pytest.param(in_state("left"), "key-revoked", id="node-that-left"),
    ],
)
async def test_an_http_key_that_does_not_count_opens_nothing(
    hub: Hub, change: Callable[[TestNode], None], code: str
) -> None:
    peer = await changed(hub, change)
    before = await hub.holdings(peer)
    await hub.problem(peer.put(peer.batch(1)), code, field="keyid")
    await hub.problem(peer.get(f"/peer/v1/streams/{peer.id}"), code, field="keyid")
    assert await hub.holdings(peer) == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(replaced("stream", state="retired", retired_at=LONG_AGO), id="retired"),
        pytest.param(replaced("stream", state="compromised", compromised_since=LONG_AGO), id="compromised"),
        pytest.param(replaced("stream", state="next"), id="not-yet-in-force"),
    ],
)
async def test_a_stream_key_that_does_not_count_signs_nothing(hub: Hub, change: Callable[[TestNode], None]) -> None:
    peer = await changed(hub, change)
    before = await hub.holdings(peer)
    await hub.problem(peer.put(peer.batch(1)), "bad-signature")
    # Not even a repeat of what it signed while it counted.
    await hub.problem(peer.put(peer.cut(0, 2)), "bad-signature")
    assert await hub.holdings(peer) == before


async def retired_before_its_records(hub: Hub) -> tuple[PeerSimulator, list[SigningKey]]:
    """Return a peer whose three records, in two batches, came under keys that had been retired, and its new keys."""
    keys = [new_key(Algorithm.ED25519), new_key(Algorithm.ML_DSA_44)]
    peer = await hub.peer()
    await peer.deliver(2)
    await peer.deliver(1)
    edit_keys(peer.node, "stream", state="retired", retired_at=LONG_AGO)
    for key in keys:
        add_key(peer.node, "stream", key, LONG_AGO)
    await hub.new_directory()
    return peer, keys


async def test_a_repeat_whose_receipts_lost_their_worth_is_receipted_anew(hub: Hub) -> None:
    peer, keys = await retired_before_its_records(hub)
    path = f"/peer/v1/receipts/{peer.id}/1"
    first = await peer.put(peer.batch(peer.taken[:1], first=0, keys=keys))
    assert first.status == 200
    covered, _ = open_receipt(first.body, hub.node.directory())
    assert covered.size == 1
    # It covers the first record alone; of the others there is no receipt that counts.
    assert (await peer.get(f"{path}/0")).body == first.body
    assert (await peer.get(f"{path}/1")).body == (await peer.get(f"{path}/2")).body == b'{"held": null}'
    rest = await peer.put(peer.batch(peer.taken[1:], first=1, keys=keys))
    assert open_receipt(rest.body, hub.node.directory())[0].size == 3
    for begin, given in ((0, first), (1, rest), (2, rest)):
        again = await peer.put(peer.batch(peer.taken[begin:], first=begin, keys=keys))
        assert (again.status, again.body) == (200, given.body)
        assert (await peer.get(f"{path}/{begin}")).body == given.body
    assert (await peer.get(f"/peer/v1/streams/{peer.id}")).body == rest.body
    held = await hub.holdings(peer)
    assert (held.size, held.records) == (3, 3)
    firsts = await hub.rows(
        "SELECT b.first, b.size FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream "
        "WHERE s.peer = $1 ORDER BY b.size",
        peer.id,
    )
    assert [tuple(row.values()) for row in firsts] == [(0, 1), (1, 2), (2, 3)]


async def test_new_records_behind_such_a_repeat_share_its_receipt(hub: Hub) -> None:
    peer, keys = await retired_before_its_records(hub)
    new = peer.reports(2)
    answer = await peer.put(peer.batch([*peer.taken[1:], *new], first=1, keys=keys))
    assert answer.status == 200
    assert open_receipt(answer.body, hub.node.directory())[0].size == 5
    held = await hub.holdings(peer)
    assert (held.size, held.records) == (5, 5)
    for begin, end in ((0, 2), (2, 3), (0, 5), (4, 5)):
        said = [*peer.taken, *new]
        again = await peer.put(peer.batch(said[begin:end], first=begin, keys=keys, history=said))
        assert again.body == answer.body


async def test_a_member_without_stream_keys_can_read_and_not_send(hub: Hub) -> None:
    def change(node: TestNode) -> None:
        node.entry["state"] = "maintenance"
        node.entry["keys"] = [key for key in node.entry["keys"] if key["use"] != "stream"]

    peer = await changed(hub, change)
    before = await hub.holdings(peer)
    await hub.problem(peer.put(peer.batch(1)), "unknown-key")
    assert await hub.holdings(peer) == before
    answer = await peer.get(f"/peer/v1/streams/{peer.id}")
    assert answer.body == peer.receipts[-1]


async def test_a_node_in_maintenance_may_still_send(hub: Hub) -> None:
    peer = await changed(hub, in_state("maintenance"))
    await peer.deliver(1)


async def test_a_key_that_retires_later_counts_until_then(hub: Hub) -> None:
    soon = rfc3339(hub.clock.now() + timedelta(hours=1))

    def change(node: TestNode) -> None:
        edit_keys(node, "stream", "ed25519", state="retired", retired_at=soon)
        add_key(node, "stream", new_key(), soon)

    peer = await changed(hub, change)
    await peer.deliver(1)
    hub.clock.offset_s = 3700
    try:
        peer.now = hub.clock.now
        await hub.problem(peer.put(peer.batch(1)), "bad-signature")
    finally:
        hub.clock.offset_s = 0


async def test_a_node_that_the_directory_gives_only_ed25519_needs_no_other(hub: Hub) -> None:
    """Both are required when the directory lists both (PROTOCOL, section 1)."""

    def change(node: TestNode) -> None:
        node.entry["keys"] = [
            key for key in node.entry["keys"] if (key["use"], key["algorithm"]) != ("stream", "ml-dsa-44")
        ]

    peer = await changed(hub, change)
    batch = peer.batch(1, keys=peer.keys.signing(KeyUse.STREAM)[:1])
    assert (await peer.put(batch)).status == 200
    assert (await hub.holdings(peer)).size == 3


async def test_another_members_key_opens_no_other_stream(hub: Hub) -> None:
    peer, other = await hub.peer(), await hub.peer()
    await peer.deliver(2)
    before = await hub.holdings(peer)
    await hub.problem(peer.put(peer.batch(1), key=other.keys.http), "wrong-audience", field="origin")
    assert await hub.holdings(peer) == before
