"""What becomes of an item that is located anew, or whose hotline is another now: by the evidence of its chain."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from node.hotline.domain.custody import Contest, HandOn, fate
from node.hotline.domain.routing import HOSTING_COUNTRY, Send
from protocol.codes import TransferReason
from protocol.steps import Custody

AT = datetime(2026, 11, 22, 16, tzinfo=UTC)
TO_DE = Send("de.hotline.example", "DE", "DE", HOSTING_COUNTRY)


def chain(*found: tuple[str, str]) -> list[Custody]:
    """Return stations that found the item in these countries, on evidence of these names."""
    nodes = ("fr", "nl", "de", "us", "fr", "nl")
    return [
        Custody(node=f"{node}.hotline.example", country=country, evidence=evidence * 64, at=AT)
        for node, (country, evidence) in zip(nodes, found, strict=False)
    ]


@pytest.mark.parametrize("reason", [TransferReason.HOTLINE_JOINED, TransferReason.FALLBACK])
@pytest.mark.parametrize(
    ("before", "station", "goes"),
    [
        # Where it is hosted, it stays: whoever had it last said the same.
        ([("DE", "a")], ("DE", "a"), True),
        ([("NL", "a"), ("DE", "b")], ("DE", "b"), True),
        # Found elsewhere on new evidence, while nobody was competent there.
        ([("NL", "a")], ("DE", "b"), True),
        # Found elsewhere on evidence of the chain: every receiver would refuse it.
        ([("DE", "a"), ("NL", "b")], ("DE", "a"), False),
        ([("NL", "a"), ("DE", "b"), ("NL", "c")], ("DE", "b"), False),
    ],
)
def test_what_stays_hosted_travels_on_known_evidence_and_what_moved_does_not(
    reason: TransferReason, before: Sequence[tuple[str, str]], station: tuple[str, str], *, goes: bool
) -> None:
    whole = chain(*before, station)
    decided = fate(TO_DE, whole[:-1], whole[-1], reason)
    if goes:
        assert decided == HandOn(TO_DE.node_id, "DE", reason, tuple(whole))
    else:
        assert decided == Contest("same-evidence", TO_DE.node_id, tuple(whole))


@pytest.mark.parametrize("reason", [TransferReason.MOVED, TransferReason.WRONG_LOCATION])
def test_what_was_found_elsewhere_travels_on_new_evidence_only(reason: TransferReason) -> None:
    whole = chain(("NL", "a"), ("DE", "a"))
    assert isinstance(fate(TO_DE, whole[:-1], whole[-1], reason), Contest)
    whole = chain(("NL", "a"), ("DE", "b"))
    assert isinstance(fate(TO_DE, whole[:-1], whole[-1], reason), HandOn)
