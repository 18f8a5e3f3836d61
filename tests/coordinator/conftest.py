"""A coordinator with a database of its own, and the signers of its directory."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.clock import Clock, SystemClock
from node.coordinator.ceremony import Base, Proposal
from node.coordinator.publisher import Publisher
from node.coordinator.serve import running
from node.platform.keyfiles import DESK_KEYS, create_node_keys, write_secret
from node.platform.repository import ONLINE, ROOT, TARGETS, RoleKeys, fingerprint, make_root, make_targets, sign
from node.platform.telemetry import make_logger
from node.settings import Settings, settings_from
from protocol.keys import SigningKey
from tests.platform.tuf_repository import key
from tests.ports import free_port
from tests.world import TestNode, World


@dataclass
class Authority:
    """A coordinator's settings and those who sign: two people of three for the root, one for the directory."""

    settings: Settings
    root: bytes
    document: dict[str, Any]
    proposed: Base | None = None

    @property
    def pin(self) -> str:
        return fingerprint(self.root)

    def propose(self, nodes: list[TestNode], **routing: object) -> Proposal:
        """Return a signed proposal that lists these nodes as their entries say it now."""
        self.document["version"] += 1
        self.document["nodes"] = [node.entry for node in nodes]
        self.document["routing"] = {"mandated": [], "desk": None, **routing}
        raw = json.dumps(self.document).encode()
        targets = sign(make_targets(raw, later()), key("editor"))
        first = self.proposed is None
        made = Proposal(self.proposed, self.root if first else None, targets, raw)
        self.proposed = Base(self.root, targets, raw)
        return made


def later() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=365)


def write_key(path: Path, one: SigningKey) -> None:
    seed = base64.b64encode(one.seed).decode()
    body = {"use": "authority", "algorithm": "ed25519", "seed": seed, "created": "2026-01-01T00:00:00.000Z"}
    write_secret(path, json.dumps(body).encode())


@pytest.fixture
def authority(tmp_path: Path, coordinator_database: str) -> Authority:
    home = tmp_path / "coordinator"
    (home / "directory-keys").mkdir(parents=True)
    for name in ("snapshot", "timestamp"):
        write_key(home / "directory-keys" / f"{name}.key", key(name))
    create_node_keys(home / "keys", datetime(2026, 1, 1, tzinfo=UTC), DESK_KEYS)
    port = free_port()
    settings = settings_from(
        {
            "role": "coordinator",
            "node_id": "coordinator.example",
            "data_dir": str(home),
            "base_url": f"http://127.0.0.1:{port}",
            "listen_peer": f"127.0.0.1:{port}",
            "listen_api": f"127.0.0.1:{free_port()}",
            "database_url": coordinator_database,
        },
        home,
    )
    people = RoleKeys([key(name).public() for name in ("ada", "ben", "cyd")], 2)
    machine = {role: RoleKeys([key(role).public()], 1) for role in ONLINE}
    root = make_root(1, {ROOT: people, TARGETS: RoleKeys([key("editor").public()], 1), **machine}, later())
    for name in ("ada", "ben"):
        root = sign(root, key(name))
    document = {"v": 1, "version": 0, "issued_at": "2026-11-20T12:00:00.000Z"}
    return Authority(settings, root, document)


@asynccontextmanager
async def coordinating(authority: Authority, clock: Clock | None = None) -> AsyncIterator[Publisher]:
    """Run the coordinator."""
    log = make_logger("error", "json")
    async with running(authority.settings, clock=clock or SystemClock(), log=log) as (publisher, _, _):
        yield publisher


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """Three hotlines that ask the coordinator."""
    made = World(tmp_path, new_database)
    for country in ("FR", "NL", "DE"):
        made.add(country)
    return made


def joined(world: World, authority: Authority) -> list[TestNode]:
    """Point the nodes at the coordinator, as `hotline join` does."""
    for node in world.nodes:
        sources = (authority.settings.base_url,)
        node.settings = replace(node.settings, directory_root=authority.pin, directory_sources=sources)
    return world.nodes
