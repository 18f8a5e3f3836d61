"""Asks the API door of a running node as a machine would: real HTTP, a key of a role, raw bytes where it matters."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from node.hotline.assembly import Node
from node.hotline.serve import running
from node.hotline.store.apikeys import ApiKeys
from node.hotline.store.tables import metadata
from node.platform.apikeys import NewApiKey, Role, new_api_key
from node.platform.database import Database
from node.platform.telemetry import Logger, make_logger
from tests.hotline.network import SteppedClock
from tests.patience import stretched
from tests.world import TestNode

#: Stands in everything that is sent and must never come back.
CANARY = "canary"
REPORTS = "/api/v1/reports"
ITEMS = "/api/v1/items"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def errors(self, status: int, code: str) -> list[tuple[str, str]]:
        """Check that this is an RFC 9457 problem that quotes nothing; return (field, reason) of each error."""
        assert self.status == status, self.body
        assert self.headers["Content-Type"] == "application/problem+json"
        said = self.json()
        assert {"type", "title", "status", "detail", "code", "request_id"} <= said.keys()
        assert (said["type"], said["status"], said["code"]) == (f"urn:hx:problem:{code}", status, code)
        assert said["request_id"] == self.headers["X-Request-Id"]
        assert said["title"]
        assert said["detail"]
        assert CANARY not in self.body.decode().lower()
        for error in said["errors"]:
            assert error["detail"]
        return [(error["field"], error["reason"]) for error in said["errors"]]


@dataclass(slots=True)
class Door:
    """A node, its API door and a key of each role."""

    node: Node
    base_url: str
    session: aiohttp.ClientSession
    keys: dict[Role, NewApiKey]
    clock: SteppedClock

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        role: Role | None = Role.ADMIN,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request; `body` is sent as it is when it is bytes, else as JSON."""
        said = dict(headers or {})
        if role is not None:
            said.setdefault("Authorization", bearer(self.keys[role]))
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            said.setdefault("Content-Type", "application/json")
        url = URL(self.base_url + path, encoded=True)
        async with self.session.request(method, url, data=data, headers=said) as response:
            return Reply(response.status, response.headers, await response.read())

    async def report(self, body: object, **options: Any) -> Reply:
        return await self.ask("POST", REPORTS, body, **options)

    async def raw(self, request: bytes, *, limit_s: float = 10.0) -> bytes:
        """Send bytes on a connection of their own and return the first answer, head and body."""
        address = URL(self.base_url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(request)
            async with asyncio.timeout(stretched(limit_s)):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.IGNORECASE)
                return head + (await reader.readexactly(int(length[1])) if length else b"")
        finally:
            writer.close()

    async def rows(self) -> dict[str, int]:
        """How many rows each table holds; the queue empties by itself and is left out."""
        counts = {}
        async with self.node.db.transaction("test.rows") as tx:
            for table in metadata.sorted_tables:
                if table.name == "location_queue":
                    continue
                counts[table.name] = int(await tx.value(f"SELECT count(*) FROM {table.name}"))  # noqa: S608 - our own
        return counts

    async def item(self, item_id: str) -> dict[str, Any]:
        """The item as the API shows it."""
        reply = await self.ask("GET", f"{ITEMS}/{item_id}")
        assert reply.status == 200, reply.body
        shown: dict[str, Any] = reply.json()
        return shown

    async def until(self, item_id: str, *states: str, limit_s: float = 15.0) -> dict[str, Any]:
        """Wait until the item is in one of these states."""
        shown: dict[str, Any] = {}
        try:
            async with asyncio.timeout(stretched(limit_s)):
                while shown.get("state") not in states:
                    await self.node.signals.wait("test", 0.02)
                    shown = await self.item(item_id)
        except TimeoutError:
            raise AssertionError(f"still {shown.get('state')} ({shown.get('reason')}), expected {states}") from None
        return shown


def bearer(key: NewApiKey) -> str:
    return f"Bearer {key.text}"


def basic(key: NewApiKey, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{key.text}".encode()).decode()


@asynccontextmanager
async def open_door(one: TestNode, *, log: Logger | None = None) -> AsyncIterator[Door]:
    """Run the node and yield its API door; its field keys and its directory are there already."""
    clock = SteppedClock()
    log = log or make_logger("error", "json")
    async with (
        running(one.settings, clock=clock, log=log) as (node, _, api),
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        keys = {}
        for role in Role:
            keys[role] = new_api_key()
            await ApiKeys(node.db).add(keys[role], f"test {role}", frozenset({role}), clock.now())
        yield Door(node, api.base_url, session, keys, clock)


@asynccontextmanager
async def database_gone(db: Database, elsewhere: str) -> AsyncIterator[None]:
    """Nobody gets into this database while the block runs; those who were in are thrown out.

    `elsewhere` is the address of another database of the same server: nobody can close the one they are in.
    """
    async with db.transaction("test.name") as tx:
        name = await tx.value("SELECT current_database()")
    admin = Database(elsewhere)
    try:
        async with admin.transaction("test.close") as tx:
            await tx.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        async with admin.transaction("test.cut") as tx:
            await tx.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        yield
        async with admin.transaction("test.open") as tx:
            await tx.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await admin.close()
