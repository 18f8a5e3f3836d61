"""The demo's made-up internet: networks, hosts, and where each host stands. Pure: the same seed, the same internet.

Addresses are documentation ranges (RFC 5737, RFC 3849) and networks documentation numbers (RFC 5398); reported names
are reserved ones (RFC 2606, RFC 6761). Only how a relay is recognised, its network number and the suffix of its names,
is taken from the product's own data file: without it nothing would be recognised. Nothing but the demo's own name
server is ever asked.
"""

import random
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from geo.proxies import DEFAULT_FILE

SERVFAIL: Final = "SERVFAIL"
"""Stands in place of a name's records: the server fails on it."""

_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_WORDS: Final = ("harbour", "meadow", "lantern", "quarry", "orchard", "beacon", "saddle", "timber", "glacier", "willow")
_TOPS: Final = ("example", "test")
_IDN_WORDS: Final = ("bücherei", "señal", "façade")


@dataclass(frozen=True, slots=True)
class Network:
    """A range of addresses. `country` is where it is used; None: the demo's files know nothing of it."""

    prefix: str
    country: str | None
    registered: str | None
    asn: int
    organisation: str


@dataclass(frozen=True, slots=True)
class Relay:
    """A content delivery network of geo's data file: by what it is recognised."""

    provider: str
    asn: int
    suffix: str


@dataclass(frozen=True, slots=True)
class Hosting:
    """The truth about a host that the node has to find: `kind` as verdicts name it, `country` when it is hosted.

    `reason` is the reason an item is given when it has no hosting country.
    """

    kind: str
    country: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `authority` is how its URLs are written in normal form, `scheme` what they begin with.

    `spellings` are other ways to write the authority that a browser reads as the same.
    `records` is what the name server holds for its names: name to entries, each "TYPE value" or SERVFAIL.
    """

    authority: str
    hosting: Hosting
    records: Mapping[str, Sequence[str]]
    spellings: Sequence[str] = ()
    scheme: str = "https"


def networks(relay: Relay) -> tuple[Network, ...]:
    """Return who holds which documentation addresses in the demo."""
    return (
        Network("192.0.2.0/25", "FR", "FR", 64496, "Demo Hosting One"),
        Network("192.0.2.128/25", "DE", "DE", 64497, "Demo Hosting Two"),
        Network("198.51.100.0/25", "NL", "NL", 64498, "Demo Hosting Three"),
        Network("198.51.100.128/26", "NL", "US", 64499, "Demo Hosting Four"),
        Network("198.51.100.192/26", "DE", "DE", 64497, "Demo Hosting Two"),
        Network("203.0.113.0/26", "FR", "FR", 64496, "Demo Hosting One"),
        Network("203.0.113.64/26", "US", "US", 64500, "Demo Hosting Five"),
        Network("203.0.113.128/26", "US", "US", relay.asn, "Demo Relay"),
        Network("203.0.113.192/26", None, None, 64501, "Demo Hosting Six"),
        Network("2001:db8:1::/48", "FR", "FR", 64496, "Demo Hosting One"),
        Network("2001:db8:2::/48", "NL", "NL", 64498, "Demo Hosting Three"),
        Network("2001:db8:3::/48", "DE", "DE", 64497, "Demo Hosting Two"),
        Network("2001:db8:4::/48", "US", "US", 64500, "Demo Hosting Five"),
        Network("2001:db8:5::/48", "US", "US", relay.asn, "Demo Relay"),
    )


def known_relay(path: Path = DEFAULT_FILE) -> Relay:
    """Return the first relay of geo's data file that is recognised by network and by name."""
    for provider in tomllib.loads(path.read_text(encoding="utf-8"))["proxy"]:
        if provider.get("asns") and provider.get("suffixes"):
            return Relay(provider["name"], provider["asns"][0], provider["suffixes"][0])
    raise ValueError("geo's file of proxies lists none by network and by name")


@dataclass(frozen=True, slots=True)
class Internet:
    """All of it. `hosts` of one kind stand together under a name; `shares` says how often each kind is reported."""

    networks: tuple[Network, ...]
    hosts: Mapping[str, tuple[Host, ...]]
    shares: Mapping[str, float]

    def zone(self) -> dict[str, list[str]]:
        """Return what the name server holds: each name with its entries. A name that is not there does not exist."""
        zone: dict[str, list[str]] = {}
        for kind in self.hosts.values():
            for host in kind:
                for name, entries in host.records.items():
                    zone.setdefault(name, list(entries))
        return zone

    def every_host(self) -> Iterator[Host]:
        """Yield each host."""
        for kind in self.hosts.values():
            yield from kind


class _Maker:
    """Draws names and addresses; every name once."""

    def __init__(self, draw: random.Random, held: Sequence[Network]) -> None:
        self.draw = draw
        self._made = 0
        self._v4: dict[str, list[IPv4Network]] = {}
        self._v6: dict[str, list[IPv6Network]] = {}
        for network in held:
            owner = "relay" if network.organisation == "Demo Relay" else (network.country or "unknown")
            parsed = ip_network(network.prefix)
            if isinstance(parsed, IPv4Network):
                self._v4.setdefault(owner, []).append(parsed)
            else:
                self._v6.setdefault(owner, []).append(parsed)

    def name(self) -> str:
        self._made += 1
        return f"{self.draw.choice(_WORDS)}-{self._made}.{self.draw.choice(_TOPS)}"

    def v4(self, owner: str) -> str:
        network = self.draw.choice(self._v4[owner])
        return str(network[self.draw.randrange(1, network.num_addresses - 1)])

    def v6(self, owner: str) -> str:
        return str(self.draw.choice(self._v6[owner])[self.draw.randrange(1, 65_536)])

    def letters(self, count: int) -> str:
        return "".join(self.draw.choices(_BASE32, k=count))


def _named(owner: str, hosting: Hosting) -> Callable[[_Maker], Host]:
    """A name with one to three addresses of one owner, sometimes behind aliases or written in another script."""

    def make(maker: _Maker) -> Host:
        name = maker.name()
        addresses = [f"A {maker.v4(owner)}" for _ in range(maker.draw.choice((1, 1, 2, 3)))]
        if owner != "unknown" and maker.draw.random() < 0.3:  # noqa: PLR2004 - the share of names with IPv6
            addresses.append(f"AAAA {maker.v6(owner)}")
        shape = maker.draw.random()
        if shape < 0.1:  # noqa: PLR2004 - the share of names in another script
            shown = f"{maker.draw.choice(_IDN_WORDS)}-{name}"
            name = shown.encode("idna").decode()
            return Host(name, hosting, {name: addresses}, (shown, shown.upper()))
        if shape < 0.3:  # noqa: PLR2004 - and of names that are aliases
            first, second = f"www.{name}", f"node.{name}"
            records = {name: [f"CNAME {first}"], first: [f"CNAME {second}"], second: addresses}
            return Host(name, hosting, records, _name_spellings(name))
        return Host(name, hosting, {name: addresses}, _name_spellings(name))

    return make


def _name_spellings(name: str) -> tuple[str, ...]:
    return (name.upper(), f"{name}.", f"{name}:443", f"visitor@{name}", f"%{ord(name[0]):02x}{name[1:]}")


def _two_countries(maker: _Maker) -> Host:
    """Two addresses in the Netherlands and one in Germany: the majority counts, the doubt is noted."""
    name = maker.name()
    first = maker.v4("NL")
    second = next(address for address in iter(lambda: maker.v4("NL"), "") if address != first)
    records = [f"A {first}", f"A {second}", f"A {maker.v4('DE')}"]
    return Host(name, Hosting("hosted", "NL"), {name: records}, _name_spellings(name))


def _address(owner: str) -> Callable[[_Maker], Host]:
    def make(maker: _Maker) -> Host:
        hosting = Hosting("hosted", owner)
        if maker.draw.random() < 0.25:  # noqa: PLR2004 - the share of IPv6 literals
            text = maker.v6(owner)
            return Host(f"[{text}]", hosting, {}, (f"[{ip_address(text).exploded.upper()}]",), "http")
        text = maker.v4(owner)
        number = int(ip_address(text))
        octets = text.split(".")
        spellings = (
            str(number),
            f"{number:#x}",
            ".".join(f"0{int(octet):o}" for octet in octets),
            f"[::ffff:{text}]",
        )
        return Host(text, hosting, {}, spellings, "http")

    return make


def _aliased_relay(suffix: str) -> Callable[[_Maker], Host]:
    def make(maker: _Maker) -> Host:
        name = maker.name()
        edge = f"{name.partition('.')[0]}.{suffix}"
        # The relay answers from a country that has a hotline: without the recognition, the item would go there.
        records = {name: [f"CNAME {edge}"], edge: [f"A {maker.v4('DE')}"]}
        return Host(name, Hosting("proxied", None, "proxy-by-cname"), records, _name_spellings(name))

    return make


def _onion(maker: _Maker) -> Host:
    name = f"{maker.letters(55)}d.onion"
    return Host(name, Hosting("no-country", None, "onion"), {}, (name.upper(),), "http")


def _i2p(maker: _Maker) -> Host:
    name = f"{maker.name().partition('.')[0]}.i2p"
    return Host(name, Hosting("no-country", None, "i2p"), {}, (name.upper(),), "http")


def _ipfs(maker: _Maker) -> Host:
    return Host(f"bafybei{maker.letters(52)}", Hosting("no-country", None, "ipfs"), {}, (), "ipfs")


def _missing(maker: _Maker) -> Host:
    name = maker.name()
    return Host(name, Hosting("unlocated", None, "nxdomain"), {}, _name_spellings(name))


def _addressless(maker: _Maker) -> Host:
    name = maker.name()
    return Host(name, Hosting("unlocated", None, "no-address"), {name: ["TXT parked"]}, _name_spellings(name))


def _failing(maker: _Maker) -> Host:
    name = maker.name()
    return Host(name, Hosting("retry", None, "dns-servfail"), {name: [SERVFAIL]}, _name_spellings(name))


def _private(maker: _Maker) -> Host:
    # With geo_allow_reserved a private address may host something, but no file knows where.
    text = f"10.{maker.draw.randrange(256)}.{maker.draw.randrange(256)}.{maker.draw.randrange(1, 255)}"
    return Host(text, Hosting("unlocated", None, "no-opinion"), {}, (f"[::ffff:{text}]",), "http")


def _multicast(maker: _Maker) -> Host:
    text = f"224.0.{maker.draw.randrange(256)}.{maker.draw.randrange(1, 255)}"
    return Host(text, Hosting("not-hosted", None, "multicast"), {}, (), "http")


def _this_machine(maker: _Maker) -> Host:
    name = f"{maker.name().partition('.')[0]}.localhost"
    return Host(name, Hosting("not-hosted", None, "localhost"), {}, (name.upper(),), "http")


def make_internet(seed: int, hosts: int, relay: Relay) -> Internet:
    """Return an internet of about `hosts` hosts."""
    held = networks(relay)
    maker = _Maker(random.Random(seed), held)  # noqa: S311 - reproducible on purpose, nothing secret
    kinds: dict[str, tuple[float, Callable[[_Maker], Host]]] = {
        "fr": (0.16, _named("FR", Hosting("hosted", "FR"))),
        "nl": (0.24, _named("NL", Hosting("hosted", "NL"))),
        "de": (0.22, _named("DE", Hosting("hosted", "DE"))),
        "us": (0.08, _named("US", Hosting("hosted", "US"))),
        "nl-and-de": (0.02, _two_countries),
        "nl-address": (0.02, _address("NL")),
        "de-address": (0.02, _address("DE")),
        "relay-network": (0.04, _named("relay", Hosting("proxied", None, "proxy-by-asn"))),
        "relay-alias": (0.04, _aliased_relay(relay.suffix)),
        "unknown-network": (0.01, _named("unknown", Hosting("unlocated", None, "no-opinion"))),
        "onion": (0.04, _onion),
        "i2p": (0.01, _i2p),
        "ipfs": (0.01, _ipfs),
        "missing": (0.03, _missing),
        "addressless": (0.01, _addressless),
        "failing": (0.02, _failing),
        "private": (0.01, _private),
        "multicast": (0.01, _multicast),
        "this-machine": (0.01, _this_machine),
    }
    made = {
        kind: tuple(make(maker) for _ in range(max(2, round(hosts * share)))) for kind, (share, make) in kinds.items()
    }
    return Internet(held, made, {kind: share for kind, (share, _) in kinds.items()})


def mmdb_rows(held: Sequence[Network]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the records of the country file and of the network file, by prefix (MaxMind GeoIP2 schema)."""
    countries: dict[str, dict[str, Any]] = {}
    systems: dict[str, dict[str, Any]] = {}
    for network in held:
        if network.country is not None:
            countries[network.prefix] = {
                "country": {"iso_code": network.country},
                "registered_country": {"iso_code": network.registered},
            }
        systems[network.prefix] = {
            "autonomous_system_number": network.asn,
            "autonomous_system_organization": network.organisation,
        }
    return countries, systems
