"""Before the time that is said, two versions of the directory judge every receipt alike."""

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.windows import NONE, changed_since
from protocol.timestamps import format_time

START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = [format_time(START + timedelta(hours=hour)) for hour in range(6)]

Windows = dict[str, tuple[str, str | None, bool]]


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    found: Windows = {}
    for key in draw(st.sets(st.sampled_from("abc"))):
        begins = draw(st.sampled_from(TIMES[:4]))
        later = [None, *(time for time in TIMES if time >= begins)]
        found[key] = begins, draw(st.sampled_from(later)), draw(st.booleans())
    return found


def judged_at(found: Windows, at: str) -> set[tuple[str, bool]]:
    """Return which keys have to sign at a time, and whether they are worth anything."""
    return {
        (key, stolen) for key, (begins, ends, stolen) in found.items() if begins <= at and (ends is None or at < ends)
    }


@given(windows(), windows())
def test_nothing_that_states_an_earlier_time_is_judged_otherwise(before: Windows, after: Windows) -> None:
    since = changed_since(json.dumps(before, sort_keys=True), json.dumps(after, sort_keys=True))
    alike = [at for at in TIMES if judged_at(before, at) == judged_at(after, at)]
    if since is None:
        assert before == after
    else:
        assert all(at in alike for at in TIMES if at < since)


def test_where_nothing_was_judged_yet_everything_is() -> None:
    assert changed_since(NONE, NONE) is None
    assert changed_since(NONE, json.dumps({"a": (TIMES[2], None, False), "b": (TIMES[1], TIMES[3], False)})) == TIMES[1]
