"""How a peer's credit shapes the next batch."""

from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.delivery import next_batch_records


@given(st.integers(1, 1000), st.integers(0, 5000), st.integers(0, 5000))
def test_what_is_under_way_and_the_next_batch_together_stay_within_the_credit(
    wanted: int, credit: int, in_flight: int
) -> None:
    records = next_batch_records(wanted, credit=credit, in_flight=in_flight)
    assert 0 <= records <= wanted
    if in_flight:
        assert records + in_flight <= max(credit, in_flight)
    else:
        # A peer without credit is asked with one record, and says when to come again.
        assert records == max(1, min(wanted, credit))


@given(st.integers(1, 1000), st.integers(0, 5000))
def test_a_peer_that_says_no_credit_gets_full_batches(wanted: int, in_flight: int) -> None:
    assert next_batch_records(wanted, credit=None, in_flight=in_flight) == wanted
