"""Whose records are applied next: no peer waits for another's backlog, shares are kept, idleness saves nothing up."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from node.hotline.domain.turns import SHARE_MAX, mark_after, share_of, start_of

BATCH = 250


@dataclass
class Line:
    """The line as the table of cursors holds it: a mark, the last start and a backlog for each stream."""

    shares: list[int]
    backlog: list[int]
    marks: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    served: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.marks = [0] * len(self.shares)
        self.starts = [0] * len(self.shares)

    def serve(self) -> int | None:
        """Serve the stream whose turn it is, as `store.inbound.lock_unapplied` picks it."""
        waiting = [at for at, left in enumerate(self.backlog) if left]
        if not waiting:
            return None
        passed = max(self.starts)
        at = min(waiting, key=lambda one: (start_of(self.marks[one], passed), self.marks[one], one))
        records = min(BATCH, self.backlog[at])
        self.backlog[at] -= records
        self.starts[at] = start_of(self.marks[at], passed)
        self.marks[at] = mark_after(self.starts[at], records, self.shares[at])
        self.served.append(at)
        return at


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 50_000), min_size=2, max_size=8),
    st.integers(0, 60),
    st.integers(1, 1000),
)
def test_who_begins_to_wait_is_served_after_one_turn_of_each_other_stream_at_most(
    backlog: list[int], before: int, records: int
) -> None:
    line = Line([1] * (len(backlog) + 1), [*backlog, 0])
    newcomer = len(backlog)
    for _ in range(before):
        line.serve()
    line.backlog[newcomer] = records
    line.served.clear()
    while line.serve() != newcomer:
        pass
    assert len(line.served) <= len(backlog) + 1
    # Between two turns of the newcomer nobody has two.
    while line.backlog[newcomer]:
        line.served.clear()
        while line.serve() != newcomer:
            pass
        assert all(line.served.count(at) <= 2 for at in range(newcomer))


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5))
def test_streams_that_always_wait_get_records_in_the_ratio_of_their_shares(shares: list[int]) -> None:
    line = Line(shares, [10**9] * len(shares))
    for _ in range(10 * sum(shares)):
        line.serve()
    for at, share in enumerate(shares):
        assert abs(line.served.count(at) - 10 * share) <= share + len(shares) + 1


@settings(deadline=None)
@given(st.integers(1, 200))
def test_who_was_idle_for_long_does_not_then_get_everything(rounds: int) -> None:
    line = Line([1, 1], [10**9, 0])
    for _ in range(rounds):
        line.serve()
    line.backlog[1] = 10**9
    line.served.clear()
    for _ in range(100):
        line.serve()
    assert abs(line.served.count(1) - 50) <= 1


def test_a_share_is_what_the_directory_says_within_bounds() -> None:
    assert share_of({}) == 1
    assert share_of({"share": 7, "batch_records_max": 50}) == 7
    assert share_of({"share": 0}) == 1
    assert share_of({"share": 10**9}) == SHARE_MAX
