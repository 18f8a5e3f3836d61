"""Records that are applied together: an item's keep their order, and there are as few runs as that allows."""

from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.runs import runs_of

_RECORDS = st.lists(st.tuples(st.sampled_from("rts"), st.integers(0, 4)), max_size=40)


def _runs(records: list[tuple[str, int]]) -> list[list[tuple[int, str, int]]]:
    numbered = [(at, kind, item) for at, (kind, item) in enumerate(records)]
    return runs_of(numbered, lambda one: one[1], lambda one: one[2])


@given(_RECORDS)
def test_nothing_is_lost_and_a_run_is_of_one_kind(records: list[tuple[str, int]]) -> None:
    runs = _runs(records)
    assert sorted(one[0] for run in runs for one in run) == list(range(len(records)))
    assert all(len({kind for _, kind, _ in run}) == 1 for run in runs)


@given(_RECORDS)
def test_what_is_about_one_item_or_of_one_kind_keeps_its_order(records: list[tuple[str, int]]) -> None:
    applied = [one for run in _runs(records) for one in run]
    for about in (1, 2):
        for value in {one[about] for one in applied}:
            order = [one[0] for one in applied if one[about] == value]
            assert order == sorted(order)


@given(_RECORDS)
def test_each_kind_is_one_run_where_no_item_has_two_records(records: list[tuple[str, int]]) -> None:
    apart = [(kind, at) for at, (kind, _) in enumerate(records)]
    assert len(_runs(apart)) == len({kind for kind, _ in apart})


def test_a_step_before_and_one_after_a_transfer_of_the_same_item_are_two_runs() -> None:
    runs = _runs([("s", 1), ("t", 1), ("s", 2), ("s", 1), ("t", 2)])
    assert [[(kind, item) for _, kind, item in run] for run in runs] == [
        [("s", 1), ("s", 2)],
        [("t", 1), ("t", 2)],
        [("s", 1)],
    ]
