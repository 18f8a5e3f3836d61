"""What four bad peers cost the good ones: throughput and latency with and without them, in turns of one run.

A node (its own process and PostgreSQL, fsync on) sends to three good peers. Beside them one peer is dead, one accepts
and never answers, one answers with garbage and throws garbage and signed nonsense at the node's door, and one fetches
its own records back, again and again, as fast as it is allowed. At the begin of each turn with them they have just gone
bad: none is left alone yet, and full batches are under way to each. Each turn with them stands between two without; how
far those two are from each other is what the machine itself does.
Usage: python -m bench.fairness [rounds]
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import aiohttp
import psutil
import uvloop
from aiohttp import web

from bench.network import CLOCK, build_world, migrated, servers, serving
from node.conformance.speaker import Speaker
from node.hotline.assembly import Store, open_store
from node.hotline.store import outbound
from node.platform.ids import new_ids
from protocol.batch import decode_batch
from protocol.checkpoint import Checkpoint
from protocol.cosignature import cosign
from protocol.keys import KeyUse
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.profile import Request, Response, combine_headers, sign_response
from tests.peers.simulator import PeerSimulator
from tests.world import TestNode, World

GOOD = ("NL", "DE", "US")
DEAD, SILENT, GARBAGE = BAD = ("BE", "ES", "IT")
#: It cannot be called, so nothing is delivered to it.
GREEDY = "PT"
#: Of the greedy one: its connections, and its records that the node holds, about 1 MB of them.
FETCHERS = 40
FETCHED = 1000
#: Records to each good peer for the throughput of one turn, and appended one by one for its latencies.
BULK = 5000
TRICKLE = 80
TRICKLE_PAUSE_S = 0.08
BAD_BACKLOG = 3000
GARBAGE_PAUSE_S = 0.2
#: So that nothing of one turn is under way in the next; the fewer batches hang, the longer this is.
TIMEOUT_S = 5.0
#: The waits between attempts are the program's own.
SETTINGS = {
    "log_level": "error",
    "backoff_base_s": 2.0,
    "backoff_cap_s": 900.0,
    "peer_timeout_s": TIMEOUT_S,
    "poll_s": 1.0,
}


@dataclass(slots=True)
class Good:
    """A peer that takes batches and gives receipts, as cheaply as can be."""

    node: TestNode
    edge: Edge = Edge.EMPTY
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)
    _runner: web.AppRunner | None = None

    async def listen(self) -> None:
        """Serve on the address that the directory names."""
        app = web.Application(client_max_size=8_388_608)
        app.router.add_put("/peer/v1/inbox/{iss}/{epoch}/{first}", self._put)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        address = urlsplit(self.node.settings.base_url)
        await web.TCPSite(self._runner, address.hostname, address.port).start()

    async def close(self) -> None:
        """Take no more connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _put(self, http: web.Request) -> web.Response:
        body = await http.read()
        target = self.node.settings.base_url + http.raw_path
        request = Request(http.method, target, combine_headers(http.headers.items()), body)
        raw_note, records = decode_batch(body)
        note = parse_note(raw_note)
        checkpoint = Checkpoint.parse(note.text)
        async with self.grown:
            await self.grown.wait_for(lambda: int(http.match_info["first"]) <= self.edge.size)
            self.edge = self.edge.extend([leaf_hash(record) for record in records])
            self.grown.notify_all()
        now_s = int(CLOCK.now().timestamp())
        name = f"{self.node.id}/receipt"
        receipt = cosign(note, checkpoint, name, self.node.keys.signing(KeyUse.RECEIPT), now_s=now_s).to_bytes()
        plain = Response(200, {"content-type": "text/plain; charset=utf-8"}, receipt)
        headers = sign_response(plain, request, self.node.keys.http, created=now_s)
        return web.Response(status=200, body=receipt, headers={**plain.headers, **headers})


async def _garbage(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer whatever comes with bytes that are no HTTP."""
    with suppress(ConnectionError):
        writer.write(os.urandom(65_536))
        await writer.drain()
    writer.close()


@dataclass(slots=True)
class Bad:
    """The bad peers: their servers and what one of them throws at the node; the dead one does not listen.

    In a process of its own that yields to everybody else: what it costs them to be bad is not the node's work.
    """

    nodes: dict[str, TestNode]
    target: TestNode
    throwing: Event
    silences: "Synchronized[int]"
    fetches: "Synchronized[int]"

    @classmethod
    @contextmanager
    def beside(cls, nodes: dict[str, TestNode], target: TestNode) -> "Iterator[Bad]":
        """Start the process, and end it."""
        fork = get_context("fork")
        bad = cls(nodes, target, fork.Event(), fork.Value("i", 0), fork.Value("i", 0))
        process = fork.Process(target=bad.run, daemon=True)
        process.start()
        try:
            yield bad
        finally:
            process.terminate()
            process.join()

    def run(self) -> None:
        """Be bad until the process is ended."""
        os.nice(19)
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        servers = []
        for country, behaviour in ((SILENT, self._silent), (GARBAGE, _garbage)):
            address = urlsplit(self.nodes[country].settings.base_url)
            servers.append(await asyncio.start_server(behaviour, address.hostname, address.port))
        await asyncio.gather(self._throw(), self._fetch())

    async def _silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept and never answer."""
        with self.silences.get_lock():
            self.silences.value += 1
        with suppress(ConnectionError, asyncio.CancelledError):
            while await reader.read(65_536):
                pass
        writer.close()

    async def _throw(self) -> None:
        """Throw bytes and signed nonsense at the node's door while it is wanted."""
        address = urlsplit(self.target.settings.base_url)
        async with aiohttp.ClientSession() as session:
            peer = PeerSimulator(self.nodes[GARBAGE], self.target, session)
            while True:
                if self.throwing.is_set():
                    with suppress(ConnectionError):
                        _, writer = await asyncio.open_connection(address.hostname, address.port)
                        writer.write(os.urandom(32_768))
                        await writer.drain()
                        writer.close()
                    with suppress(aiohttp.ClientError):
                        await peer.call("PUT", peer.inbox_path(0), os.urandom(32_768).hex().encode())
                await asyncio.sleep(GARBAGE_PAUSE_S)

    async def _fetch(self) -> None:
        """Fetch the same records over many connections while it is wanted; come again when told to, and no sooner."""
        async with aiohttp.ClientSession() as session:
            peer = PeerSimulator(self.nodes[GREEDY], self.target, session)
            stock = peer.batch(FETCHED)
            while True:
                with suppress(aiohttp.ClientError):
                    if (await peer.put(stock)).status == HTTPStatus.OK:
                        break
                await asyncio.sleep(GARBAGE_PAUSE_S)
            await asyncio.gather(*(self._fetch_again(peer) for _ in range(FETCHERS)))

    async def _fetch_again(self, peer: PeerSimulator) -> None:
        while True:
            if not self.throwing.is_set():
                await asyncio.sleep(GARBAGE_PAUSE_S)
                continue
            with suppress(aiohttp.ClientError):
                answer = await peer.get(f"/peer/v1/inbox/{peer.id}/1?from=0")
                if answer.status == HTTPStatus.OK:
                    with self.fetches.get_lock():
                        self.fetches.value += 1
                else:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))


@dataclass(slots=True)
class Sender:
    """The node's database as its own flows write it, and what is measured there."""

    store: Store
    speakers: dict[str, Speaker]

    def records(self, aud: str, count: int) -> list[bytes]:
        """Return reports to `aud`."""
        return self.speakers[aud].reports(count)

    async def append(self, by_peer: dict[str, list[bytes]]) -> None:
        """Append records to the streams, in one transaction, as the dispatcher does."""
        async with self.store.db.transaction("bench.append") as tx:
            now = CLOCK.now()
            heads = await outbound.lock_streams(tx, list(by_peer))
            for peer, records in by_peer.items():
                head = heads[peer]
                seal = self.store.vault.seal_record
                rows = [
                    outbound.OutboxRow(
                        idx, one, None, "report", leaf_hash(record), seal("outbox", head.id, idx, record)
                    )
                    for (idx, record), one in zip(
                        enumerate(records, start=head.next_index), new_ids(len(records), now), strict=True
                    )
                ]
                await outbound.append(tx, head, rows, now)
            await tx.notify("deliver")

    async def receipted(self, peers: Sequence[str]) -> None:
        """Wait until the streams to `peers` are receipted."""
        query = (
            "SELECT count(*) FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
            "WHERE s.peer = ANY($1) AND c.acked_size < s.next_index"
        )
        while True:
            if not await self.value(query, list(peers)):
                return
            await asyncio.sleep(0.01)

    async def latencies_ms(self, peers: Sequence[str], since: object) -> list[float]:
        """Return the milliseconds from append to receipt of what was appended one by one since then."""
        async with self.store.db.transaction("bench.read") as tx:
            rows = await tx.fetch(
                "SELECT 1000 * extract(epoch FROM r.received_at - o.created_at)::float8 AS ms FROM outbox o "
                "JOIN outbound_streams s ON s.id = o.stream CROSS JOIN LATERAL (SELECT received_at FROM receipts "
                "WHERE stream = o.stream AND size > o.idx ORDER BY size LIMIT 1) r "
                "WHERE s.peer = ANY($1) AND o.created_at >= $2",
                list(peers),
                since,
            )
        return [row["ms"] for row in rows]

    async def show_bad(self, peers: Sequence[str], *, shown: bool) -> None:
        """Let the node see the backlog of the bad peers, or not."""
        async with self.store.db.transaction("bench.bad") as tx:
            await tx.execute(
                "UPDATE outbound_streams SET next_index = $2 WHERE peer = ANY($1)", list(peers), BAD_BACKLOG * shown
            )
            await tx.execute("UPDATE peers SET retry_at = NULL, failures = 0 WHERE node_id = ANY($1)", list(peers))
            await tx.notify("deliver")

    async def value(self, query: str, *args: object) -> int:
        """Return one number of the database."""
        async with self.store.db.transaction("bench.read") as tx:
            return int(await tx.value(query, *args))


@dataclass(slots=True)
class Measured:
    """What the turns of one kind measured."""

    rates: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    #: Of the node, for the same records.
    cpu_s: list[float] = field(default_factory=list)

    def p99(self) -> float:
        """Return the 99th percentile of all latencies."""
        return quantiles(self.latencies_ms, n=100)[-1]

    def joined(self, other: "Measured") -> "Measured":
        """Return what both measured."""
        return Measured(self.rates + other.rates, self.latencies_ms + other.latencies_ms, self.cpu_s + other.cpu_s)


def ratio(some: Sequence[float], others: Sequence[float]) -> float:
    """Return how the middle of the one is to the middle of the other."""
    return median(some) / median(others)


async def turn(sender: Sender, node: psutil.Process, peers: Sequence[str], measured: Measured) -> None:
    """Measure once: a bulk, then records one by one."""
    used = sum(node.cpu_times()[:2])
    bulk = {peer: sender.records(peer, BULK) for peer in peers}
    await sender.append(bulk)
    appended = perf_counter()
    await sender.receipted(peers)
    measured.rates.append(BULK * len(peers) / (perf_counter() - appended))
    one_by_one = {peer: sender.records(peer, TRICKLE) for peer in peers}
    since = CLOCK.now()
    for at in range(TRICKLE):
        await sender.append({peer: [records[at]] for peer, records in one_by_one.items()})
        await asyncio.sleep(TRICKLE_PAUSE_S)
    await sender.receipted(peers)
    measured.cpu_s.append(sum(node.cpu_times()[:2]) - used)
    measured.latencies_ms += await sender.latencies_ms(peers, since)


async def measure(world: World, bad: Bad, pid: int, rounds: int) -> tuple[Measured, Measured, Measured]:
    """Return what was measured before, with and after the bad peers, in turns."""
    nodes = {node.settings.countries[0]: node for node in world.nodes}
    fr, good = nodes["FR"], [Good(nodes[country]) for country in GOOD]
    good_ids, bad_ids = [one.node.id for one in good], [nodes[country].id for country in BAD]
    for one in good:
        await one.listen()
    before, beside, after, node = Measured(), Measured(), Measured(), psutil.Process(pid)
    async with open_store(fr.settings, clock=CLOCK) as store:
        session = cast("aiohttp.ClientSession", None)
        speakers = {node.id: PeerSimulator(fr, node, session) for node in world.nodes if node is not fr}
        sender = Sender(store, dict(speakers))
        await sender.append({peer: sender.records(peer, BAD_BACKLOG) for peer in bad_ids})
        await sender.show_bad(bad_ids, shown=False)
        await turn(sender, node, good_ids, Measured())
        for _ in range(rounds):
            await turn(sender, node, good_ids, before)
            await sender.show_bad(bad_ids, shown=True)
            bad.throwing.set()
            await asyncio.sleep(0.5)
            await turn(sender, node, good_ids, beside)
            bad.throwing.clear()
            # The silent one may still be waited for; that it was called is enough.
            failed = await sender.value(
                "SELECT count(*) FROM peers WHERE failures > 0 AND node_id = ANY($1)",
                [nodes[country].id for country in (DEAD, GARBAGE)],
            )
            if failed != len((DEAD, GARBAGE)) or not bad.silences.value or not bad.fetches.value:
                raise SystemExit("the bad peers were not all met")
            print(f"a turn with them: {bad.fetches.value} fetches answered", flush=True)
            bad.silences.value = bad.fetches.value = 0
            await sender.show_bad(bad_ids, shown=False)
            # What is under way to them ends first.
            await asyncio.sleep(TIMEOUT_S + 0.5)
            await turn(sender, node, good_ids, after)
    for one in good:
        await one.close()
    return before, beside, after


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 1) as (server,):
            world = build_world(folder, [migrated(server, "fr")], **SETTINGS)
            world.new_database = lambda: "postgresql://nobody@127.0.0.1:9/none"
            for country in (*GOOD, *BAD, GREEDY):
                world.add(country)
            world.nodes[-1].entry["delivery"] = "pull"
            world.sign_directory()
            nodes = {node.settings.countries[0]: node for node in world.nodes}
            bad_nodes = {country: nodes[country] for country in (*BAD, GREEDY)}
            with Bad.beside(bad_nodes, nodes["FR"]) as bad, serving(nodes["FR"]) as process:
                before, beside, after = uvloop.run(measure(world, bad, process.pid, rounds))
    for name, one in (("before", before), ("with bad peers", beside), ("after", after)):
        print(
            f"{name + ':':18} {median(one.rates):,.0f} records/s, p50 {median(one.latencies_ms):.1f} ms, "
            f"p99 {one.p99():.1f} ms, {median(one.cpu_s):.2f} s of the node's processor"
        )
    without = before.joined(after)
    print(f"throughput: ratio {ratio(beside.rates, without.rates):.3f} (at least 0.90)")
    print(f"p99:        ratio {beside.p99() / without.p99():.3f} (at most 1.10)")
    print(f"processor:  ratio {ratio(beside.cpu_s, without.cpu_s):.3f}; means something on a busy machine too")
    print(
        f"noise:      after to before: throughput {ratio(after.rates, before.rates):.3f}, "
        f"p99 {after.p99() / before.p99():.3f}, processor {ratio(after.cpu_s, before.cpu_s):.3f}"
    )


if __name__ == "__main__":
    main()
