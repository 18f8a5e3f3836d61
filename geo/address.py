"""Says what kind of address an IP address is, from the IANA registries; never looks anything up.

The table is ours and not `ipaddress.is_private`, whose meaning changed between Python releases: a verdict
must not depend on the interpreter that made it.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address


class AddressKind(StrEnum):
    """What an address is for; only `GLOBAL` can be "hosted somewhere"."""

    GLOBAL = "global"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    MULTICAST = "multicast"
    DOCUMENTATION = "documentation"
    SHARED = "shared"
    BENCHMARKING = "benchmarking"
    UNSPECIFIED = "unspecified"
    BROADCAST = "broadcast"
    RESERVED = "reserved"


# The kinds the demo and the tests may treat as hosted: a machine can really answer there.
_SWITCHABLE = frozenset(
    {
        AddressKind.PRIVATE,
        AddressKind.LOOPBACK,
        AddressKind.LINK_LOCAL,
        AddressKind.DOCUMENTATION,
        AddressKind.SHARED,
        AddressKind.BENCHMARKING,
    }
)


class Wrapping(StrEnum):
    """How an IPv4 address was carried inside an IPv6 one."""

    MAPPED = "ipv4-mapped"
    SIX_TO_FOUR = "6to4"
    NAT64 = "nat64"


@dataclass(frozen=True, slots=True)
class ClassifiedAddress:
    """An address as it is looked up, its kind, and how it was wrapped when it came as something else."""

    address: IPAddress
    kind: AddressKind
    wrapping: Wrapping | None = None


# IANA IPv4 Special-Purpose Address Registry (RFC 6890 and updates). Blocks it marks "globally reachable"
# (AS112, AMT) hold no content, but they are ordinary unicast to us, so they are left out.
_SPECIAL_V4 = (
    ("0.0.0.0/32", AddressKind.UNSPECIFIED),  # RFC 1122 3.2.1.3
    ("0.0.0.0/8", AddressKind.RESERVED),  # RFC 791 "this network"
    ("10.0.0.0/8", AddressKind.PRIVATE),  # RFC 1918
    ("100.64.0.0/10", AddressKind.SHARED),  # RFC 6598
    ("127.0.0.0/8", AddressKind.LOOPBACK),  # RFC 1122 3.2.1.3
    ("169.254.0.0/16", AddressKind.LINK_LOCAL),  # RFC 3927
    ("172.16.0.0/12", AddressKind.PRIVATE),  # RFC 1918
    ("192.0.0.0/24", AddressKind.RESERVED),  # RFC 6890 2.1
    ("192.0.2.0/24", AddressKind.DOCUMENTATION),  # RFC 5737
    ("192.88.99.0/24", AddressKind.RESERVED),  # RFC 7526, 6to4 relay anycast, withdrawn
    ("192.168.0.0/16", AddressKind.PRIVATE),  # RFC 1918
    ("198.18.0.0/15", AddressKind.BENCHMARKING),  # RFC 2544
    ("198.51.100.0/24", AddressKind.DOCUMENTATION),  # RFC 5737
    ("203.0.113.0/24", AddressKind.DOCUMENTATION),  # RFC 5737
    ("224.0.0.0/4", AddressKind.MULTICAST),  # RFC 5771
    ("240.0.0.0/4", AddressKind.RESERVED),  # RFC 1112 4
    ("255.255.255.255/32", AddressKind.BROADCAST),  # RFC 8190
)

# IANA IPv6 Special-Purpose Address Registry. Outside 2000::/3 nothing is global unicast (RFC 4291 2.4 and the
# IANA IPv6 address space registry), so `::/0` is the reserved floor.
_SPECIAL_V6 = (
    ("::/0", AddressKind.RESERVED),
    ("2000::/3", AddressKind.GLOBAL),
    ("::/128", AddressKind.UNSPECIFIED),  # RFC 4291 2.5.2
    ("::1/128", AddressKind.LOOPBACK),  # RFC 4291 2.5.3
    ("64:ff9b:1::/48", AddressKind.PRIVATE),  # RFC 8215, NAT64 of one network's own
    ("2001::/23", AddressKind.RESERVED),  # RFC 2928, Teredo and ORCHID among them
    ("2001:2::/48", AddressKind.BENCHMARKING),  # RFC 5180
    ("2001:db8::/32", AddressKind.DOCUMENTATION),  # RFC 3849
    ("3fff::/20", AddressKind.DOCUMENTATION),  # RFC 9637
    ("fc00::/7", AddressKind.PRIVATE),  # RFC 4193
    ("fe80::/10", AddressKind.LINK_LOCAL),  # RFC 4291 2.5.6
    ("fec0::/10", AddressKind.PRIVATE),  # RFC 3879, the old site-local
    ("ff00::/8", AddressKind.MULTICAST),  # RFC 4291 2.7
)


def _compile(networks: list[tuple[IPv4Network | IPv6Network, AddressKind]]) -> tuple[tuple[int, int, AddressKind], ...]:
    """Longest prefix first, each as (bits to shift away, prefix value, kind)."""
    rows = []
    for network, kind in sorted(networks, key=lambda row: -row[0].prefixlen):
        shift = network.max_prefixlen - network.prefixlen
        rows.append((shift, int(network.network_address) >> shift, kind))
    return tuple(rows)


_TABLE_V4 = _compile([(IPv4Network(text), kind) for text, kind in _SPECIAL_V4])
_TABLE_V6 = _compile([(IPv6Network(text), kind) for text, kind in _SPECIAL_V6])

_MAPPED_PREFIX = int(IPv6Address("::ffff:0:0")) >> 32
_NAT64_PREFIX = int(IPv6Address("64:ff9b::")) >> 32
_SIX_TO_FOUR_PREFIX = 0x2002


def _unwrap(address: IPv6Address) -> tuple[IPv4Address, Wrapping] | None:
    value = int(address)
    top = value >> 32
    if top == _MAPPED_PREFIX:  # RFC 4291 2.5.5.2
        return IPv4Address(value & 0xFFFFFFFF), Wrapping.MAPPED
    if top == _NAT64_PREFIX:  # RFC 6052 2.1
        return IPv4Address(value & 0xFFFFFFFF), Wrapping.NAT64
    if value >> 112 == _SIX_TO_FOUR_PREFIX:  # RFC 3056 2
        return IPv4Address(value >> 80 & 0xFFFFFFFF), Wrapping.SIX_TO_FOUR
    return None


def classify(address: IPAddress) -> ClassifiedAddress:
    """The kind of an address; an IPv4 address wrapped in an IPv6 one is taken out and judged as itself."""
    wrapping = None
    if isinstance(address, IPv6Address):
        inner = _unwrap(address)
        if inner is None:
            return ClassifiedAddress(address, _kind_of(int(address), _TABLE_V6))
        address, wrapping = inner
    return ClassifiedAddress(address, _kind_of(int(address), _TABLE_V4), wrapping)


def _kind_of(value: int, table: tuple[tuple[int, int, AddressKind], ...]) -> AddressKind:
    for shift, prefix, kind in table:
        if value >> shift == prefix:
            return kind
    return AddressKind.GLOBAL


def may_host(kind: AddressKind, *, allow_reserved: bool) -> bool:
    """Whether content at such an address is "hosted somewhere".

    With `allow_reserved` (demo and tests only) the kinds a machine can answer on count too; multicast,
    unspecified, broadcast and reserved addresses never do.
    """
    return kind is AddressKind.GLOBAL or (allow_reserved and kind in _SWITCHABLE)
