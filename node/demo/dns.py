"""The demo's name server, a process of its own: answers on the loopback from a zone file, over UDP and TCP.

It knows nothing but its zone, asks nobody, and ends when it is told to or when its standard input is closed (whoever
started it is gone). `python -m node.demo.dns ZONE READY`: the zone is JSON, a name to its entries ("TYPE value", or
SERVFAIL); the port is written into the file READY once the server answers.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset

from node.demo.internet import SERVFAIL

LOOPBACK: Final = "127.0.0.1"
TTL_S: Final = 300
_SOA: Final = f"ns.example. hostmaster.example. 1 3600 600 86400 {TTL_S}"
_ALIASES_MAX: Final = 8
_BIND_TRIES: Final = 20
_TCP_IDLE_S: Final = 10.0
#: What a resolver without EDNS takes over UDP (RFC 1035 2.3.4).
_UDP_BYTES: Final = 512


class Zone:
    """The names and their records; answers one query at a time, without state."""

    def __init__(self, entries: Mapping[str, Sequence[str]]) -> None:
        """Read the entries once; ValueError or dns.exception.DNSException when one is no record."""
        self._failing: set[str] = set()
        self._records: dict[str, dict[str, dns.rrset.RRset]] = {}
        for name, rows in entries.items():
            if SERVFAIL in rows:
                self._failing.add(name)
                continue
            by_type: dict[str, list[str]] = {}
            for row in rows:
                rdtype, _, value = row.partition(" ")
                by_type.setdefault(rdtype, []).append(f"{value}." if rdtype == "CNAME" else value)
            self._records[name] = {
                rdtype: dns.rrset.from_text_list(dns.name.from_text(name), TTL_S, "IN", rdtype, values)
                for rdtype, values in by_type.items()
            }

    def answer(self, wire: bytes, *, over_udp: bool) -> bytes | None:
        """Return the answer to a query, or None for what is none."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR:
            return None
        response = dns.message.make_response(query, recursion_available=True)
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            response.set_rcode(dns.rcode.NOTIMP)
            return response.to_wire()
        self._fill(response)
        if not over_udp:
            return response.to_wire()
        try:
            return response.to_wire(max_size=max(_UDP_BYTES, query.payload))
        except dns.exception.TooBig:
            # The asker comes again over TCP (RFC 7766 5).
            shorter = dns.message.make_response(query, recursion_available=True)
            shorter.flags |= dns.flags.TC
            return shorter.to_wire()

    def _fill(self, response: dns.message.Message) -> None:
        """Follow the aliases and add what there is, as a recursive server does."""
        question = response.question[0]
        wanted = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text(omit_final_dot=True).lower()
        for _ in range(_ALIASES_MAX):
            if name in self._failing:
                response.answer.clear()
                response.set_rcode(dns.rcode.SERVFAIL)
                return
            records = self._records.get(name)
            if records is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            if wanted in records:
                response.answer.append(records[wanted])
                return
            alias = records.get("CNAME")
            if alias is None:
                break
            response.answer.append(alias)
            name = str(alias[0]).removesuffix(".").lower()
        response.authority.append(dns.rrset.from_text("example.", TTL_S, "IN", "SOA", _SOA))


class NameServer:
    """A zone served on one loopback port, UDP and TCP."""

    def __init__(self, zone: Zone) -> None:
        """Take the zone; nothing is open yet."""
        self.port = 0
        self._zone = zone
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def open(self) -> None:
        """Take a free port; OSError when there is none."""
        loop = asyncio.get_running_loop()
        for _ in range(_BIND_TRIES):
            tcp = await asyncio.start_server(self._serve_tcp, LOOPBACK, 0)
            port = int(tcp.sockets[0].getsockname()[1])
            try:
                udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._zone), local_addr=(LOOPBACK, port)
                )
            except OSError:
                tcp.close()  # somebody else has this port for UDP
                continue
            self._tcp, self._udp, self.port = tcp, udp, port
            return
        raise OSError("no port is free for both UDP and TCP")

    async def close(self) -> None:
        """Give the port back."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()
        await asyncio.sleep(0)  # transports tell of their end on the next turn of the loop

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                while True:
                    async with asyncio.timeout(_TCP_IDLE_S):
                        length = int.from_bytes(await reader.readexactly(2), "big")
                        wire = await reader.readexactly(length)
                    answer = self._zone.answer(wire, over_udp=False)
                    if answer is None:
                        return
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._zone.answer(data, over_udp=True)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


async def _run(zone: Zone, ready: Path) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    starter, _ = await loop.connect_read_pipe(lambda: _UntilClosed(ended), sys.stdin)
    server = NameServer(zone)
    await server.open()
    part = ready.with_name(f"{ready.name}.part")
    part.write_text(f"{server.port}\n", encoding="utf-8")
    part.replace(ready)
    try:
        await ended.wait()
    finally:
        starter.close()
        await server.close()


class _UntilClosed(asyncio.Protocol):
    """Notices that standard input is closed."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._ended.set()


def main() -> int:
    """Serve the zone of the first file until told to end; the second file gets the port."""
    zone = Zone(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    asyncio.run(_run(zone, Path(sys.argv[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
