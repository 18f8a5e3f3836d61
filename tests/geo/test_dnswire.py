"""Reading responses: odd bytes are never an answer and never an exception."""

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo.dnswire import (
    A,
    Absent,
    Broken,
    Found,
    encode_query,
    is_reply_to,
    labels_of,
    question_of,
    read_reply,
    text_of,
)

LABELS = labels_of("www.host.example")
QUESTION = question_of(LABELS, A)


def response(*rows: tuple[str, int, str, str], rcode: int = 0, query_id: int = 7) -> bytes:
    """An answer to the A question with (owner, TTL, type, data) rows, written by dnspython."""
    message = dns.message.make_response(dns.message.make_query("www.host.example.", "A", id=query_id))
    message.set_rcode(dns.rcode.Rcode(rcode))
    for owner, ttl, rdtype, data in rows:
        message.answer.append(dns.rrset.from_text(owner, ttl, "IN", rdtype, data))
    return message.to_wire()


GOOD = response(("www.host.example.", 60, "CNAME", "a.example."), ("a.example.", 30, "A", "192.0.2.1"))


@pytest.mark.parametrize("edns", [True, False])
def test_queries_are_what_dnspython_reads(*, edns: bool) -> None:
    query = dns.message.from_wire(encode_query(4711, QUESTION, edns=edns))
    assert query.id == 4711
    assert query.question[0].to_text() == "www.host.example. IN A"
    assert query.payload == (1232 if edns else 0)
    assert query.flags == 0x0100


def test_an_answer_is_read() -> None:
    step = read_reply(GOOD, LABELS, A)
    assert isinstance(step, Found)
    assert [str(address) for address in step.addresses] == ["192.0.2.1"]
    assert [text_of(link) for link in step.chain] == ["a.example"]
    assert step.ttl_s == 30


def test_records_of_other_names_and_types_are_not_believed() -> None:
    wire = response(("other.example.", 60, "A", "198.51.100.66"), ("www.host.example.", 60, "TXT", "x"))
    assert isinstance(read_reply(wire, LABELS, A), Absent)


def test_an_owner_in_other_case_is_the_same_name() -> None:
    wire = response(("WWW.Host.EXAMPLE.", 60, "A", "192.0.2.1"))
    assert isinstance(read_reply(wire, LABELS, A), Found)


def test_a_negative_ttl_counts_as_zero() -> None:
    # RFC 2181 8: a TTL with its highest bit set is zero.
    wire = response(("www.host.example.", 60, "A", "192.0.2.1"))
    step = read_reply(wire.replace((60).to_bytes(4, "big"), b"\xff\xff\xff\xff"), LABELS, A)
    assert isinstance(step, Found)
    assert step.ttl_s == 0


def test_an_extended_error_is_an_error() -> None:
    # BADVERS is 16: its lower bits alone would read as success (RFC 6891 6.1.3).
    message = dns.message.make_response(dns.message.make_query("www.host.example.", "A", use_edns=0))
    message.set_rcode(dns.rcode.BADVERS)
    assert read_reply(message.to_wire(), LABELS, A) == Broken("badvers", retry_plain=True)


@pytest.mark.parametrize(
    ("wire", "fits"),
    [
        (GOOD, True),
        (b"\x00\x08" + GOOD[2:], False),
        (GOOD[:2] + b"\x01\x00" + GOOD[4:], False),  # a query
        (GOOD[:2] + b"\xa8\x00" + GOOD[4:], False),  # a response to an update
        (GOOD[:4] + b"\x00\x02" + GOOD[6:], False),  # two questions
        (GOOD[:12] + GOOD[12:].replace(b"host", b"hose", 1), False),
        (GOOD[:11], False),
        (b"\x00\x07\x81\x80" + bytes(8), False),  # success without a question
        (b"\x00\x07\x81\x83" + bytes(8), False),  # "no such name" without a question
        (b"\x00\x07\x81\x82" + bytes(8), True),  # an error without a question
    ],
)
def test_only_a_reply_to_the_query_is_taken(wire: bytes, *, fits: bool) -> None:
    assert is_reply_to(wire, 7, QUESTION) is fits


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(tail: bytes) -> None:
    read_reply(GOOD[: 12 + len(QUESTION)] + tail, LABELS, A)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8), st.integers(0, len(GOOD)))
def test_a_damaged_answer_is_read_without_an_exception(changes: list[tuple[int, int]], length: int) -> None:
    wire = bytearray(GOOD)
    for place, value in changes:
        wire[place] = value
    read_reply(bytes(wire[:length]), LABELS, A)
