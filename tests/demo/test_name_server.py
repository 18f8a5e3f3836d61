"""The demo's name server: what it answers over UDP and TCP, and that it ends when it should."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.demo.dns import LOOPBACK, NameServer, Zone
from node.demo.internet import SERVFAIL
from node.demo.processes import Process, Processes, StopRequest

ENTRIES = {
    "site.example": ["A 192.0.2.1", "A 192.0.2.2", "AAAA 2001:db8:1::1"],
    "alias.example": ["CNAME second.example"],
    "second.example": ["CNAME site.example"],
    "dangling.example": ["CNAME gone.example"],
    "loop.example": ["CNAME loop.example"],
    "parked.example": ["TXT parked"],
    "failing.example": [SERVFAIL],
    "large.example": [f"A 198.51.100.{last}" for last in range(1, 200)],
}


def asked(name: str, rdtype: str = "A", *, over_udp: bool = True) -> dns.message.Message:
    wire = Zone(ENTRIES).answer(dns.message.make_query(name, rdtype).to_wire(), over_udp=over_udp)
    assert wire is not None
    return dns.message.from_wire(wire)


def addresses(response: dns.message.Message) -> set[str]:
    return {str(record) for answer in response.answer for record in answer}


def test_a_name_has_its_addresses_of_each_type() -> None:
    assert addresses(asked("site.example")) == {"192.0.2.1", "192.0.2.2"}
    assert addresses(asked("SITE.example", "AAAA")) == {"2001:db8:1::1"}


def test_aliases_are_followed_to_the_addresses() -> None:
    response = asked("alias.example")
    types = [dns.rdatatype.to_text(answer.rdtype) for answer in response.answer]
    assert types == ["CNAME", "CNAME", "A"]


def test_a_name_that_is_not_in_the_zone_does_not_exist_and_neither_does_what_an_alias_points_at() -> None:
    assert asked("gone.example").rcode() == dns.rcode.NXDOMAIN
    response = asked("dangling.example")
    assert (response.rcode(), len(response.answer)) == (dns.rcode.NXDOMAIN, 1)


def test_a_name_without_addresses_is_answered_with_the_zone_s_start_of_authority() -> None:
    response = asked("parked.example")
    assert (response.rcode(), len(response.answer)) == (dns.rcode.NOERROR, 0)
    assert response.authority[0].rdtype == dns.rdatatype.SOA


def test_a_failing_name_is_a_failure_of_the_server() -> None:
    assert asked("failing.example").rcode() == dns.rcode.SERVFAIL


def test_a_loop_of_aliases_ends() -> None:
    assert len(asked("loop.example").answer) <= 8


def test_what_is_too_large_for_udp_is_truncated_there_and_whole_over_tcp() -> None:
    short = asked("large.example")
    assert short.flags & dns.flags.TC
    assert len(addresses(asked("large.example", over_udp=False))) == 199


def test_another_kind_of_message_is_not_implemented_and_an_answer_is_not_answered() -> None:
    query = dns.message.make_query("site.example", "A")
    query.set_opcode(dns.opcode.STATUS)
    wire = Zone(ENTRIES).answer(query.to_wire(), over_udp=True)
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == dns.rcode.NOTIMP
    assert Zone(ENTRIES).answer(asked("site.example").to_wire(), over_udp=True) is None


ZONE = Zone(ENTRIES)


@given(st.binary(max_size=100))
def test_whatever_is_sent_is_answered_or_ignored(wire: bytes) -> None:
    ZONE.answer(wire, over_udp=True)


def test_an_entry_that_is_no_record_is_refused() -> None:
    with pytest.raises(dns.exception.DNSException):
        Zone({"site.example": ["A not-an-address"]})


async def test_it_serves_udp_and_tcp_on_one_port() -> None:
    server = NameServer(ZONE)
    await server.open()
    try:
        query = dns.message.make_query("large.example", "A")
        response, by_tcp = await dns.asyncquery.udp_with_fallback(query, LOOPBACK, 5, server.port)
        assert by_tcp
        assert len(addresses(response)) == 199
    finally:
        await server.close()


async def test_a_tcp_connection_that_breaks_off_harms_nobody() -> None:
    server = NameServer(ZONE)
    await server.open()
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(b"\x00\x40half")
        writer.close()
        await writer.wait_closed()
        response = await dns.asyncquery.tcp(dns.message.make_query("site.example", "A"), LOOPBACK, 5, server.port)
        assert addresses(response) == {"192.0.2.1", "192.0.2.2"}
    finally:
        await server.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Process]:
    """The server as a process, once it answers."""
    zone, ready = tmp_path / "zone.json", tmp_path / "port"
    zone.write_text('{"site.example": ["A 192.0.2.1"]}')
    with StopRequest() as stop:
        processes = Processes(tmp_path, stop)
        process = processes.start("name server", "node.demo.dns", str(zone), str(ready), service=True)
        processes.wait_until(ready.exists, "the name server", within_s=20)
        process.ready = True
        assert int(ready.read_text()) > 0
        yield process
        assert processes.end() == []


def test_the_process_ends_cleanly_when_told_to(program: Process) -> None:
    program.running.send_signal(signal.SIGTERM)
    assert program.running.wait(10) == 0


def test_the_process_ends_when_its_starter_is_gone(program: Process) -> None:
    assert program.running.stdin is not None
    program.running.stdin.close()
    assert program.running.wait(10) == 0
