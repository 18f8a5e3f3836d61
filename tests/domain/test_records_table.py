"""The table of records: total, final where it is final, and refusals that change nothing, over random histories."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain import lifecycle
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.lifecycle import (
    ACTIONS,
    ASSESSMENTS,
    RECORDS,
    TABLE,
    Code,
    Event,
    Facts,
    RecordRefused,
    Said,
    Speaker,
    State,
    after_record,
    speaker_of,
)
from node.hotline.domain.steps import Done, KnownItem
from protocol.codes import FINAL_ACTIONS, Action, Classification
from protocol.problems import REGISTRY, Scope

AT = datetime(2026, 11, 20, tzinfo=UTC)
HERE, PEER, STRANGER = "nl.hotline.example", "fr.hotline.example", "be.hotline.example"


def item(state: State, *, received: bool, assigned_node: str | None = None) -> KnownItem:
    return KnownItem(
        here=HERE,
        id=UUID(int=1),
        case_id=UUID(int=2),
        state=state,
        reason=None,
        assigned_node=assigned_node,
        reporter=PEER if received else None,
        came_from=PEER if received else None,
        report_hash=b"x" * 32,
        own=None,
        peers=None,
        actions=(),
    )


def test_the_table_speaks_of_every_state_every_record_and_everybody() -> None:
    assert set(RECORDS) == {(state, said, speaker) for state in State for said in Said for speaker in Speaker}


def test_no_two_rows_speak_of_one_cell() -> None:
    cells = [
        (state, said, speaker) for states, saids, speaker, _ in lifecycle._ROWS for state in states for said in saids
    ]
    assert len(cells) == len(set(cells))


def test_refusals_are_codes_of_the_registry_about_a_record() -> None:
    assert all(REGISTRY[code].scope is Scope.RECORD for code in Code)


def test_a_stranger_changes_nothing() -> None:
    assert {RECORDS[state, said, Speaker.STRANGER] for state in State for said in Said} == {Code.NOT_COMPETENT}


def test_what_is_done_stays_done() -> None:
    assert {RECORDS[State.DONE, said, speaker] for said in Said for speaker in Speaker} <= {State.DONE, *Code}


def test_the_actions_are_those_of_the_wire() -> None:
    assert {said.value for said in ACTIONS} == {action.value for action in Action}
    assert {said.value for said in lifecycle._ENDS} == {action.value for action in FINAL_ACTIONS}


def test_what_we_said_of_an_item_elsewhere_stands_once_it_is_heard() -> None:
    sent = replace(item(State.SENT, received=False, assigned_node=PEER), own=Assessment(Classification.BASELINE, AT))
    national = Assessment(Classification.NATIONAL, AT)
    with pytest.raises(RecordRefused):
        sent.assessed(PEER, national)
    after = replace(sent, is_heard=False).assessed(PEER, national)
    assert after is not None
    assert after.peers == national


@pytest.mark.parametrize(
    ("stands", "assigned", "after"),
    [
        (State.KEPT, HERE, (State.TRANSFERRED, PEER)),
        (State.ASSIGNED, STRANGER, (State.TRANSFERRED, STRANGER)),
        (State.LEAVING, STRANGER, (State.TRANSFERRED, PEER)),
        (State.DONE, HERE, None),
    ],
    ids=["here", "elsewhere, as we heard", "handed on", "over"],
)
def test_what_came_home_and_is_taken_back_is_its_givers_again(
    stands: State, assigned: str, after: tuple[State, str] | None
) -> None:
    ours = replace(item(stands, received=True, assigned_node=assigned), reporter=HERE)
    assert ours.was_here_before
    assert not item(State.KEPT, received=True).was_here_before
    given = ours.given_back(PEER)
    assert after == (None if given is None else (given.state, given.assigned_node))


@pytest.mark.parametrize("state", [State.ASSIGNED, State.KEPT])
def test_a_local_qualification_leads_where_the_record_of_it_says(state: State) -> None:
    for event, said in (
        (Event.QUALIFIED_ILLEGAL, Said.ASSESSED_ILLEGAL),
        (Event.QUALIFIED_NOT_ILLEGAL, Said.ASSESSED_NOT_ILLEGAL),
    ):
        assert TABLE[state, event] is RECORDS[state, said, Speaker.CUSTODIAN]


def test_the_one_who_has_the_item_and_reported_it_speaks_as_both() -> None:
    both = {Speaker.CUSTODIAN, Speaker.ORIGIN}
    assert speaker_of(Said.REMOVED, both) is Speaker.CUSTODIAN
    assert speaker_of(Said.WITHDRAWN, both) is Speaker.ORIGIN
    assert speaker_of(Said.CORRECTED, {Speaker.CUSTODIAN}) is Speaker.CUSTODIAN
    assert speaker_of(Said.ASSESSED_ILLEGAL, {Speaker.ORIGIN}) is Speaker.ORIGIN
    assert speaker_of(Said.ASSESSED_ILLEGAL, {Speaker.ORIGIN, Speaker.FORMER}) is Speaker.FORMER
    assert speaker_of(Said.REMOVED, {Speaker.CUSTODIAN, Speaker.FORMER}) is Speaker.CUSTODIAN
    assert speaker_of(Said.REMOVED, set()) is Speaker.STRANGER


def settled(state: State, speaker: Speaker) -> bool:
    """Whether what is said counts; else it is noted, and that is all."""
    return state is not State.WITHDRAWN and speaker is not Speaker.FORMER


@given(st.sampled_from(State), st.sampled_from(Said), st.sampled_from(Speaker), st.sampled_from(Classification))
def test_a_baseline_qualification_stands(state: State, said: Said, speaker: Speaker, finding: Classification) -> None:
    facts = Facts(standing=Classification.BASELINE)
    if said in ASSESSMENTS and finding is not Classification.BASELINE and settled(state, speaker):
        with pytest.raises(RecordRefused):
            after_record(state, said, speaker, facts, finding=finding)
    if said is Said.NOT_ILLEGAL and settled(state, speaker):
        with pytest.raises(RecordRefused):
            after_record(state, said, speaker, facts)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from([HERE, PEER, STRANGER]),
        st.one_of(
            st.sampled_from(Classification), st.sampled_from(Action), st.sampled_from(["correct", "withdraw", "end"])
        ),
        st.integers(0, 2),
    ),
    max_size=12,
)


def step(one: KnownItem, node: str, what: str, variant: int) -> KnownItem | None:
    at = AT + timedelta(days=variant)
    if isinstance(what, Classification):
        return one.assessed(node, Assessment(what, at, law=f"article {variant}"))
    if isinstance(what, Action):
        return one.acted(Done(node, what, at))
    if what == "correct":
        return one.corrected(node)
    return one.withdrawn(node, "other") if what == "withdraw" else one.told_final(node, "removed")


@given(st.booleans(), _STEPS)
def test_over_any_history_the_rules_hold(
    received: bool,  # noqa: FBT001 -- hypothesis gives it by position
    history: list[tuple[str, str, int]],
) -> None:
    """Both ends of an item: one that we received and have, and one of ours that a peer has."""
    one = item(State.ASSIGNED, received=True) if received else item(State.SENT, received=False, assigned_node=PEER)
    custodian, origin = (HERE, PEER) if received else (PEER, HERE)
    for node, what, variant in history:
        before = one
        try:
            after = step(one, node, what, variant)
        except RecordRefused:
            continue
        assert node != STRANGER
        one = before if after is None else after
        # Final stays final, withdrawn stays withdrawn.
        if before.state in {State.DONE, State.WITHDRAWN}:
            assert one.state is before.state
        # Only the custodian acts, each action once.
        assert {done.node for done in one.actions} <= {custodian}
        kinds = [done.action for done in one.actions]
        assert len(kinds) == len(set(kinds))
        # Only the reporter takes back.
        if one.state is State.WITHDRAWN and before.state is not State.WITHDRAWN:
            assert node == origin
        # A baseline qualification of the custodian is never replaced, and no qualification of it after an action.
        held, now = (before.own, one.own) if received else (before.peers, one.peers)
        if held is not None and before.state is not State.WITHDRAWN and now != held:
            assert held.classification is not Classification.BASELINE
            if any(done.node == custodian for done in before.actions):
                assert now is not None
                assert now.classification is held.classification
        # Done means that a final action was recorded, or that the custodian said so.
        if one.state is State.DONE and what != "end" and before.state is not State.DONE:
            assert what in FINAL_ACTIONS
