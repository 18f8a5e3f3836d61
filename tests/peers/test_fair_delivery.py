"""Peers that hang or drip hold their own delivery and no more: with two places for all, good peers get everything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress

import pytest
import pytest_asyncio
from aiohttp import web

from tests.peers.conftest import OpenInbox, run_hub, sending_network
from tests.peers.inbox import Arrival, Step
from tests.peers.network import Hub, Network, ShiftedClock

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def two_places(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A sender with two places for deliveries, that leaves a bad peer alone only for a moment."""
    folder = tmp_path_factory.mktemp("places")
    return sending_network(folder, database, deliveries_max=2, batch_records_max=50, peer_timeout_s=1.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(two_places: Network) -> AsyncIterator[Hub]:
    async with run_hub(two_places, two_places.tested, ShiftedClock()) as made:
        yield made


def never_answers(over: asyncio.Event) -> Step:
    async def step(arrival: Arrival) -> web.StreamResponse:
        await over.wait()
        return arrival.hang_up()

    return step


def drips(over: asyncio.Event) -> Step:
    """Answer byte by byte."""

    async def step(arrival: Arrival) -> web.StreamResponse:
        answer = web.StreamResponse(status=200, headers={"content-length": "100000"})
        await answer.prepare(arrival.http)
        with suppress(ConnectionError):
            while not over.is_set():
                await answer.write(b"x")
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 0.05)
        return answer

    return step


async def test_peers_that_hang_or_drip_take_no_place_of_a_good_one(hub: Hub, open_inbox: OpenInbox) -> None:
    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.callback(over.set)
        bad = [await open_inbox(hub) for _ in range(4)]
        for number, (peer, inbox) in enumerate(bad):
            inbox.does(*[never_answers(over) if number % 2 else drips(over)] * 1000)
            await hub.queue(peer, 200)
        # All of them have been met, and are asked again and again.
        await hub.until("SELECT count(*) = 4 AS met FROM peers WHERE failures > 0", limit_s=60.0)
        good = [await open_inbox(hub) for _ in range(3)]
        for peer, _ in good:
            await hub.queue(peer, 200)
        await hub.until(
            "SELECT count(*) = 3 AS met FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
            "WHERE s.peer = ANY($1) AND c.acked_size = 200",
            [peer.id for peer, _ in good],
            limit_s=60.0,
        )
        for _, inbox in good:
            assert len(inbox.records) == 200
        for peer, inbox in bad:
            assert inbox.records == []
            # Full batches only the first time: then a peer that failed is asked with few records.
            later = [records for _, records in inbox.arrivals if records != 50]
            assert set(later) <= {16}
            assert (await hub.row("SELECT failures FROM peers WHERE node_id = $1", peer.id))["failures"] > 0
