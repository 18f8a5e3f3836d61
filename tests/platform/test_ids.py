"""UUIDv7 as RFC 9562 section 5.7 lays it out."""

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from node.platform.ids import new_id, new_ids

MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2900, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive by its contract


@given(MOMENTS)
def test_an_id_says_its_version_its_variant_and_its_time(now: datetime) -> None:
    made = new_id(now)
    assert isinstance(made, UUID)
    assert (made.version, made.variant) == (7, RFC_4122)
    said = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=made.int >> 80)
    assert abs(said - now) < timedelta(milliseconds=2)


def test_ids_of_one_call_differ_and_equal_the_standard_type() -> None:
    made = new_ids(10_000, datetime(2026, 11, 22, tzinfo=UTC))
    assert len(set(made)) == len(made)
    assert {UUID(str(one)) for one in made} == set(made)
