"""Intake by API with a durable answer: reports/s and latency, one report a call.

Usage: python -m bench.intake [reports]

The client runs in a process of its own, with as many calls open as `CONNECTIONS`.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.network import build_world, migrated, servers, serving
from node.clock import SystemClock
from node.hotline.store.apikeys import ApiKeys
from node.platform.apikeys import Role, new_api_key
from node.platform.database import Database

CONNECTIONS = 48


async def make_key(url: str) -> str:
    """Store an API key for intake and return its text."""
    db = Database(url)
    key = new_api_key()
    await ApiKeys(db).add(key, "bench", frozenset({Role.INTAKE}), SystemClock().now())
    await db.close()
    return key.text


async def load(address: str, key: str, first: int, reports: int, rate: float) -> None:
    """Send `reports` reports and print the rate and the latencies as JSON.

    `rate` 0 sends as fast as the answers come; otherwise calls begin at that rate (per second), whatever the answers
    do, and a latency counts from the moment the call was due.
    """
    latencies: list[float] = []
    pending = iter(range(first, first + reports))
    host, port = address.split("/")[2].split(":")
    # A client of a few lines: one that does more would take the node's processors and measure itself.
    head = (
        f"POST /api/v1/reports HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()
    began = time.perf_counter()

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for at in pending:
            due = began + (at - first) / rate if rate else time.perf_counter()
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            body = b'{"url":"https://host.example/p/%d","reference":"b%d","channel":"public"}' % (at, at)
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 201"):
                raise SystemExit("the node did not take a report")
            rest = answer.lower().split(b"content-length: ", 1)[1]
            await reader.readexactly(int(rest[: rest.index(b"\r")]))
            latencies.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    seconds = time.perf_counter() - began
    latencies.sort()
    p99 = latencies[int(len(latencies) * 0.99)]
    print(json.dumps({"rate": reports / seconds, "p50_ms": latencies[len(latencies) // 2] * 1e3, "p99_ms": p99 * 1e3}))


def measure(address: str, key: str, first: int, reports: int, rate: float = 0.0) -> dict[str, float]:
    """Run the client as a process of its own."""
    arguments = [sys.executable, "-m", "bench.intake", "client", address, key, str(first), str(reports), str(rate)]
    done = subprocess.run(arguments, check=True, capture_output=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["client"]:
        _, _, address, key, first, count, rate = sys.argv
        uvloop.run(load(address, key, int(first), int(count), float(rate)))
        return
    reports = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 1) as (server,):
            url = migrated(server, "fr")
            # No name server: location is another benchmark, and its retries are far apart.
            world = build_world(folder, [url], log_level="error", locate_retry_base_s=3600.0)
            key = asyncio.run(make_key(url))
            with serving(world.nodes[0]):
                address = f"http://{world.nodes[0].settings.listen_api}/api/v1/reports"
                measure(address, key, 0, 2000)
                full = measure(address, key, 10_000, reports)
                steady = measure(address, key, 10_000_000, 10_000, 2000.0)
    print(f"intake by API, full speed: {full['rate']:,.0f} reports/s (at least 2,000), p99 {full['p99_ms']:.0f} ms")
    print(
        f"intake by API, 2,000 calls/s offered: {steady['rate']:,.0f} reports/s, p50 {steady['p50_ms']:.1f} ms, "
        f"p99 {steady['p99_ms']:.1f} ms (under 50)"
    )


if __name__ == "__main__":
    main()
