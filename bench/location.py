"""Measures location: names a second through the resolver, items a second from a warm cache. Talks to the loopback only.

    python bench/location.py [--names N]

The DNS server is a process of its own that answers A and AAAA for any name from a template. The limit measured in the
same run is dnspython's own asyncresolver, on the same event loop, server and names.
"""

import argparse
import asyncio
import multiprocessing
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.resolver
import uvloop
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from geo.build_country import DATABASE_TYPE
from geo.locator import Locator
from geo.mmdb import AsnDatabase, CountryDatabase
from geo.proxies import ProxyTable
from geo.resolver import Resolver
from geo.verdict import VerdictKind

SHIPPED = Path(__file__).resolve().parents[1] / "geo" / "data" / "country.mmdb"
SPAWN = multiprocessing.get_context("spawn")
NAMES_PER_S_TARGET = 900
WARM_PER_S_TARGET = 20_000
DNSPYTHON_AT_ONCE = 50  # more does not make it faster
V4_BLOCKS = (b"\xc0\x00\x02", b"\xc6\x33\x64", b"\xcb\x00\x71")  # the three documentation blocks
SETTINGS_BATCH = 1_000  # items a call, as a job that locates a queue takes them

Server = tuple[str, int]


def serve_dns(port_to: Any) -> None:
    """Answer every A and AAAA question with an address made from the number in the name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("127.0.0.1", 0))
        port_to.send(sock.getsockname()[1])
        while True:
            query, client = sock.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            number = int(query[14 : 13 + query[12]])
            address = V4_BLOCKS[number % 3] + bytes([number // 3 % 256])
            rdtype = query[end - 3]
            if rdtype != 1:
                address = b"\x20\x01\x0d\xb8" + struct.pack(">QI", 0, number)
            record = b"\xc0\x0c" + struct.pack(">HHIH", rdtype, 1, 3_600, len(address)) + address
            counts = b"\0\1\0\1\0\0" + query[10:12]
            sock.sendto(query[:2] + b"\x81\x80" + counts + query[12:end] + record + query[end:], client)


@contextmanager
def dns_server() -> Iterator[Server]:
    receive, send = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=serve_dns, args=(send,), daemon=True)
    process.start()
    try:
        yield "127.0.0.1", receive.recv()
    finally:
        process.terminate()
        process.join()


async def drain(names: Sequence[str], at_once: int, one: Callable[[str], Awaitable[object]]) -> float:
    """Names a second when `at_once` workers do `one` for each."""
    todo = iter(names)

    async def work() -> None:
        for name in todo:
            await one(name)

    begin = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return len(names) / (time.perf_counter() - begin)


async def ours(server: Server, names: Sequence[str]) -> float:
    resolver = Resolver([server], now_s=time.time)
    rate = await drain(names, resolver.names_in_flight_max, resolver.lookup)
    await resolver.close()
    return rate


async def dnspython(server: Server, names: Sequence[str]) -> float:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [server[0]], server[1]
    resolver.use_edns(0, 0, 1232)
    resolver.cache = dns.resolver.LRUCache(200_000)

    async def one(name: str) -> None:
        await asyncio.gather(resolver.resolve(name, "A"), resolver.resolve(name, "AAAA"))

    return await drain(names, DNSPYTHON_AT_ONCE, one)


def names_of(part: str, count: int) -> list[str]:
    return [f"h{number}.{part}.bench.example" for number in range(count)]


def run_ours(server: Server, part: str, count: int, start: Any, rates: Any) -> None:
    start.wait()
    rates.put(uvloop.run(ours(server, names_of(part, count))))


def several_workers(server: Server, workers: int, count: int) -> float:
    """Names a second of several processes together, from the moment all are ready."""
    start, rates = SPAWN.Barrier(workers), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=run_ours, args=(server, f"w{workers}-{number}", count, start, rates))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    total = sum(rates.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def write_databases(folder: Path) -> tuple[list[CountryDatabase], list[AsnDatabase]]:
    blocks = IPSet(["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"])
    records: dict[str, dict[str, Any]] = {
        "Bench-Country": {"country": {"iso_code": "FR"}, "registered_country": {"iso_code": "FR"}},
        "Bench-ASN": {"autonomous_system_number": 64496, "autonomous_system_organization": "Bench hosting"},
    }
    for database_type, record in records.items():
        writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=database_type, int_type="u32")
        writer.insert_network(blocks, record)
        writer.to_db_file(str(folder / f"{database_type}.mmdb"))
    countries = [CountryDatabase(folder / "Bench-Country.mmdb"), CountryDatabase(SHIPPED)]
    return countries, [AsnDatabase(folder / "Bench-ASN.mmdb")]


async def warm(server: Server, names: Sequence[str], folder: Path) -> tuple[float, float]:
    """Items a second with the DNS answers cached: with the opinions cached too, and with every address looked up."""
    countries, networks = write_databases(folder)
    resolver = Resolver([server], now_s=time.time)
    locator = Locator(resolver, countries, networks, ProxyTable.load(), allow_reserved=True, now_s=time.time)
    await locator.locate(names)
    batches = [names[at : at + SETTINGS_BATCH] for at in range(0, len(names), SETTINGS_BATCH)]

    async def once() -> float:
        begin = time.perf_counter()
        for batch in batches:
            verdicts = await locator.locate(batch)
            assert all(verdict.kind is VerdictKind.HOSTED for verdict in verdicts)
        return len(names) / (time.perf_counter() - begin)

    cached = max([await once() for _ in range(3)])
    locator._view.opinions.clear()  # noqa: SLF001 (the measurement is of what this cache saves)
    looked_up = await once()
    await locator.close()
    return cached, looked_up


def measure(job: Coroutine[Any, Any, float]) -> float:
    return uvloop.run(job)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=6_000, help="names resolved in each measurement")
    count = parser.parse_args().names
    print(f"location, {datetime.now(UTC):%Y-%m-%d}, A and AAAA of each name, shipped file {DATABASE_TYPE}")
    with dns_server() as server, tempfile.TemporaryDirectory() as folder:
        limit = measure(dnspython(server, names_of("limit", count // 3)))
        one = several_workers(server, 1, count)
        two = several_workers(server, 2, count)
        cached, looked_up = uvloop.run(warm(server, names_of("warm", count), Path(folder)))
    rows = [
        ("dnspython asyncresolver, 1 process", limit, "names/s, the limit of this run"),
        ("resolver, 1 process", one, f"names/s, {one / limit:.1f} times the limit; target {NAMES_PER_S_TARGET}"),
        ("resolver, 2 processes", two, f"names/s, {two / one:.2f} times one process"),
        ("warm cache, MMDB opinions and verdict", cached, f"items/s; target {WARM_PER_S_TARGET}"),
        ("warm DNS, every address looked up", looked_up, "items/s"),
    ]
    for label, rate, note in rows:
        print(f"{label:<40}{rate:>10,.0f}  {note}")
    return 0 if one >= NAMES_PER_S_TARGET and cached >= WARM_PER_S_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
