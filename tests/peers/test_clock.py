"""A clock ten minutes wrong on one side: a clear problem and an alarm on both, nothing lost, and then all delivered."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.peers.conftest import run_hub
from tests.peers.network import Hub, Network, ShiftedClock
from tests.peers.simulator import PeerSimulator
from tests.world import World

COUNT = 30


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    made = World(tmp_path, new_database)
    for country in ("FR", "NL"):
        made.add(country, batch_records_max=8)
    made.sign_directory()
    return made


@pytest.fixture
async def pair(world: World) -> AsyncIterator[tuple[Hub, Hub]]:
    """Two real nodes, FR and NL, each with a clock of its own."""
    async with AsyncExitStack() as stack:
        hubs = [
            await stack.enter_async_context(run_hub(Network(world, node), node, ShiftedClock())) for node in world.nodes
        ]
        yield hubs[0], hubs[1]


def as_peer(hub: Hub, other: Hub) -> PeerSimulator:
    return PeerSimulator(other.network.tested, hub.network.tested, hub.session)


@pytest.mark.parametrize("offset_s", [600, -600])
@pytest.mark.parametrize("wrong", ["sender", "receiver"])
async def test_a_wrong_clock_is_noticed_on_both_sides_and_loses_nothing(
    pair: tuple[Hub, Hub], wrong: str, offset_s: float
) -> None:
    fr, nl = pair
    at_fault = fr if wrong == "sender" else nl
    at_fault.clock.offset_s = offset_s
    peer = as_peer(fr, nl)
    records = await fr.queue(peer, COUNT)
    # The sender records the problem and raises an alarm; so does the receiver.
    await fr.until("SELECT last_problem = 'clock-skew' AS met FROM peers WHERE node_id = $1", nl.id)
    assert fr.logged(action="deliver.failed", code="clock-skew", alarm=True, level="error", peer=nl.id)
    assert nl.logged(action="peer.refused", code="clock-skew", level="error")
    assert await nl.rows("SELECT 1 FROM inbox") == []
    row = await fr.row("SELECT count(*) AS kept FROM outbox")
    assert row["kept"] == COUNT
    # The clock is set right.
    at_fault.clock.offset_s = 0
    if (wrong, offset_s) == ("sender", 600):
        # Its next attempt is planned by the wrong clock; the first word from the peer ends that.
        assert (await as_peer(fr, nl).get(f"/peer/v1/streams/{nl.id}")).status == 404
    await fr.until("SELECT acked_size = $1 AS met FROM delivery_cursors", COUNT)
    await nl.until("SELECT applied = $1 AS met FROM apply_cursors", COUNT)
    held = await nl.rows("SELECT idx, leaf_hash FROM inbox ORDER BY idx")
    sent = await fr.rows("SELECT idx, leaf_hash FROM outbox ORDER BY idx")
    assert [tuple(one.values()) for one in held] == [tuple(one.values()) for one in sent]
    assert len(records) == len(held) == COUNT
    theirs = await nl.rows("SELECT size, receipt FROM inbound_batches ORDER BY size")
    ours = await fr.rows("SELECT size, note FROM receipts ORDER BY size")
    assert [tuple(one.values()) for one in ours] == [tuple(one.values()) for one in theirs]


async def test_a_clock_within_the_window_is_no_matter(pair: tuple[Hub, Hub]) -> None:
    fr, nl = pair
    nl.clock.offset_s = 290
    await fr.queue(as_peer(fr, nl), COUNT)
    await fr.until("SELECT acked_size = $1 AS met FROM delivery_cursors", COUNT)
    assert fr.logged(action="deliver.failed") == []
