"""The machine of a soak: database servers, certificates, country file, and a relay in front of each node."""

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import sqlalchemy as sa
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from node.hotline.assembly import ROLE
from node.hotline.store.tables import metadata
from node.platform import migrate
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres
from node.platform.keyfiles import descriptor_path
from tests.certificates import Authority
from tests.faults.relay import Relay
from tests.ports import free_port
from tests.soak.process import open_nursery
from tests.world import TestNode, World

#: One country a node; each hosts sixteen documentation addresses.
COUNTRIES: Final = ("FR", "NL", "DE", "AT", "BE", "CZ", "DK", "ES", "FI", "HR", "IE", "IT", "LV", "PL", "PT", "SE")
#: Has no hotline; the first node is mandated for what is hosted there.
ORPHANED: Final = "GR"
#: Where the hostile member is at home; nothing that is reported is hosted there.
HOSTILE_COUNTRY: Final = "LI"
COORDINATOR_ID: Final = "coordinator.example"
_COORDINATORS_DATABASE: Final = "coordinator"
_TEMPLATE: Final = "template_soak"
_POSTGRES: Final = {"max_connections": "200", "shared_buffers": "64MB"}
_SETTINGS: Final[dict[str, object]] = {
    "directory_root": "",
    "directory_sources": [],
    "directory_refresh_s": 15.0,
    "database_pool_size": 3,
    "poll_s": 1.0,
    "desk_poll_s": 3.0,
    "backoff_base_s": 0.2,
    "backoff_cap_s": 3.0,
    "batch_records_max": 200,
    "peer_timeout_s": 10.0,
    "shutdown_s": 15.0,
    "log_level": "info",
}


def address(country: str, number: int) -> str:
    """Return a documentation address that is hosted in a country of the soak."""
    if country == ORPHANED:
        return f"203.0.113.{number % 16}"
    return f"198.51.100.{16 * COUNTRIES.index(country) + number % 16}"


@dataclass(slots=True)
class Site:
    """Everything that the nodes of one soak stand on."""

    folder: Path
    world: World
    authority: Authority
    servers: Sequence[EmbeddedPostgres]
    #: By the id of who is behind it.
    relays: dict[str, Relay] = field(default_factory=dict)
    #: At addresses that nodes had before they moved; they still lead there.
    left: list[Relay] = field(default_factory=list)
    hostile: TestNode | None = None
    #: The node that cannot be called and fetches what is said to it.
    fetching: str = ""
    #: Where the coordinator is called, and where it listens.
    coordinator_ports: tuple[int, int] = (0, 0)

    @property
    def nodes(self) -> list[TestNode]:
        """The nodes that really run; the hostile member is not one of them."""
        return [node for node in self.world.nodes if node is not self.hostile]

    def server_of(self, node_id: str) -> int:
        """Return which server holds the database of a node, or of the coordinator."""
        if node_id == COORDINATOR_ID:
            return len(self.servers) - 1
        ids = [node.id for node in self.nodes]
        return ids.index(node_id) % len(self.servers)

    @property
    def coordinator_database(self) -> str:
        """The address of the coordinator's database."""
        return self.servers[self.server_of(COORDINATOR_ID)].url(_COORDINATORS_DATABASE)

    def trust(self) -> ssl.SSLContext:
        """Return a context that believes the nodes' certificates."""
        return ssl.create_default_context(cafile=self.authority.file)

    async def open(self) -> None:
        """Let the relays listen; the directory names them, so a node is reached through its relay only."""
        for relay in self.relays.values():
            await relay.start()

    async def move(self, node: TestNode) -> str:
        """Let a node be reached at another address, too, and return that."""
        relay = Relay(free_port(), [int(node.settings.listen_peer.rsplit(":", 1)[1])])
        await relay.start()
        self.left.append(self.relays[node.id])
        self.relays[node.id] = relay
        return f"https://localhost:{relay.port}"

    async def close(self) -> None:
        """Close the relays."""
        for relay in (*self.relays.values(), *self.left):
            await relay.close()


@contextmanager
def serving_databases(folder: Path, count: int) -> Iterator[list[EmbeddedPostgres]]:
    """Start so many database servers with a migrated template each, and stop them whatever happens."""
    running: list[EmbeddedPostgres] = []
    open_nursery()
    try:
        for number in range(count):
            server = EmbeddedPostgres.start(folder / f"db{number}", _POSTGRES)
            running.append(server)
            server.create_database(_TEMPLATE)
            asyncio.run(_migrate(server.url(_TEMPLATE)))
        yield running
    finally:
        for server in running:
            server.stop()


def build(folder: Path, servers: Sequence[EmbeddedPostgres], *, nodes: int) -> Site:
    """Make the files and databases of a soak; nothing of it runs, and no node has joined."""
    world = World(folder, _databases(servers))
    site = Site(folder, world, Authority(folder), servers)
    countries = _write_countries(folder / "countries.mmdb")
    for country in COUNTRIES[:nodes]:
        _add(site, country, geo_country_databases=[str(countries)])
    last = world.nodes[-1]
    last.entry["delivery"] = "pull"
    site.fetching = last.id
    site.relays[last.id].open = False
    world.new_database = lambda: "postgresql://nobody@127.0.0.1:9/none"
    site.hostile = _add(site, HOSTILE_COUNTRY)
    for node in world.nodes:
        descriptor_path(node.settings).write_text(json.dumps(node.entry), encoding="utf-8")
    asyncio.run(world.create_field_keys(site.nodes))
    servers[site.server_of(COORDINATOR_ID)].create_database(_COORDINATORS_DATABASE)
    site.coordinator_ports = free_port(), free_port()
    called, listens = site.coordinator_ports
    site.relays[COORDINATOR_ID] = Relay(called, [listens])
    return site


def _add(site: Site, country: str, **settings: object) -> TestNode:
    relay, port = free_port(), free_port()
    node = site.world.add(
        country,
        **{
            **_SETTINGS,
            **site.authority.issue(country).settings(),
            "peer_tls_ca_file": str(site.authority.file),
            "base_url": f"https://localhost:{relay}",
            "listen_peer": f"127.0.0.1:{port}",
            "listen_api": f"127.0.0.1:{free_port()}",
            **settings,
        },
    )
    site.relays[node.id] = Relay(relay, [port])
    return node


def _databases(servers: Sequence[EmbeddedPostgres]) -> Callable[[], str]:
    turn = cycle(servers)
    made = iter(range(1_000_000))

    def new_database() -> str:
        server, name = next(turn), f"soak_{next(made)}"
        asyncio.run(_administer(server.url(), f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}"))
        return server.url(name)

    return new_database


async def _administer(url: str, *statements: str) -> None:
    """Run statements on whole databases."""
    db = Database(url)
    try:
        async with db.engine.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            for statement in statements:
                await autocommit.execute(sa.text(statement))
    finally:
        await db.close()


async def _migrate(url: str) -> None:
    db = Database(url)
    await migrate.upgrade(db.engine, ROLE, metadata)
    await db.close()


async def copy_database(url: str) -> None:
    """Copy a database as it is now, for `restore_database`; nobody of the node may be connected to it."""
    name, admin = _named(url)
    await _administer(
        admin,
        f"DROP DATABASE IF EXISTS {name}_copy",
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        # The soak's own.
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608 - ours
    )
    try:
        await _administer(admin, f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    finally:
        await _administer(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def restore_database(url: str) -> None:
    """Put the copy in the place of a database."""
    name, admin = _named(url)
    await _administer(
        admin,
        f"DROP DATABASE {name} WITH (FORCE)",
        f"ALTER DATABASE {name}_copy RENAME TO {name}",
    )


def _named(url: str) -> tuple[str, str]:
    """Return the name of a database, and the address at which databases are administered."""
    parts = urlsplit(url)
    return parts.path.lstrip("/"), parts._replace(path="/postgres").geturl()


def _write_countries(path: Path) -> Path:
    writer: Any = MMDBWriter(4, "GeoLite2-Country", languages=["en"])
    for country in (*COUNTRIES, ORPHANED):
        record = {"country": {"iso_code": country}, "registered_country": {"iso_code": country}}
        writer.insert_network(IPSet([f"{address(country, 0)}/28"]), record)
    writer.to_db_file(str(path))
    return path


def crash(server: EmbeddedPostgres) -> None:
    """Restart a database server as after a crash: every connection is cut, and it recovers from its log."""
    log = str(server.pgdata / "server.log")
    server._programs.run(
        "pg_ctl", "restart", "-m", "immediate", "-w", "-s", "-l", log, "-D", str(server.pgdata), what="restart"
    )
