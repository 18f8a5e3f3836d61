"""Budgets of records and bytes: never more than the burst at once, never more than the rate over a long time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.budgets import Budget, BudgetLimits, Rate

NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
LIMITS = BudgetLimits(Rate(10.0, 100), Rate(1000.0, 20_000))


@given(
    st.floats(0.1, 1000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 500)), max_size=40),
)
def test_whatever_comes_when_no_more_is_taken_than_burst_and_rate_allow(
    per_s: float, burst: int, wishes: list[tuple[float, int]]
) -> None:
    rate, now, full_at, taken = Rate(per_s, burst), NOW, None, 0
    for pause_s, wanted in wishes:
        now += timedelta(seconds=pause_s)
        if wanted <= rate.left(full_at, now):
            full_at = rate.after(full_at, wanted, now)
            taken += wanted
        assert 0 <= rate.left(full_at, now) <= burst
        assert taken <= burst + (now - NOW).total_seconds() * per_s + 1


@given(st.integers(0, 100), st.integers(1, 100))
def test_after_the_time_that_was_told_there_is_room(taken: int, wanted: int) -> None:
    rate = Rate(7.0, 100)
    full_at = rate.after(None, taken, NOW)
    wait_s = rate.wait_s(full_at, wanted, NOW)
    assert rate.left(full_at, NOW + timedelta(seconds=wait_s)) >= wanted


def test_a_batch_is_measured_by_the_scarcer_of_records_and_bytes() -> None:
    assert LIMITS.room(Budget(), 50, 100, NOW).records == 100
    # Records of 400 bytes: the bytes are enough for 50 of them.
    assert LIMITS.room(Budget(), 60, 24_000, NOW).records == 50
    spent = LIMITS.after(Budget(), 90, 1000, NOW)
    room = LIMITS.room(spent, 20, 100, NOW)
    assert (room.records, room.wait_s) == (10, 1)
    assert LIMITS.room(spent, 100, 100, NOW).wait_s == 9


def test_a_record_larger_than_the_bytes_left_waits_for_them() -> None:
    spent = LIMITS.after(Budget(), 1, 19_500, NOW)
    room = LIMITS.room(spent, 1, 5_500, NOW)
    assert (room.records, room.wait_s) == (0, 5)
