"""Writes DNS questions and reads what a response says about them, over dnspython's wire reader; no I/O.

dnspython's `Message` builds an object a record, which is most of what a lookup costs; only what decides the
answer is read here: the address and alias records, the SOA of a negative answer, the codes and flags.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.wire

from geo.address import IPAddress

Labels = tuple[bytes, ...]
"""A name as its lower-case labels without the root."""

A = int(dns.rdatatype.A)
AAAA = int(dns.rdatatype.AAAA)
_CNAME = int(dns.rdatatype.CNAME)
_SOA = int(dns.rdatatype.SOA)
_NS = int(dns.rdatatype.NS)
_OPT = int(dns.rdatatype.OPT)
_IN = int(dns.rdataclass.IN)
_NOERROR = int(dns.rcode.NOERROR)
_NXDOMAIN = int(dns.rcode.NXDOMAIN)

HEADER_BYTES = 12
UDP_PAYLOAD_BYTES = 1232  # the size that crosses every path unfragmented (DNS flag day 2020)
CHAIN_MAX = 8
ADDRESSES_MAX = 32  # of one name and type; more tell nothing new

_QR, _TC, _RD = 0x8000, 0x0200, 0x0100
_OPCODE_MASK, _RCODE_MASK = 0x7800, 0x000F
_OPT_RECORD = struct.pack(">BHHIH", 0, _OPT, UDP_PAYLOAD_BYTES, 0, 0)  # RFC 6891 6.1.2
# Nearly every owner name is the pointer to the name in the question (RFC 1035 4.1.4), which is known already.
_POINTER_TO_QUESTION = (0xC000 | HEADER_BYTES).to_bytes(2, "big")
_ADDRESS_BYTES = {A: 4, AAAA: 16}
_TTL_SIGN = 0x80000000


@dataclass(frozen=True, slots=True)
class Found:
    """The response ends in addresses, behind `chain` aliases."""

    chain: tuple[Labels, ...]
    ttl_s: int
    addresses: tuple[IPAddress, ...]
    server: str = ""


@dataclass(frozen=True, slots=True)
class Alias:
    """The response ends in an alias; the last name of `chain` has to be asked for."""

    chain: tuple[Labels, ...]
    ttl_s: int
    server: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """The response says there is no such name, or no address of this type; `ttl_s` None must not be cached."""

    chain: tuple[Labels, ...]
    ttl_s: int | None
    no_such_name: bool
    server: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """The response is no answer; `reason` is a token (`servfail`, `refused`, `lame`, `malformed`, ...)."""

    reason: str
    truncated: bool = False
    retry_plain: bool = False  # the server may answer without EDNS (RFC 6891 7)
    server: str = ""


Step = Found | Alias | Absent | Broken


def labels_of(name: str) -> Labels:
    """The labels of a host name that `geo.host.parse_host` accepted."""
    return tuple(label.encode("ascii") for label in name.split("."))


def text_of(labels: Labels) -> str:
    """A name as text, odd octets escaped as in a zone file (RFC 1035 5.1)."""
    return dns.name.Name((*labels, b"")).to_text(omit_final_dot=True)


def question_of(labels: Labels, rdtype: int) -> bytes:
    """The question section of a query (RFC 1035 4.1.2)."""
    qname = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return qname + struct.pack(">HH", rdtype, _IN)


def encode_query(query_id: int, question: bytes, *, edns: bool) -> bytes:
    """A recursive query with one question (RFC 1035 4.1.1)."""
    header = struct.pack(">HHHHHH", query_id, _RD, 1, 0, 0, 1 if edns else 0)
    return header + question + (_OPT_RECORD if edns else b"")


def is_reply_to(wire: bytes, query_id: int, question: bytes) -> bool:
    """Whether a datagram answers this query: id, response bit, opcode, and the question repeated (RFC 5452 9.1).

    A server that could not read the query may repeat no question; such a message is taken only when it carries an
    error, so a guess at it can delay a lookup but never answer one.
    """
    if len(wire) < HEADER_BYTES:
        return False
    got_id, flags, questions = struct.unpack_from(">HHH", wire)
    if got_id != query_id or not flags & _QR or flags & _OPCODE_MASK:
        return False
    if questions == 0:
        return flags & _RCODE_MASK not in {_NOERROR, _NXDOMAIN}
    end = HEADER_BYTES + len(question)
    return questions == 1 and wire[HEADER_BYTES:end].lower() == question


def read_reply(wire: bytes, labels: Labels, rdtype: int) -> Step:
    """What a response that `is_reply_to` accepted says about the name. Never raises: odd bytes are `Broken`."""
    try:
        return _read(wire, labels, rdtype)
    except (dns.exception.DNSException, struct.error):
        return Broken("malformed")


class _Sections:
    """The records of a response that bear on the answer."""

    __slots__ = ("addresses", "aliases", "asked", "extended_rcode", "has_ns", "negative_ttl_s", "rdtype")

    def __init__(self, asked: Labels, rdtype: int) -> None:
        self.asked = asked
        self.rdtype = rdtype
        self.addresses: dict[Labels, list[tuple[IPAddress, int]]] = {}
        self.aliases: dict[Labels, tuple[Labels, int]] = {}
        self.negative_ttl_s: int | None = None
        self.extended_rcode = 0
        self.has_ns = False

    def answer(self, parser: dns.wire.Parser) -> None:
        if parser.wire[parser.current : parser.current + 2] == _POINTER_TO_QUESTION:
            parser.seek(parser.current + 2)
            owner = self.asked
        else:
            owner = _read_labels(parser)
        rdtype, rdclass, ttl, length = parser.get_struct("!HHIH")
        ttl = 0 if ttl & _TTL_SIGN else ttl  # RFC 2181 8
        with parser.restrict_to(length):
            if rdclass == _IN and rdtype == self.rdtype and length == _ADDRESS_BYTES[rdtype]:
                raw = parser.get_bytes(length)
                address = IPv4Address(raw) if rdtype == A else IPv6Address(raw)
                self.addresses.setdefault(owner, []).append((address, ttl))
            elif rdclass == _IN and rdtype == _CNAME:
                # Two aliases for one name are an error in the zone (RFC 2181 10.1); the first is followed.
                self.aliases.setdefault(owner, (_read_labels(parser), ttl))
            else:
                parser.get_remaining()

    def authority(self, parser: dns.wire.Parser) -> None:
        parser.get_name(decompress=True)
        rdtype, _, ttl, length = parser.get_struct("!HHIH")
        with parser.restrict_to(length):
            if rdtype == _SOA:
                parser.get_name(decompress=True)
                parser.get_name(decompress=True)
                *_, minimum = parser.get_struct("!IIIII")
                self.negative_ttl_s = 0 if ttl & _TTL_SIGN else min(ttl, minimum)  # RFC 2308 5
            else:
                self.has_ns = self.has_ns or rdtype == _NS
                parser.get_remaining()

    def additional(self, parser: dns.wire.Parser) -> None:
        parser.get_name(decompress=True)
        rdtype, _, ttl, length = parser.get_struct("!HHIH")
        with parser.restrict_to(length):
            if rdtype == _OPT:
                self.extended_rcode = ttl >> 24  # RFC 6891 6.1.3
            parser.get_remaining()


def _read_labels(parser: dns.wire.Parser) -> Labels:
    return tuple(label.lower() for label in parser.get_name(decompress=True).labels[:-1])


def _read(wire: bytes, labels: Labels, rdtype: int) -> Step:
    parser = dns.wire.Parser(wire)
    _, flags, questions, answers, authorities, additionals = parser.get_struct("!HHHHHH")
    if flags & _TC:
        return Broken("truncated", truncated=True)
    if questions:
        parser.seek(HEADER_BYTES + len(question_of(labels, rdtype)))  # compared with what was asked already
    sections = _Sections(labels, rdtype)
    for _ in range(answers):
        sections.answer(parser)
    for _ in range(authorities):
        sections.authority(parser)
    # Only an error can stand in the extended code, and an error comes without answers.
    for _ in range(0 if answers else additionals):
        sections.additional(parser)
    rcode = flags & _RCODE_MASK | sections.extended_rcode << 4
    if rcode not in {_NOERROR, _NXDOMAIN}:
        plain = rcode in {dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS}
        return Broken(dns.rcode.to_text(dns.rcode.Rcode.make(rcode)).lower(), retry_plain=plain)
    return _judge(sections, labels, no_such_name=rcode == _NXDOMAIN)


def _judge(sections: _Sections, labels: Labels, *, no_such_name: bool) -> Step:
    chain: list[Labels] = []
    ttls: list[int] = []
    name = labels
    while name in sections.aliases and name not in chain and len(chain) <= CHAIN_MAX:
        name, ttl = sections.aliases[name]
        chain.append(name)
        ttls.append(ttl)
    links = tuple(chain)
    if name in sections.addresses:
        rows = sections.addresses[name][:ADDRESSES_MAX]
        ttls.extend(ttl for _, ttl in rows)
        return Found(links, min(ttls), tuple(address for address, _ in rows))
    if no_such_name or sections.negative_ttl_s is not None:
        if sections.negative_ttl_s is not None:
            ttls.append(sections.negative_ttl_s)
            return Absent(links, min(ttls), no_such_name)
        return Absent(links, None, no_such_name)
    if links:
        return Alias(links, min(ttls))
    if sections.has_ns:
        # A referral: this server does not recurse for us (RFC 2308 2.2.1), so it said nothing about the name.
        return Broken("lame")
    return Absent(links, None, no_such_name=False)
