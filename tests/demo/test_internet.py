"""The demo's made-up internet: reserved names only, and the product finds each host where the demo says it stands."""

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from geo.address import AddressKind, classify
from geo.locator import Locator
from geo.mmdb import AsnDatabase, CountryDatabase
from geo.proxies import ProxyTable
from geo.resolver import Resolver
from geo.verdict import VerdictKind
from node.demo.dns import LOOPBACK, NameServer, Zone
from node.demo.geofiles import write_geofiles
from node.demo.internet import SERVFAIL, Internet, Relay, known_relay, make_internet
from node.hotline.domain.urls import HostKind, parse_reported_url

RELAY = Relay("made-up", 64510, "relay.example")


@pytest.fixture(scope="module")
def internet() -> Internet:
    return make_internet(7, 150, known_relay())


def test_the_same_seed_makes_the_same_internet() -> None:
    assert make_internet(7, 80, RELAY) == make_internet(7, 80, RELAY)
    assert make_internet(7, 80, RELAY) != make_internet(8, 80, RELAY)


def test_every_name_that_is_reported_is_reserved(internet: Internet) -> None:
    reserved = (".example", ".test", ".onion", ".i2p", ".localhost")
    for host in internet.every_host():
        url = parse_reported_url(f"{host.scheme}://{host.authority}/")
        if url.host_kind not in {HostKind.IPV4, HostKind.IPV6, HostKind.IPFS}:
            assert url.host.endswith(reserved)


def test_every_address_is_one_for_documentation_or_reaches_nobody(internet: Internet) -> None:
    harmless = {AddressKind.DOCUMENTATION, AddressKind.PRIVATE, AddressKind.MULTICAST}
    for host in internet.every_host():
        for entries in host.records.values():
            for entry in entries:
                kind, _, value = entry.partition(" ")
                if kind in {"A", "AAAA"}:
                    assert classify(ip_address(value)).kind is AddressKind.DOCUMENTATION
        if not host.records and host.authority[-1] in "]0123456789":
            assert classify(ip_address(host.authority.strip("[]"))).kind in harmless


def test_every_spelling_of_a_host_is_the_same_host(internet: Internet) -> None:
    for host in internet.every_host():
        normal = f"{host.scheme}://{host.authority}/"
        assert parse_reported_url(normal).normal == normal
        for spelling in host.spellings:
            assert parse_reported_url(f"{host.scheme}://{spelling}/").normal == normal


def test_every_kind_of_host_is_there_even_in_a_small_internet() -> None:
    small = make_internet(7, 10, RELAY)
    assert all(len(hosts) >= 2 for hosts in small.hosts.values())
    assert set(small.shares) == set(small.hosts)
    assert any(SERVFAIL in entries for entries in small.zone().values())


def test_the_relay_is_one_that_the_product_recognises_both_ways() -> None:
    relay, table = known_relay(), ProxyTable.load()
    by_asn, by_name = table.by_asn(relay.asn), table.by_name(f"edge.{relay.suffix}")
    assert by_asn is not None
    assert by_name is not None
    assert by_asn.provider == by_name.provider == relay.provider


@pytest.fixture
async def locator(internet: Internet, tmp_path: Path) -> AsyncIterator[Locator]:
    countries, systems = write_geofiles(tmp_path, internet.networks)
    server = NameServer(Zone(internet.zone()))
    await server.open()
    made = Locator(
        Resolver([(LOOPBACK, server.port)], now_s=lambda: 1_900_000_000.0),
        [CountryDatabase(countries)],
        [AsnDatabase(systems)],
        ProxyTable.load(),
        allow_reserved=True,
        now_s=lambda: 1_900_000_000.0,
    )
    yield made
    await made.close()
    await server.close()


async def test_the_product_finds_every_host_where_the_demo_says_it_stands(internet: Internet, locator: Locator) -> None:
    for kind, hosts in internet.hosts.items():
        urls = [parse_reported_url(f"{host.scheme}://{host.authority}/") for host in hosts]
        asked = [f"{url.host}.ipfs" if url.host_kind is HostKind.IPFS else url.host for url in urls]
        for host, verdict in zip(hosts, await locator.locate(asked), strict=True):
            reason = None if verdict.kind is VerdictKind.HOSTED else verdict.reasons[0]
            found = (verdict.kind, verdict.country, reason)
            assert found == (host.hosting.kind, host.hosting.country, host.hosting.reason), kind


async def test_an_item_hosted_in_two_countries_is_located_with_doubt(internet: Internet, locator: Locator) -> None:
    (verdict,) = await locator.locate([internet.hosts["nl-and-de"][0].authority])
    assert "several-countries" in verdict.reasons
    assert verdict.confidence < 95
