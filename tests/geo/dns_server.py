"""A real DNS server on the loopback, UDP and TCP on one port, that answers from a zone and misbehaves on request.

    async with LoopbackDns({"a.example": ["A 192.0.2.1", "60 AAAA 2001:db8::1"]}) as dns:
        resolver = Resolver([dns.address], now_s=...)

A name that is not in the zone does not exist. `"a.example/AAAA"` as a key overrides one type of a name.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Self, cast

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset

FORGED_V4 = "198.51.100.66"
_DEFAULT_TTL_S = 300
_BIND_TRIES = 20
_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024


class Fault(Enum):
    """What the server does instead of, or before, its honest answer."""

    SERVFAIL = auto()
    REFUSED = auto()
    FORMERR = auto()
    FORMERR_ON_EDNS = auto()  # an old server: FORMERR without a question to a query that has EDNS
    SILENCE = auto()
    TRUNCATE = auto()  # over UDP only; TCP gets the honest answer
    TRUNCATE_ALWAYS = auto()
    TCP_CLOSE = auto()  # truncated over UDP, then the connection closes without an answer
    GARBAGE = auto()  # the right header and question, then records that end too early
    LAME = auto()  # a referral
    NODATA_WITHOUT_SOA = auto()
    FORGED_ID = auto()  # first a forged answer with another id, then the honest one
    FORGED_QUESTION = auto()  # first a forged answer to another question, then the honest one
    FORGED_SOURCE = auto()  # first a forged answer from another port, then the honest one
    MIXED_CASE = auto()  # the honest answer with the question in capitals


Entry = str | Fault

_RCODES: dict[Fault | None, dns.rcode.Rcode] = {
    Fault.SERVFAIL: dns.rcode.SERVFAIL,
    Fault.REFUSED: dns.rcode.REFUSED,
    Fault.FORMERR: dns.rcode.FORMERR,
}


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it came in."""

    name: str
    rdtype: str
    transport: str
    source_port: int
    query_id: int
    edns: bool


class LoopbackDns:
    """The server. `queries` tells what was asked, in order; `zone` may change while it runs."""

    def __init__(
        self,
        zone: Mapping[str, Sequence[Entry]],
        *,
        negative_ttl_s: int = 60,
        chase: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        """With `chase` off, an alias is answered alone, as by a server that only knows its own zone."""
        self.zone: dict[str, Sequence[Entry]] = dict(zone)
        self.queries: list[Query] = []
        self.address: tuple[str, int] = (host, 0)
        self._once: dict[str, list[Fault]] = {}
        self._negative_ttl_s = negative_ttl_s
        self._chase = chase
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    def script(self, name: str, faults: Sequence[Fault]) -> None:
        """The next queries for `name` (or `name/TYPE`) meet these faults, one each."""
        self._once[name] = list(faults)

    async def __aenter__(self) -> Self:
        host = self.address[0]
        for _ in range(_BIND_TRIES):
            self._tcp = await asyncio.start_server(self._serve_tcp, host, 0)
            port = self._tcp.sockets[0].getsockname()[1]
            try:
                transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _UdpSide(self), local_addr=(host, port)
                )
            except OSError:
                self._tcp.close()  # another program holds this port for UDP
                continue
            self._udp = transport
            # A burst of queries has to fit: a lost one would cost a test the time of a retry.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            self.address = (host, port)
            return self
        raise RuntimeError("no port is free for both UDP and TCP")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()
        await asyncio.sleep(0)  # transports tell of their end on the next turn of the loop

    def answer(self, wire: bytes, transport: str, source_port: int) -> tuple[list[bytes], bytes | None]:
        """The datagrams to send back, and a forged one to send from elsewhere before them."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(name, rdtype, transport, source_port, query.id, query.edns >= 0))
        fault = self._fault(name, rdtype)
        if fault is Fault.SILENCE:
            return [], None
        if fault in {Fault.FORGED_ID, Fault.FORGED_QUESTION, Fault.FORGED_SOURCE}:
            forged = _forge(query, fault)
            honest = self._honest(query).to_wire()
            return ([honest], forged) if fault is Fault.FORGED_SOURCE else ([forged, honest], None)
        return [self._faulty(query, fault, transport)], None

    def _fault(self, name: str, rdtype: str) -> Fault | None:
        for key in (f"{name}/{rdtype}", name):
            if self._once.get(key):
                return self._once[key].pop(0)
        return next((entry for entry in self._entries(name, rdtype) if isinstance(entry, Fault)), None)

    def _entries(self, name: str, rdtype: str) -> Sequence[Entry]:
        return self.zone.get(f"{name}/{rdtype}", self.zone.get(name, ()))

    def _faulty(self, query: dns.message.Message, fault: Fault | None, transport: str) -> bytes:
        if fault is Fault.FORMERR_ON_EDNS and query.edns >= 0:
            # A header alone, as servers older than EDNS send it.
            flags = dns.flags.QR | int(dns.rcode.FORMERR)
            return query.id.to_bytes(2, "big") + flags.to_bytes(2, "big") + bytes(8)
        over_udp = transport == "udp"
        if fault is Fault.TRUNCATE_ALWAYS or (over_udp and fault in {Fault.TRUNCATE, Fault.TCP_CLOSE}):
            fault = Fault.TRUNCATE_ALWAYS
        empty = _empty_response(query, fault)
        if empty is not None:
            return empty
        honest = self._honest(query).to_wire()
        if fault is Fault.GARBAGE:
            return honest[:-16]  # within the last record before the EDNS one
        if fault is Fault.MIXED_CASE:
            end = 12 + len(query.question[0].name.to_wire() or b"")
            return honest[:12] + honest[12:end].upper() + honest[end:]
        return b"" if fault is Fault.TCP_CLOSE else honest

    def _honest(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        rdtype = dns.rdatatype.to_text(query.question[0].rdtype)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        seen: set[str] = set()
        while True:
            seen.add(name)
            if name not in self.zone and f"{name}/{rdtype}" not in self.zone:
                response.set_rcode(dns.rcode.NXDOMAIN)
                self._add_soa(response)
                return response
            records = [entry.split() for entry in self._entries(name, rdtype) if isinstance(entry, str)]
            wanted = _rrset(name, rdtype, records)
            if wanted is not None:
                response.answer.append(wanted)
                return response
            alias = _rrset(name, "CNAME", records)
            if alias is None:
                self._add_soa(response)
                return response
            response.answer.append(alias)
            name = str(alias[0]).removesuffix(".").lower()
            if not self._chase or name in seen:
                return response

    def _add_soa(self, response: dns.message.Message) -> None:
        minimum = self._negative_ttl_s
        text = f"ns.example. hostmaster.example. 1 3600 600 86400 {minimum}"
        response.authority.append(dns.rrset.from_text("example.", 3600, "IN", "SOA", text))

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            port = writer.get_extra_info("peername")[1]
            datagrams, _ = self.answer(await reader.readexactly(length), "tcp", port)
            for wire in filter(None, datagrams):
                writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
        writer.close()


class _UdpSide(asyncio.DatagramProtocol):
    def __init__(self, server: LoopbackDns) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        datagrams, forged = self._server.answer(data, "udp", addr[1])
        if forged is not None:
            family = socket.AF_INET6 if ":" in addr[0] else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as elsewhere:
                elsewhere.sendto(forged, addr)
        for wire in datagrams:
            self._transport.sendto(wire, addr)


def _empty_response(query: dns.message.Message, fault: Fault | None) -> bytes | None:
    """A response without records, for the faults that are one."""
    response = dns.message.make_response(query, recursion_available=True)
    if fault in _RCODES:
        response.set_rcode(_RCODES[fault])
    elif fault is Fault.TRUNCATE_ALWAYS:
        response.flags |= dns.flags.TC
    elif fault is Fault.LAME:
        response.flags &= ~dns.flags.RA
        response.authority.append(dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example."))
    elif fault is not Fault.NODATA_WITHOUT_SOA:
        return None
    return response.to_wire()


def _rrset(name: str, rdtype: str, records: Sequence[Sequence[str]]) -> dns.rrset.RRset | None:
    ttls, texts = [], []
    for record in records:
        ttl, row = (int(record[0]), record[1:]) if record[0].isdigit() else (_DEFAULT_TTL_S, record)
        if row[0] == rdtype:
            ttls.append(ttl)
            texts.append(" ".join(row[1:]))
    if not texts:
        return None
    return dns.rrset.from_text_list(dns.name.from_text(name), min(ttls), "IN", rdtype, texts)


def _forge(query: dns.message.Message, fault: Fault) -> bytes:
    asked = query.question[0].name
    forged = dns.message.make_response(query)
    if fault is Fault.FORGED_QUESTION:
        other = dns.message.make_query("other.example.", query.question[0].rdtype, id=query.id)
        forged = dns.message.make_response(other)
    rdtype = query.question[0].rdtype
    address = FORGED_V4 if rdtype == dns.rdatatype.A else "2001:db8:bad::66"
    forged.answer.append(dns.rrset.from_text(asked, 3600, "IN", rdtype, address))
    wire = forged.to_wire()
    return bytes([wire[0] ^ 0xFF]) + wire[1:] if fault is Fault.FORGED_ID else wire
