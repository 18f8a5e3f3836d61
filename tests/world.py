"""Builds a small network for a test: nodes with their keys, files, databases and one signed directory."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

from node.coordinator import store
from node.hotline.store.vault import create_keys
from node.platform.database import Database
from node.platform.fieldcrypto import MasterKey
from node.platform.keyfiles import (
    DESK_KEYS,
    NodeKeys,
    create_master_key,
    create_node_keys,
    descriptor,
    desk_descriptor,
    write_secret,
)
from node.platform.repository import (
    ONLINE,
    ROOT,
    TARGETS,
    RoleKeys,
    fingerprint,
    make_root,
    make_snapshot,
    make_targets,
    make_timestamp,
    next_version,
    published,
    sign,
)
from node.platform.trust import root_file
from node.settings import _COORDINATORS, _SHARED, COORDINATOR, Settings, settings_from
from protocol.keys import Algorithm, SigningKey
from tests.ports import free_port

#: Documentation ranges, as if they were hosted in these countries.
RANGES = {"FR": "192.0.2.0/26", "NL": "198.51.100.0/24", "DE": "203.0.113.0/25", "US": "203.0.113.128/25"}
ADDRESS = {"FR": "192.0.2.1", "NL": "198.51.100.1", "DE": "203.0.113.1", "US": "203.0.113.200"}


def file_values(settings: Settings) -> dict[str, object]:
    """Return what a settings file says for `settings`, each value written out."""
    apart = _COORDINATORS | {"master_key"}
    if settings.role == COORDINATOR:
        return {name: getattr(settings, name) for name in _SHARED | _COORDINATORS}
    return {one.name: getattr(settings, one.name) for one in fields(Settings) if one.name not in apart}


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
    """The nodes of one test and the authority of their directory: one key signs for every role.

    Tests that turn clocks forward by weeks need not think of the directory: it is valid for `valid`.
    """

    folder: Path
    new_database: Callable[[], str]
    authority: SigningKey = field(default_factory=lambda: SigningKey(Algorithm.ED25519, bytes(range(32))))
    nodes: list[TestNode] = field(default_factory=list)
    mandated: list[str] = field(default_factory=list)
    desk: TestNode | None = None
    version: int = 0
    online_version: int = 0
    valid: timedelta = timedelta(days=3650)
    root: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Make the root, which never changes here."""
        keys = RoleKeys([self.authority.public()], 1)
        expires = datetime(2099, 1, 1, tzinfo=UTC)
        self.root = sign(make_root(1, dict.fromkeys((ROOT, TARGETS, *ONLINE), keys), expires), self.authority)

    @property
    def repository(self) -> Path:
        """The folder that every node takes the directory from."""
        return self.folder / "repository"

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
            "directory_root": fingerprint(self.root),
            "directory_sources": [str(self.repository)],
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

    def add_desk(self, database_url: str, **settings: object) -> TestNode:
        """Make a coordinator, whose desk is the network's; its keys sign what this world's authority signs."""
        home = self.folder / "coordinator"
        home.mkdir(mode=0o700)
        keys = create_node_keys(home / "keys", datetime(2026, 1, 1, tzinfo=UTC), DESK_KEYS)
        (home / "directory-keys").mkdir(mode=0o700)
        for name in ONLINE:
            seed = base64.b64encode(self.authority.seed).decode()
            body = {"use": "authority", "algorithm": "ed25519", "seed": seed, "created": "2026-01-01T00:00:00.000Z"}
            write_secret(home / "directory-keys" / f"{name}.key", json.dumps(body).encode())
        port = free_port()
        values: dict[str, object] = {
            "role": COORDINATOR,
            "node_id": "coordinator.example",
            "data_dir": str(home),
            "base_url": f"http://127.0.0.1:{port}",
            "listen_peer": f"127.0.0.1:{port}",
            "listen_api": f"127.0.0.1:{free_port()}",
            "database_url": database_url,
            "log_level": "warning",
            **settings,
        }
        made = settings_from(values, home)
        self.desk = TestNode(made, keys, json.loads(desk_descriptor(made, keys)))
        return self.desk

    async def tell_desk(self) -> None:
        """Put the signed directory into the coordinator's database, as `hotline directory publish` does."""
        files = {path.name: path.read_bytes() for path in self.repository.iterdir() if not path.name.startswith(".")}
        assert self.desk is not None
        db = Database(self.desk.settings.database_url)
        async with db.transaction("test.publish") as tx:
            await store.replace(tx, files, datetime.now(UTC))
        await db.close()

    def sign_directory(self, issued_at: datetime | None = None, *, padding: int = 0) -> Path:
        """Write the directory of all nodes, one version up; so many bytes larger by what nobody knows."""
        self.version += 1
        document = {
            "v": 1,
            "version": self.version,
            "issued_at": _time(issued_at or datetime.now(UTC)),
            "nodes": [node.entry for node in self.nodes],
            "routing": {"mandated": self.mandated, "desk": None if self.desk is None else self.desk.entry},
        }
        if padding:
            document["padding"] = "x" * padding
        self.publish(json.dumps(document).encode())
        return self.repository

    def publish(self, document: bytes) -> None:
        """Sign a document and put all metadata into the repository, the timestamp last."""
        now = datetime.now(UTC)
        expires = now.replace(microsecond=0) + self.valid
        self.online_version = next_version(self.online_version, now)
        targets = sign(make_targets(document, expires), self.authority)
        snapshot = make_snapshot(targets, self.online_version, expires, self.authority)
        timestamp = make_timestamp(snapshot, self.online_version, expires, self.authority)
        self.repository.mkdir(exist_ok=True)
        files = {root_file(1): self.root, **published(targets, document, snapshot, timestamp)}
        for name, content in files.items():
            fresh = self.repository / f".{name}"
            fresh.write_bytes(content)
            fresh.replace(self.repository / name)

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
