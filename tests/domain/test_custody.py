"""What stands of a chain of custody once one of its givers took the item back."""

from datetime import UTC, datetime, timedelta

import pytest

from node.hotline.domain.custody import undone
from protocol.steps import Custody

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FR, NL, DE, US = (f"{country}.hotline.example" for country in ("fr", "nl", "de", "us"))
TRAIL = tuple(
    Custody(node=node, country="DE", evidence="0" * 64, at=NOON + timedelta(minutes=minute))
    for minute, node in enumerate((FR, NL, DE))
)


@pytest.mark.parametrize(
    ("giver", "taker", "minute", "station"),
    [
        (DE, US, 3, 2),
        (NL, DE, 3, 1),
        (FR, NL, 3, 0),
        # What was given in that moment, or later, is not what was taken back.
        (DE, US, 2, None),
        (DE, US, 1, None),
        # Another transfer than that of the chain.
        (NL, US, 3, None),
        (US, DE, 3, None),
    ],
)
def test_a_chain_ends_where_its_giver_took_the_item_back(
    giver: str, taker: str, minute: int, station: int | None
) -> None:
    assert undone(TRAIL, US, {(giver, taker): NOON + timedelta(minutes=minute)}) == station


def test_the_first_who_took_it_back_counts() -> None:
    later = NOON + timedelta(hours=1)
    assert undone(TRAIL, US, {(DE, US): later, (NL, DE): later}) == 1
    assert undone(TRAIL, US, {}) is None


def test_what_was_given_before_the_item_came_once_more_is_not_what_was_taken_back() -> None:
    """The Dutch hotline had given the item to the German one, got it from there, and gave it there in vain."""
    taken_back = {(NL, DE): NOON + timedelta(hours=1)}
    assert undone(TRAIL, NL, taken_back) is None
    again = Custody(node=NL, country="DE", evidence="1" * 64, at=NOON + timedelta(minutes=3))
    assert undone((*TRAIL, again), DE, taken_back) == 3
    assert undone((*TRAIL, again), US, taken_back) is None


def test_of_an_item_that_nobody_gave_nothing_is_undone() -> None:
    assert undone((), NL, {(NL, DE): NOON}) is None
