"""The table of records: total, final where it is final, and refusals that change nothing, over random histories."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain import lifecycle
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.lifecycle import (
    ACTIONS,
    ASSESSMENTS,
    FACTS,
    KEPT_UNREAD,
    MARKS,
    RECORDS,
    STEPS,
    TABLE,
    UNKNOWN,
    Code,
    Event,
    Facts,
    RecordRefused,
    Said,
    Speaker,
    State,
    after_record,
    after_transfer,
    by_table,
    refusal,
    speaker_of,
)
from node.hotline.domain.steps import Done, KnownItem
from protocol.codes import FINAL_ACTIONS, Action, Classification, RecordType, StatusKind
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


def _cells() -> list[tuple[State, Said, Speaker]]:
    rows = lifecycle._ROWS
    return [cell for states, saids, speakers, _ in rows for cell in product(states, saids, speakers)]


def test_the_table_speaks_of_every_state_every_record_and_everybody() -> None:
    assert set(RECORDS) == {(state, said, speaker) for state in State for said in Said for speaker in Speaker}


def test_no_two_rows_speak_of_one_cell() -> None:
    assert len(_cells()) == len(set(_cells()))


def test_what_no_row_speaks_of_is_for_somebody_else_to_say() -> None:
    unsaid = RECORDS.keys() - set(_cells())
    assert {RECORDS[cell] for cell in unsaid} == {Code.NOT_COMPETENT}
    # What is no step has its row in every state, for everybody but who may never say it.
    assert {said for _, said, _ in unsaid} <= STEPS | FACTS
    assert {speaker for _, said, speaker in unsaid if said in FACTS} == {
        Speaker.REPORTER,
        Speaker.GIVER,
        Speaker.STRANGER,
    }


def test_the_table_knows_every_record_of_the_wire() -> None:
    of_their_own = {RecordType.REPORT, RecordType.TRANSFER, RecordType.CORRECTION, RecordType.WITHDRAWAL}
    words = {one.value for one in of_their_own} | {f"status-{kind}" for kind in StatusKind}
    # Which withdrawals these are, what they say and what was here before tells.
    words.add(Said.TAKEN_BACK.value)
    assert {said.value for said in Said} == words | {said.value for said in ASSESSMENTS | ACTIONS}
    # An outcome speaks of records, which the second table does not.
    assert set(RecordType) - of_their_own == {
        RecordType.OUTCOME,
        RecordType.ASSESSMENT,
        RecordType.ACTION,
        RecordType.STATUS,
    }


def test_an_item_that_is_not_here_has_a_row_for_every_record() -> None:
    assert set(UNKNOWN) == set(Said)
    assert {said for said in Said if UNKNOWN[said] is State.ASSIGNED} == {Said.REPORT, Said.TRANSFER}
    assert {said for said in Said if UNKNOWN[said] is None} == KEPT_UNREAD


def test_every_record_is_of_one_kind() -> None:
    kinds = [STEPS, FACTS, KEPT_UNREAD, {Said.REPORT}, {Said.TRANSFER}, {Said.DELIVERED}]
    assert sorted(said for kind in kinds for said in kind) == sorted(Said)


@pytest.mark.parametrize("state", State)
def test_a_transfer_is_taken_of_what_another_hotline_has(state: State) -> None:
    for speaker in Speaker:
        if state in {State.SENT, State.DECLINED, State.LEAVING, State.TRANSFERRED}:
            assert after_transfer(state, speaker, qualified=False) is State.ASSIGNED
            assert after_transfer(state, speaker, qualified=True) is State.KEPT
        else:
            with pytest.raises(RecordRefused, match="here already") as refused:
                after_transfer(state, speaker, qualified=True)
            assert (refused.value.code, refused.value.state) == (Code.ID_CONFLICT, state)


@pytest.mark.parametrize("state", State)
def test_what_is_said_of_its_way_moves_no_item(state: State) -> None:
    for said in {Said.DELIVERED, Said.EPOCH} | FACTS:
        assert by_table(state, said, Speaker.CUSTODIAN) is state
    for said in FACTS:
        assert by_table(state, said, Speaker.FORMER) is state
        for speaker in (Speaker.REPORTER, Speaker.GIVER, Speaker.STRANGER):
            with pytest.raises(RecordRefused, match="does not have the item"):
                by_table(state, said, speaker)


def test_every_refusal_has_its_sentence() -> None:
    for (state, said, _), result in RECORDS.items():
        if isinstance(result, Code):
            assert "{" not in refusal(said, result, state)
    refused = [(said, code) for said, code in UNKNOWN.items() if isinstance(code, Code)]
    assert all(refusal(said, code) for said, code in refused)


def test_marks_stand_where_another_hotline_has_the_item_and_may_be_told_by_its_holder() -> None:
    assert {state for state, _ in MARKS} <= {State.SENT, State.TRANSFERRED}
    assert {said for _, said in MARKS} == FACTS
    for state, said in MARKS:
        assert RECORDS[state, said, Speaker.CUSTODIAN] is state


@pytest.mark.parametrize(("state", "said"), sorted(MARKS))
def test_a_mark_goes_when_the_item_is_over(state: State, said: Said) -> None:
    """Whoever reads `disputed` of an item that is done or withdrawn would wait for a ruling that nobody needs."""
    marked = replace(item(state, received=False, assigned_node=PEER), reason=MARKS[state, said])
    acted = marked.acted(Done(PEER, Action.REMOVED, AT))
    assert acted is not None
    withdrawn = marked.withdrawn(HERE, "legal-order")
    assert withdrawn is not None
    over = [acted, withdrawn, marked.told_final(PEER, "unavailable")]
    assert [one.state for one in over] == [State.DONE, State.WITHDRAWN, State.DONE]
    assert [one.reason for one in over] == ["removed", "legal-order", "unavailable"]
    # And none is set on it afterwards.
    assert all((one.state, late) not in MARKS for one in over for late in FACTS)
    # Until then it stays: that the item is acted on says nothing of whose it is.
    notified = marked.acted(Done(PEER, Action.HOSTER_NOTIFIED, AT))
    assert notified is not None
    assert notified.reason == MARKS[state, said]


def test_nothing_is_noted_behind_a_final_action_of_an_item_taken_back() -> None:
    """The reporter took it back before it heard of the end, and its hotline goes on acting."""
    withdrawn = item(State.WITHDRAWN, received=False, assigned_node=PEER)
    ended = withdrawn.acted(Done(PEER, Action.REMOVED, AT))
    assert ended is not None
    assert ended.acted(Done(PEER, Action.HOSTER_NOTIFIED, AT)) is None


def test_refusals_are_codes_of_the_registry_about_a_record() -> None:
    assert all(REGISTRY[code].scope is Scope.RECORD for code in Code)


def test_a_stranger_changes_nothing() -> None:
    told = STEPS | FACTS
    assert {RECORDS[state, said, Speaker.STRANGER] for state in State for said in told} == {Code.NOT_COMPETENT}


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
    for origin in (Speaker.REPORTER, Speaker.GIVER):
        both = {Speaker.CUSTODIAN, origin}
        assert speaker_of(Said.REMOVED, both) is Speaker.CUSTODIAN
        for said in (Said.CORRECTED, Said.WITHDRAWN, Said.TAKEN_BACK):
            assert speaker_of(said, both) is origin
            assert speaker_of(said, {Speaker.CUSTODIAN}) is Speaker.CUSTODIAN
            assert speaker_of(said, {Speaker.FORMER, origin}) is origin
        assert speaker_of(Said.ASSESSED_ILLEGAL, {origin}) is origin
        assert speaker_of(Said.ASSESSED_ILLEGAL, {origin, Speaker.FORMER}) is Speaker.FORMER
    assert speaker_of(Said.REMOVED, {Speaker.CUSTODIAN, Speaker.FORMER}) is Speaker.CUSTODIAN
    assert speaker_of(Said.REMOVED, set()) is Speaker.STRANGER


def test_what_the_reporter_gave_itself_it_says_as_the_reporter() -> None:
    ours = item(State.ASSIGNED, received=True)
    assert ours.speaker(Said.WITHDRAWN, PEER) is Speaker.REPORTER
    theirs = replace(ours, reporter=STRANGER)
    assert theirs.speaker(Said.WITHDRAWN, PEER) is Speaker.GIVER
    assert theirs.speaker(Said.WITHDRAWN, STRANGER) is Speaker.REPORTER


def settled(state: State, speaker: Speaker) -> bool:
    """Whether what is said of an item counts; else it is noted, and that is all."""
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
        # Nothing follows a final one, whatever else became of the report.
        assert not FINAL_ACTIONS & set(kinds[:-1])
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
