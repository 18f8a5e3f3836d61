"""Back-off is kept in the database, outlives the process, and ends with the first word from the peer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from node.settings import Settings
from tests.peers.conftest import OpenInbox, run_hub, sending_network
from tests.peers.inbox import Inbox, refuses
from tests.peers.network import Hub, Network, ShiftedClock
from tests.peers.simulator import Answer, PeerSimulator
from tests.peers.test_delivery import arrived

pytestmark = pytest.mark.asyncio(loop_scope="module")

LATER = refuses("maintenance", headers={"retry-after": "600"})


@pytest.fixture(scope="module")
def patient_network(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A sender that leaves a peer alone for up to a quarter of an hour, as in operation."""
    folder = tmp_path_factory.mktemp("patient")
    return sending_network(folder, database, backoff_base_s=900, backoff_cap_s=900, poll_s=0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(patient_network: Network) -> AsyncIterator[Hub]:
    async with run_hub(patient_network, patient_network.tested, ShiftedClock()) as made:
        yield made


async def left_alone(hub: Hub, peer: PeerSimulator) -> None:
    """Wait until the node has decided to leave the peer alone for ten minutes."""
    await hub.until("SELECT retry_at IS NOT NULL AS met FROM peers WHERE node_id = $1", peer.id)
    row = await hub.row("SELECT failures, retry_at, last_problem FROM peers WHERE node_id = $1", peer.id)
    assert (row["failures"], row["last_problem"]) == (1, "maintenance")
    assert timedelta(seconds=590) < row["retry_at"] - hub.clock.now() <= timedelta(seconds=600)


async def a_batch(peer: PeerSimulator) -> Answer:
    return await peer.put(peer.batch(1))


async def a_repeat(peer: PeerSimulator) -> Answer:
    return await peer.put(peer.cut(0, 1))


async def a_question(peer: PeerSimulator) -> Answer:
    return await peer.get(f"/peer/v1/streams/{peer.id}")


async def a_greeting(peer: PeerSimulator) -> Answer:
    return await peer.get("/.well-known/hx-node")


@pytest.mark.parametrize("word", [a_batch, a_repeat, a_question, a_greeting])
async def test_any_authenticated_call_ends_the_back_off(
    patient: Hub, open_inbox: OpenInbox, word: Callable[[PeerSimulator], Awaitable[Answer]]
) -> None:
    peer, inbox = await open_inbox(patient)
    records = await patient.queue(peer, 1)
    await arrived(patient, peer, inbox, records)
    # An outcome, so that nothing has to be said in return.
    await peer.deliver([peer.outcome(accepted=[(0, 0)])])
    inbox.does(LATER)
    records += await patient.queue(peer, 3)
    await left_alone(patient, peer)
    assert (await word(peer)).status == 200
    await patient.until(
        "SELECT acked_size >= $2 AS met FROM outbound_streams s JOIN delivery_cursors c "
        "ON c.stream = s.id WHERE s.peer = $1",
        peer.id,
        len(records),
    )
    assert inbox.records[: len(records)] == records


async def test_a_call_that_proves_nothing_ends_no_back_off(patient: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(patient)
    stranger = await patient.peer()
    inbox.does(LATER)
    await patient.queue(peer, 3)
    await left_alone(patient, peer)
    path = f"/peer/v1/streams/{peer.id}"
    await patient.problem(peer.get(path, shift_s=-400), "clock-skew", field="signature-input")
    await patient.problem(stranger.get(path), "wrong-audience", field="iss")
    await left_alone(patient, peer)
    assert inbox.arrivals == [(0, 3)]


@pytest.mark.parametrize(
    ("server_time", "skew_s"), [("9999-01-01T00:00:00.000Z", 86_400), ("0001-01-01T00:00:00.000Z", -86_400)]
)
async def test_a_clock_said_to_be_centuries_off_is_left_alone_like_any_other(
    patient: Hub, open_inbox: OpenInbox, server_time: str, skew_s: int
) -> None:
    peer, inbox = await open_inbox(patient)
    inbox.does(refuses("clock-skew", server_time=server_time))
    await patient.queue(peer, 3)
    await patient.until("SELECT retry_at IS NOT NULL AS met FROM peers WHERE node_id = $1", peer.id)
    row = await patient.row("SELECT failures, last_problem, clock_skew_s FROM peers WHERE node_id = $1", peer.id)
    assert tuple(row.values()) == (1, "clock-skew", skew_s)
    assert inbox.arrivals == [(0, 3)]


async def test_the_back_off_outlives_the_process(tmp_path: Path, database: Callable[[], str]) -> None:
    # In a thread, because making a database runs a loop of its own.
    network = await asyncio.to_thread(sending_network, tmp_path, database, backoff_base_s=900, backoff_cap_s=900)
    clock = ShiftedClock()
    async with run_hub(network, network.tested, clock) as hub:
        peer = await hub.peer()
        inbox = Inbox(peer.node, network.tested)
        await inbox.listen()
        inbox.does(LATER)
        records = await hub.queue(peer, 3)
        await left_alone(hub, peer)
    try:
        async with run_hub(network, network.tested, clock) as hub:
            await left_alone(hub, peer)
            # Several rounds of the loop that looks for work, woken each time, leave the peer alone.
            for _ in range(5):
                hub.node.signals.wake("deliver")
                await hub.rows("SELECT 1")
            assert inbox.arrivals == [(0, 3)]
            # When the time has come, it is tried again without anybody's doing.
            clock.offset_s = 601
            inbox.now = clock.now
            await arrived(hub, peer, inbox, records)
    finally:
        await inbox.close()


async def test_a_peer_that_comes_back_without_a_word_gets_its_first_record_within_a_quarter_of_an_hour(
    tmp_path: Path, database: Callable[[], str]
) -> None:
    """By the node's clock and with the settings of operation: after any number of failures the wait has its cap."""
    defaults = {name: Settings.__dataclass_fields__[name].default for name in ("backoff_base_s", "backoff_cap_s")}
    assert defaults["backoff_cap_s"] == 900
    network = await asyncio.to_thread(sending_network, tmp_path, database, **defaults)
    clock = ShiftedClock()
    async with run_hub(network, network.tested, clock) as hub:
        peer = await hub.peer()
        inbox = Inbox(peer.node, network.tested, clock.now)
        records = await hub.queue(peer, 3)
        contact = "SELECT failures, retry_at FROM peers WHERE node_id = $1"
        waits = []
        # Twelve failures, each once the wait before it is over: by then doubling alone would come to hours.
        for failures in range(1, 13):
            await hub.until(
                "SELECT failures >= $2 AND retry_at IS NOT NULL AS met FROM peers WHERE node_id = $1", peer.id, failures
            )
            row = await hub.row(contact, peer.id)
            waits.append((row["retry_at"] - clock.now()).total_seconds())
            if failures < 12:
                clock.offset_s += max(0.0, waits[-1])
                hub.node.signals.wake("deliver")
        assert max(waits) <= 900
        await inbox.listen()
        back_at = clock.now()
        try:
            assert inbox.arrivals == []
            clock.offset_s += 900
            await arrived(hub, peer, inbox, records)
            # A quarter of an hour, and what the machine took beside it.
            assert clock.now() - back_at < timedelta(seconds=930)
        finally:
            await inbox.close()


async def test_a_peer_that_never_answers_is_asked_with_a_hello_alone(
    tmp_path: Path, database: Callable[[], str]
) -> None:
    network = await asyncio.to_thread(sending_network, tmp_path, database)
    asked = []

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).split(b" HTTP/")[0])
        writer.close()

    async with run_hub(network, network.tested, ShiftedClock()) as hub:
        peer = await hub.peer()
        address = urlsplit(peer.node.settings.base_url)
        server = await asyncio.start_server(hangs_up, address.hostname, address.port)
        try:
            await hub.queue(peer, 3)
            await hub.until("SELECT failures >= 3 AS met FROM peers WHERE node_id = $1", peer.id)
            row = await hub.row("SELECT last_problem FROM peers WHERE node_id = $1", peer.id)
        finally:
            server.close()
            await server.wait_closed()
    assert row["last_problem"] == "unreachable-disconnected"
    assert set(asked) == {b"POST /peer/v1/hello"}
