"""What a qualification lets out, and which of two counts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.assessment import (
    Assessment,
    AssessmentFault,
    AssessmentRefused,
    Merge,
    may_leave,
    merge,
    reassess,
)
from protocol.codes import Age, Classification, Gender

AT = datetime(2026, 1, 1, tzinfo=UTC)
BASELINE = Assessment(Classification.BASELINE, AT)
NATIONAL = Assessment(Classification.NATIONAL, AT)
NOT_ILLEGAL = Assessment(Classification.NOT_ILLEGAL, AT)

ASSESSMENTS = st.none() | st.builds(
    Assessment,
    st.sampled_from(Classification),
    st.just(AT),
    age=st.none() | st.sampled_from(Age),
    gender=st.none() | st.sampled_from(Gender),
    by=st.none() | st.sampled_from(["one", "two"]),
)


@pytest.mark.parametrize(
    ("assessment", "forward_unqualified", "leaves"),
    [
        (BASELINE, False, True),
        (NATIONAL, False, True),
        (NOT_ILLEGAL, False, False),
        (None, False, False),
        (BASELINE, True, True),
        (NATIONAL, True, True),
        (NOT_ILLEGAL, True, False),
        (None, True, True),
    ],
)
def test_what_may_leave(assessment: Assessment | None, *, forward_unqualified: bool, leaves: bool) -> None:
    assert may_leave(assessment, forward_unqualified=forward_unqualified) is leaves


def test_a_baseline_qualification_is_final() -> None:
    for other in (NATIONAL, NOT_ILLEGAL, Assessment(Classification.BASELINE, AT, age=Age.INFANT)):
        with pytest.raises(AssessmentRefused) as refused:
            reassess(BASELINE, other)
        assert refused.value.reason is AssessmentFault.BASELINE_FINAL


def test_saying_baseline_again_changes_nothing() -> None:
    again = Assessment(Classification.BASELINE, datetime(2026, 2, 1, tzinfo=UTC), by="another analyst")
    assert reassess(BASELINE, again) is BASELINE


@pytest.mark.parametrize("held", [None, NATIONAL, NOT_ILLEGAL])
@pytest.mark.parametrize("new", [BASELINE, NATIONAL, NOT_ILLEGAL])
def test_any_other_qualification_can_be_changed(held: Assessment | None, new: Assessment) -> None:
    assert reassess(held, new) is new


@pytest.mark.parametrize(
    ("held", "arriving", "result", "outcome"),
    [
        (None, None, None, Merge.KEPT),
        (None, NOT_ILLEGAL, NOT_ILLEGAL, Merge.TAKEN),
        (None, NATIONAL, NATIONAL, Merge.TAKEN),
        (NATIONAL, None, NATIONAL, Merge.KEPT),
        (NATIONAL, BASELINE, BASELINE, Merge.TAKEN),
        (NATIONAL, NOT_ILLEGAL, NATIONAL, Merge.CONFLICT),
        (BASELINE, NATIONAL, BASELINE, Merge.KEPT),
        (BASELINE, NOT_ILLEGAL, BASELINE, Merge.CONFLICT),
        (NOT_ILLEGAL, NATIONAL, NATIONAL, Merge.TAKEN),
        (NOT_ILLEGAL, NOT_ILLEGAL, NOT_ILLEGAL, Merge.KEPT),
    ],
)
def test_a_qualification_that_came_with_a_duplicate(
    held: Assessment | None, arriving: Assessment | None, result: Assessment | None, outcome: Merge
) -> None:
    assert merge(held, arriving) == (result, outcome)


@given(ASSESSMENTS, ASSESSMENTS)
def test_once_an_action_is_recorded_a_duplicate_replaces_nothing(
    held: Assessment | None, arriving: Assessment | None
) -> None:
    result, outcome = merge(held, arriving, acted=True)
    assert result is (arriving if held is None else held)
    same = arriving is None or held is None or held.classification is arriving.classification
    assert (outcome is Merge.CONFLICT) == (not same)


@given(ASSESSMENTS, ASSESSMENTS)
def test_a_duplicate_never_makes_an_illegal_item_less_than_illegal(
    held: Assessment | None, arriving: Assessment | None
) -> None:
    result, outcome = merge(held, arriving)
    assert result in {held, arriving}
    if held is not None and held.illegal:
        assert result is not None
        assert result.illegal
    if held == BASELINE:
        assert result == BASELINE
    assert (outcome is Merge.TAKEN) == (result is not held)


@given(ASSESSMENTS, ASSESSMENTS)
def test_the_same_duplicate_again_changes_nothing(held: Assessment | None, arriving: Assessment | None) -> None:
    once, _ = merge(held, arriving)
    twice, outcome = merge(once, arriving)
    assert twice is once
    assert outcome is not Merge.TAKEN
