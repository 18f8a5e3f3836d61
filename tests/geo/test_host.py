"""The host of a URL is an address, a name, or nothing that has a country."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo.dnswire import labels_of, question_of
from geo.host import Literal, Name, Network, NoCountry, Unusable, parse_host

ONION = "a" * 56
CID_V1 = "bafy" + "a2" * 27 + "x"
CID_V0 = "qm" + "a1" * 22
IPNS_KEY = "k51qzi5uqu5d" + "a1" * 25


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1.", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[::ffff:192.0.2.1]", "::ffff:192.0.2.1"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert parse_host(text) == Literal(ip_address(address))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("www.host.example", "www.host.example"),
        ("WWW.Host.Example.", "www.host.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("under_score.host.example", "under_score.host.example"),
        ("intranet", "intranet"),
        ("1.2.3.4.host.example", "1.2.3.4.host.example"),
        # A gateway has a country: that of the gateway.
        (f"{CID_V1}.ipfs.gateway.example", f"{CID_V1}.ipfs.gateway.example"),
        ("onion.example", "onion.example"),
        ("basics", "basics"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert parse_host(text) == Name(name)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        (f"{ONION}.onion", Network.ONION),
        (f"www.{ONION}.ONION.", Network.ONION),
        ("site.i2p", Network.I2P),
        ("abcd.b32.i2p", Network.I2P),
        (CID_V1, Network.IPFS),
        (CID_V0, Network.IPFS),
        (IPNS_KEY, Network.IPFS),
        (f"{CID_V1}.ipfs", Network.IPFS),
        ("site.ipns", Network.IPFS),
    ],
)
def test_networks_without_countries(text: str, network: Network) -> None:
    assert parse_host(text) == NoCountry(network)


@pytest.mark.parametrize("text", ["localhost", "LOCALHOST.", "app.localhost"])
def test_localhost(text: str) -> None:
    assert parse_host(text) == Unusable("localhost")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..example",
        "-" * 64 + ".example",
        ".".join(["a" * 63] * 4),
        "has space.example",
        "slash/example",
        "büchercafé.example",
        "KELVIN\u212a.example",
        "256.1.1.1",
        "1.2.3",
        "0x7f.1",
        "host.123",
        "[fe80::1%25eth0]",
        "[192.0.2.1]]",
        "a:80",
        "back\\slash.example",
        "nul\0.example",
    ],
)
def test_what_is_no_host(text: str) -> None:
    assert parse_host(text) == Unusable("invalid-host")


@given(st.text(max_size=300))
def test_never_raises_and_a_name_always_fits_a_query(text: str) -> None:
    host = parse_host(text)
    if isinstance(host, Name):
        question = question_of(labels_of(host.text), 1)
        assert len(question) <= 255 + 4
        assert parse_host(host.text) == host
