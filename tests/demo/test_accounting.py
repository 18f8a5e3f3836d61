"""The demo's accounting: it holds when everything is there, and any one thing missing or doubled is seen."""

import copy
from typing import Any

import pytest

from node.demo.accounting import Rank, account, by_country, fates, settled
from node.demo.reports import Expected, Fate

FR, NL, DE = (f"{country}.hotline.example" for country in ("fr", "nl", "de"))
IDLE = {"locate": 0, "dispatch": 0, "qualify": 0, "origin_lookup": 0, "assigned": 0, "deliver": 0, "apply": 0}


def group(state: str, items: int, **more: object) -> dict[str, Any]:
    row = {"state": state, "reason": None, "verdict": None, "hosting_country": None, "assigned_node": None}
    return {**row, "received": False, "items": items, **more}


def out(peer: str, written: int, *, told: int = 0) -> dict[str, Any]:
    return {"peer": peer, "epoch": 1, "written": written, "receipted": written, "told": told, "refused": 0}


def came(peer: str, held: int) -> dict[str, Any]:
    return {"peer": peer, "epoch": 1, "held": held, "applied": held, "refused": 0}


def receiver(items: int) -> dict[str, Any]:
    return {
        "queues": {**IDLE, "assigned": items},
        "items": [group("assigned", items, received=True, verdict="received", hosting_country="NL")],
        "streams_out": [out(FR, 1)],
        "streams_in": [came(FR, items)],
    }


@pytest.fixture
def statuses() -> dict[str, Any]:
    hosted: dict[str, Any] = {"verdict": "hosted"}
    return {
        FR: {
            "queues": {**IDLE, "qualify": 4},
            "items": [
                group("closed", 3, reason="not-illegal"),
                group("closed", 1, reason="not-illegal", hosting_country="FR", **hosted),
                group("duplicate", 5),
                group("kept", 6, reason="own-country", hosting_country="FR", assigned_node=FR, **hosted),
                group("kept", 2, reason="onion", verdict="no-country"),
                group("origin-lookup", 7, reason="proxy-by-asn", verdict="proxied"),
                group("sent", 10, reason="hosting-country", hosting_country="NL", assigned_node=NL, **hosted),
                group("sent", 8, reason="hosting-country", hosting_country="DE", assigned_node=DE, **hosted),
                group("unlocated", 9, reason="nxdomain", verdict="unlocated"),
                group("waiting", 4, hosting_country="NL", **hosted),
            ],
            "streams_out": [out(NL, 10, told=10), out(DE, 8, told=8)],
            "streams_in": [came(NL, 1), came(DE, 1)],
        },
        NL: receiver(10),
        DE: receiver(8),
    }


EXPECTED = Expected(
    rows=22,
    rejected=2,
    reports=20,
    items=55,
    duplicates=5,
    fates={
        Fate("closed", "not-illegal"): 4,
        Fate("kept", "own-country"): 6,
        Fate("kept", "onion"): 2,
        Fate("origin-lookup", "proxy-by-asn"): 7,
        Fate("sent", NL): 10,
        Fate("sent", DE): 8,
        Fate("unlocated", "nxdomain"): 9,
        Fate("waiting"): 4,
    },
)
IMPORTED = {"rows": 22, "reports": 20, "repeated": 0, "items": 50, "duplicates": 5, "rejected": 2}


def test_it_holds_when_everything_is_there(statuses: dict[str, Any]) -> None:
    found = account(EXPECTED, IMPORTED, statuses, FR)
    assert [check.label for check in found.checks if not check.holds] == []
    assert found.holds
    assert settled(statuses, FR)


def test_the_categories_share_out_all_items_and_each_is_the_sum_of_its_parts(statuses: dict[str, Any]) -> None:
    lines = account(EXPECTED, IMPORTED, statuses, FR).lines
    assert sum(line.count for line in lines if line.rank is Rank.CATEGORY) == 55
    shown = {line.label: line.count for line in lines}
    assert shown["Received: items, one for each URL of a report"] == 55
    assert shown["Duplicates of an item already known"] == 5
    assert shown["Kept at home"] == 8
    assert shown["Delivered with receipt"] == 18
    assert shown[f"to {NL}"] == 10
    assert shown["Undeliverable"] == 0
    assert by_country(statuses[FR]) == {"FR": 7, "NL": 14, "DE": 8}


def test_items_from_peers_are_not_counted_as_the_node_s_own(statuses: dict[str, Any]) -> None:
    statuses[FR]["items"].append(group("assigned", 3, received=True))
    assert fates(statuses[FR]).total() == 55


def changed(statuses: dict[str, Any], node: str, part: str, at: int, **values: object) -> dict[str, Any]:
    made = copy.deepcopy(statuses)
    made[node][part][at].update(values)
    return made


@pytest.mark.parametrize(
    ("node", "part", "at", "values"),
    [
        (FR, "items", 2, {"items": 6}),
        (FR, "items", 3, {"items": 5}),
        (FR, "items", 4, {"state": "locating"}),
        (FR, "items", 5, {"state": "unheard-of"}),
        (FR, "items", 6, {"state": "refused", "reason": "not-competent"}),
        (FR, "items", 6, {"state": "undeliverable", "reason": "no-competent-hotline"}),
        (FR, "items", 6, {"assigned_node": DE}),
        (FR, "items", 8, {"reason": "no-address"}),
        (FR, "streams_out", 0, {"receipted": 9}),
        (FR, "streams_out", 0, {"written": 11}),
        (FR, "streams_out", 1, {"told": 7}),
        (FR, "streams_out", 1, {"refused": 1}),
        (NL, "streams_in", 0, {"held": 9}),
        (NL, "streams_in", 0, {"applied": 9}),
        (NL, "items", 0, {"items": 9}),
        (DE, "items", 0, {"items": 9}),
        (DE, "items", 0, {"received": False}),
    ],
)
def test_anything_missing_or_doubled_is_seen(
    statuses: dict[str, Any], node: str, part: str, at: int, values: dict[str, object]
) -> None:
    found = account(EXPECTED, IMPORTED, changed(statuses, node, part, at, **values), FR)
    assert not found.holds


@pytest.mark.parametrize("field", ["reports", "rejected", "repeated"])
def test_a_row_that_is_missing_or_doubled_is_seen(statuses: dict[str, Any], field: str) -> None:
    found = account(EXPECTED, {**IMPORTED, field: IMPORTED[field] + 1}, statuses, FR)
    assert not found.holds


@pytest.mark.parametrize(
    ("node", "part", "values"),
    [
        (FR, "streams_out", {"receipted": 9}),
        (FR, "streams_out", {"told": 9}),
        (NL, "streams_in", {"held": 9}),
        (NL, "streams_in", {"applied": 9}),
        (NL, "streams_out", {"receipted": 0}),
        (FR, "streams_in", {"applied": 0}),
    ],
)
def test_it_is_not_settled_while_anything_is_under_way(
    statuses: dict[str, Any], node: str, part: str, values: dict[str, object]
) -> None:
    assert not settled(changed(statuses, node, part, 0, **values), FR)


@pytest.mark.parametrize("queue", ["locate", "dispatch"])
def test_it_is_not_settled_while_items_wait_to_be_located_or_routed(statuses: dict[str, Any], queue: str) -> None:
    statuses[FR]["queues"][queue] = 1
    assert not settled(statuses, FR)


def test_it_is_settled_when_nothing_had_to_be_sent(statuses: dict[str, Any]) -> None:
    for status in statuses.values():
        status["streams_out"] = status["streams_in"] = []
    assert settled(statuses, FR)
