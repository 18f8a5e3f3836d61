"""The resolver against a real server on the loopback: what it finds, what it calls a fact, what it does not believe."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

import geo.dnstransport
from geo.outcome import Answer, NoAddress, NoSuchName, Outcome, TemporaryFailure
from geo.resolver import Resolver, ResolverLimits
from tests.geo.clock import Clock
from tests.geo.dns_server import Entry, Fault, LoopbackDns

Zone = dict[str, Sequence[Entry]]

QUICK = ResolverLimits(timeout_s=0.05, rounds=2)
PATIENT = ResolverLimits(timeout_s=5.0)


@asynccontextmanager
async def resolving(
    *servers: tuple[str, int], limits: ResolverLimits = PATIENT, clock: Clock | None = None
) -> AsyncIterator[Resolver]:
    resolver = Resolver(servers, now_s=clock or Clock(), limits=limits)
    try:
        yield resolver
    finally:
        await resolver.close()


def addresses(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Answer), outcome
    return [str(address) for address in outcome.addresses]


def asked(server: LoopbackDns) -> Counter[tuple[str, str]]:
    return Counter((query.name, query.rdtype) for query in server.queries)


@pytest.fixture
def silent_server() -> Iterator[tuple[str, int]]:
    """A UDP port that takes queries and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.fixture
def closed_port() -> tuple[str, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        name: tuple[str, int] = sock.getsockname()
    return name


async def test_all_addresses_of_both_types() -> None:
    zone = {"a.example": ["A 192.0.2.2", "A 192.0.2.1", "60 AAAA 2001:db8::1"]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("a.example")
    assert outcome == Answer(
        addresses=(ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")),
        chain=(),
        ttl_s=60,
        server=f"127.0.0.1:{dns.address[1]}",
    )
    assert asked(dns) == {("a.example", "A"): 1, ("a.example", "AAAA"): 1}
    assert all(query.edns for query in dns.queries)


async def test_one_type_is_enough() -> None:
    zone = {"four.example": ["A 192.0.2.1"], "six.example": ["AAAA 2001:db8::1"]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        four, six = await resolver.lookup("four.example"), await resolver.lookup("six.example")
    assert addresses(four) == ["192.0.2.1"]
    assert addresses(six) == ["2001:db8::1"]
    assert isinstance(four, Answer)
    assert four.partial is None


async def test_no_such_name_and_no_data_are_different_facts() -> None:
    async with LoopbackDns({"mail.example": ["MX 10 mx.example."]}) as dns, resolving(dns.address) as resolver:
        gone, empty = await resolver.lookup("gone.example"), await resolver.lookup("mail.example")
    assert isinstance(gone, NoSuchName)
    assert isinstance(empty, NoAddress)
    assert empty.reason == "no-data"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.SERVFAIL, "servfail"),
        (Fault.REFUSED, "refused"),
        (Fault.FORMERR, "formerr"),
        (Fault.LAME, "lame"),
        (Fault.GARBAGE, "malformed"),
        (Fault.TRUNCATE_ALWAYS, "truncated"),
        (Fault.TCP_CLOSE, "unreachable"),
    ],
)
async def test_a_failing_server_is_no_fact(fault: Fault, reason: str) -> None:
    zone: Zone = {"a.example": ["A 192.0.2.1", "AAAA 2001:db8::1", fault]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("a.example")
    assert outcome == TemporaryFailure(reason, f"127.0.0.1:{dns.address[1]}")


async def test_silence_is_a_timeout(silent_server: tuple[str, int]) -> None:
    async with resolving(silent_server, limits=QUICK) as resolver:
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.reason == "timeout"


async def test_the_whole_lookup_is_bounded(silent_server: tuple[str, int]) -> None:
    limits = ResolverLimits(timeout_s=60.0, lookup_timeout_s=0.05)
    async with resolving(silent_server, limits=limits) as resolver:
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.reason == "timeout"


async def test_a_closed_port_is_unreachable_at_once(closed_port: tuple[str, int]) -> None:
    async with resolving(closed_port) as resolver:
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.reason == "unreachable"


async def test_a_lost_datagram_is_asked_again() -> None:
    async with LoopbackDns({"a.example": ["A 192.0.2.1"]}) as dns, resolving(dns.address, limits=QUICK) as resolver:
        dns.script("a.example/A", [Fault.SILENCE])
        assert addresses(await resolver.lookup("a.example")) == ["192.0.2.1"]
    assert asked(dns)["a.example", "A"] == 2


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.LAME, Fault.GARBAGE])
async def test_the_next_server_is_asked_when_one_fails(fault: Fault) -> None:
    zone = {"a.example": ["A 192.0.2.1"]}
    bad, good = LoopbackDns({"a.example": [fault]}), LoopbackDns(zone)
    async with bad, good, resolving(bad.address, good.address) as resolver:
        outcome = await resolver.lookup("a.example")
    assert addresses(outcome) == ["192.0.2.1"]
    assert isinstance(outcome, Answer)
    assert outcome.server == f"127.0.0.1:{good.address[1]}"


async def test_a_silent_server_is_asked_last_for_a_while(silent_server: tuple[str, int]) -> None:
    clock = Clock()
    zone = {f"{label}.example": ["A 192.0.2.1", "AAAA 2001:db8::1"] for label in "abc"}
    limits = ResolverLimits(timeout_s=0.05, slow_server_s=30.0)
    async with (
        LoopbackDns(zone) as good,
        resolving(silent_server, good.address, limits=limits, clock=clock) as resolver,
    ):
        for label in "abc":
            await resolver.lookup(f"{label}.example")
        assert next(iter(resolver._by_health())) == good.address
        clock.now += 31
        assert next(iter(resolver._by_health())) == silent_server


async def test_a_fact_needs_both_answers() -> None:
    zone: Zone = {"a.example": ["A 192.0.2.1"], "a.example/AAAA": [Fault.SERVFAIL], "b.example/AAAA": [Fault.SERVFAIL]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        known, unknown = await resolver.lookup("a.example"), await resolver.lookup("b.example")
    assert addresses(known) == ["192.0.2.1"]
    assert isinstance(known, Answer)
    assert known.partial == "servfail"
    assert isinstance(unknown, TemporaryFailure)


async def test_contradicting_answers_give_the_weaker_statement() -> None:
    async with LoopbackDns({"a.example/AAAA": ["MX 10 mx.example."]}) as dns, resolving(dns.address) as resolver:
        dns.zone["a.example"] = [Fault.NODATA_WITHOUT_SOA]
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, NoAddress)


@pytest.mark.parametrize("chase", [True, False])
async def test_aliases_are_followed_and_kept(*, chase: bool) -> None:
    zone = {
        "a.example": ["900 CNAME b.example."],
        "b.example": ["30 CNAME c.example."],
        "c.example": ["60 A 192.0.2.1", "60 AAAA 2001:db8::1"],
    }
    async with LoopbackDns(zone, chase=chase) as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, Answer)
    assert outcome.chain == ("b.example", "c.example")
    assert outcome.ttl_s == 30
    assert addresses(outcome) == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize("chase", [True, False])
@pytest.mark.parametrize(("links", "found"), [(8, True), (9, False)])
async def test_the_alias_chain_is_bounded(links: int, *, chase: bool, found: bool) -> None:
    zone = {f"n{i}.example": [f"CNAME n{i + 1}.example."] for i in range(links)}
    zone[f"n{links}.example"] = ["A 192.0.2.1", "AAAA 2001:db8::1"]
    async with LoopbackDns(zone, chase=chase) as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("n0.example")
    if found:
        assert isinstance(outcome, Answer)
        assert len(outcome.chain) == links
    else:
        assert isinstance(outcome, NoAddress)
        assert outcome.reason == "cname-too-long"


@pytest.mark.parametrize("chase", [True, False])
@pytest.mark.parametrize(
    "zone",
    [{"a.example": ["CNAME a.example."]}, {"a.example": ["CNAME b.example."], "b.example": ["CNAME a.example."]}],
)
async def test_an_alias_loop_ends(zone: dict[str, list[str]], *, chase: bool) -> None:
    async with LoopbackDns(zone, chase=chase) as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, NoAddress)
    assert outcome.reason == "cname-loop"
    assert len(dns.queries) <= 4


@pytest.mark.parametrize("chase", [True, False])
async def test_an_alias_to_nowhere_is_no_such_name(*, chase: bool) -> None:
    async with (
        LoopbackDns({"a.example": ["CNAME gone.example."]}, chase=chase) as dns,
        resolving(dns.address) as resolver,
    ):
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, NoSuchName)
    assert outcome.chain == ("gone.example",)


async def test_an_alias_target_asked_by_many_is_asked_once() -> None:
    zone: dict[str, list[str]] = {f"n{i}.example": ["CNAME shared.example."] for i in range(20)}
    zone["shared.example"] = ["A 192.0.2.1", "AAAA 2001:db8::1"]
    async with LoopbackDns(zone, chase=False) as dns, resolving(dns.address) as resolver:
        outcomes = await asyncio.gather(*(resolver.lookup(f"n{i}.example") for i in range(20)))
    assert all(addresses(outcome) == ["192.0.2.1", "2001:db8::1"] for outcome in outcomes)
    assert asked(dns)["shared.example", "A"] == 1


@pytest.mark.parametrize("fault", [Fault.FORGED_ID, Fault.FORGED_QUESTION, Fault.FORGED_SOURCE])
async def test_a_forged_answer_is_not_believed(fault: Fault) -> None:
    zone: Zone = {"a.example": ["A 192.0.2.1", "AAAA 2001:db8::1", fault]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("a.example")
        strays = resolver.strays()
    assert addresses(outcome) == ["192.0.2.1", "2001:db8::1"]
    # What comes from another source never reaches the program: the kernel drops it.
    assert strays == (0 if fault is Fault.FORGED_SOURCE else 2)


async def test_a_question_repeated_in_capitals_is_the_same_question() -> None:
    zone: Zone = {"a.example": ["A 192.0.2.1", Fault.MIXED_CASE]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        assert addresses(await resolver.lookup("a.example")) == ["192.0.2.1"]


async def test_a_truncated_answer_is_fetched_over_tcp() -> None:
    zone: Zone = {"a.example": ["A 192.0.2.1", Fault.TRUNCATE]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        assert addresses(await resolver.lookup("a.example")) == ["192.0.2.1"]
    assert Counter(query.transport for query in dns.queries) == {"udp": 2, "tcp": 2}


async def test_many_addresses_arrive_and_are_bounded() -> None:
    zone = {"a.example": [f"A 192.0.2.{i}" for i in range(60)]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("a.example")
    assert len(addresses(outcome)) == 32


async def test_a_server_without_edns_is_asked_plainly() -> None:
    zone: Zone = {"a.example": ["A 192.0.2.1", Fault.FORMERR_ON_EDNS]}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        assert addresses(await resolver.lookup("a.example")) == ["192.0.2.1"]
    assert Counter(query.edns for query in dns.queries) == {True: 2, False: 2}


async def test_ids_and_ports_vary() -> None:
    zone = {f"n{i}.example": ["A 192.0.2.1", "AAAA 2001:db8::1"] for i in range(100)}
    async with LoopbackDns(zone) as dns, resolving(dns.address) as resolver:
        await asyncio.gather(*(resolver.lookup(name) for name in zone))
    assert len({query.source_port for query in dns.queries}) > 4
    ids = [query.query_id for query in dns.queries]
    assert len(set(ids)) > 150
    assert ids != sorted(ids)


async def test_sockets_are_replaced_after_a_number_of_queries() -> None:
    limits = ResolverLimits(ports_per_server=1, port_queries_max=10)
    zone = {f"n{i}.example": ["A 192.0.2.1", "AAAA 2001:db8::1"] for i in range(20)}
    async with LoopbackDns(zone) as dns, resolving(dns.address, limits=limits) as resolver:
        outcomes = await asyncio.gather(*(resolver.lookup(name) for name in zone))
        assert not resolver._transport._retired
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    assert max(Counter(query.source_port for query in dns.queries).values()) <= 10


async def test_the_same_name_in_flight_is_asked_once() -> None:
    async with LoopbackDns({"a.example": ["A 192.0.2.1"]}) as dns, resolving(dns.address) as resolver:
        outcomes = await asyncio.gather(*(resolver.lookup("a.example") for _ in range(50)))
    assert all(addresses(outcome) == ["192.0.2.1"] for outcome in outcomes)
    assert len(dns.queries) == 2


async def test_a_lookup_given_up_does_not_take_others_with_it() -> None:
    async with LoopbackDns({"a.example": ["A 192.0.2.1"]}) as dns, resolving(dns.address) as resolver:
        first = asyncio.create_task(resolver.lookup("a.example"))
        second = asyncio.create_task(resolver.lookup("a.example"))
        await asyncio.sleep(0)
        first.cancel()
        assert addresses(await second) == ["192.0.2.1"]
        assert first.cancelled() or first.cancelling()


async def test_names_in_flight_are_bounded() -> None:
    zone = {f"n{i}.example": ["A 192.0.2.1", "AAAA 2001:db8::1"] for i in range(40)}
    limits = ResolverLimits(names_in_flight_max=4, timeout_s=5.0)
    async with LoopbackDns(zone) as dns, resolving(dns.address, limits=limits) as resolver:
        most = 0

        async def one(name: str) -> None:
            nonlocal most
            await resolver.lookup(name)
            most = max(most, len(resolver._asking))

        await asyncio.gather(*(one(name) for name in zone))
    assert 0 < most <= 8


async def test_answers_are_cached_for_their_ttl() -> None:
    clock = Clock()
    zone = {"a.example": ["60 A 192.0.2.1", "120 AAAA 2001:db8::1"]}
    async with LoopbackDns(zone) as dns, resolving(dns.address, clock=clock) as resolver:
        assert resolver.cached("a.example") is None
        first = await resolver.lookup("a.example")
        clock.now += 59
        assert resolver.cached("a.example") == first
        clock.now += 1
        assert resolver.cached("a.example") is None
        await resolver.lookup("a.example")
    assert asked(dns) == {("a.example", "A"): 2, ("a.example", "AAAA"): 1}


@pytest.mark.parametrize(("ttl_s", "kept_s"), [(0, 1), (86_400, 3_600)])
async def test_the_time_in_the_cache_is_bounded(ttl_s: int, kept_s: int) -> None:
    clock = Clock()
    zone = {"a.example": [f"{ttl_s} A 192.0.2.1", f"{ttl_s} AAAA 2001:db8::1"]}
    async with LoopbackDns(zone) as dns, resolving(dns.address, clock=clock) as resolver:
        await resolver.lookup("a.example")
        clock.now += kept_s - 0.5
        assert resolver.cached("a.example") is not None
        clock.now += 0.5
        assert resolver.cached("a.example") is None


@pytest.mark.parametrize(("minimum_s", "kept_s"), [(60, 60), (86_400, 900)])
async def test_negative_answers_are_cached_by_their_soa(minimum_s: int, kept_s: int) -> None:
    clock = Clock()
    async with LoopbackDns({}, negative_ttl_s=minimum_s) as dns, resolving(dns.address, clock=clock) as resolver:
        await resolver.lookup("gone.example")
        clock.now += kept_s - 1
        assert isinstance(resolver.cached("gone.example"), NoSuchName)
        clock.now += 1
        assert resolver.cached("gone.example") is None


async def test_a_negative_answer_without_soa_is_not_cached() -> None:
    async with LoopbackDns({"a.example": [Fault.NODATA_WITHOUT_SOA]}) as dns, resolving(dns.address) as resolver:
        assert isinstance(await resolver.lookup("a.example"), NoAddress)
        assert resolver.cached("a.example") is None


async def test_failures_are_cached_briefly() -> None:
    clock = Clock()
    async with LoopbackDns({"a.example": [Fault.SERVFAIL]}) as dns, resolving(dns.address, clock=clock) as resolver:
        await resolver.lookup("a.example")
        before = len(dns.queries)
        assert isinstance(await resolver.lookup("a.example"), TemporaryFailure)
        assert len(dns.queries) == before
        clock.now += 5
        dns.zone["a.example"] = ["A 192.0.2.1"]
        assert addresses(await resolver.lookup("a.example")) == ["192.0.2.1"]


async def test_the_cache_is_bounded_and_forgets_the_least_used() -> None:
    zone = {f"n{i}.example": ["A 192.0.2.1", "AAAA 2001:db8::1"] for i in range(10)}
    limits = ResolverLimits(cache_entries_max=6)
    async with LoopbackDns(zone) as dns, resolving(dns.address, limits=limits) as resolver:
        for name in zone:
            await resolver.lookup(name)
            assert resolver.cached("n0.example") is not None
        assert resolver.cached("n1.example") is None
        assert (len(resolver._steps), len(resolver._outcomes)) == (6, 3)


async def test_closing_ends_what_is_in_flight(silent_server: tuple[str, int]) -> None:
    resolver = Resolver([silent_server], now_s=Clock(), limits=ResolverLimits(timeout_s=60.0))
    lookup = asyncio.create_task(resolver.lookup("a.example"))
    await asyncio.sleep(0)  # the lookup starts
    assert resolver._asking
    await resolver.close()
    assert isinstance(await lookup, TemporaryFailure)


@pytest.mark.parametrize("servers", [[], [("dns.example", 53)], [("127.0.0.1", 0)], [("127.0.0.1", 65_536)]])
async def test_servers_that_make_no_sense_are_refused(servers: list[tuple[str, int]]) -> None:
    with pytest.raises(ValueError, match="DNS server"):
        Resolver(servers, now_s=Clock())


async def test_over_ipv6() -> None:
    async with LoopbackDns({"a.example": ["A 192.0.2.1"]}, host="::1") as dns, resolving(dns.address) as resolver:
        outcome = await resolver.lookup("a.example")
    assert isinstance(outcome, Answer)
    assert outcome.server == f"[::1]:{dns.address[1]}"


async def test_a_burst_to_a_server_is_bounded_and_every_place_in_it_comes_back(
    silent_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geo.dnstransport, "_BURST_QUERIES", 4)
    monkeypatch.setattr(geo.dnstransport, "_BURST_S", 0.01)
    zone = {f"n{i}.example": ["A 192.0.2.1", "AAAA 2001:db8::1"] for i in range(20)}
    limits = ResolverLimits(timeout_s=0.05, rounds=1)
    async with LoopbackDns(zone) as dns, resolving(silent_server, dns.address, limits=limits) as resolver:
        outcomes = await asyncio.gather(*(resolver.lookup(name) for name in zone))
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        windows = resolver._transport._windows
        assert {server: window._value for server, window in windows.items()} == {silent_server: 4, dns.address: 4}
