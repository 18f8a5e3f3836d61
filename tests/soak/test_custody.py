"""The rule of who has an item, by which a soak accounts for every acknowledged report."""

import pytest

from tests.soak.custody import Acknowledged, Standing, ToldAgain, account
from tests.soak.intake import Pace

FR, NL, DE = "fr.hotline.example", "nl.hotline.example", "de.hotline.example"


def reported(state: str, assigned: str | None = None, *, taken_back: bool = False) -> Standing:
    """Return how an item stands at the node that reported it."""
    return Standing(state, assigned, taken_back=taken_back, own=True, reference="FR-1")


@pytest.mark.parametrize(
    ("first", "others", "where"),
    [
        (reported("sent", NL), {NL: Standing("assigned", NL)}, "assigned abroad"),
        (reported("sent", DE), {NL: Standing("transferred", DE), DE: Standing("kept", DE)}, "kept abroad"),
        (reported("done", NL), {NL: Standing("done", NL)}, "done"),
        (reported("kept", FR), {}, "kept at home"),
        (reported("duplicate"), {}, "duplicate"),
        (
            reported("sent", DE),
            {NL: Standing("withdrawn", FR, taken_back=True), DE: Standing("disputed", DE)},
            "disputed",
        ),
        (reported("withdrawn", NL, taken_back=True), {NL: Standing("withdrawn", NL, taken_back=True)}, "withdrawn"),
    ],
)
def test_one_node_has_an_item(first: Standing, others: dict[str, Standing], where: str) -> None:
    found = account(standing(first, others), {FR: Acknowledged({"FR-1": "i"}, abroad=frozenset({"FR-1"}))})
    assert found.wrong == []
    assert dict(found.where) == {where: 1}


@pytest.mark.parametrize(
    ("first", "others", "sentence"),
    [
        (reported("sent", NL), {}, "has 0 custodians"),
        (reported("sent", NL), {NL: Standing("withdrawn", FR, taken_back=True)}, "has 0 custodians"),
        (reported("sent", NL), {NL: Standing("assigned", NL), DE: Standing("assigned", DE)}, "has 2 custodians"),
        (reported("kept", FR), {NL: Standing("leaving", DE)}, "has 2 custodians"),
        (reported("sent", NL), {DE: Standing("assigned", DE)}, "holds nl.hotline.example for that"),
        (reported("withdrawn", NL, taken_back=True), {NL: Standing("kept", NL)}, "took item i back"),
        (reported("waiting"), {}, "was to leave"),
    ],
)
def test_what_the_rule_forbids_is_named(first: Standing, others: dict[str, Standing], sentence: str) -> None:
    found = account(standing(first, others), {FR: Acknowledged({"FR-1": "i"}, abroad=frozenset({"FR-1"}))})
    assert len(found.wrong) == 1
    assert sentence in found.wrong[0]


def test_a_reporter_that_is_told_again_who_has_an_item_is_counted() -> None:
    at = standing(reported("sent", NL), {DE: Standing("assigned", DE)})
    found = account(at, {FR: Acknowledged({"FR-1": "i"})}, frozenset({ToldAgain("i", DE, FR)}))
    assert found.wrong == []
    assert found.where["is told again, after an old proof"] == 1


@pytest.mark.parametrize("other", [ToldAgain("j", DE, FR), ToldAgain("i", NL, FR), ToldAgain("i", DE, NL)])
def test_what_is_told_again_of_another_item_or_by_or_to_another_node_excuses_nothing(other: ToldAgain) -> None:
    at = standing(reported("sent", NL), {DE: Standing("assigned", DE)})
    (wrong,) = account(at, {FR: Acknowledged({"FR-1": "i"})}, frozenset({other})).wrong
    assert "holds nl.hotline.example for that" in wrong


def test_an_acknowledged_report_is_at_its_reporter() -> None:
    found = account({FR: {}, NL: {}}, {FR: Acknowledged({"FR-1": "i"})})
    assert [one for one in found.wrong if "which is not there" in one]


def test_what_a_restore_lost_came_back_or_was_told_to_nobody() -> None:
    again = Acknowledged({"FR-1": "j"}, {"FR-1": ["i"]})
    new = {"j": reported("kept", FR)}
    assert account({FR: new, NL: {}}, {FR: again}).wrong == []
    back = Standing("sent", NL, own=True)
    assert account({FR: {**new, "i": back}, NL: {"i": Standing("assigned", NL)}}, {FR: again}).wrong == []
    (wrong,) = account({FR: new, NL: {"i": Standing("assigned", NL)}}, {FR: again}).wrong
    assert "lost and has not got back" in wrong


@pytest.mark.parametrize(("waiting", "asked_s"), [(101, 0.1), (0, 5.0)])
def test_the_feeds_go_slower_while_much_waits_or_the_machine_is_busy(waiting: int, asked_s: float) -> None:
    pace = Pace(10.0, waiting_max=100)
    assert pace.wait_s(5, feeds=2) == 1.0
    for _ in range(20):
        pace.look(waiting, asked_s)
    assert pace.wait_s(5, feeds=2) == 5.0
    for _ in range(20):
        pace.look(100, 0.1)
    assert (pace.wait_s(5, feeds=2), pace.slowest) == (1.0, 0.2)


def standing(first: Standing, others: dict[str, Standing]) -> dict[str, dict[str, Standing]]:
    """Return how one item stands at every node."""
    return {FR: {"i": first}, NL: {}, DE: {}} | {node: {"i": one} for node, one in others.items()}
