"""What a receiver cannot take now: said with the credit left, nothing half-stored, repeats always answered."""

import pytest

from protocol.merkle import leaf_hash
from tests.peers.network import Hub

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_new_records_wait_while_old_ones_are_to_be_applied_and_repeats_do_not(hub: Hub) -> None:
    peer = await hub.peer()
    await peer.deliver(1)
    await hub.applied(peer)
    async with hub.applying_paused(peer):
        for _ in range(19):
            await peer.deliver([b"x"] * 50)
        await peer.deliver([b"x"] * 30)
        before = await hub.holdings(peer)
        assert (await hub.problem(peer.put(peer.batch(50)), "over-quota"))["credit"] == 20
        assert (await hub.problem(peer.put(peer.batch(21)), "over-quota"))["credit"] == 20
        assert await hub.holdings(peer) == before
        # A batch within the credit is taken whole.
        await peer.deliver(20)
        assert (await hub.problem(peer.put(peer.batch(1)), "over-quota"))["credit"] == 0
        # Limits count new records, never retries.
        assert (await peer.put(peer.cut(0, 1))).body == peer.receipts[0]
        assert (await peer.put(peer.cut(981, 1001))).body == peer.receipts[-1]
        # What is wrong with a batch is said first.
        await hub.problem(peer.put(peer.batch(1, root=leaf_hash(b"other"))), "root-mismatch", field="root")
    await hub.applied(peer)
    await peer.deliver(50)


async def test_one_peer_s_backlog_is_no_other_peer_s_quota(hub: Hub) -> None:
    peer, other = await hub.peer(), await hub.peer()
    await peer.deliver(1)
    async with hub.applying_paused(peer):
        for _ in range(20):
            await peer.deliver([b"x"] * 49)
        await other.deliver(50)
        await hub.applied(other)


async def test_without_its_database_a_node_is_in_maintenance_and_stores_nothing(hub: Hub) -> None:
    peer = await hub.peer()
    await peer.deliver(3)
    with hub.commits_failing("receive.store"):
        before = await hub.holdings(peer)
        await hub.problem(peer.put(peer.batch(2)), "maintenance")
        await hub.problem(peer.put(peer.cut(0, 3)), "maintenance")
        assert await hub.holdings(peer) == before
    await peer.deliver(2)
