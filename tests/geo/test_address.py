"""Every address has one kind, whatever it is wrapped in."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo.address import AddressKind, Wrapping, classify, may_host

EXAMPLES = {
    "0.0.0.0": AddressKind.UNSPECIFIED,  # noqa: S104 (an example, nothing is bound)
    "0.1.2.3": AddressKind.RESERVED,
    "8.0.0.1": AddressKind.GLOBAL,
    "9.255.255.255": AddressKind.GLOBAL,
    "10.0.0.0": AddressKind.PRIVATE,
    "10.255.255.255": AddressKind.PRIVATE,
    "11.0.0.0": AddressKind.GLOBAL,
    "100.63.255.255": AddressKind.GLOBAL,
    "100.64.0.0": AddressKind.SHARED,
    "100.127.255.255": AddressKind.SHARED,
    "100.128.0.0": AddressKind.GLOBAL,
    "127.0.0.1": AddressKind.LOOPBACK,
    "127.255.255.254": AddressKind.LOOPBACK,
    "169.254.169.254": AddressKind.LINK_LOCAL,
    "172.15.255.255": AddressKind.GLOBAL,
    "172.16.0.0": AddressKind.PRIVATE,
    "172.31.255.255": AddressKind.PRIVATE,
    "172.32.0.0": AddressKind.GLOBAL,
    "192.0.0.8": AddressKind.RESERVED,
    "192.0.2.1": AddressKind.DOCUMENTATION,
    "192.88.99.1": AddressKind.RESERVED,
    "192.168.1.1": AddressKind.PRIVATE,
    "198.18.0.1": AddressKind.BENCHMARKING,
    "198.19.255.255": AddressKind.BENCHMARKING,
    "198.20.0.0": AddressKind.GLOBAL,
    "198.51.100.7": AddressKind.DOCUMENTATION,
    "203.0.113.7": AddressKind.DOCUMENTATION,
    "223.255.255.255": AddressKind.GLOBAL,
    "224.0.0.1": AddressKind.MULTICAST,
    "239.255.255.255": AddressKind.MULTICAST,
    "240.0.0.1": AddressKind.RESERVED,
    "255.255.255.254": AddressKind.RESERVED,
    "255.255.255.255": AddressKind.BROADCAST,
    "::": AddressKind.UNSPECIFIED,
    "::1": AddressKind.LOOPBACK,
    "::2": AddressKind.RESERVED,
    "::192.0.2.1": AddressKind.RESERVED,
    "64:ff9b:1::1": AddressKind.PRIVATE,
    "100::1": AddressKind.RESERVED,
    "1fff::1": AddressKind.RESERVED,
    "2001::1": AddressKind.RESERVED,
    "2001:2::1": AddressKind.BENCHMARKING,
    "2001:db8::1": AddressKind.DOCUMENTATION,
    "2001:200::1": AddressKind.GLOBAL,
    "2a00::1": AddressKind.GLOBAL,
    "3ffe::1": AddressKind.GLOBAL,
    "3fff::1": AddressKind.DOCUMENTATION,
    "3fff:1000::1": AddressKind.GLOBAL,
    "4000::1": AddressKind.RESERVED,
    "5f00::1": AddressKind.RESERVED,
    "fc00::1": AddressKind.PRIVATE,
    "fdff::1": AddressKind.PRIVATE,
    "fe80::1": AddressKind.LINK_LOCAL,
    "fec0::1": AddressKind.PRIVATE,
    "ff02::1": AddressKind.MULTICAST,
}

v4_addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
v6_addresses = st.integers(0, 2**128 - 1).map(IPv6Address)


@pytest.mark.parametrize(("text", "kind"), EXAMPLES.items())
def test_kinds(text: str, kind: AddressKind) -> None:
    assert classify(ip_address(text)).kind is kind


@pytest.mark.parametrize("wrapping", list(Wrapping))
@given(inner=v4_addresses)
def test_a_wrapped_address_is_judged_as_itself(wrapping: Wrapping, inner: IPv4Address) -> None:
    value = int(inner)
    outer = {
        Wrapping.MAPPED: IPv6Address(0xFFFF << 32 | value),
        Wrapping.NAT64: IPv6Address(0x64_FF9B << 96 | value),
        Wrapping.SIX_TO_FOUR: IPv6Address(0x2002 << 112 | value << 80 | 1),
    }[wrapping]
    classified = classify(outer)
    assert classified.address == inner
    assert classified.wrapping is wrapping
    assert classified.kind is classify(inner).kind


@given(st.one_of(v4_addresses, v6_addresses))
def test_nothing_special_passes_as_global(address: IPv4Address | IPv6Address) -> None:
    # An independent list, and one that holds in every Python release: these attributes never changed their meaning.
    if classify(address).kind is AddressKind.GLOBAL and classify(address).wrapping is None:
        assert not any((address.is_multicast, address.is_loopback, address.is_link_local, address.is_unspecified))


@pytest.mark.parametrize("kind", list(AddressKind))
def test_who_may_host(kind: AddressKind) -> None:
    assert may_host(kind, allow_reserved=False) == (kind is AddressKind.GLOBAL)
    never = {AddressKind.MULTICAST, AddressKind.UNSPECIFIED, AddressKind.BROADCAST, AddressKind.RESERVED}
    assert may_host(kind, allow_reserved=True) == (kind not in never)
