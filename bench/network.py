"""What the benchmarks stand on: two nodes with their own PostgreSQL (fsync on), keys and a signed directory."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.clock import SystemClock
from node.hotline.assembly import ROLE
from node.hotline.domain.intake import check_report
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Submission
from node.hotline.store.tables import metadata
from node.platform import migrate
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres
from node.setting_files import write_settings
from tests.world import ADDRESS, TestNode, World, file_values

CLOCK = SystemClock()


def migrated(server: EmbeddedPostgres, name: str) -> str:
    """Create and migrate a database; returns its address."""
    server.create_database(name)

    async def run() -> None:
        db = Database(server.url(name))
        await migrate.upgrade(db.engine, ROLE, metadata)
        await db.close()

    asyncio.run(run())
    return server.url(name)


@contextmanager
def servers(folder: Path, count: int) -> Iterator[list[EmbeddedPostgres]]:
    """Run `count` private PostgreSQL servers with the product's own settings: fsync on."""
    made: list[EmbeddedPostgres] = []
    try:
        for at in range(count):
            made += [EmbeddedPostgres.start(folder / f"pg{at}")]
        yield made
    finally:
        for server in made:
            server.stop()


def build_world(folder: Path, urls: list[str], **settings: object) -> World:
    """Make FR (and NL, when there are two databases) with a signed directory and field keys."""
    addresses = iter(urls)
    world = World(folder, lambda: next(addresses))
    for country in ("FR", "NL")[: len(urls)]:
        world.add(country, **settings)
    world.sign_directory()
    asyncio.run(world.create_field_keys())
    return world


@contextmanager
def serving(node: TestNode) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `hotline serve` for a node as a process of its own while the block runs."""
    path = node.settings.data_dir / "hotline.toml"
    if not path.exists():
        write_settings(path, file_values(node.settings))
    process = subprocess.Popen([sys.executable, "-m", "node", "--settings", str(path), "serve"])
    try:
        _wait_for(node.settings.listen_peer, process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the node did not start")


def submissions(count: int, *, first: int = 0, country: str = "NL", qualified: bool = True) -> list[Submission]:
    """Return `count` different reports of pages hosted in `country`, by literal address."""
    now = CLOCK.now()
    made = []
    for at in range(first, first + count):
        fields: dict[str, object] = {
            "url": f"http://{ADDRESS[country]}/gallery/{at:08d}/index.html?session=5f1c2a&lang=en",
            "referrer": "http://forum.example/thread/4711",
            "note": "reported by a member of the public, page with several images",
            "reference": f"bench-{at}",
            "site_type": "website",
        }
        if qualified:
            fields["qualification"] = {"classification": "national", "age": "prepubescent", "law": "CP 227-23"}
        report = check_report(convert_report(fields), now)
        made.append(Submission("bench", report.reference, report))
    return made
