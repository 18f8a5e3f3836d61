"""The machine of a soak: database servers, certificates, country file, directory, and a relay in front of each node."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from node.hotline.assembly import ROLE
from node.hotline.store.tables import metadata
from node.platform import migrate
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres
from tests.certificates import Authority
from tests.faults.relay import Relay
from tests.faults.station import fixed_port
from tests.world import TestNode, World

#: One country a node; each hosts sixteen documentation addresses.
COUNTRIES: Final = ("FR", "NL", "DE", "AT", "BE", "CZ", "DK", "ES", "FI", "HR", "IE", "IT", "LV", "PL", "PT", "SE")
#: Where the hostile member is at home; nothing that is reported is hosted there.
HOSTILE_COUNTRY: Final = "LI"
_TEMPLATE: Final = "template_soak"
_POSTGRES: Final = {"max_connections": "200", "shared_buffers": "64MB"}
_SETTINGS: Final[dict[str, object]] = {
    "database_pool_size": 3,
    "poll_s": 0.5,
    "backoff_base_s": 0.2,
    "backoff_cap_s": 3.0,
    "batch_records_max": 200,
    "peer_timeout_s": 10.0,
    "shutdown_s": 15.0,
    "log_level": "info",
}


def address(country: str, number: int) -> str:
    """Return a documentation address that is hosted in a country of the soak."""
    return f"198.51.100.{16 * COUNTRIES.index(country) + number % 16}"


@dataclass(slots=True)
class Site:
    """Everything that the nodes of one soak stand on."""

    folder: Path
    world: World
    authority: Authority
    servers: list[EmbeddedPostgres]
    relays: dict[str, Relay] = field(default_factory=dict)
    hostile: TestNode | None = None
    #: The node that cannot be called and fetches what is said to it.
    fetching: str = ""

    @property
    def nodes(self) -> list[TestNode]:
        """The nodes that really run; the hostile member is not one of them."""
        return [node for node in self.world.nodes if node is not self.hostile]

    def server_of(self, node: TestNode) -> int:
        """Return which server holds a node's database."""
        return self.nodes.index(node) % len(self.servers)

    def trust(self) -> ssl.SSLContext:
        """Return a context that believes the nodes' certificates."""
        return ssl.create_default_context(cafile=self.authority.file)

    async def open(self) -> None:
        """Let the relays listen; the directory names them, so a node is reached through its relay only."""
        for relay in self.relays.values():
            await relay.start()

    async def close(self) -> None:
        """Close the relays."""
        for relay in self.relays.values():
            await relay.close()


def build(folder: Path, postgres: Path, *, nodes: int, servers: int) -> Site:
    """Make the files and databases of a soak; nothing of it runs but the database servers."""
    running = [EmbeddedPostgres.start(postgres / f"db{number}", _POSTGRES) for number in range(servers)]
    for server in running:
        server.create_database(_TEMPLATE)
        asyncio.run(_migrate(server.url(_TEMPLATE)))
    world = World(folder, _databases(running))
    site = Site(folder, world, Authority(folder), running)
    countries = _write_countries(folder / "countries.mmdb")
    for country in COUNTRIES[:nodes]:
        _add(site, country, geo_country_databases=[str(countries)])
    last = world.nodes[-1]
    last.entry["delivery"] = "pull"
    site.fetching = last.id
    site.relays[last.id].open = False
    world.new_database = lambda: "postgresql://nobody@127.0.0.1:9/none"
    site.hostile = _add(site, HOSTILE_COUNTRY)
    world.sign_directory()
    asyncio.run(world.create_field_keys(site.nodes))
    return site


def _add(site: Site, country: str, **settings: object) -> TestNode:
    relay, port = fixed_port(), fixed_port()
    node = site.world.add(
        country,
        **_SETTINGS,
        **site.authority.issue(country).settings(),
        peer_tls_ca_file=str(site.authority.file),
        base_url=f"https://localhost:{relay}",
        listen_peer=f"127.0.0.1:{port}",
        listen_api=f"127.0.0.1:{fixed_port()}",
        **settings,
    )
    site.relays[node.id] = Relay(relay, [port])
    return node


def _databases(servers: Sequence[EmbeddedPostgres]) -> Callable[[], str]:
    turn = cycle(enumerate(servers))
    made = iter(range(1_000_000))

    def new_database() -> str:
        _, server = next(turn)
        name = f"soak_{next(made)}"
        asyncio.run(_clone(server.url(), name))
        return server.url(name)

    return new_database


async def _clone(url: str, name: str) -> None:
    db = Database(url)
    async with db.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}"))
    await db.close()


async def _migrate(url: str) -> None:
    db = Database(url)
    await migrate.upgrade(db.engine, ROLE, metadata)
    await db.close()


def _write_countries(path: Path) -> Path:
    writer: Any = MMDBWriter(4, "GeoLite2-Country", languages=["en"])
    for country in COUNTRIES:
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
