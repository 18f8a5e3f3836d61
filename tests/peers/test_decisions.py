"""What a sender decides after each answer, as a pure function: by property, and by the table of PROTOCOL section 6."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.delivery import (
    KEY_PROBLEMS,
    KEY_PROBLEMS_QUIET,
    BackOff,
    Decision,
    Problem,
    Rewind,
    Shrink,
    backoff_s,
    decide,
)
from protocol.problems import REGISTRY

BASE_S, CAP_S = 2.0, 900.0

_counts = st.one_of(st.none(), st.integers(0, 2**53))
_codes = st.sampled_from([*REGISTRY, "unrecognised", "unreachable-timeout", "answer-bad-signature", "bad-receipt"])
problems = st.builds(
    Problem,
    code=_codes,
    retry_after_s=st.one_of(st.none(), st.integers(0, 999_999).map(float)),
    expected=_counts,
    credit=_counts,
)
situations = st.fixed_dictionaries(
    {
        "failures": st.integers(0, 10_000),
        "first_index": st.integers(0, 2**53),
        "batch_records": st.integers(1, 1000),
        "rewound": st.booleans(),
        "key_problems": st.integers(0, 10_000),
    }
)
draws = st.floats(0, 1, exclude_max=True)


def decided(problem: Problem, *, draw: float = 0.5, **situation: Any) -> Decision:
    known: dict[str, Any] = {
        "failures": 0,
        "first_index": 100,
        "batch_records": 1000,
        "rewound": False,
        "key_problems": 0,
        **situation,
    }
    return decide(problem, base_s=BASE_S, cap_s=CAP_S, draw=lambda: draw, **known)


@given(problems, situations, draws)
def test_every_answer_leads_to_a_decision_within_its_bounds(
    problem: Problem, situation: dict[str, Any], draw: float
) -> None:
    decision = decided(problem, draw=draw, **situation)
    if isinstance(decision, BackOff):
        assert 0 <= decision.seconds <= CAP_S
    elif isinstance(decision, Shrink):
        assert 1 <= decision.records < situation["batch_records"]
    else:
        assert 0 <= decision.index < situation["first_index"]


@given(problems, situations, draws)
def test_only_a_gap_before_the_batch_rewinds_and_only_once(
    problem: Problem, situation: dict[str, Any], draw: float
) -> None:
    decision = decided(problem, draw=draw, **situation)
    if isinstance(decision, Rewind):
        assert problem.code == "stream-gap"
        assert decision.index == problem.expected
        assert not situation["rewound"]


@given(problems, situations, draws)
def test_a_smaller_batch_never_exceeds_the_credit(problem: Problem, situation: dict[str, Any], draw: float) -> None:
    decision = decided(problem, draw=draw, **situation)
    if isinstance(decision, Shrink):
        assert problem.code in {"too-large", "over-quota", "maintenance"}
        assert decision.records <= (math.inf if problem.credit is None else problem.credit)


@given(st.integers(1, 1000))
def test_shrinking_always_ends(batch_records: int) -> None:
    rounds = 0
    while isinstance(decision := decided(Problem("too-large"), batch_records=batch_records), Shrink):
        batch_records, rounds = decision.records, rounds + 1
    assert rounds <= 10
    assert batch_records == 1
    assert decision == BackOff(1.0, alarm=True)


@given(st.integers(0, 10_000), draws)
def test_back_off_is_full_jitter_below_a_doubling_bound(failures: int, draw: float) -> None:
    bound = min(CAP_S, BASE_S * 2 ** min(failures, 60))
    assert backoff_s(failures, base_s=BASE_S, cap_s=CAP_S, draw=lambda: draw) == draw * bound
    assert backoff_s(failures, base_s=BASE_S, cap_s=CAP_S, draw=lambda: 0.0) == 0


@given(st.integers(0, 10_000), situations, draws)
def test_a_retry_after_is_honoured_up_to_the_cap(retry_after_s: int, situation: dict[str, Any], draw: float) -> None:
    problem = Problem("maintenance", retry_after_s=float(retry_after_s))
    assert decided(problem, draw=draw, **situation) == BackOff(min(retry_after_s, CAP_S), alarm=False)


@pytest.mark.parametrize(
    ("problem", "situation", "decision"),
    [
        (Problem("stream-gap", expected=40), {}, Rewind(40)),
        (Problem("stream-gap", expected=40), {"failures": 12}, Rewind(40)),
        (Problem("stream-gap", expected=40), {"rewound": True}, BackOff(1.0, alarm=False)),
        (Problem("stream-gap", expected=100), {}, BackOff(1.0, alarm=True)),
        (Problem("stream-gap", expected=5000), {}, BackOff(1.0, alarm=True)),
        (Problem("stream-gap"), {}, BackOff(1.0, alarm=False)),
        (Problem("too-large"), {}, Shrink(500)),
        (Problem("too-large", credit=50), {}, Shrink(50)),
        (Problem("too-large", credit=900), {}, Shrink(500)),
        (Problem("over-quota", credit=0), {}, BackOff(1.0, alarm=False)),
        (Problem("over-quota", retry_after_s=30), {}, BackOff(30, alarm=False)),
        (Problem("over-quota", retry_after_s=30, credit=7), {}, Shrink(7)),
        (Problem("over-quota", retry_after_s=30, credit=0), {}, BackOff(30, alarm=False)),
        (Problem("over-quota"), {"batch_records": 1}, BackOff(1.0, alarm=False)),
        (Problem("maintenance"), {}, BackOff(1.0, alarm=False)),
        (Problem("maintenance", credit=7), {}, Shrink(7)),
        (Problem("maintenance", retry_after_s=5000), {}, BackOff(CAP_S, alarm=False)),
        (Problem("unreachable-connect"), {"failures": 3}, BackOff(8.0, alarm=False)),
        (Problem("replay"), {}, BackOff(1.0, alarm=False)),
        (Problem("clock-skew"), {}, BackOff(1.0, alarm=True)),
        (Problem("bad-receipt"), {}, BackOff(1.0, alarm=True)),
        (Problem("equivocation"), {}, BackOff(CAP_S * 0.75, alarm=True)),
        (Problem("key-revoked"), {"failures": 12}, BackOff(1.0, alarm=False)),
        (Problem("unknown-key"), {"failures": 12, "key_problems": 6}, BackOff(64.0, alarm=False)),
        (Problem("bad-signature"), {"key_problems": 7}, BackOff(CAP_S * 0.75, alarm=True)),
    ],
)
def test_the_table(problem: Problem, situation: dict[str, Any], decision: Decision) -> None:
    assert decided(problem, **situation) == decision


@given(st.sampled_from(sorted(KEY_PROBLEMS)), draws)
def test_a_refusal_of_keys_is_tried_again_soon_and_quietly_for_a_while(code: str, draw: float) -> None:
    """Around a change of keys a newer directory, or a few seconds, may mend it; after some minutes a person has to."""
    waits: list[float] = []
    while True:
        decision = decided(Problem(code), draw=draw, key_problems=len(waits))
        assert isinstance(decision, BackOff)
        if decision.alarm:
            break
        waits.append(decision.seconds)
    assert len(waits) == KEY_PROBLEMS_QUIET
    assert sum(waits) <= 300


def test_what_no_retry_mends_is_told_to_a_person() -> None:
    """A problem of the registry that is not retryable, other than of a single record, raises an alarm."""
    for code, problem in REGISTRY.items():
        decision = decided(Problem(code), batch_records=1, key_problems=KEY_PROBLEMS_QUIET)
        if not problem.retryable and problem.scope != "record":
            assert isinstance(decision, BackOff)
            assert decision.alarm, code
