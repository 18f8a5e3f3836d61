"""Shares of memory and turns at the work: whatever one peer does, another finds room and its turn comes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from node.hotline.domain.admission import Given, Line, Shares

PEERS = ["a", "b", "c", "d"]


@given(st.integers(1, 1000), st.lists(st.tuples(st.sampled_from(PEERS), st.integers(0, 400), st.booleans())))
def test_bodies_never_hold_more_than_the_whole(total: int, steps: list[tuple[str, int, bool]]) -> None:
    shares = Shares(total)
    held: list[tuple[str, int]] = []
    for peer, size, give in steps:
        if give and held:
            shares.give_back(*held.pop(0))
        elif shares.take(peer, size):
            held.append((peer, size))
        assert sum(size for _, size in held) <= total
        for name in PEERS:
            assert shares.held(name) == sum(size for one, size in held if one == name)


@given(st.integers(1, 8), st.integers(1, 50))
def test_greedy_peers_always_leave_room_for_one_that_holds_nothing(greedy: int, size: int) -> None:
    shares = Shares(1000)
    names = [f"greedy-{at}" for at in range(greedy)]
    for _ in range(1000):
        for name in names:
            shares.take(name, size)
    assert shares.take("other", min(size, 1000 // (greedy + 1)))


def serve(line: Line) -> str:
    ticket = line.next(lambda _peer: 1)
    assert isinstance(ticket, str)
    return ticket


def test_one_peer_with_many_batches_waits_in_turn_with_others() -> None:
    line = Line(at_once=1, waiting_max=100)
    for at in range(50):
        assert line.enter("hog", f"hog-{at}", 1000)
    assert serve(line) == "hog-0"
    assert line.enter("good", "good-0", 10)
    assert line.next(lambda _peer: 1) is None
    line.done()
    order = []
    for _ in range(3):
        order.append(serve(line))
        line.done()
    assert "good-0" in order[:2]


def test_small_batches_are_served_as_often_as_their_cost_allows() -> None:
    line = Line(at_once=1, waiting_max=1000)
    for at in range(1000):
        line.enter("large", f"large-{at}", 10)
        line.enter("small", f"small-{at}", 1)
    served = []
    for _ in range(220):
        served.append(serve(line).split("-")[0])
        line.done()
    assert 190 <= served.count("small") <= 210


def test_no_more_of_one_peer_wait_than_may_and_others_still_can() -> None:
    line = Line(at_once=1, waiting_max=2)
    assert [line.enter("hog", str(at), 1) for at in range(4)] == [True, True, False, False]
    assert line.enter("good", "good", 1)


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["enter", "leave", "next", "done"]), st.sampled_from(PEERS)), max_size=80),
)
def test_each_ticket_is_called_once_at_most_and_places_are_kept(at_once: int, steps: list[tuple[str, str]]) -> None:
    line = Line(at_once, 5)
    waiting: dict[object, str] = {}
    called: list[object] = []
    running = 0
    for number, (step, peer) in enumerate(steps):
        if step == "enter" and line.enter(peer, number, 1 + number):
            waiting[number] = peer
        elif step == "leave" and waiting:
            ticket, of = next(iter(waiting.items()))
            line.leave(of, ticket)
            del waiting[ticket]
        elif step == "next":
            ticket_called = line.next(lambda _peer: 1)
            if ticket_called is None:
                assert not waiting or running == at_once
            else:
                del waiting[ticket_called]
                called.append(ticket_called)
                running += 1
        elif step == "done" and running:
            line.done()
            running -= 1
        assert running <= at_once
    assert len(set(called)) == len(called)


def test_few_questions_of_one_peer_are_answered_at_once_and_others_pass_them() -> None:
    line = Line(at_once=8, waiting_max=100, asks_max=2)
    for at in range(4):
        assert line.enter("hog", f"hog-{at}", 1, asks=True)
    assert [serve(line), serve(line)] == ["hog-0", "hog-1"]
    assert line.next(lambda _peer: 1) is None
    assert line.enter("good", "good-0", 1, asks=True)
    assert serve(line) == "good-0"
    # The work is done, and the answer still on its way.
    line.done()
    assert line.next(lambda _peer: 1) is None
    line.answered("hog")
    assert serve(line) == "hog-2"


def test_an_answer_that_was_large_lets_others_pass_afterwards() -> None:
    line = Line(at_once=1, waiting_max=100)
    line.enter("hog", "hog-0", 1)
    assert serve(line) == "hog-0"
    line.charge("hog", 1000, 1)
    line.done()
    for at in range(3):
        line.enter("hog", f"hog-{at + 1}", 1)
        line.enter("good", f"good-{at}", 100)
    order = []
    for _ in range(6):
        order.append(serve(line))
        line.done()
    assert order == ["good-0", "good-1", "good-2", "hog-1", "hog-2", "hog-3"]


def test_what_was_given_is_told_from_what_is_new() -> None:
    given = Given()
    steps = [(1, 0, 10), (1, 10, 20), (2, 0, 5)]
    assert all(given.give("a", "inbox", *step) for step in steps)
    assert not any(given.give("a", "inbox", *step) for step in [*steps, (2, 4, 8), (2, 8, 8), (1, 30, 40)])
    # Of another thing and to another peer, and what follows.
    assert given.give("a", "outbox", 1, 0, 10)
    assert given.give("b", "inbox", 1, 0, 10)
    assert given.give("a", "inbox", 2, 8, 9)
