"""What becomes of an item in custody when it is located anew: it stays, moves on, or goes to the desk. Pure.

Never two custodians: who decides here has the item, and gives it to one other or to nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from node.hotline.domain.routing import Keep, Route, Send
from protocol.codes import TransferReason
from protocol.custody import FOUND_ELSEWHERE, may_travel
from protocol.steps import Custody

NOT_MOVED = "not-moved"
NOT_LOCATED = "not-located"
NOT_CLEARED = "not-cleared"
NOT_PROVEN = "not-proven"
RETENTION_OVER = "retention-over"
REFUSED_TOO_OFTEN = "refused-too-often"
LATE = "deliver-by-passed"
"""A hotline that had been sent an item did not receipt it in time."""


@dataclass(frozen=True, slots=True)
class Stay:
    """It stays where it is; `reason` is a token for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandOn:
    """A transfer to `node`; `trail` is everybody who had it, ourselves last."""

    node: str
    assigned_country: str
    reason: TransferReason
    trail: tuple[Custody, ...]


@dataclass(frozen=True, slots=True)
class Contest:
    """The desk is asked: `code` says why the item may not travel on; `other` is whose it would be."""

    code: str
    other: str
    trail: tuple[Custody, ...]


Fate = Stay | HandOn | Contest


def fate(route: Route, trail: Sequence[Custody], station: Custody, reason: TransferReason) -> Fate:
    """Return what becomes of an item that `route` leads elsewhere, or not; `station` is ours, after those of `trail`.

    An item that was found elsewhere travels on new evidence only. One that stays where it is hosted (its hotline
    joined, its custodian cannot be reached) travels on the evidence it has, to the country that who gave it had found.
    """
    if isinstance(route, Keep):
        return Stay(route.reason)
    if not isinstance(route, Send):
        return Stay(route.reason)
    whole = (*trail, station)
    code = may_travel(whole)
    stays_hosted = reason not in FOUND_ELSEWHERE and station.country == trail[-1].country
    if code is not None and not (code == "same-evidence" and stays_hosted):
        return Contest(code, route.node_id, whole)
    return HandOn(route.node_id, route.assigned_country, reason, whole)


#: So often one hotline may refuse an item that is its by the directory, or to hear who has one; then a person looks.
REFUSALS_MAX = 5
_FIRST_WAIT = timedelta(minutes=1)
_WAITS_GROW = 4


def goes_again_at(refusals: int, last: datetime) -> datetime | None:
    """Return when an item is given once more to a hotline that refused it `refusals` times, at `last` lastly.

    Its proof, or the directory of one of the two, may have been too old: that mends itself in minutes, and each wait is
    four times the one before. None when it was refused too often. So it is with the word of who has an item.
    """
    return None if refusals >= REFUSALS_MAX else last + _FIRST_WAIT * _WAITS_GROW ** (refusals - 1)


def goes_on(known: Sequence[Custody], holder: str, told: Sequence[Custody]) -> bool:
    """Tell whether a chain goes on from one that is known, whose `holder` handed the item on: it had got it.

    Times are not compared: what we know is not rounded as a record rounds it.
    """
    before, behind = told[: len(known)], told[len(known) :]
    return [_said(one) for one in before] == [_said(one) for one in known] and bool(behind) and behind[0].node == holder


def _said(station: Custody) -> tuple[str, str | None, str]:
    return station.node, station.country, station.evidence


def undone(trail: Sequence[Custody], holder: str, taken_back: Mapping[tuple[str, str], datetime]) -> int | None:
    """Return which station of a chain has the item again, since it took it back from the next; None where it stands.

    `taken_back` is when, by giver and taker. Both times are of the giver's clock; what it gave later stands. So does
    what it gave before it got the item once more: what it took back then is another giving, whoever took it.
    """
    takers = (*(station.node for station in trail), holder)[1:]
    for number, (station, taker) in enumerate(zip(trail, takers, strict=True)):
        if station.node in takers[number:]:
            continue
        at = taken_back.get((station.node, taker))
        if at is not None and station.at < at:
            return number
    return None


def newer(known: Sequence[Custody], told: Sequence[Custody], *, later: bool) -> bool:
    """Tell whether a chain told by another hotline replaces the one that is known.

    Chains only grow. Of two that are equally long the one whose last transfer was made later counts: the earlier
    one was taken back.
    """
    return len(told) > len(known) or (len(told) == len(known) and later)
