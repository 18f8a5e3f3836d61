"""What a peer says of an item changes what the table of records says, and nothing but that."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from node.hotline.domain.acceptance import Judged, Proven
from node.hotline.domain.lifecycle import RECORDS, STEPS, UNKNOWN, Code, RecordRefused, Said, Speaker, State
from node.hotline.domain.steps import SAID, KnownItem
from node.hotline.flows.apply.steps import StepApplier, _Batch
from protocol.bodies import Qualification
from protocol.codes import Action, Classification, SiteType, StatusKind, WithdrawalReason
from protocol.errors import ProtocolError
from protocol.record import Envelope, Handling, Record
from protocol.steps import (
    ActionBody,
    AssessmentBody,
    Corrected,
    CorrectionBody,
    StatusBody,
    Step,
    WithdrawalBody,
    step_type,
)

AT = datetime(2026, 11, 20, tzinfo=UTC)
HERE, PEER, OTHER = "nl.hotline.example", "fr.hotline.example", "be.hotline.example"
ITEM, CASE = UUID(int=1), UUID(int=2)
REPORT = b"x" * 32

CORRECTION = CorrectionBody(corrects=REPORT.hex(), members=Corrected(site_type=SiteType.BLOG))
WITHDRAWAL = WithdrawalBody(withdraws=REPORT.hex(), reason=WithdrawalReason.OTHER)
REROUTED = WithdrawalBody(withdraws=REPORT.hex(), reason=WithdrawalReason.REROUTED)
PROVEN = Proven(OTHER, str(ITEM), REPORT.hex())


def _found(classification: Classification) -> AssessmentBody:
    return AssessmentBody(qualification=Qualification(classification=classification, at=AT))


#: Of each record that says something of an item, the body.
BODIES: dict[Said, Step] = {
    Said.ASSESSED_ILLEGAL: _found(Classification.NATIONAL),
    Said.ASSESSED_NOT_ILLEGAL: _found(Classification.NOT_ILLEGAL),
    **{SAID[action]: ActionBody(action=action, at=AT) for action in Action},
    Said.CORRECTED: CORRECTION,
    Said.WITHDRAWN: WITHDRAWAL,
    Said.TAKEN_BACK: REROUTED,
    Said.FINAL: StatusBody(kind=StatusKind.FINAL, at=AT, about=REPORT.hex(), code="removed"),
}
#: What makes PEER who says it.
ROLES: dict[Speaker, dict[str, Any]] = {
    Speaker.CUSTODIAN: {"reporter": None, "came_from": None, "assigned_node": PEER},
    Speaker.REPORTER: {"reporter": PEER, "came_from": OTHER},
    Speaker.GIVER: {},
    Speaker.FORMER: {"reporter": None, "came_from": None, "assigned_node": OTHER, "former": frozenset({PEER})},
    Speaker.STRANGER: {"came_from": OTHER},
}


def given(state: State, **others: Any) -> KnownItem:
    """An item that PEER gave us and OTHER reported, at which nothing was said so far."""
    one = KnownItem(
        here=HERE,
        id=ITEM,
        case_id=CASE,
        state=state,
        reason=None,
        assigned_node=None,
        reporter=OTHER,
        came_from=PEER,
        report_hash=REPORT,
        own=None,
        peers=None,
        actions=(),
        is_withdrawn=state is State.WITHDRAWN,
    )
    return replace(one, **others)


def judged(body: Step, proven: Proven | None = None) -> Judged:
    envelope = Envelope(
        v=1,
        type=step_type(body),
        id=str(UUID(int=3)),
        case=str(CASE),
        item=str(ITEM),
        iss=PEER,
        aud=HERE,
        iat=AT,
        parent=REPORT.hex(),
        hops=(),
        deliver_by=None,
        handling=Handling("takedown", AT),
        crit=(),
        body={},
    )
    return Judged(0, Record(b"", b"y" * 32, envelope, body), None, None, proven=proven)


def said(item: KnownItem, body: Step, proven: Proven | None = None) -> str:
    """Return the state of the item after PEER has said this of it, or the code of the refusal."""
    batch = _Batch({ITEM: item})
    applier = StepApplier(HERE, cast("Any", None))
    try:
        applier._apply_one(batch, PEER, judged(body, proven))
    except (ProtocolError, RecordRefused) as refused:
        assert batch.known[ITEM] is item
        return f"refused: {refused.code}"
    return batch.known[ITEM].state.value


@pytest.mark.parametrize("state", State)
def test_who_gave_an_item_to_its_reporter_and_takes_it_back_has_it_again(state: State) -> None:
    over = {State.DONE, State.WITHDRAWN}
    for was_here in ({"reporter": HERE}, {"former": frozenset({HERE})}):
        assert said(given(state, **was_here), REROUTED) == (state if state in over else State.TRANSFERRED)


@pytest.mark.parametrize("state", State)
def test_who_gave_what_was_never_here_takes_it_back_for_good(state: State) -> None:
    assert said(given(state), REROUTED) == (State.DONE if state is State.DONE else State.WITHDRAWN)


@pytest.mark.parametrize("state", State)
def test_the_report_of_another_is_not_the_givers_to_correct_and_to_withdraw_with_a_proof_alone(state: State) -> None:
    assert said(given(state), CORRECTION) == "refused: not-competent"
    assert said(given(state), WITHDRAWAL) == "refused: handling-violation"
    assert said(given(state), WITHDRAWAL, PROVEN) == (State.DONE if state is State.DONE else State.WITHDRAWN)


@pytest.mark.parametrize("state", State)
def test_the_reporter_corrects_and_withdraws_whatever_has_become_of_the_item(state: State) -> None:
    ours = given(state, reporter=PEER, came_from=OTHER)
    assert said(ours, CORRECTION) == ("refused: handling-violation" if state is State.WITHDRAWN else state)
    for body in (WITHDRAWAL, REROUTED):
        assert said(ours, body) == (State.DONE if state is State.DONE else State.WITHDRAWN)


@pytest.mark.parametrize("speaker", Speaker)
@pytest.mark.parametrize("said_of_it", sorted(STEPS))
def test_each_record_does_what_the_table_says_whoever_says_it(said_of_it: Said, speaker: Speaker) -> None:
    """Where nothing was said before: what stands against a record beside the table is what was."""
    # Takes back who gave it alone: what others say so is a withdrawal, and needs what that needs.
    told = Said.WITHDRAWN if said_of_it is Said.TAKEN_BACK and speaker is not Speaker.GIVER else said_of_it
    was_here = {"former": frozenset({HERE})} if told is Said.TAKEN_BACK else {}
    for state in State:
        one = given(state, **{**was_here, **ROLES[speaker]})
        # Where another hotline hands a withdrawal on, the proof is looked at first.
        proven = Proven(one.reporter or "", str(ITEM), REPORT.hex()) if told is Said.WITHDRAWN else None
        result = RECORDS[state, told, speaker]
        expected = f"refused: {result}" if isinstance(result, Code) else result.value
        assert said(one, BODIES[said_of_it], proven) == expected


def test_of_an_item_that_is_not_here_nothing_is_said() -> None:
    applier = StepApplier(HERE, cast("Any", None))
    for said_of_it in STEPS:
        with pytest.raises(ProtocolError) as refused:
            applier._apply_one(_Batch({}), PEER, judged(BODIES[said_of_it]))
        assert refused.value.code == UNKNOWN[said_of_it]
