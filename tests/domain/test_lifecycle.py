"""The table of states: complete, without dead ends by accident, and tight where an item may not leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.lifecycle import (
    ENTRIES,
    NEEDS_CLEARANCE,
    RECORDS,
    TABLE,
    Entry,
    Event,
    State,
    TransitionRefused,
    next_state,
)
from tests.docs.diagrams import mermaid


def _after(state: State, *events: Event, qualified: bool = False, forward_unqualified: bool = False) -> State:
    for event in events:
        qualified = (qualified or event is Event.QUALIFIED_ILLEGAL) and event is not Event.QUALIFIED_NOT_ILLEGAL
        state = next_state(state, event, qualified=qualified, forward_unqualified=forward_unqualified)
    return state


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), State.LOCATING),
        ((Event.LOCATED_HOSTED,), State.WAITING),
        ((Event.LOCATED_HOSTED, Event.QUALIFIED_ILLEGAL), State.READY),
        ((Event.QUALIFIED_ILLEGAL, Event.LOCATED_HOSTED), State.READY),
        ((Event.QUALIFIED_ILLEGAL, Event.LOCATED_HOSTED, Event.ROUTED_SEND), State.SENT),
        ((Event.QUALIFIED_ILLEGAL, Event.LOCATED_HOSTED, Event.ROUTED_KEEP), State.KEPT),
        ((Event.QUALIFIED_ILLEGAL, Event.LOCATED_HOSTED, Event.ROUTED_UNDELIVERABLE), State.UNDELIVERABLE),
        ((Event.LOCATED_HOSTED, Event.QUALIFIED_NOT_ILLEGAL), State.CLOSED),
        ((Event.QUALIFIED_NOT_ILLEGAL,), State.CLOSED),
        ((Event.QUALIFIED_NOT_ILLEGAL, Event.QUALIFIED_ILLEGAL), State.LOCATING),
        ((Event.LOCATED_PROXIED,), State.ORIGIN_LOOKUP),
        ((Event.LOCATED_PROXIED, Event.QUALIFIED_ILLEGAL), State.ORIGIN_LOOKUP),
        ((Event.LOCATED_PROXIED, Event.QUALIFIED_ILLEGAL, Event.LOCATED_HOSTED), State.READY),
        ((Event.LOCATED_NONE,), State.KEPT),
        ((Event.LOCATION_FAILED,), State.UNLOCATED),
        ((Event.LOCATION_FAILED, Event.RELOCATE), State.LOCATING),
        ((Event.QUALIFIED_ILLEGAL, Event.LOCATED_HOSTED, Event.ROUTED_SEND, Event.REFUSED_BY_PEER), State.REFUSED),
        (
            (Event.QUALIFIED_ILLEGAL, Event.LOCATED_HOSTED, Event.ROUTED_UNDELIVERABLE, Event.DIRECTORY_CHANGED),
            State.READY,
        ),
    ],
)
def test_the_ways_of_a_reported_item(events: tuple[Event, ...], state: State) -> None:
    assert _after(ENTRIES[Entry.REPORTED], *events) is state


def test_forwarding_without_qualification_lets_a_located_item_go() -> None:
    assert _after(State.LOCATING, Event.LOCATED_HOSTED, Event.ROUTED_SEND, forward_unqualified=True) is State.SENT


def test_a_setting_switched_on_later_releases_what_waits() -> None:
    assert next_state(State.WAITING, Event.RELEASED, qualified=False, forward_unqualified=True) is State.READY


def test_an_item_no_longer_cleared_is_withheld_and_stays_withheld() -> None:
    assert next_state(State.READY, Event.WITHHELD, qualified=False, forward_unqualified=False) is State.WAITING
    assert next_state(State.READY, Event.WITHHELD, qualified=True, forward_unqualified=False) is State.WAITING


@pytest.mark.parametrize(("state", "event"), [(State.WAITING, Event.RELEASED), (State.READY, Event.ROUTED_SEND)])
def test_what_is_not_cleared_does_not_leave(state: State, event: Event) -> None:
    assert event in NEEDS_CLEARANCE
    with pytest.raises(TransitionRefused, match="not cleared"):
        next_state(state, event, qualified=False, forward_unqualified=False)


def test_what_came_from_the_network_is_qualified_here_and_then_kept_or_closed() -> None:
    assert _after(ENTRIES[Entry.RECEIVED], Event.QUALIFIED_ILLEGAL) is State.KEPT
    assert _after(ENTRIES[Entry.RECEIVED], Event.QUALIFIED_NOT_ILLEGAL) is State.CLOSED


@pytest.mark.parametrize("event", Event)
def test_nothing_happens_to_a_duplicate(event: Event) -> None:
    with pytest.raises(TransitionRefused) as refused:
        next_state(State.DUPLICATE, event, qualified=True, forward_unqualified=True)
    assert (refused.value.state, refused.value.event) == (State.DUPLICATE, event)


@pytest.mark.parametrize("event", [Event.QUALIFIED_ILLEGAL, Event.QUALIFIED_NOT_ILLEGAL, Event.RELOCATE])
def test_what_was_sent_is_the_receivers_to_assess(event: Event) -> None:
    with pytest.raises(TransitionRefused):
        next_state(State.SENT, event, qualified=True, forward_unqualified=True)


def test_every_state_can_be_reached_and_every_event_is_used() -> None:
    by_records = {after for after in RECORDS.values() if isinstance(after, State)}
    assert {*ENTRIES.values(), *TABLE.values(), *by_records} == set(State)
    assert {event for _, event in TABLE} == set(Event)
    assert set(ENTRIES) == set(Entry)


def test_every_item_at_home_can_be_qualified() -> None:
    elsewhere = {State.SENT, State.DECLINED, State.DUPLICATE, State.LEAVING, State.TRANSFERRED}
    for state in set(State) - elsewhere - {State.DONE, State.WITHDRAWN}:
        assert (state, Event.QUALIFIED_ILLEGAL) in TABLE
        assert TABLE[state, Event.QUALIFIED_NOT_ILLEGAL] is State.CLOSED


@given(st.sampled_from(Entry), st.lists(st.sampled_from(Event)), st.booleans())
def test_nothing_leaves_unless_qualified_or_so_configured(
    entry: Entry,
    events: list[Event],
    forward_unqualified: bool,  # noqa: FBT001 -- hypothesis gives it by position
) -> None:
    state = ENTRIES[entry]
    qualified = False
    for event in events:
        was = qualified
        if event in {Event.QUALIFIED_ILLEGAL, Event.QUALIFIED_NOT_ILLEGAL}:
            qualified = event is Event.QUALIFIED_ILLEGAL
        try:
            after = next_state(state, event, qualified=qualified, forward_unqualified=forward_unqualified)
        except TransitionRefused:
            qualified = was
            continue
        if after is State.SENT:
            assert qualified or forward_unqualified
        if after is State.READY:
            assert qualified or forward_unqualified
        if after is State.WAITING:
            assert event is Event.WITHHELD or not (qualified or forward_unqualified)
        state = after


def test_the_diagram_shows_every_state_and_every_move() -> None:
    drawn = mermaid()
    assert drawn.startswith("stateDiagram-v2\n")
    for state in State:
        assert state.replace("-", "_") in drawn
    assert "    [*] --> locating: reported\n" in drawn
    assert "    waiting --> ready: released\n" in drawn
    moves = {(state, after) for (state, _), after in TABLE.items() if state is not after}
    moves |= {(state, after) for (state, _, _), after in RECORDS.items() if isinstance(after, State)}
    moves -= {(state, state) for state in State}
    assert drawn.count("-->") == len(moves) + len(ENTRIES)
