"""Builds a small network for a test: nodes with their keys, files, databases and one signed directory."""

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

from node.hotline.store.vault import create_keys
from node.platform.database import Database
from node.platform.fieldcrypto import MasterKey
from node.platform.keyfiles import NodeKeys, create_master_key, create_node_keys, descriptor
from node.settings import Settings, settings_from
from protocol.directory import authority_vkey, sign_directory
from protocol.keys import Algorithm, SigningKey

#: Documentation ranges, as if they were hosted in these countries.
RANGES = {"FR": "192.0.2.0/26", "NL": "198.51.100.0/24", "DE": "203.0.113.0/25", "US": "203.0.113.128/25"}
ADDRESS = {"FR": "192.0.2.1", "NL": "198.51.100.1", "DE": "203.0.113.1", "US": "203.0.113.200"}


def free_port() -> int:
    """Return a port of the loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_country_file(path: Path) -> Path:
    """Write an MMDB file of RANGES."""
    writer: Any = MMDBWriter(6, "GeoLite2-Country", languages=["en"], ipv4_compatible=True)
    for country, network in RANGES.items():
        record = {"country": {"iso_code": country}, "registered_country": {"iso_code": country}}
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path


@dataclass(slots=True)
class TestNode:
    """One node's files; `settings` as `hotline serve` would read them."""

    __test__ = False
    settings: Settings
    keys: NodeKeys
    entry: dict[str, Any]

    @property
    def id(self) -> str:
        return self.settings.node_id


@dataclass(slots=True)
class World:
    """The nodes of one test and the authority of their directory."""

    folder: Path
    new_database: Callable[[], str]
    authority: SigningKey = field(default_factory=lambda: SigningKey(Algorithm.ED25519, bytes(range(32))))
    nodes: list[TestNode] = field(default_factory=list)
    mandated: list[str] = field(default_factory=list)
    version: int = 0

    def add(self, country: str, **settings: object) -> TestNode:
        """Make a node `<country>.hotline.example` with keys, a database and settings."""
        node_id = f"{country.lower()}.hotline.example"
        home = self.folder / node_id
        home.mkdir(mode=0o700)
        keys = create_node_keys(home / "keys", datetime(2026, 1, 1, tzinfo=UTC))
        create_master_key(home / "master.key")
        port = free_port()
        values: dict[str, object] = {
            "node_id": node_id,
            "countries": [country],
            "data_dir": str(home),
            "base_url": f"http://127.0.0.1:{port}",
            "listen_peer": f"127.0.0.1:{port}",
            "listen_api": f"127.0.0.1:{free_port()}",
            "database_url": self.new_database(),
            "directory_file": str(self.folder / "directory.note"),
            "directory_authority": authority_vkey(self.authority.public()),
            "geo_country_databases": [str(self._country_file())],
            "geo_allow_reserved": True,
            "dns_servers": ["127.0.0.1:9"],
            "dns_timeout_ms": 100,
            "dns_tries_max": 1,
            "poll_s": 0.1,
            "backoff_base_s": 0.05,
            "backoff_cap_s": 0.5,
            "log_level": "warning",
            **settings,
        }
        made = settings_from(values, home)
        entry = json.loads(descriptor(made, keys, name=f"Hotline {country}", contact="ops@hotline.example"))
        node = TestNode(made, keys, entry)
        self.nodes.append(node)
        return node

    def sign_directory(self, issued_at: datetime | None = None) -> Path:
        """Write the directory of all nodes, one version up."""
        self.version += 1
        document = {
            "v": 1,
            "version": self.version,
            "issued_at": _time(issued_at or datetime.now(UTC)),
            "nodes": [node.entry for node in self.nodes],
            "routing": {"mandated": self.mandated, "desk": None},
        }
        path = self.folder / "directory.note"
        path.write_bytes(sign_directory(json.dumps(document).encode(), self.authority))
        return path

    async def create_field_keys(self, nodes: Sequence[TestNode] | None = None) -> None:
        """Make the field keys of each node's database."""
        for node in nodes or self.nodes:
            db = Database(node.settings.database_url)
            async with db.transaction("test.keys") as tx:
                await create_keys(tx, MasterKey.load(node.settings), datetime.now(UTC))
            await db.close()

    def _country_file(self) -> Path:
        path = self.folder / "country.mmdb"
        return path if path.exists() else write_country_file(path)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
