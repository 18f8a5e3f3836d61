"""The verdict as a rule: examples of each kind, and what holds for any evidence."""

import json
from dataclasses import replace
from datetime import date
from ipaddress import IPv4Address, ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo.address import AddressKind, Wrapping
from geo.evidence import (
    ADDRESSES_MAX,
    AddressEvidence,
    CountryRecord,
    DatabaseKind,
    DatabaseName,
    Evidence,
    NetworkRecord,
    choose_addresses,
)
from geo.host import Name, Network, NoCountry, Unusable
from geo.outcome import Answer, NoAddress, NoSuchName, TemporaryFailure
from geo.proxies import ProxyMatch
from geo.verdict import Verdict, VerdictKind, judge

AT = "2026-11-22T16:00:00.000Z"
DATABASES = (
    DatabaseName.of(DatabaseKind.COUNTRY, "Test-Country", date(2026, 11, 1)),
    DatabaseName.of(DatabaseKind.COUNTRY, "Other-Country", date(2026, 10, 1)),
    DatabaseName.of(DatabaseKind.COUNTRY, "HX-RIR-Country", date(2025, 5, 9)),
    DatabaseName.of(DatabaseKind.ASN, "Test-ASN", date(2026, 11, 1)),
)
LOCATED, OTHER, REGISTRY, ASN = range(4)
RELAY = ProxyMatch("relay", "asn", "AS64500")


def address(
    *opinions: tuple[int, str | None, str | None],
    ip: str = "192.0.2.1",
    kind: AddressKind = AddressKind.GLOBAL,
    proxy: ProxyMatch | None = None,
) -> AddressEvidence:
    countries = tuple((place, CountryRecord(country, registered)) for place, country, registered in opinions)
    return AddressEvidence(ip, kind, None, countries, (), proxy)


def evidence(*addresses: AddressEvidence, partial: str | None = None, proxy: ProxyMatch | None = None) -> Evidence:
    dns = Answer(tuple(ip_address(one.ip) for one in addresses), (), 300, "127.0.0.1:53", partial)
    return Evidence(AT, Name("a.example"), dns, addresses, len(addresses), DATABASES, proxy)


def verdict(*addresses: AddressEvidence, partial: str | None = None, proxy: ProxyMatch | None = None) -> Verdict:
    return judge(evidence(*addresses, partial=partial, proxy=proxy), allow_reserved=False)


def test_one_opinion() -> None:
    result = verdict(address((LOCATED, "FR", "FR")))
    assert (result.kind, result.country, result.registered_country) == (VerdictKind.HOSTED, "FR", "FR")
    assert (result.confidence, result.reasons) == (95, ())


def test_registry_data_alone_is_less_sure() -> None:
    result = verdict(address((REGISTRY, "FR", "FR")))
    assert (result.country, result.confidence, result.reasons) == ("FR", 70, ("registry-data-only",))


def test_databases_that_differ_lower_the_confidence_and_stay_as_evidence() -> None:
    result = verdict(address((LOCATED, "FR", "FR"), (OTHER, "FR", "FR"), (REGISTRY, "US", "US")))
    assert (result.country, result.confidence, result.reasons) == ("FR", 81, ("databases-differ",))
    assert result.evidence["addresses"] == [
        {
            "ip": "192.0.2.1",
            "countries": [
                {"db": 0, "country": "FR", "registered": "FR"},
                {"db": 1, "country": "FR", "registered": "FR"},
                {"db": 2, "country": "US", "registered": "US"},
            ],
        }
    ]


def test_two_databases_at_odds_leave_half_the_confidence() -> None:
    result = verdict(address((LOCATED, "FR", "FR"), (OTHER, "DE", "DE")))
    assert (result.country, result.confidence) == ("DE", 47)


def test_addresses_in_several_countries_lower_the_confidence() -> None:
    result = verdict(address((LOCATED, "FR", "FR")), address((LOCATED, "NL", "NL"), ip="192.0.2.2"))
    assert (result.country, result.confidence, result.reasons) == ("FR", 47, ("several-countries",))


def test_a_block_registered_elsewhere_is_noted() -> None:
    result = verdict(address((LOCATED, "FR", "US")))
    assert (result.country, result.registered_country, result.confidence) == ("FR", "US", 90)
    assert result.reasons == ("registered-elsewhere",)


def test_only_a_registration_counts_as_such() -> None:
    result = verdict(address((LOCATED, None, "US")))
    assert (result.country, result.registered_country, result.confidence) == ("US", "US", 65)
    assert result.reasons == ("registered-only", "registry-data-only")


def test_small_doubts_are_noted() -> None:
    known, unknown = address((LOCATED, "FR", "FR")), address(ip="192.0.2.2")
    private = address(ip="10.0.0.1", kind=AddressKind.PRIVATE)
    result = verdict(known, unknown, private, partial="servfail")
    assert (result.country, result.confidence) == ("FR", 80)
    assert result.reasons == ("address-unknown", "partial-answer", "reserved-among-addresses")


def test_an_address_nobody_knows_is_unlocated() -> None:
    result = verdict(address())
    assert (result.kind, result.country, result.confidence, result.reasons) == (
        VerdictKind.UNLOCATED,
        None,
        0,
        ("no-opinion",),
    )


@pytest.mark.parametrize("by", ["address", "name"])
def test_behind_a_relay_the_visible_country_is_not_the_hosting_country(by: str) -> None:
    if by == "address":
        result = verdict(address((LOCATED, "US", "US"), proxy=RELAY))
    else:
        result = verdict(address((LOCATED, "US", "US")), proxy=ProxyMatch("relay", "cname", "cdn.relay.example"))
    assert (result.kind, result.country, result.registered_country) == (VerdictKind.PROXIED, None, None)
    assert result.reasons == ("proxy-by-asn" if by == "address" else "proxy-by-cname",)
    proxy = result.evidence["proxy"]
    assert isinstance(proxy, dict)
    assert (proxy["provider"], proxy["visible_country"]) == ("relay", "US")


def test_one_relay_among_addresses_is_enough() -> None:
    result = verdict(address((LOCATED, "FR", "FR")), address((LOCATED, "US", "US"), ip="192.0.2.2", proxy=RELAY))
    assert (result.kind, result.reasons) == (VerdictKind.PROXIED, ("proxy-by-asn", "proxy-partly"))


@pytest.mark.parametrize(
    ("outcome", "kind", "reason", "confidence"),
    [
        (NoSuchName((), 60, "127.0.0.1:53"), VerdictKind.UNLOCATED, "nxdomain", 100),
        (NoAddress((), 60, "127.0.0.1:53", "no-data"), VerdictKind.UNLOCATED, "no-address", 100),
        (NoAddress((), 60, "127.0.0.1:53", "cname-loop"), VerdictKind.UNLOCATED, "cname-loop", 100),
        (TemporaryFailure("servfail", "127.0.0.1:53"), VerdictKind.RETRY, "dns-servfail", 0),
        (TemporaryFailure("timeout", "127.0.0.1:53"), VerdictKind.RETRY, "dns-timeout", 0),
    ],
)
def test_facts_and_failures_of_the_dns(
    outcome: NoSuchName | NoAddress | TemporaryFailure, kind: VerdictKind, reason: str, confidence: int
) -> None:
    result = judge(Evidence(AT, Name("a.example"), outcome), allow_reserved=False)
    assert (result.kind, result.country, result.reasons, result.confidence) == (kind, None, (reason,), confidence)


@pytest.mark.parametrize("network", list(Network))
def test_networks_without_countries(network: Network) -> None:
    result = judge(Evidence(AT, NoCountry(network)), allow_reserved=True)
    assert (result.kind, result.country, result.reasons) == (VerdictKind.NO_COUNTRY, None, (network.value,))
    assert result.evidence == {"at": AT}


def test_what_is_no_host_is_not_hosted() -> None:
    result = judge(Evidence(AT, Unusable("localhost")), allow_reserved=True)
    assert (result.kind, result.reasons) == (VerdictKind.NOT_HOSTED, ("localhost",))


def test_reserved_addresses_are_hosted_only_when_switched_on() -> None:
    found = evidence(
        address((LOCATED, "FR", "FR"), kind=AddressKind.DOCUMENTATION),
        address((LOCATED, "FR", "FR"), ip="127.0.0.1", kind=AddressKind.LOOPBACK),
    )
    off = judge(found, allow_reserved=False)
    assert (off.kind, off.country, off.reasons) == (VerdictKind.NOT_HOSTED, None, ("documentation", "loopback"))
    on = judge(found, allow_reserved=True)
    assert (on.kind, on.country) == (VerdictKind.HOSTED, "FR")


def test_the_evidence_of_a_record() -> None:
    one = AddressEvidence(
        "192.0.2.1",
        AddressKind.DOCUMENTATION,
        Wrapping.SIX_TO_FOUR,
        ((LOCATED, CountryRecord("FR", None)),),
        ((ASN, NetworkRecord(64496, "Host")),),
    )
    dns = Answer((ip_address(one.ip),), ("b.example",), 300, "127.0.0.1:53", "timeout")
    found = Evidence(AT, Name("a.example"), dns, (one,), 9, DATABASES[:1])
    assert judge(found, allow_reserved=True).evidence == {
        "at": AT,
        "dns": {
            "outcome": "answer",
            "server": "127.0.0.1:53",
            "ttl": 300,
            "chain": ["b.example"],
            "partial": "timeout",
        },
        "addresses": [
            {
                "ip": "192.0.2.1",
                "kind": "documentation",
                "wrapping": "6to4",
                "countries": [{"db": 0, "country": "FR"}],
                "networks": [{"db": 3, "asn": 64496, "org": "Host"}],
            }
        ],
        "addresses_total": 9,
        "databases": [{"type": "Test-Country", "built": "2026-11-01"}],
    }


codes = st.sampled_from(["FR", "NL", "DE", "US"])
opinions = st.lists(
    st.tuples(st.sampled_from([LOCATED, OTHER, REGISTRY]), codes, codes).map(
        lambda row: (row[0], CountryRecord(row[1], row[2]))
    ),
    max_size=3,
    unique_by=lambda opinion: opinion[0],
).map(tuple)
address_evidence = st.builds(
    AddressEvidence,
    st.integers(1, 2**32 - 1).map(IPv4Address).map(str),
    st.sampled_from([AddressKind.GLOBAL] * 4 + [AddressKind.PRIVATE, AddressKind.DOCUMENTATION]),
    st.none(),
    opinions,
    st.sampled_from([(), ((ASN, NetworkRecord(64496, "A host with an ordinary name")),)]),
    st.sampled_from([None] * 6 + [RELAY]),
)
evidences = st.builds(
    lambda addresses, partial: evidence(*addresses, partial=partial),
    st.lists(address_evidence, min_size=1, max_size=ADDRESSES_MAX),
    st.sampled_from([None, "timeout"]),
)


@given(found=evidences, allow_reserved=st.booleans())
def test_a_country_is_named_only_when_somebody_said_it(found: Evidence, *, allow_reserved: bool) -> None:
    result = judge(found, allow_reserved=allow_reserved)
    said = {record.country for one in found.addresses for _, record in one.countries}
    assert (result.country is not None) == (result.kind is VerdictKind.HOSTED)
    assert result.country is None or result.country in said
    assert 0 <= result.confidence <= 100
    assert len(set(result.reasons)) == len(result.reasons)


@given(evidences, st.randoms(use_true_random=False))
def test_the_order_of_addresses_and_opinions_does_not_matter(found: Evidence, random: Random) -> None:
    shuffled = [
        replace(one, countries=tuple(random.sample(one.countries, len(one.countries)))) for one in found.addresses
    ]
    random.shuffle(shuffled)
    first = judge(found, allow_reserved=False)
    second = judge(replace(found, addresses=tuple(shuffled)), allow_reserved=False)
    assert replace(first, evidence={}) == replace(second, evidence={})


@given(evidences)
def test_dissent_never_makes_surer(found: Evidence) -> None:
    before = judge(found, allow_reserved=False)
    if before.kind is not VerdictKind.HOSTED:
        return
    dissenter = address((LOCATED, "JP", "JP"), ip="192.0.2.200")
    after = judge(replace(found, addresses=(*found.addresses, dissenter)), allow_reserved=False)
    if after.country == before.country and "registry-data-only" not in before.reasons:
        assert after.confidence < before.confidence


@given(evidences)
def test_evidence_is_small_json(found: Evidence) -> None:
    first, second = judge(found, allow_reserved=True), judge(found, allow_reserved=True)
    text = json.dumps(first.evidence, separators=(",", ":"), allow_nan=False)
    assert json.loads(text) == first.evidence
    assert len(text) < 4096
    assert first.evidence == second.evidence


def test_typical_evidence_is_compact() -> None:
    one = [
        replace(
            address((LOCATED, "FR", "FR"), (OTHER, "FR", "FR"), ip=f"2001:db8:1111:2222:3333:4444:5555:{i}"),
            networks=((ASN, NetworkRecord(64496, "A host with an ordinary name")),),
        )
        for i in range(4)
    ]
    dns = Answer((), ("www.host.example.cdn.relay.example", "edge-1234.relay.example"), 300, "192.0.2.53:53")
    found = Evidence(AT, Name("www.host.example"), dns, tuple(one), 4, DATABASES)
    text = json.dumps(judge(found, allow_reserved=False).evidence, separators=(",", ":"))
    assert len(text) < 1536


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_bounded_choice_of_addresses_sees_both_families(v4: int, v6: int) -> None:
    all_v4 = [ip_address(f"192.0.2.{i}") for i in range(v4)]
    all_v6 = [ip_address(f"2001:db8::{i:x}") for i in range(v6)]
    chosen = choose_addresses([*all_v4, *all_v6])
    assert len(chosen) == min(v4 + v6, ADDRESSES_MAX)
    assert set(chosen) <= {*all_v4, *all_v6}
    assert len(set(chosen)) == len(chosen)
    if v4 and v6:
        assert {one.version for one in chosen} == {4, 6}
