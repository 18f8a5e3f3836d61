"""An exchange that is over has no difference; whatever single thing is spoiled in it is found, without its content."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from node.hotline.domain.fates import Claims, Told, Verdict, claims
from node.hotline.domain.ledger import NAMED_MAX, Findings, SentHead, check_given, check_newest
from node.platform.ids import new_id
from protocol.bodies import OutcomeBody
from protocol.merkle import Edge, leaf_hash
from tests.domain.ledgers import NOW, Exchange, Side, exchange

Spoil = Callable[[Exchange, random.Random], None]
SPOILS: dict[str, Spoil] = {}


def spoil(work: Spoil) -> Spoil:
    SPOILS[work.__name__.strip("_").replace("_", " ")] = work
    return work


def _side(made: Exchange, draw: random.Random) -> Side:
    return draw.choice([made.out.sent, made.out.held, made.back.sent, made.back.held])


def _index(side: Side, draw: random.Random) -> int:
    return draw.choice(sorted(side.records))


@spoil
def _a_deleted_record(made: Exchange, draw: random.Random) -> None:
    side = _side(made, draw)
    idx = _index(side, draw)
    del side.records[idx], side.leaves[idx]


@spoil
def _an_altered_leaf(made: Exchange, draw: random.Random) -> None:
    side = _side(made, draw)
    idx = _index(side, draw)
    side.leaves[idx] = bytes([side.leaves[idx][0] ^ 1]) + side.leaves[idx][1:]


@spoil
def _altered_record_bytes(made: Exchange, draw: random.Random) -> None:
    side = _side(made, draw)
    idx = _index(side, draw)
    side.records[idx] = side.records[idx].replace(b"takedown", b"takedowm")


@spoil
def _an_altered_record_with_its_leaf(made: Exchange, draw: random.Random) -> None:
    side = _side(made, draw)
    idx = _index(side, draw)
    side.records[idx] = side.records[idx].replace(b"takedown", b"takedowm")
    side.leaves[idx] = leaf_hash(side.records[idx])


@spoil
def _swapped_records(made: Exchange, draw: random.Random) -> None:
    side = made.out.sent if draw.random() < 0.5 else made.out.held
    first, second = draw.sample(sorted(side.records), 2)
    for table in (side.records, side.leaves):
        table[first], table[second] = table[second], table[first]


@spoil
def _a_missing_receipt_at_the_sender(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.sent, made.back.sent])
    del side.receipts[draw.choice(sorted(side.receipts))]


@spoil
def _a_missing_batch_at_the_receiver(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.held, made.back.held])
    side.batches.remove(draw.choice(side.batches))


@spoil
def _other_receipt_bytes(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.sent, made.back.sent])
    size = draw.choice(sorted(side.receipts))
    side.receipts[size] = side.receipts[size].replace("—".encode(), "—".encode(), 1) + "— other key/".encode()


@spoil
def _another_receipt_that_verifies(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.held, made.back.held])
    at = draw.randrange(len(side.batches))
    other = side.batches[at].receipt + "— nl.hotline.example/witness AAAAAAAA\n".encode()
    made.given.add(other)
    side.batches[at] = replace(side.batches[at], receipt=other)


@spoil
def _a_batch_with_another_edge_before_it(made: Exchange, draw: random.Random) -> None:
    side = made.out.held
    at = draw.randrange(len(side.batches))
    other = Edge.EMPTY.extend([bytes(32)] * (side.batches[at].first or 1))
    side.batches[at] = replace(side.batches[at], edge_before=other.to_bytes())


@spoil
def _a_doubled_item(made: Exchange, draw: random.Random) -> None:
    items = made.out.held.items
    items[new_id(NOW)] = draw.choice([idx for idx in items.values() if idx is not None])


@spoil
def _a_missing_item_at_the_receiver(made: Exchange, draw: random.Random) -> None:
    del made.out.held.items[draw.choice(sorted(made.out.held.items))]


@spoil
def _a_missing_item_at_the_sender(made: Exchange, draw: random.Random) -> None:
    del made.out.sent.items[draw.choice(sorted(made.out.sent.items))]


@spoil
def _another_item_of_the_record(made: Exchange, draw: random.Random) -> None:
    items = made.out.held.items
    items[new_id(NOW)] = items.pop(draw.choice(sorted(items)))


@spoil
def _another_item_beside_the_sent_record(made: Exchange, draw: random.Random) -> None:
    side = made.out.sent
    idx = _index(side, draw)
    other = new_id(NOW)
    side.items[other] = None
    side.written[idx] = replace(side.written[idx], item_id=other)


@spoil
def _another_record_id_beside_the_sent_record(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.sent, made.back.sent])
    idx = _index(side, draw)
    side.written[idx] = replace(side.written[idx], record_id=new_id(NOW))


@spoil
def _an_item_that_is_refused_too(made: Exchange, draw: random.Random) -> None:
    idx = draw.choice([idx for idx in made.out.held.items.values() if idx is not None])
    made.out.held.refused[idx] = "not-competent"


@spoil
def _a_refusal_that_only_one_side_has(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.sent, made.out.held])
    if side.refused and draw.random() < 0.5:
        del side.refused[draw.choice(sorted(side.refused))]
    else:
        side.refused[draw.choice(sorted(side.records.keys() - side.refused.keys()))] = "id-conflict"


@spoil
def _a_refusal_under_another_code(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.sent, made.out.held])
    if side.refused:
        side.refused[draw.choice(sorted(side.refused))] = "handling-violation"
    else:
        side.refused[_index(side, draw)] = "handling-violation"


@spoil
def _a_cursor_ahead(made: Exchange, draw: random.Random) -> None:
    side = draw.choice([made.out.sent, made.out.held, made.back.held])
    side.cursor += draw.randint(1, 3)


@spoil
def _a_cursor_of_outcomes_behind(made: Exchange, draw: random.Random) -> None:
    made.out.sent.cursor -= draw.randint(1, made.out.sent.cursor)


@spoil
def _a_cursor_of_receipts_elsewhere(made: Exchange, draw: random.Random) -> None:
    stream = draw.choice([made.out, made.back])
    stream.receipted += draw.choice([-1, 1])


@spoil
def _a_receiver_set_back(made: Exchange, draw: random.Random) -> None:
    """The receiver lost its newest batch, consistently: it looks right by itself."""
    stream = draw.choice([made.out, made.back])
    side = stream.held
    lost = side.batches.pop()
    for idx in range(lost.first, lost.size):
        del side.records[idx], side.leaves[idx]
        side.refused.pop(idx, None)
    side.items = {item: idx for item, idx in side.items.items() if idx is None or idx < lost.first}
    side.size, side.edge = lost.first, lost.edge_before
    side.cursor = min(side.cursor, lost.first)


@spoil
def _a_sender_set_back(made: Exchange, draw: random.Random) -> None:
    """The sender lost its newest record, its receipt and what it heard, consistently."""
    stream = draw.choice([made.out, made.back])
    side = stream.sent
    lost = side.size - 1
    del side.records[lost], side.leaves[lost]
    side.receipts = {size: note for size, note in side.receipts.items() if size <= lost}
    stream.receipted = max(side.receipts, default=0)
    side.size = lost
    side.edge = Edge.EMPTY.extend([side.leaves[idx] for idx in range(stream.receipted)]).to_bytes()
    side.cursor = min(side.cursor, lost)
    side.refused.pop(lost, None)


@settings(max_examples=50, deadline=None)
@given(draw=st.randoms(use_true_random=False), reports=st.integers(1, 40), piece=st.integers(1, 50))
def test_an_exchange_that_is_over_has_no_difference(draw: random.Random, reports: int, piece: int) -> None:
    assert exchange(draw, reports).audit(piece) == []


@pytest.mark.parametrize("what", SPOILS)
@settings(max_examples=25, deadline=None)
@given(draw=st.randoms(use_true_random=False), reports=st.integers(4, 30), piece=st.integers(1, 40))
def test_one_thing_that_is_spoiled_is_found(what: str, draw: random.Random, reports: int, piece: int) -> None:
    made = exchange(draw, reports)
    assume(made.out.held.items)
    SPOILS[what](made, draw)
    found = made.audit(piece)
    assert found
    assert not any("host.example" in each.words() for each in found)


def test_many_differences_are_counted_and_the_first_named() -> None:
    found = Findings("hx/1/fr.hotline.example/nl.hotline.example/1")
    for idx in range(NAMED_MAX + 5):
        found.add(f"index {idx}", "something")
    assert (found.count, len(found.named)) == (NAMED_MAX + 5, NAMED_MAX)


def test_what_a_peer_says_of_our_stream() -> None:
    made = exchange(random.Random(5), 12)  # noqa: S311 - a sample, no secret
    size = made.out.receipted
    note = made.out.sent.receipts[size]
    origin = made.out.id.origin()

    def said(head: SentHead, answer: bytes | None, stored: bytes | None) -> list[str]:
        found = Findings(origin)
        check_newest(found, head, answer, stored)
        return [each.what for each in found.named]

    at_end = SentHead(size, size, b"", 0)
    assert said(at_end, note, note) == []
    assert said(SentHead(0, 0, b"", 0), None, None) == []
    # The peer holds more than we have a receipt for: its answer is on the way.
    assert said(SentHead(size, 0, b"", 0), note, None) == []
    assert said(at_end, None, note) == [f"it holds nothing, and we have its receipt for {size} records"]
    assert said(at_end, note, b"other") == ["the peer's newest receipt is not the one that we stored"]
    assert said(SentHead(size - 1, 0, b"", 0), note, None) == [
        f"it holds {size} records of which we know {size - 1}: our database was set back"
    ]
    assert said(SentHead(size + 9, size + 1, b"", 0), note, None) == [
        f"it holds {size} records, and we have its receipt for {size + 1}"
    ]
    assert said(at_end, b"no note", note) == ["what it says of our stream is no receipt of it"]
    other = next(iter(made.back.sent.receipts.values()))
    assert said(at_end, other, note) == ["what it says of our stream is no receipt of it"]


def test_what_a_peer_says_of_a_receipt_it_gave() -> None:
    found = Findings("hx/1/fr.hotline.example/nl.hotline.example/1")
    check_given(found, 3, b"note", b"note")
    check_given(found, 4, None, b"note")
    check_given(found, 5, b"other", b"note")
    assert [each.where for each in found.named] == ["size 4", "size 5"]
    assert found.receipts == 1


def test_a_record_that_cannot_be_read_claims_nothing() -> None:
    for raw in (None, b"", b"\xff", b"[]", b'{"type": "report"}', b"[" * 100_000):
        assert claims(raw) == Claims(None, None, None)


def test_outcomes_that_speak_of_a_record_twice_are_seen() -> None:
    told = Told()
    for accepted in (((0, 9),), ((5, 5),)):
        told.add(
            OutcomeBody(
                stream="hx/1/fr.hotline.example/nl.hotline.example/1", accepted=accepted, kept=((20, 21),), refused=()
            )
        )
    assert told.between(4, 7) == {4: [Verdict.ACCEPTED], 5: [Verdict.ACCEPTED] * 2, 6: [Verdict.ACCEPTED]}
    assert (told.end, told.count) == (22, 15)
