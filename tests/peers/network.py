"""A running node for many tests, the directory around it, and what a test may ask of its tables; never decides."""

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from node.clock import rfc3339
from node.hotline.assembly import Node
from node.hotline.store import outbound
from node.platform.database import Row
from node.platform.ids import new_id
from protocol.codes import COUNTRIES
from protocol.keys import SigningKey
from protocol.merkle import leaf_hash
from protocol.problems import REGISTRY, TYPE_PREFIX
from tests.hotline.network import heard_of
from tests.patience import stretched
from tests.peers.simulator import Answer, PeerSimulator
from tests.world import TestNode, World

#: Simulated peers take the countries that no node of a test needs, one each.
_FREE_COUNTRIES = sorted(COUNTRIES - {"FR", "NL", "DE", "US"})
LIMIT_S = 20.0


class ShiftedClock:
    """The machine's clock, off by `offset_s`; `haste` makes monotonic time run faster, so that no test waits long."""

    def __init__(self, *, haste: float = 1.0) -> None:
        self.offset_s = 0.0
        self.haste = haste

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.offset_s)

    def monotonic(self) -> float:
        return time.monotonic() * self.haste


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a node holds of one peer's streams."""

    size: int
    records: int
    batches: int
    nonces: int


@dataclass(slots=True)
class Network:
    """A world whose first node will be under test; peers are added while it runs."""

    world: World
    tested: TestNode
    free: list[str] = field(default_factory=lambda: list(_FREE_COUNTRIES))

    def add_peer(self, country: str | None = None, **settings: object) -> TestNode:
        """List one more member, with keys and files but without a database; its country is free unless given."""
        own = self.world.new_database
        self.world.new_database = lambda: "postgresql://nobody@127.0.0.1:9/none"
        try:
            return self.world.add(country or self.free.pop(0), **settings)
        finally:
            self.world.new_database = own


@dataclass(slots=True)
class Hub:
    """The node under test, running."""

    network: Network
    node: Node
    clock: ShiftedClock
    session: aiohttp.ClientSession
    lines: io.StringIO

    @property
    def id(self) -> str:
        return self.node.settings.node_id

    async def peer(self, country: str | None = None, **settings: object) -> PeerSimulator:
        """List one more simulated peer and return it."""
        added = self.network.add_peer(country, **settings)
        await self.new_directory()
        return PeerSimulator(added, self.network.tested, self.session)

    async def new_directory(self) -> None:
        """Sign the directory as the nodes' entries say it now, and have the node use it."""
        self.network.world.sign_directory()
        await heard_of(self.node, self.network.world.version)

    async def rows(self, query: str, *args: object) -> list[Row]:
        async with self.node.db.transaction("test.read") as tx:
            return await tx.fetch(query, *args)

    async def row(self, query: str, *args: object) -> Row:
        (row,) = await self.rows(query, *args)
        return row

    async def holdings(self, peer: PeerSimulator) -> Holdings:
        """What is stored of a peer, for a comparison before and after."""
        row = await self.row(
            "SELECT (SELECT coalesce(sum(size), 0)::int FROM inbound_streams WHERE peer = $1) AS size, "
            "(SELECT count(*) FROM inbox i JOIN inbound_streams s ON s.id = i.stream WHERE s.peer = $1) AS records, "
            "(SELECT count(*) FROM inbound_batches b JOIN inbound_streams s ON s.id = b.stream WHERE s.peer = $1) "
            "AS batches, (SELECT count(*) FROM nonces WHERE keyid = $2) AS nonces",
            peer.id,
            peer.keys.http.public().thumbprint(),
        )
        return Holdings(**dict(row))

    async def refuses(
        self, peer: PeerSimulator, attempt: Awaitable[Answer], code: str, *, field: str | None = None
    ) -> dict[str, Any]:
        """Expect exactly this problem, nothing stored, and that the peer's stream goes on after it as before."""
        before = await self.holdings(peer)
        problem = await self.problem(attempt, code, field=field)
        assert await self.holdings(peer) == before
        await peer.deliver(1)
        assert (await self.holdings(peer)).size == before.size + 1
        return problem

    async def problem(self, attempt: Awaitable[Answer], code: str, *, field: str | None = None) -> dict[str, Any]:
        """Expect exactly this problem of the registry, and return its members."""
        answer = await attempt
        expected = REGISTRY[code]
        members = answer.problem
        assert (members["code"], answer.status) == (code, expected.status), members
        assert members["type"] == TYPE_PREFIX + code
        assert members["status"] == expected.status
        assert members["title"] == expected.title
        assert members["retryable"] is expected.retryable
        assert members["scope"] == expected.scope
        assert members["detail"]
        assert members.get("field") == field
        return members

    async def applied(self, peer: PeerSimulator) -> None:
        """Wait until everything held of a peer is applied, which is when its outcomes are in our stream back."""
        await self.until(
            "SELECT c.applied = s.size AS met FROM inbound_streams s JOIN apply_cursors c ON c.stream = s.id "
            "WHERE s.peer = $1",
            peer.id,
        )

    async def until(self, query: str, *args: object, limit_s: float = LIMIT_S) -> None:
        """Wait until `query` answers `met` with true."""

        async def met() -> bool:
            rows = await self.rows(query, *args)
            return bool(rows) and bool(rows[0]["met"])

        await self.wait(met, limit_s=limit_s)

    async def wait(self, condition: Callable[[], Awaitable[bool]], *, limit_s: float = LIMIT_S) -> None:
        """Look until `condition` holds; AssertionError after `limit_s`."""
        try:
            async with asyncio.timeout(stretched(limit_s)):
                while not await condition():
                    await self.node.signals.wait("test", 0.02)
        except TimeoutError:
            raise AssertionError(f"not within {limit_s} s; the node's last lines:\n{self.tail()}") from None

    @asynccontextmanager
    async def applying_paused(self, peer: PeerSimulator) -> AsyncIterator[None]:
        """Keep what a peer sent from being applied, as another worker does that has it in hand."""
        async with self.node.db.transaction("test.pause") as tx:
            await tx.fetch(
                "SELECT 1 FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream WHERE s.peer = $1 "
                "FOR UPDATE OF c",
                peer.id,
            )
            yield

    @contextmanager
    def commits_failing(self, step: str) -> Iterator[None]:
        """Let the database go away at each commit of one named transaction."""

        async def fail(name: str) -> None:
            if name == step:
                raise ConnectionResetError

        self.node.db.before_commit = fail  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.node.db.before_commit

    def logged(self, **wanted: object) -> list[dict[str, Any]]:
        """Return the log lines that have these members."""
        lines: Iterable[dict[str, Any]] = (json.loads(line) for line in self.lines.getvalue().splitlines())
        return [line for line in lines if wanted.items() <= line.items()]

    def tail(self) -> str:
        return "\n".join(self.lines.getvalue().splitlines()[-20:])

    async def queue(self, peer: PeerSimulator, count: int, *, evidence_bytes: int = 0) -> list[bytes]:
        """Append records to our stream to `peer`, as the dispatcher does, and return them."""
        ours = PeerSimulator(self.network.tested, peer.node, self.session)
        return await self.append(peer.id, [ours.report(evidence_bytes=evidence_bytes) for _ in range(count)])

    async def append(self, peer_id: str, records: Sequence[bytes]) -> list[bytes]:
        now = self.clock.now()
        async with self.node.db.transaction("test.append") as tx:
            head = (await outbound.lock_streams(tx, [peer_id]))[peer_id]
            rows = []
            for idx, record in enumerate(records, start=head.next_index):
                sealed = self.node.store.vault.seal_record("outbox", head.id, idx, record)
                rows.append(outbound.OutboxRow(idx, new_id(now), None, "report", leaf_hash(record), sealed))
            await outbound.append(tx, head, rows, now)
            await tx.notify("deliver")
        return list(records)


def edit_keys(node: TestNode, use: str, algorithm: str | None = None, **members: object) -> None:
    """Change the directory's entries of a node's keys of one use."""
    for key in node.entry["keys"]:
        if key["use"] == use and algorithm in {None, key["algorithm"]}:
            key.update(members)


def add_key(node: TestNode, use: str, key: SigningKey, since: datetime | str) -> None:
    """List one more active key of a node."""
    node.entry["keys"].append(
        {
            "use": use,
            "algorithm": key.algorithm.value,
            "public": base64.b64encode(key.public().raw).decode(),
            "state": "active",
            "not_before": since if isinstance(since, str) else rfc3339(since),
        }
    )
