"""What one peer may take of a node: so many records, bytes and requests in a time, so much memory, and its turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from node.hotline.serve import admission
from protocol.batch import MEDIA_TYPE
from protocol.hello import Heads, encode_heads
from tests.patience import stretched
from tests.peers.conftest import run_hub
from tests.peers.network import Hub, Network, ShiftedClock
from tests.peers.simulator import PeerSimulator, with_headers
from tests.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def scanty(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A node with little of everything for each peer."""
    world = World(tmp_path_factory.mktemp("tight"), database)
    tested = world.add(
        "NL",
        backoff_base_s=900,
        backoff_cap_s=900,
        body_bytes_max=1_200_000,
        bodies_bytes_max=2_000_000,
        peer_records_per_s=0.02,
        peer_records_burst=60,
        peer_bytes_per_s=1,
        peer_bytes_burst=200_000,
        peer_requests_per_s=10,
        batches_at_once_max=1,
    )
    world.sign_directory()
    return Network(world, tested)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tight(scanty: Network) -> AsyncIterator[Hub]:
    """That node, running."""
    async with run_hub(scanty, scanty.tested, ShiftedClock(haste=100)) as made:
        yield made


async def test_new_records_have_a_budget_and_repeats_do_not(tight: Hub) -> None:
    peer = await tight.peer()
    await peer.deliver([b"x"] * 10)
    answer = await peer.put(peer.batch([b"x"] * 51))
    problem = answer.problem
    assert (problem["code"], problem["credit"]) == ("over-quota", 50)
    assert 1 <= problem["retry_after"] <= 50
    assert answer.headers["retry-after"] == str(problem["retry_after"])
    for _ in range(3):
        assert (await peer.put(peer.cut(0, 10))).body == peer.receipts[0]
    await peer.deliver([b"x"] * 50)
    assert (await tight.problem(peer.put(peer.batch([b"x"])), "over-quota"))["credit"] == 0
    # Another peer's budget is its own.
    other = await tight.peer()
    await other.deliver([b"x"] * 60)


async def test_bytes_have_a_budget_too_told_in_records(tight: Hub) -> None:
    peer = await tight.peer()
    await peer.deliver([b"x" * 5000] * 30)
    assert (await tight.problem(peer.put(peer.batch([b"x" * 5000] * 20)), "over-quota"))["credit"] == 10
    assert (await tight.problem(peer.put(peer.batch([b"x" * 60_000])), "over-quota"))["credit"] == 0
    await peer.deliver([b"x" * 5000] * 9)


async def test_the_credit_of_a_receipt_is_what_is_left(tight: Hub) -> None:
    peer = await tight.peer()
    assert (await peer.put(peer.batch([b"x"] * 20))).headers["hx-credit"] == "40"


async def test_a_peer_that_asks_too_often_is_told_when_to_come_again_and_others_are_served(tight: Hub) -> None:
    hog, good = await tight.peer(), await tight.peer()
    answers = []
    for _ in range(5):
        # As many as may wait for their turn.
        answers += await asyncio.gather(*(hog.get(f"/peer/v1/streams/{hog.id}") for _ in range(30)))
    refused = [one for one in answers if one.status == 429]
    assert len(answers) - len(refused) >= 100
    assert refused
    assert {one.problem["code"] for one in refused} == {"over-quota"}
    assert all(1 <= int(one.headers["retry-after"]) <= 2 for one in refused)
    # What was refused left nothing behind: no nonce, no row.
    assert (await tight.holdings(hog)).nonces == len(answers) - len(refused)
    await good.deliver(1)


@pytest.fixture(scope="module")
def asked_network(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    """A node that gives little again, and has one place at the work."""
    world = World(tmp_path_factory.mktemp("asked"), database)
    tested = world.add(
        "NL",
        backoff_base_s=900,
        backoff_cap_s=900,
        peer_answers_bytes_per_s=65_536,
        peer_answers_bytes_burst=1_048_576,
        batches_at_once_max=1,
    )
    world.sign_directory()
    return Network(world, tested)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(asked_network: Network) -> AsyncIterator[Hub]:
    """That node, running."""
    async with run_hub(asked_network, asked_network.tested, ShiftedClock()) as made:
        yield made


def own_records(peer: PeerSimulator, first: int = 0) -> str:
    return f"/peer/v1/inbox/{peer.id}/1?from={first}"


async def test_what_was_given_before_has_a_budget_and_what_is_new_does_not(asked: Hub) -> None:
    hog, good = await asked.peer(), await asked.peer()
    for _ in range(6):
        await hog.deliver([b"x" * 50_000] * 10)
        await good.deliver(1)
    # Three times as many bytes as may be given again at once.
    for first in range(0, 60, 10):
        assert (await hog.get(own_records(hog, first))).status == 200
    again = [await hog.get(own_records(hog)) for _ in range(4)]
    assert [one.status for one in again[:2]] == [200, 200]
    assert again[-1].problem["code"] == "over-quota"
    assert 1 <= again[-1].problem["retry_after"] <= 20
    # Its batches have their own budget, and others theirs.
    await hog.deliver(1)
    assert (await good.get(own_records(good))).status == 200


async def test_a_question_costs_though_nothing_is_given(asked: Hub) -> None:
    hog, good = await asked.peer(), await asked.peer()
    answers = await asyncio.gather(*(hog.get(f"/peer/v1/streams/{hog.id}") for _ in range(30)))
    refused = [one for one in answers if one.status == 429]
    assert 16 <= len(answers) - len(refused) < 30
    assert {one.problem["code"] for one in refused} == {"over-quota"}
    # What was refused left nothing behind: no nonce, no row.
    assert (await asked.holdings(hog)).nonces == len(answers) - len(refused)
    assert (await good.get(f"/peer/v1/streams/{good.id}")).status == 404


async def test_few_answers_of_one_peer_are_on_their_way_at_once(asked: Hub) -> None:
    """Who does not read its answers is given no more of them, and keeps nobody else from anything."""
    admitted = admission(asked.node)
    unread = ExitStack()
    for first in range(2):
        async with admitted.question("hog"):
            admitted.give("hog", "inbox", 1, first, first + 1, 1000, unread)

    async def ask(peer: str) -> None:
        async with admitted.question(peer):
            pass

    third = asyncio.ensure_future(ask("hog"))
    await ask("good")
    assert not third.done()
    unread.close()
    await third


async def test_who_waits_for_a_record_holds_no_place(asked: Hub) -> None:
    peer, good = await asked.peer(), await asked.peer()
    path = f"/peer/v1/outbox/{peer.id}/1?from=0&wait=25"
    waiting = [asyncio.ensure_future(peer.get(path)) for _ in range(4)]

    async def all_wait() -> bool:
        return (await asked.holdings(peer)).nonces == len(waiting)

    await asked.wait(all_wait)
    assert (await peer.get(f"/peer/v1/streams/{peer.id}")).status == 404
    await good.deliver(1)
    assert not any(one.done() for one in waiting)
    for one in waiting:
        one.cancel()


async def test_the_memory_for_bodies_is_shared(tight: Hub) -> None:
    hog, good = await tight.peer(), await tight.peer()
    async with half_sent(hog, 1_100_000), half_sent(hog, 100):
        # What is left is less than what it holds: it gets no more, and others do.
        await tight.wait(lambda: refused_for_its_bodies(hog))
        await good.deliver([b"x" * 50_000] * 3)
    await tight.wait(lambda: taken_again(hog))


async def refused_for_its_bodies(peer: PeerSimulator) -> bool:
    answer = await peer.put(peer.batch([b"x" * 50_000] * 3, first=0))
    if answer.status == 200:
        return False
    problem = answer.problem
    assert (problem["code"], problem["credit"], problem["retry_after"]) == ("over-quota", 0, 1)
    assert "bodies" in problem["detail"]
    return True


async def taken_again(peer: PeerSimulator) -> bool:
    return (await peer.put(peer.batch([b"x" * 50_000] * 3, first=0))).status == 200


@asynccontextmanager
async def half_sent(peer: PeerSimulator, size: int) -> AsyncIterator[None]:
    """Have a signed request under way whose body does not come."""
    request = peer.signed("PUT", peer.inbox_path(0), b"x" * size)
    parts = urlsplit(request.target_uri)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [f"PUT {parts.path} HTTP/1.1", f"host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    writer.write("\r\n".join([*lines, f"content-length: {size}", "", ""]).encode())
    try:
        yield
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_memory_for_bodies_is_shared_by_every_door(tight: Hub) -> None:
    """Who holds its share of the memory at the inbox gets no more of it at another door."""
    hog = await tight.peer()
    async with half_sent(hog, 1_100_000):
        await tight.wait(lambda: hello_refused(hog))


async def hello_refused(peer: PeerSimulator) -> bool:
    heads = encode_heads(Heads((), ()))
    answer = await peer.call("POST", "/peer/v1/hello", heads, before=with_headers(content_type="application/json"))
    return answer.status == 429 and "bodies" in answer.problem["detail"]


#: Every door that takes a body: what it is asked by, and of which type the body is.
BODIES = [
    ("PUT /peer/v1/inbox/x/1/0", MEDIA_TYPE),
    ("POST /peer/v1/hello", "application/json"),
    ("PUT /peer/v1/receipts/x/1/1", "text/plain"),
]


@pytest.mark.parametrize(("operation", "media_type"), BODIES)
async def test_a_stranger_s_body_is_not_waited_for(tight: Hub, operation: str, media_type: str) -> None:
    """Its head does not verify, so the answer is there before the body is."""
    assert (await answer_to_a_head(tight, operation, media_type, 10_000)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(("operation", "media_type"), BODIES)
async def test_a_body_over_the_limit_is_refused_before_the_signature(
    tight: Hub, operation: str, media_type: str
) -> None:
    assert (await answer_to_a_head(tight, operation, media_type, 10_000_000)).startswith(b"HTTP/1.1 413")


async def answer_to_a_head(hub: Hub, operation: str, media_type: str, announced: int) -> bytes:
    """Send the head of an unsigned request and nothing of its body; return the answer's first line."""
    url = urlsplit(hub.node.settings.base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"{operation} HTTP/1.1\r\nHost: node.test\r\nContent-Length: {announced}\r\nContent-Type: {media_type}"
    writer.write(f"{head}\r\n\r\n".encode())
    async with asyncio.timeout(stretched(10)):
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


async def test_with_one_place_at_the_work_everybody_gets_through(tight: Hub) -> None:
    peers = [await tight.peer() for _ in range(6)]
    await asyncio.gather(*(peer.deliver([b"x"] * 5) for peer in peers))
    for peer in peers:
        assert (await tight.holdings(peer)).records == 5
