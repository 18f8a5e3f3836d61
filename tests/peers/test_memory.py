"""Memory stays bounded whatever a peer or a stranger sends, and good peers are served meanwhile (PROTOCOL, I12).

The node is a process of its own, as in operation, and its memory is what the system says.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest
import pytest_asyncio

from node.setting_files import write_settings
from protocol.batch import MEDIA_TYPE
from protocol.directory import DIRECTORY_BYTES_MAX
from protocol.keys import Algorithm, SigningKey
from tests.faults.station import until
from tests.peers.network import Network
from tests.peers.simulator import PeerSimulator
from tests.world import TestNode, World, file_values

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
#: What bodies may take, and what all else that is under way may add: connections, answers, batches being worked on.
BODIES_BYTES_MAX = 32 * MIB
BESIDE_BYTES_MAX = 96 * MIB
#: Callers that ask for a large file and do not read it, and what each may cost.
UNREAD = 60
BESIDE_UNREAD_BYTES_MAX = MIB // 2
ATTACK_S = 6.0
PAUSE_S = 0.5


@contextmanager
def served(node: TestNode) -> Iterator[psutil.Process]:
    """Run the node as a process of its own."""
    path = node.settings.data_dir / "hotline.toml"
    path.unlink(missing_ok=True)
    write_settings(path, file_values(node.settings))
    process = subprocess.Popen([sys.executable, "-m", "node", "--settings", str(path), "serve"])
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str]) -> Network:
    world = World(tmp_path_factory.mktemp("memory"), database)
    tested = world.add(
        "NL",
        log_level="error",
        bodies_bytes_max=BODIES_BYTES_MAX,
        connections_max=400,
        connections_per_address_max=400,
        head_timeout_s=2.0,
        body_timeout_s=3.0,
        write_timeout_s=2.0,
        peer_requests_per_s=20.0,
    )
    network = Network(world, tested)
    for _ in range(4):
        network.add_peer()
    world.sign_directory()
    asyncio.run(world.create_field_keys([tested]))
    return network


class Attack:
    """A hostile member, strangers, and the addresses they attack."""

    def __init__(self, member: PeerSimulator, target: TestNode) -> None:
        self.member = member
        address = urlsplit(target.settings.base_url)
        self.host, self.port = str(address.hostname), int(address.port or 0)

    async def raw(self, parts: AsyncIterator[bytes], *, reads: bool = True) -> None:
        """Send bytes over a connection of their own until the node has had enough."""
        with suppress(ConnectionError, TimeoutError):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                async for part in parts:
                    writer.write(part)
                    async with asyncio.timeout(ATTACK_S):
                        await writer.drain()
                if reads:
                    async with asyncio.timeout(ATTACK_S):
                        while await reader.read(65_536):
                            pass
                else:
                    await hold(ATTACK_S)
            finally:
                writer.close()

    async def endless_body_of_a_stranger(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"PUT /peer/v1/inbox/x/1/0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            yield b"Content-Type: " + MEDIA_TYPE.encode() + b"\r\n\r\n"
            for _ in range(400):
                yield b"10000\r\n" + bytes(65_536) + b"\r\n"

        await self.raw(parts())

    async def head_without_end(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"GET /.well-known/hx-node HTTP/1.1\r\n"
            for at in range(1000):
                yield b"X-%d: " % at + b"a" * 8000 + b"\r\n"

        await self.raw(parts())

    async def unread_answers(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b"GET /.well-known/hx-node HTTP/1.1\r\nHost: a\r\n\r\n" * 50

        await self.raw(parts(), reads=False)

    async def half_of_a_large_body(self) -> None:
        """Signed by the member, so that it is read; it never ends."""
        request = self.member.signed("PUT", self.member.inbox_path(0), bytes(4 * MIB))
        lines = [f"PUT {urlsplit(request.target_uri).path} HTTP/1.1", "host: a", f"content-length: {4 * MIB}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]

        async def parts() -> AsyncIterator[bytes]:
            yield "\r\n".join([*lines, "", ""]).encode()
            yield bytes(4 * MIB - 1)

        await self.raw(parts())

    async def endless_body_of_a_member(self) -> None:
        request = self.member.signed("PUT", self.member.inbox_path(0), b"x")
        lines = [f"PUT {urlsplit(request.target_uri).path} HTTP/1.1", "host: a", "transfer-encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]

        async def parts() -> AsyncIterator[bytes]:
            yield "\r\n".join([*lines, "", ""]).encode()
            for _ in range(400):
                yield b"10000\r\n" + bytes(65_536) + b"\r\n"

        await self.raw(parts())

    async def deep_records(self) -> None:
        """Batches in good order of records that are none: nested without end, wide without end."""
        deep = b'{"a":' * 6000 + b"1" + b"}" * 6000
        wide = b"{" + b",".join(b'"%d":0' % at for at in range(5000)) + b"}"
        with suppress(aiohttp.ClientError, AssertionError):
            await self.member.deliver([deep[:60_000], wide[:60_000]] * 5)

    async def unknown_keys(self) -> None:
        for _ in range(30):
            key = SigningKey(Algorithm.ED25519, os.urandom(32))
            with suppress(aiohttp.ClientError):
                await self.member.call("PUT", self.member.inbox_path(0), bytes(MIB), key=key)

    async def nonces(self) -> None:
        for _ in range(100):
            with suppress(aiohttp.ClientError):
                await self.member.get(f"/peer/v1/streams/{self.member.id}")


async def hold(seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)


async def until_over(work: Callable[[], Awaitable[None]], over: asyncio.Event) -> None:
    while not over.is_set():
        await work()
        # The attackers share their processor with the test and the node.
        await hold(PAUSE_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as made:
        yield made


async def answers(node: TestNode, session: aiohttp.ClientSession) -> bool:
    with suppress(aiohttp.ClientError, OSError):
        async with session.get(f"{node.settings.base_url}/.well-known/hx-node") as answer:
            return answer.status == 200
    return False


async def test_memory_stays_bounded_and_good_peers_are_served_whatever_others_send(
    network: Network, session: aiohttp.ClientSession
) -> None:
    target, hostile, *good_nodes = network.world.nodes
    good = [PeerSimulator(node, target, session) for node in good_nodes]
    attack = Attack(PeerSimulator(hostile, target, session), target)
    over = asyncio.Event()
    most = 0

    async def watch(process: psutil.Process) -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, process.memory_info().rss)
            await hold(0.05)

    with served(target) as process:
        await until(partial(answers, target, session), "the node serves")
        for peer in good:
            await peer.deliver(50)
        before = process.memory_info().rss
        kinds = (
            (attack.endless_body_of_a_stranger, 12),
            (attack.head_without_end, 6),
            (attack.unread_answers, 6),
            (attack.half_of_a_large_body, 12),
            (attack.endless_body_of_a_member, 6),
            (attack.deep_records, 1),
            (attack.unknown_keys, 2),
            (attack.nonces, 1),
        )
        attackers = [asyncio.ensure_future(until_over(kind, over)) for kind, count in kinds for _ in range(count)]
        watching = asyncio.ensure_future(watch(process))
        try:
            async with asyncio.timeout(180):
                for _ in range(3):
                    await asyncio.gather(*(peer.deliver(20) for peer in good))
                    await hold(ATTACK_S / 3)
        finally:
            over.set()
            for attacker in attackers:
                attacker.cancel()
            await asyncio.gather(*attackers, return_exceptions=True)
            await watching
        assert most - before < BODIES_BYTES_MAX + BESIDE_BYTES_MAX, f"{(most - before) / MIB:.0f} MiB more"
        # It has not fallen ill: everybody is served when it is over.
        await asyncio.gather(*(peer.deliver(1) for peer in good))
        assert process.is_running()


async def test_a_large_directory_that_nobody_reads_is_in_memory_once(
    network: Network, session: aiohttp.ClientSession
) -> None:
    """Anybody may ask for it, so what an answer under way holds is bounded, whatever the file's size."""
    target = network.tested
    network.world.sign_directory(padding=DIRECTORY_BYTES_MAX - 256 * 1024)
    (file,) = (path for path in network.world.repository.glob("*.directory.json") if path.stat().st_size > 3 * MIB)
    address = urlsplit(target.settings.base_url)
    request = f"GET /peer/v1/directory/{file.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with served(target) as process:
        await until(partial(answers, target, session), "the node serves")
        before = process.memory_info().rss
        async with AsyncExitStack() as over:
            for _ in range(UNREAD):
                caller = socket.socket()
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                caller.setblocking(False)
                over.callback(caller.close)
                await asyncio.get_running_loop().sock_connect(caller, (address.hostname, address.port))
                await asyncio.get_running_loop().sock_sendall(caller, request)
                # The answer has begun: what is not sent of it is held.
                assert (await asyncio.get_running_loop().sock_recv(caller, 15)) == b"HTTP/1.1 200 OK"
            held = process.memory_info().rss - before
        async with session.get(f"{target.settings.base_url}/peer/v1/directory/{file.name}") as answer:
            assert await answer.read() == file.read_bytes()
    assert held < UNREAD * BESIDE_UNREAD_BYTES_MAX, f"{held / MIB:.0f} MiB for {UNREAD} answers"
